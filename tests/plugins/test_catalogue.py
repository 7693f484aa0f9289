"""The catalogue: built-in modes and backends, third-party ones, and broken plugins."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from muxcore import ConfigError, Multiplexer
from muxcore.plugins import catalogue, listing
from muxcore.plugins.catalogue import (
    BUILT_IN,
    PluginError,
    Registration,
    built_in,
    everything,
    holding,
    version,
)
from muxcore.standin import Model, StandInServer

Install = Callable[..., None]

LEAST_BUSY = '''
from attrs import frozen
from muxcore import hookimpl

@frozen
class LeastBusy:
    """Where the fewest calls are under way.

    More of it.
    """

    def pick(self, candidates, memory, call, now):
        return min(candidates, key=lambda c: c.health.in_flight).endpoint, memory

@hookimpl
def vibe_mux_register_strategies(register):
    register("least_busy", LeastBusy)
'''

BACKEND = '''
from muxcore import hookimpl
from muxcore_backends.generic import Generic

class Odd(Generic):
    """An odd dialect."""

@hookimpl
def vibe_mux_register_backends(register):
    register("odd", Odd)
'''


def strategy(name: str, what: str = "object") -> str:
    return f"""
from muxcore import hookimpl

@hookimpl
def vibe_mux_register_strategies(register):
    register({name}, {what})
