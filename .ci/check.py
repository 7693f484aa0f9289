"""Run every check in an environment of its own making: `python3 .ci/check.py`.

It needs Python 3.11 or newer and the package registry, nothing more. It makes one virtual
environment for the oldest Python from 3.11 on that it finds here and one for the newest,
installs the project with its development tools, and runs linters, type checks and tests.
`--here` uses the Python that runs it alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
NEWEST_TRIED = (3, 20)
COVERED = 95
"""Percent of lines and branches that the tests reach, in all."""
WHOLE = "muxcore/core/*,strategies/muxcore_strategies/*"
"""What decides: all of it is reached."""


def version_of(python: str) -> tuple[int, int] | None:
    """Return the version of a Python, None if it does not run or cannot make environments."""
    script = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
    try:
        done = subprocess.run(
            [python, "-c", script], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    major, minor = done.stdout.split()
    return int(major), int(minor)


def pythons() -> dict[tuple[int, int], str]:
    """Return the Pythons that are at hand and new enough, by version."""
    names = [sys.executable]
    names += [f"python3.{minor}" for minor in range(OLDEST[1], NEWEST_TRIED[1])]
    candidates = [path for name in names if (path := shutil.which(name))]
    # A version manager keeps its Pythons beside the one that runs now.
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += sorted(str(path) for path in home.glob("3.*/bin/python"))
    candidates += sorted(str(path) for path in home.glob("3.*/python.exe"))
    found: dict[tuple[int, int], str] = {}
    for candidate in candidates:
        version = version_of(candidate)
        if version is not None and version >= OLDEST:
            found.setdefault(version, candidate)
    return found


def run(*command: str | Path, **more: str) -> None:
    print("$", *(Path(part).name for part in command[:1]), *command[1:], flush=True)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not re.fullmatch(r"PYTHONPATH|PYTHONHOME|VIRTUAL_ENV|VIBE_.*|.*_API_KEY", name)
    }
    subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=environment | more, check=True
    )


def check(python: str, version: tuple[int, int], *, first: bool) -> None:
    """Make an environment with this Python and run all checks in it."""
    label = ".".join(map(str, version))
    print(f"\n=== Python {label} ===", flush=True)
    with tempfile.TemporaryDirectory(prefix="vibe-mux-check-") as folder:
        run(python, "-m", "venv", folder)
        tools = Path(folder) / ("Scripts" if os.name == "nt" else "bin")
        own = tools / "python"
        run(own, "-m", "pip", "install", "--quiet", "--upgrade", "pip")
        run(own, "-m", "pip", "install", "--quiet", "--editable", ".[dev]")
        if first:
            run(tools / "ruff", "check", ".")
            run(tools / "ruff", "format", "--check", ".")
            run(tools / "lint-imports")
        run(tools / "mypy")
        run(own, "-m", "coverage", "erase")
        run(own, "-m", "coverage", "run", "-m", "pytest", "-q")
        run(own, "-m", "coverage", "report", f"--fail-under={COVERED}")
        run(own, "-m", "coverage", "report", f"--include={WHOLE}", "--fail-under=100")


def main() -> int:
    found = pythons()
    if not found:
        print("vibe-mux needs Python 3.11 or newer, and none was found.", file=sys.stderr)
        return 1
    versions = sorted({min(found), max(found)})
    if "--here" in sys.argv[1:]:
        versions = [sys.version_info[:2]]
    for version in reversed(versions):
        try:
            check(found[version], version, first=version == versions[-1])
        except subprocess.CalledProcessError as error:
            failed = " ".join(Path(str(part)).name for part in error.cmd[:3])
            print(
                f"\nFAILED on Python {version[0]}.{version[1]}: {failed}", file=sys.stderr
            )
            return 1
    print("\nAll checks passed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
