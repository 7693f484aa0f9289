"""Observers of other packages: named in the config, with options of their own."""

from __future__ import annotations

from typing import Any

import pytest

from muxcore import Multiplexer
from muxcore.cli import main
from muxcore.config import load
from muxcore.errors import ConfigError
from muxcore.standin import Model, StandInServer
from tests.observers.test_observing import PING, config
from tests.plugins.conftest import Install

CODE = """
from muxcore import hookimpl
seen = []

class Notebook:
    \"\"\"Write it all down.\"\"\"
    def __init__(self, *, colour="blue"):
        self.colour = colour
    def observe(self, now, entry, before, after):
        seen.append((self.colour, type(entry).__name__))
    def close(self):
        seen.append((self.colour, "closed"))

@hookimpl
def vibe_mux_register_observers(register):
    register("notebook", Notebook)
"""


def test_a_config_names_an_observer_with_its_options(install: Install) -> None:
    install("mux-notebook", CODE)
    named = {"observers": {"notebook": {"colour": "red"}}}
    with (
        StandInServer([Model("large-model"), Model("small-model")]) as server,
        Multiplexer.from_config(config(server.url, **named), env={}) as multiplexer,
    ):
        multiplexer.complete(PING)
    import mux_notebook  # type: ignore[import-not-found]

    assert mux_notebook.seen == [
        ("red", "Asked"),
        ("red", "Started"),
        ("red", "Succeeded"),
        ("red", "Ended"),
        ("red", "closed"),
    ]


@pytest.mark.parametrize(
    ("observers", "problem"),
    [
        ({"notebok": {}}, 'notebok: an unknown observer; did you mean "notebook"?'),
        ({"x": {}}, "x: an unknown observer; its package needs to be installed"),
        ({"notebook": 3}, "notebook: 3, expected a table of its options"),
        (
            {"notebook": {"color": 1}},
            'notebook: refused by observer "notebook": got an unexpected keyword argument',
        ),
    ],
)
def test_mistakes_are_named(
    install: Install, observers: dict[str, Any], problem: str
) -> None:
    install("mux-notebook", CODE)
    with pytest.raises(ConfigError) as caught:
        load(config("http://127.0.0.1:9/v1", observers=observers), env={})
    assert f"multiplexer.observers.{problem}" in caught.value.problems[0]


def test_modes_lists_it(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("mux-notebook", CODE)
    assert main.main(["modes"]) == 0
    out = capsys.readouterr().out
    assert "Observers:\n  notebook  mux-notebook 1.2  Write it all down.\n" in out
