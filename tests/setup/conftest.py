"""A user's directory, and answers to what a dialogue asks."""

from __future__ import annotations

import builtins
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from muxcore.cli import init
from muxcore.cli.main import main
from muxcore.setup import proposal as choosing
from muxcore.setup import unknown_servers as finding

CONFIG = """\
# My own words.
active_model = "large"   # the big one

[[providers]]
name = "lab"
api_base = "https://lab.example/v1"
api_key_env_var = "LAB_KEY"

[[providers]]
name = "other"
api_base = "https://other.example/v1"
api_key_env_var = "OTHER_KEY"

[[models]]
name = "large-1"
provider = "lab"
alias = "large"

[[models]]
name = "small-1"
provider = "lab"
alias = "small"

[[models]]
name = "far-1"
provider = "other"
alias = "far"
"""


class User:
    """A home with a config, and a command line."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / ".vibe" / "config.toml"
        self.config.parent.mkdir(parents=True)
        self.config.write_text(CONFIG)
        self.section = home / ".vibe" / "multiplexer.toml"

    def init(self, *options: str) -> int:
        return main(["init", *options])

    def files(self) -> list[str]:
        return sorted(path.name for path in self.config.parent.iterdir())


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    for name in ("VIBE_HOME", "VIBE_ACTIVE_MODEL", "OTHER_KEY", "MISTRAL_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("LAB_KEY", "key-of-the-lab")
    monkeypatch.setattr(choosing, "list_at", lambda api_base: None)
    monkeypatch.setattr(finding, "served_models", lambda api_base: ())
    return User(tmp_path)


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Be a terminal whose user gives these answers; all of them are asked for."""
    left: list[str] = []

    def answers(*said: str) -> None:
        left.extend(said)
        monkeypatch.setattr(init, "_is_terminal", lambda: True)
        monkeypatch.setattr(builtins, "input", answer)

    def answer(question: str) -> str:
        print(question)
        if not left:
            raise EOFError
        return left.pop(0)

    yield answers
    assert left == []


@pytest.fixture
def commands(user: User, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put programs on PATH that say how they were called, in the given directories."""
    shell = shutil.which("sh")
    assert shell is not None

    def put(folder: str, *names: str) -> Path:
        made = user.home / folder
        made.mkdir(parents=True, exist_ok=True)
        for name in names:
            program = made / name
            program.write_text(f'#!{shell}\necho "{folder}/{name}" "$@"\n')
            program.chmod(0o755)
        return made

    # So that vibe-mux is the one of the test.
    monkeypatch.setattr(sys, "executable", str(user.home / "nowhere" / "python"))
    return put


def everything(folder: Path) -> dict[str, Any]:
    """Return all files under a directory with their bytes and modes."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
