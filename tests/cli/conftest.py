"""A config file that points at stand-in models, and a way to run the command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muxcore.cli import main
from muxcore.standin import StandInServer
from tests.processes import PYTHONPATH
from tests.waiting import PATIENCE

Run = Callable[..., subprocess.CompletedProcess[str]]
Configure = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]
"""Its exit code, what it prints, and its messages."""


@pytest.fixture
def configure(server: StandInServer, tmp_path: Path) -> Configure:
    """Write a config of two models, and more."""

    def configure(more: str = "", *, pool: bool = True, provider: str = "") -> Path:
        file = tmp_path / "config.toml"
        entries = (
            """
            [multiplexer]
            enabled = true
            mode = "failover"
            max_wait_ms = 0
            pool = [{ model = "alpha" }, { model = "beta", is_fallback = true }]
            """
            if pool
            else ""
        )
        file.write_text(
            f"""
            active_model = "alpha"
            [[providers]]
            name = "stand-in"
            api_base = "{server.url}"
            {provider}
            [[models]]
            name = "model-a"
            provider = "stand-in"
            alias = "alpha"
            [[models]]
            name = "model-b"
            provider = "stand-in"
            alias = "beta"
            {entries}
            {more}
            """,
            encoding="utf-8",
        )
        return file

    return configure


@pytest.fixture(autouse=True)
def _no_config_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIBE_HOME", str(tmp_path / "vibe-home"))
    for name in list(os.environ):
        if name.endswith("_API_KEY"):
            monkeypatch.delenv(name)


@pytest.fixture
def run() -> Run:
    """Run `python -m muxcore` with these arguments, as a process of its own."""

    def run(
        *arguments: str, module: str = "muxcore", **options: Any
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: PLW1510 - among the options
            [sys.executable, "-m", module, *arguments],
            **{
                "capture_output": True,
                "text": True,
                "encoding": "utf-8",
                "timeout": PATIENCE,
                "check": False,
                "env": {**os.environ, "PYTHONPATH": PYTHONPATH},
                **options,
            },
        )

    return run


@pytest.fixture
def command(configure: Configure, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process, with a config of two models, and more."""

    def command(*arguments: str, more: str = "") -> tuple[int, str, str]:
        code = main.main([*arguments, "--config", str(configure(more))])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command
