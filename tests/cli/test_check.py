"""`vibe-mux check`: a picture of the pool, or all that is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from muxcore.cli import main
from muxcore.standin import StandInServer

Configure = Callable[..., Path]
Captured = pytest.CaptureFixture[str]


def test_the_pool_is_drawn(
    configure: Configure, server: StandInServer, capsys: Captured
) -> None:
    file = configure()
    assert main.main(["check", "--config", str(file)]) == 0
    captured = capsys.readouterr()
    assert captured.out == (
        f"Config: {file}\n"
        "Mode: failover\n"
        "Pool, in order:\n"
        f"  1. alpha  model-a at 127.0.0.1:{server.port}, primary, no key\n"
        f"  2. beta   model-b at 127.0.0.1:{server.port}, fallback, no key\n"
    )
    assert captured.err == ""


def test_weights_caps_windows_and_keys_are_drawn(
    configure: Configure,
    server: StandInServer,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STAND_IN_KEY", "sk-canary-7f3a91c2d4e6")
    file = configure(
        """
        [multiplexer]
        enabled = true
        mode = "load_balance"
        [[multiplexer.pool]]
        model = "alpha"
        weight = 70
        max_concurrent = 4
        [[multiplexer.pool]]
        model = "beta"
        weight = 30
        context_window = 128000
        """,
        pool=False,
        provider='api_key_env_var = "STAND_IN_KEY"',
    )
    assert main.main(["check", "--config", str(file)]) == 0
    captured = capsys.readouterr()
    at = f"127.0.0.1:{server.port}"
    assert captured.out == (
        f"Config: {file}\n"
        "Mode: load_balance\n"
        "Pool, in order:\n"
        f"  1. alpha  model-a at {at}, primary, weight 70 (70% of its tier),"
        " at most 4 at once, key STAND_IN_KEY found (the environment)\n"
        f"  2. beta   model-b at {at}, primary, weight 30 (30% of its tier),"
        " 128,000 tokens, key STAND_IN_KEY found (the environment)\n"
    )
    assert "sk-canary" not in captured.out + captured.err


def test_the_picture_is_json_for_programs(
    configure: Configure, server: StandInServer, capsys: Captured
) -> None:
    file = configure()
    assert main.main(["check", "--json", "--config", str(file)]) == 0
    output = json.loads(capsys.readouterr().out)
    assert (output["ok"], output["enabled"], output["mode"]) == (True, True, "failover")
    assert output["source"] == str(file)
    assert output["warnings"] == []
    assert output["pool"][1] == {
        "alias": "beta",
        "model": "model-b",
        "provider": "stand-in",
        "host": f"127.0.0.1:{server.port}",
        "backend": "generic",
        "is_fallback": True,
        "weight": 1,
        "share": 1.0,
        "max_concurrent": None,
        "context_window": None,
        "key_variable": None,
        "key_present": False,
    }


def test_a_config_without_the_multiplexer_is_valid(
    configure: Configure, capsys: Captured
) -> None:
    assert main.main(["check", "--config", str(configure(pool=False))]) == 0
    out = capsys.readouterr().out
    assert "The multiplexer is off: the active model alone is called.\nPool:\n" in out
    assert "1. alpha" in out
    assert "beta" not in out


BROKEN = """
[multiplexer]
enabled = true
mode = "failovr"
max_wait_sm = 3
[[multiplexer.pool]]
model = "alhpa"
[[multiplexer.pool]]
model = "beta"
weight = "3"
"""


def test_every_error_is_reported_at_once_with_its_line(
    configure: Configure, capsys: Captured
) -> None:
    file = configure(BROKEN, pool=False)
    assert main.main(["check", "--config", str(file)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.replace(str(file), "FILE").splitlines()
    assert len(lines) == 4
    for line, words in zip(
        lines, ("failovr", "max_wait_sm", "alhpa", "weight"), strict=True
    ):
        assert line.startswith("FILE:")
        assert words in line
    assert "unknown model alias" in captured.err
    assert "Traceback" not in captured.err


def test_errors_are_json_for_programs(configure: Configure, capsys: Captured) -> None:
    file = configure(BROKEN, pool=False)
    assert main.main(["check", "--json", "--config", str(file)]) == 1
    captured = capsys.readouterr()
    output = json.loads(captured.out)
    assert output["ok"] is False
    assert len(output["problems"]) == 4
    assert captured.err == ""


@pytest.mark.parametrize("command", [["check"], ["chat", "hi"]])
def test_a_missing_config_is_an_error(
    tmp_path: Path, capsys: Captured, command: list[str]
) -> None:
    file = tmp_path / "nowhere.toml"
    assert main.main([*command, "--config", str(file)]) == 1
    err = capsys.readouterr().err
    assert str(file) in err
    assert "Traceback" not in err


@pytest.mark.parametrize("home", ["missing", "empty"])
def test_without_any_config_vibes_defaults_are_shown(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str
) -> None:
    directory = tmp_path / home
    if home == "empty":
        directory.mkdir()
    monkeypatch.setenv("VIBE_HOME", str(directory))
    # Its default model needs a key, which is said in the documented words.
    assert main.main(["check"]) == 1
    assert "Missing API key" in capsys.readouterr().err
    monkeypatch.setenv("MISTRAL_API_KEY", "sk-canary-7f3a91c2d4e6")
    assert main.main(["check"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("Config: vibe's defaults (no config file)\n")
    assert "api.mistral.ai" in captured.out
    assert "sk-canary" not in captured.out + captured.err


def test_warnings_are_printed_and_are_not_errors(
    configure: Configure, capsys: Captured
) -> None:
    file = configure(
        """
        [multiplexer]
        enabled = true
        pool = [{ model = "alpha" }, { model = "beta" }]
        """,
        pool=False,
    )
    assert main.main(["check", "--config", str(file)]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("warning: ")
    assert "single" in captured.err


def test_hostile_names_do_not_reach_the_terminal(
    configure: Configure, capsys: Captured
) -> None:
    file = configure(
        """
        [[models]]
        name = "model-\\u001b[31m"
        provider = "stand-in"
        alias = "red\\u001b[2J"
        [multiplexer]
        enabled = true
        mode = "failover"
        pool = [{ model = "red\\u001b[2J" }]
        """,
        pool=False,
    )
    main.main(["check", "--config", str(file)])
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
