"""The options of somebody else's mode are checked, and what goes wrong in it is named."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from muxcore import Multiplexer
from muxcore.config import load
from muxcore.errors import ConfigError, StrategyError

Install = Callable[[str], None]

CODE = """
from attrs import field, frozen, validators
from muxcore import hookimpl

@frozen
class Mine:
    size: KIND = field(default=1, validator=validators.ge(1))
    def pick(self, candidates, memory, call, now):
        return candidates[PLACE].endpoint, memory

@hookimpl
def vibe_mux_register_strategies(register):
    register("mine", FACTORY)
"""


def code(kind: str = "int", factory: str = "Mine", place: int = 0) -> str:
    text = CODE.replace("KIND", kind).replace("FACTORY", factory)
    return text.replace("PLACE", str(place))


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put the distribution my-mode 1.2 on the path, as an installer leaves it."""

    def install(text: str) -> None:
        info = tmp_path / "my_mode-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: my-mode\nVersion: 1.2\n"
        )
        (info / "entry_points.txt").write_text("[vibe_mux]\nplugin = my_mode\n")
        (tmp_path / "my_mode.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))

    yield install
    sys.modules.pop("my_mode", None)


def table(**options: Any) -> dict[str, Any]:
    provider = {"name": "here", "api_base": "http://127.0.0.1:1/v1"}
    model = {"name": "m", "provider": "here", "alias": "a"}
    pool = [{"model": "a"}]
    section = {"enabled": True, "mode": "mine", "pool": pool, "options": options}
    return {"providers": [provider], "models": [model], "multiplexer": section}


def problems(**options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(table(**options), env={})
    return str(caught.value)


def test_the_options_of_an_attrs_class_are_checked(install: Install) -> None:
    install(code())
    assert load(table(size=3), env={}).strategy.size == 3  # type: ignore[attr-defined]
    assert 'size: "3", expected a whole number; write 3 without quotes' in problems(
        size="3"
    )
    assert 'options.sise: an unknown option; did you mean "size"?' in problems(sise=3)
    assert "multiplexer.options.size: 0, which is refused: 'size' must be" in problems(
        size=0
    )


def test_options_with_an_unresolvable_annotation_are_checked_by_name(
    install: Install,
) -> None:
    install(code("'Nowhere.kind'"))
    assert load(table(size=3), env={}).strategy.size == 3  # type: ignore[attr-defined]
    assert 'refused by mode "mine": ' in problems(sise=3)


@pytest.mark.parametrize(
    ("factory", "problem"),
    [
        ("lambda: Mine(0)", "refused by mode \"mine\": 'size' must be >= 1: 0"),
        ("lambda: None", "a mode without a `pick`: my-mode 1.2 registers <function"),
        ("int", "a mode without a `pick`: my-mode 1.2 registers <class 'int'>"),
    ],
)
def test_a_factory_that_makes_no_mode_is_reported(
    factory: str, problem: str, install: Install
) -> None:
    install(code(factory=factory))
    assert problem in problems()


def test_an_attrs_class_that_is_no_mode_is_reported(install: Install) -> None:
    install(code().replace("def pick", "def pikc"))
    assert (
        "a mode without a `pick`: my-mode 1.2 registers <class 'my_mode.Mine'>"
        in problems()
    )


def test_an_error_of_pick_is_reported_with_its_distribution(install: Install) -> None:
    install(code(place=9))
    with (
        Multiplexer.from_config(table(), env={}) as mux,
        pytest.raises(StrategyError) as caught,
    ):
        mux.complete([{"role": "user", "content": "x"}])
    assert "the mode my_mode.Mine raised IndexError: tuple index" in str(caught.value)
    assert str(caught.value).endswith("(mode mine of my-mode 1.2)")
    assert isinstance(caught.value.__cause__, IndexError)


def test_a_broken_plugin_is_reported_to_users_of_other_plugins(
    install: Install, tmp_path: Path
) -> None:
    install(code())
    points = "[vibe_mux]\nplugin = my_mode\nother = nothing_like_this\n"
    (tmp_path / "my_mode-1.2.dist-info" / "entry_points.txt").write_text(points)
    (warning,) = load(table(), env={}).warnings
    assert (
        "the plugin my-mode (nothing_like_this) cannot be used: ModuleNotFound" in warning
    )