"""


def pool_with(mode: str, url: str = "http://127.0.0.1:9/v1", **more: Any) -> dict[str, Any]:
    return {
        "providers": [{"name": "p", "api_base": url, **more}],
        "models": [{"name": "model-a", "provider": "p", "alias": "alpha"}],
        "active_model": "alpha",
        "multiplexer": {"enabled": True, "mode": mode, "pool": [{"model": "alpha"}]},
    }


def problems_of(config: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        Multiplexer.from_config(config, env={})
    return str(caught.value)


def test_a_built_in_mode_imports_no_plugin(install: Install) -> None:
    install("bomb", "raise SystemExit('never to be imported')")
    assert not built_in().problems
    assert {"failover", "load_balance"} <= set(built_in().strategies)
    assert {"generic", "mistral"} <= set(built_in().backends)
    held = holding(mode="failover", backends=["generic", "mistral"])
    assert held.strategy("failover").is_built_in
    Multiplexer.from_config(pool_with("failover"), env={}).close()
    assert "bomb" not in sys.modules


def test_a_built_in_has_the_name_of_its_module() -> None:
    # So that a config for some of them imports no others.
    names = sorted(module.rpartition(".")[2] for module in BUILT_IN)
    found = built_in()
    registered = {*found.strategies, *found.backends, *found.boards}
    assert names == sorted(name.replace("-", "_") for name in registered)
    for backend in ("mistral", "openai-responses"):
        held = holding(mode="load_balance", backends=[backend])
        assert (*held.strategies, *held.backends) == ("load_balance", backend)


def test_a_third_party_mode_serves(install: Install) -> None:
    install("some-plugin", LEAST_BUSY)
    with StandInServer([Model("model-a")]) as server:
        config = pool_with("least_busy", server.url)
        with Multiplexer.from_config(config, env={}) as multiplexer:
            reply = multiplexer.complete([{"role": "user", "content": "ping"}])
    assert reply.model == "alpha"
    entry = everything().strategy("least_busy")
    assert entry.origin == "some-plugin 1.2"
    assert entry.summary == "Where the fewest calls are under way."
    assert not entry.is_built_in


def test_a_third_party_backend_serves(install: Install) -> None:
    install("some-dialect", BACKEND)
    with StandInServer([Model("model-a")]) as server:
        config = pool_with("failover", server.url, backend="odd")
        with Multiplexer.from_config(config, env={}) as multiplexer:
            reply = multiplexer.complete([{"role": "user", "content": "ping"}])
    assert reply.model == "alpha"
    assert everything().backend("odd").distribution == "some-dialect"


def test_a_backend_that_cannot_be_made_is_named(install: Install) -> None:
    install(
        "some-dialect",
        BACKEND.replace(
            '    """An odd dialect."""', "    def __init__(self):\n        1 / 0"
        ),
    )
    text = problems_of(pool_with("failover", backend="odd"))
    assert text == (
        "the backend odd of some-dialect 1.2 cannot be made:"
        " ZeroDivisionError: division by zero"
    )


def test_an_unknown_name_is_reported_with_the_known_ones(install: Install) -> None:
    install("some-plugin", LEAST_BUSY)
    with pytest.raises(PluginError, match=r"^there is no mode 'nonsense'$") as caught:
        everything().strategy("nonsense")
    assert "least_busy" in caught.value.known
    with pytest.raises(PluginError, match=r"^there is no backend 'nonsense'$"):
        everything().backend("nonsense")
    assert "least_busy" in problems_of(pool_with("least_bussy"))


BROKEN: dict[str, tuple[str, str]] = {
    "fails at import": (
        "import nonsense_that_is_not_there",
        (
            "the plugin broken (broken) cannot be used: ModuleNotFoundError:"
            " No module named 'nonsense_that_is_not_there'"
        ),
    ),
    "is no Python": (
        "def (",
        "the plugin broken (broken) cannot be used: SyntaxError: ",
    ),
    "exits at import": (
        "import sys; sys.exit(3)",
        "the plugin broken (broken) cannot be used: SystemExit: 3",
    ),
    "has a misspelt hook": (
        strategy("'x'").replace("strategies", "stragegies"),
        (
            "the plugin broken (broken) cannot be used: PluginValidationError:"
            " unknown hook 'vibe_mux_register_stragegies'"
        ),
    ),
    "has a hook with other arguments": (
        strategy("'x'").replace("(register)", "(registr)"),
        "the plugin broken (broken) cannot be used: PluginValidationError: ",
    ),
    "raises in its hook": (
        strategy("1 / 0"),
        "the plugin broken (broken) cannot be used: ZeroDivisionError: division by zero",
    ),
    "forgot to mark its hook": (
        strategy("'x'").replace("@hookimpl", ""),
        "the plugin broken (broken) registers nothing; is @hookimpl missing on its hook?",
    ),
    "registers no name": (
        strategy("3"),
        "broken (broken) registers the mode 3 as <class 'object'>: expected a name",
    ),
    "registers nothing that makes one": (
        strategy("'x'", "'y'"),
        "broken (broken) registers the mode 'x' as 'y': expected a name and a factory",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_named_and_affects_no_other(install: Install, case: str) -> None:
    code, expected = BROKEN[case]
    install("broken", code)
    install("some-plugin", LEAST_BUSY)
    found = everything()
    (problem,) = found.problems
    assert problem.startswith(expected)
    assert found.strategy("least_busy").distribution == "some-plugin"
    with pytest.raises(PluginError) as caught:
        found.strategy("x")
    assert problem in str(caught.value)
    # A pool that uses another mode works; one that needs the broken one gets the reason.
    Multiplexer.from_config(pool_with("least_busy"), env={}).close()
    assert "broken" in problems_of(pool_with("nonsense"))


@pytest.mark.parametrize("taken", ["failover", "least_busy"])
def test_the_first_to_register_a_name_keeps_it(install: Install, taken: str) -> None:
    install("some-plugin", LEAST_BUSY)
    install("thief", strategy(repr(taken)))
    found = everything()
    first = "vibe-mux" if taken == "failover" else "some-plugin"
    assert found.problems == (
        (
            f"thief (thief) registers the mode {taken!r}, which {first} has registered"
            " already: the first one counts"
        ),
    )
    assert found.strategy(taken).distribution == first


def test_a_plugin_that_registers_a_name_twice_is_reported(install: Install) -> None:
    twice = strategy("'x'") + "    register('x', int)\n"
    install("stutter", twice)
    found = everything()
    assert found.strategy("x").factory is object
    assert "registers the mode 'x', which stutter has registered already" in str(
        found.problems
    )


def test_a_distribution_that_is_found_twice_counts_once(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As with an editable install: its metadata is found beside that of the checkout.
    install("some-plugin", LEAST_BUSY)
    other = tmp_path / "other"
    install("some-plugin", LEAST_BUSY, where=other)
    monkeypatch.syspath_prepend(str(other))
    assert not everything().problems


def test_an_entry_point_may_name_an_object(install: Install) -> None:
    code = LEAST_BUSY.replace(
        "@hookimpl\ndef", "class Plugin:\n  @staticmethod\n  @hookimpl\n  def"
    )
    code = code.replace('    register("', '      register("')
    install("some-plugin", code, entry_points="[vibe_mux]\nany = some_plugin:Plugin\n")
    assert everything().strategy("least_busy").distribution == "some-plugin"


def test_entry_points_of_other_groups_are_not_loaded(install: Install) -> None:
    install("bomb", "raise SystemExit", entry_points="[other]\nbomb = bomb\n")
    assert not everything().problems
    assert "bomb" not in sys.modules


def test_a_distribution_without_a_name_is_called_unknown(install: Install) -> None:
    install("nameless", "1 / 0", metadata="Metadata-Version: 2.1\n")
    (problem,) = everything().problems
    assert problem.startswith("the plugin unknown (nameless) cannot be used: ZeroDiv")


@pytest.mark.parametrize("points", ["[vibe_mux]\nnonsense\n", "nonsense", "[vibe_mux\n= x"])
def test_garbled_metadata_is_skipped(install: Install, points: str) -> None:
    install("some-plugin", LEAST_BUSY)
    install("garbled", "", entry_points=points)
    assert everything().strategy("least_busy").distribution == "some-plugin"


def test_a_mode_without_a_docstring_has_no_summary() -> None:
    assert Registration("x", lambda: None).summary == ""
    assert Registration("x", dict[str, int]).origin == "vibe-mux"


def test_a_missing_built_in_module_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "BUILT_IN", ("muxcore_strategies.nonsense",))
    (problem,) = built_in().problems
    assert problem.startswith("the plugin muxcore_strategies.nonsense cannot be used")
    listed = listing._built_in("oops")
    assert listed["problems"] == [problem, "oops; only built-in ones are listed"]
    assert [mode["name"] for mode in listed["modes"]] == ["single"]


def test_the_version_is_that_of_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: f"9.9 of {name}")
    assert version() == "9.9 of vibe-mux"

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert version() == ""


# `listing` runs in a child process.


def test_the_list_has_everything(install: Install) -> None:
    install("some-plugin", LEAST_BUSY)
    install("some-dialect", BACKEND)
    found = listing.listing()
    by_name = {entry["name"]: entry for entry in (*found["modes"], *found["backends"])}
    assert by_name["single"]["distribution"] == "vibe-mux"
    assert by_name["least_busy"] == {
        "name": "least_busy",
        "distribution": "some-plugin",
        "version": "1.2",
        "summary": "Where the fewest calls are under way.",
    }
    assert by_name["odd"]["summary"] == "An odd dialect."
    assert found["problems"] == []
    # Nothing was imported in this process.
    assert "some_plugin" not in sys.modules


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("print('vibe-mux listing:'); import sys; sys.exit('bye')", "SystemExit: bye"),
        ("1 / 0", "ZeroDivisionError"),
        (
            "import sys; sys.stdout.buffer.write(b'\\xff\\xfe\\n'); 1 / 0",
            "ZeroDivisionError",
        ),
    ],
    ids=["exits", "raises", "prints what is no text"],
)
def test_a_broken_plugin_is_listed_as_a_problem(
    install: Install, code: str, problem: str
) -> None:
    install("broken", code)
    install("some-plugin", LEAST_BUSY)
    found = listing.listing()
    assert "least_busy" in [mode["name"] for mode in found["modes"]]
    (text,) = found["problems"]
    assert text.startswith("the plugin broken (broken) cannot be used: ")
    assert problem in text


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import os; os._exit(0)", "no output"),
        (
            "import os, sys; sys.stderr.write('I am gone\\n'); sys.stderr.flush(); os._exit(9)",
            "I am gone",
        ),
    ],
    ids=["silently", "with words"],
)
def test_a_plugin_that_ends_the_process_leaves_the_built_in_ones(
    install: Install, code: str, problem: str
) -> None:
    install("broken", code)
    found = listing.listing()
    assert {"single", "failover"} <= {mode["name"] for mode in found["modes"]}
    assert found["problems"] == [
        f"a plugin ended the process that imported it: {problem}; only built-in ones are listed"
    ]


def test_a_plugin_that_hangs_leaves_the_built_in_ones(install: Install) -> None:
    install("sleeper", "import threading; threading.Event().wait()")
    found = listing.listing(limit=1.0)
    assert {"generic", "mistral"} <= {backend["name"] for backend in found["backends"]}
    assert found["problems"] == [
        "a plugin took longer than 1 s to import; only built-in ones are listed"
    ]


def test_the_child_process_prints_one_line_for_its_caller(
    capsys: pytest.CaptureFixture[str],
) -> None:
    listing._main()
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"vibe-mux listing: \{.*\}", lines[-1])
