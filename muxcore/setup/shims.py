"""Small scripts that make plain `vibe` and `vibe-acp` go through the pool.

Each stands in a directory of PATH before that of the real command, finds the real one when it
runs, and runs it directly when vibe-mux is gone.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from muxcore.setup import SetupError

NAMES = ("vibe", "vibe-acp")
MARK = "A shim of vibe-mux"
OFF_VARIABLE = "VIBE_MUX_OFF"

POSIX = """\
#!/bin/sh
# {mark}: plain `{name}` goes through the pool. It was made by
# `vibe-mux init`; `vibe-mux init --uninstall` removes it; {off}=1 goes past it once.
mux={mux}
real=
set -f
IFS=:
for folder in $PATH; do
    file=$folder/{name}
    if [ -x "$file" ] && [ -f "$file" ] && ! grep -qs "{mark}" "$file"; then
        real=$file
        break
    fi
done
unset IFS
set +f
if [ -z "$real" ]; then
    echo "{name}: not found, but for the shim of vibe-mux" >&2
    exit 127
fi
if [ -n "${off}" ] || [ ! -x "$mux" ]; then
    exec "$real" "$@"
fi
exec "$mux" run -- "$real" "$@"
"""

WINDOWS = """\
@echo off
rem {mark}: plain `{name}` goes through the pool. It was made by
rem `vibe-mux init`; `vibe-mux init --uninstall` removes it; {off}=1 goes past it once.
if not "%{off}%"=="" goto past
if not exist "{mux}" goto past
"{mux}" run -- "{real}" %*
exit /b %errorlevel%
:past
"{real}" %*
"""


@frozen
class Shim:
    """One script: its path and its content."""

    path: Path
    content: bytes


def planned(folder: Path, environment: Mapping[str, str]) -> tuple[Shim, ...]:
    """Return a script for each installed command of vibe, or raise a `SetupError`."""
    mux = _own_command(environment)
    shims = []
    for name in NAMES:
        real = find(name, environment, past=folder)
        if real is not None:
            shims.append(_shim(name, folder, mux, real))
    if not shims:
        raise SetupError("there is no `vibe` on PATH to go through the pool")
    for shim in shims:
        _expect_free(shim.path)
    return tuple(shims)


def folder_for(environment: Mapping[str, str]) -> Path:
    """Return a directory of the user before vibe's on PATH, or raise a `SetupError`."""
    real = find("vibe", environment)
    if real is None:
        raise SetupError("there is no `vibe` on PATH to go through the pool")
    home = Path(
        environment.get("USERPROFILE" if os.name == "nt" else "HOME") or Path.home()
    )
    for folder in searched(environment):
        if folder == real.parent:
            break
        if folder.is_relative_to(home) and _is_lasting(folder):
            return folder
    raise SetupError(
        f"no directory of yours is searched before {real.parent}, where vibe is: put one"
        f" before it on PATH, and name it with --shim DIR"
    )


def is_before_vibe(folder: Path, environment: Mapping[str, str]) -> bool:
    """Whether a script in this directory comes before the real `vibe` on PATH."""
    for each in searched(environment):
        if each == folder:
            return True
        if _is_command(each / _file_name("vibe")) or _is_command(each / "vibe"):
            return False
    return False


def searched(environment: Mapping[str, str]) -> list[Path]:
    """Return the directories of PATH, in order."""
    parts = environment.get("PATH", "").split(os.pathsep)
    return [Path(part) for part in parts if part]


def find(
    name: str, environment: Mapping[str, str], past: Path | None = None
) -> Path | None:
    """Return the real command, skipping a shim of it."""
    for folder in searched(environment):
        found = shutil.which(name, path=str(folder))
        if found and folder != past and not is_ours(Path(found)):
            return Path(found)
    return None


def is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return MARK.encode() in stream.read(200)
    except OSError:
        return False


def _is_lasting(folder: Path) -> bool:
    """Whether a script can be written there, and stays there.

    A virtual environment or the shims of a version manager may be rewritten at any time.
    """
    made = folder.name == "shims" or (folder.parent / "pyvenv.cfg").exists()
    return folder.is_dir() and os.access(folder, os.W_OK) and not made


def _shim(name: str, folder: Path, mux: Path, real: Path) -> Shim:
    path = folder / _file_name(name)
    if os.name == "nt":
        text = WINDOWS.format(mark=MARK, name=name, off=OFF_VARIABLE, mux=mux, real=real)
        return Shim(path, text.replace("\n", "\r\n").encode())
    text = POSIX.format(
        mark=MARK,
        name=name,
        off=OFF_VARIABLE,
        mux=shlex.quote(str(mux)),
    )
    return Shim(path, text.encode())


def _file_name(name: str) -> str:
    return f"{name}.cmd" if os.name == "nt" else name


def _is_command(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK) and not is_ours(path)


def _expect_free(path: Path) -> None:
    if path.exists() and not is_ours(path):
        raise SetupError(f"{path} is there already, and is not a shim of vibe-mux")


def _own_command(environment: Mapping[str, str]) -> Path:
    """Return the `vibe-mux` command, preferably that of this environment."""
    beside = Path(sys.executable).parent
    path = os.pathsep.join([str(beside), environment.get("PATH", "")])
    found = shutil.which("vibe-mux", path=path)
    if found is None:
        raise SetupError("the command vibe-mux is not installed: pip install vibe-mux")
    return Path(found).absolute()
