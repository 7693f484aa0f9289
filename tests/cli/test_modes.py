"""`vibe-mux modes`: what is at hand, whoever's it is, and what is wrong with it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from muxcore.cli import main, modes

Captured = pytest.CaptureFixture[str]


def test_built_in_modes_and_backends_are_listed(capsys: Captured) -> None:
    assert main.main(["modes"]) == 0
    captured = capsys.readouterr()
    listed, _, backends = captured.out.partition("Backends:\n")
    assert listed.startswith("Modes:\n  single ")
    for name in ("failover", "load_balance"):
        assert f"\n  {name} " in listed
    for name in ("generic", "mistral"):
        assert f"  {name} " in backends
    assert "The first open model in pool order" in listed


def test_the_list_is_json_for_programs(capsys: Captured) -> None:
    assert main.main(["modes", "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    names = [mode["name"] for mode in output["modes"]]
    assert names[:3] == ["single", "failover", "load_balance"]
    assert output["modes"][1]["distribution"] == "vibe-mux"
    assert {backend["name"] for backend in output["backends"]} >= {"generic", "mistral"}


def test_problems_are_printed_and_names_are_cleaned(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry: Any = {
        "name": "red\x1b[31m",
        "distribution": "odd\x07",
        "version": "1",
        "summary": "Paints.\r",
    }
    nothing: dict[str, Any] = {"backends": [], "observers": []}
    found = {"modes": [entry], **nothing, "problems": ["odd\x1b is broken"]}
    monkeypatch.setattr(modes, "listing", lambda: found)
    assert main.main(["modes"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "Modes:\n  red  odd 1  Paints.\n"
    assert captured.err == "warning: odd is broken\n"
