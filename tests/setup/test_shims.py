"""The scripts that make plain `vibe` go through the pool: run as a shell runs them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muxcore.setup import shims

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the scripts of a POSIX shell")

User = Any
Commands = Callable[..., Path]
Captured = pytest.CaptureFixture[str]
SYSTEM = os.environ.get("PATH", os.defpath)


@pytest.fixture
def path(user: User, commands: Commands, monkeypatch: pytest.MonkeyPatch) -> str:
    """A directory of the user, then those of vibe and of vibe-mux."""
    folders = [
        commands("my own bin"),
        commands("vibes", "vibe", "vibe-acp"),
        commands("tools", "vibe-mux"),
    ]
    joined = os.pathsep.join([*map(str, folders), SYSTEM])
    monkeypatch.setenv("PATH", joined)
    return joined


def run(path: str, *command: str, **environment: str) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={"PATH": path, **environment},
        check=False,
    )
    return done.stdout + done.stderr


def test_plain_vibe_goes_through_the_pool(user: User, path: str) -> None:
    assert user.init("--yes", "--shim") == 0
    home = user.home
    assert run(path, "vibe", "-p", "two words") == (
        f"tools/vibe-mux run -- {home}/vibes/vibe -p two words\n"
    )
    assert run(path, "vibe-acp") == f"tools/vibe-mux run -- {home}/vibes/vibe-acp\n"


def test_uninstalling_the_shim_restores_everything(
    user: User, path: str, capsys: Captured
) -> None:
    before = user.config.read_bytes()
    assert user.init("--yes", "--shim") == 0
    assert user.init("--uninstall") == 0
    assert run(path, "vibe") == "vibes/vibe\n"
    assert list((user.home / "my own bin").iterdir()) == []
    assert user.config.read_bytes() == before
    assert user.files() == ["config.toml"]


def test_installing_the_shim_again_changes_nothing(
    user: User, path: str, capsys: Captured
) -> None:
    assert user.init("--yes", "--shim") == 0
    capsys.readouterr()
    assert user.init("--yes", "--shim") == 0
    assert "goes through the pool already" in capsys.readouterr().out


def test_a_variable_bypasses_the_shim(user: User, path: str) -> None:
    assert user.init("--yes", "--shim") == 0
    assert run(path, "vibe", "x", VIBE_MUX_OFF="1") == "vibes/vibe x\n"


def test_the_shim_runs_vibe_alone_when_vibe_mux_is_gone(user: User, path: str) -> None:
    assert user.init("--yes", "--shim") == 0
    (user.home / "tools" / "vibe-mux").unlink()
    assert run(path, "vibe", "x") == "vibes/vibe x\n"


def test_two_shims_do_not_call_each_other(
    user: User, path: str, commands: Commands
) -> None:
    other = commands("other")
    assert user.init("--yes", "--shim") == 0
    assert user.init("--yes", "--shim", str(other)) == 0
    both = f"{other}{os.pathsep}{path}"
    expected = f"tools/vibe-mux run -- {user.home}/vibes/vibe\n"
    assert run(both, "vibe") == expected
    assert user.init("--uninstall") == 0
    assert run(both, "vibe") == "vibes/vibe\n"


def test_a_missing_vibe_is_reported(user: User, path: str) -> None:
    assert user.init("--yes", "--shim") == 0
    (user.home / "vibes" / "vibe").unlink()
    assert run(path, "vibe") == "vibe: not found, but for the shim of vibe-mux\n"


def test_no_file_of_the_user_is_overwritten(
    user: User, path: str, commands: Commands, capsys: Captured
) -> None:
    mine = commands("mine", "vibe")
    before = (mine / "vibe").read_bytes()
    assert user.init("--yes", "--shim", str(mine)) == 1
    assert (mine / "vibe").read_bytes() == before
    assert "is there already, and is not a shim of vibe-mux" in capsys.readouterr().err


def test_a_script_that_was_changed_since_is_left(
    user: User, path: str, capsys: Captured
) -> None:
    assert user.init("--yes", "--shim") == 0
    script = user.home / "my own bin" / "vibe"
    script.write_text(f"{script.read_text()}# mine\n")
    assert user.init("--uninstall") == 0
    assert script.exists()
    assert f"{script} was changed since and is left" in capsys.readouterr().out


def test_a_directory_too_late_on_path_is_reported(
    user: User, path: str, commands: Commands, capsys: Captured
) -> None:
    late = commands("late")
    assert user.init("--yes", "--shim", str(late)) == 0
    assert f"Put {late} first on PATH" in capsys.readouterr().err


def test_without_a_directory_of_the_user_on_path(
    user: User, path: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", path.partition(os.pathsep)[2])
    assert user.init("--yes", "--shim") == 1
    assert "no directory of yours is searched before" in capsys.readouterr().err


def test_the_shim_is_not_written_into_an_environment(
    user: User, path: str, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = commands("venv/bin")
    (environment.parent / "pyvenv.cfg").touch()
    managed = commands(".pyenv/shims")
    monkeypatch.setenv("PATH", os.pathsep.join([str(environment), str(managed), path]))
    assert user.init("--yes", "--shim") == 0
    assert list(environment.iterdir()) == list(managed.iterdir()) == []
    assert (user.home / "my own bin" / "vibe").exists()


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ("vibes", "there is no `vibe` on PATH"),
        ("tools", "the command vibe-mux is not installed"),
    ],
)
def test_what_it_needs(
    user: User,
    path: str,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
    text: str,
) -> None:
    kept = [part for part in path.split(os.pathsep)[:3] if not part.endswith(missing)]
    monkeypatch.setenv("PATH", os.pathsep.join(kept))
    assert user.init("--yes", "--shim") == 1
    assert text in capsys.readouterr().err


def test_the_dialogue_offers_it(
    user: User, path: str, say: Callable[..., None], capsys: Captured
) -> None:
    say("", "", "", "y")
    assert user.init() == 0
    assert "Make plain `vibe` and `vibe-acp` go through the pool" in capsys.readouterr().out
    assert run(path, "vibe").startswith("tools/vibe-mux run")


def test_the_offer_can_be_declined(user: User, path: str, say: Callable[..., None]) -> None:
    say("", "", "", "")
    assert user.init() == 0
    assert run(path, "vibe") == "vibes/vibe\n"


def test_the_script_for_windows_names_both_programs() -> None:
    text = shims.WINDOWS.format(
        mark=shims.MARK, name="vibe", off="VIBE_MUX_OFF", mux=r"C:\m.exe", real=r"C:\v.exe"
    )
    assert r'"C:\m.exe" run -- "C:\v.exe" %*' in text
    assert text.splitlines()[1].startswith(f"rem {shims.MARK}")
