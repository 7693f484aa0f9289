"""`vibe-mux check --phase`: what a later release will change for a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from muxcore.cli.main import main

ALONE = 'active_model = "local"\n'
POOL = """
[multiplexer]
mode = "failover"
pool = [{model = "local"}, {model = "devstral-small", is_fallback = true}]
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("VIBE_ACTIVE_MODEL", "MISTRAL_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "config.toml"


def check(config: Path, *options: str) -> int:
    return main(["check", "--config", str(config), *options])


def test_what_the_hard_default_changes(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(ALONE)
    assert check(config, "--phase", "hard-default") == 0
    out, err = capsys.readouterr()
    assert out == (
        "In phase hard-default (this release is opt-in):\n"
        "  - the multiplexer is on: calls go through a pool of local alone; one that fails may"
        " be tried again, and a model that is limited or down is left alone for a while\n"
        f"  - {config}: multiplexer: one model alone without saying so is deprecated; to keep"
        " it, add the line [multiplexer] and below it the line enabled = false; to use a pool,"
        " see `vibe-mux init`\n"
        "\n"
        "The config as it will be understood:\n"
        f"Config: {config}\n"
        "Mode: single\n"
        "Pool:\n"
        "  1. local  devstral at 127.0.0.1:8080, primary, no key\n"
    )
    assert err == ""


def test_a_pool_that_begins_to_count(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MISTRAL_API_KEY", "k")
    config.write_text(ALONE + POOL)
    assert check(config, "--phase", "hard-default") == 0
    reported = capsys.readouterr().out
    assert "  - the models are local, devstral-small, and not local alone\n" in reported


def test_nothing_changes(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(ALONE + "[multiplexer]\nenabled = false\n")
    assert check(config, "--phase", "hard-default") == 0
    assert "  - nothing changes for this config\n" in capsys.readouterr().out


def test_a_config_that_works_today_only(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(ALONE + POOL)
    assert check(config) == 0
    capsys.readouterr()
    assert check(config, "--phase", "hard-default") == 1
    title, problem = capsys.readouterr().err.splitlines()
    assert title == "This config works today, and not in phase hard-default:"
    assert "Missing API key: MISTRAL_API_KEY" in problem


def test_what_a_new_config_contains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBE_HOME", str(tmp_path))
    monkeypatch.setenv("VIBE_ACTIVE_MODEL", "local")
    assert main(["check", "--phase", "soft-default"]) == 0
    reported = capsys.readouterr().out
    assert "  [multiplexer]\n  enabled = true\n" in reported
    assert "  - nothing changes for this config\n" in reported


def test_for_programs(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(ALONE)
    assert check(config, "--phase", "hard-default", "--json") == 0
    reported = json.loads(capsys.readouterr().out)
    assert reported["phase"] == "hard-default"
    assert reported["present_phase"] == "opt-in"
    assert reported["enabled"]
    assert len(reported["changes"]) == 2
    assert check(config, "--json") == 0
    assert "phase" not in json.loads(capsys.readouterr().out)


def test_an_unknown_phase_is_wrong_usage(config: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        check(config, "--phase", "soon")
    assert caught.value.code == 2
