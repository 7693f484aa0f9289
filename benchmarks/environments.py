"""An environment for each kind of contender, created once and cached."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [str(ROOT), str(ROOT / "strategies"), str(ROOT / "backends")]
PACKAGES = {
    "own": ["requests", "httpx", "setuptools>=77", "wheel"],
    "openai": ["openai", "multiplexer-llm"],
    "litellm": ["litellm[proxy]"],
}
"""By environment. "own" has the wheel of vibe-mux, too, as its users install it."""

ENVIRONMENT_OF = {
    "openai": "openai",
    "multiplexer-llm": "openai",
    "litellm": "litellm",
}
"""By contender; the others are in "own"."""

COMPARED = (
    "vibe-mux",
    "requests",
    "urllib3",
    "httpx",
    "openai",
    "multiplexer-llm",
    "litellm",
)


@dataclass(frozen=True)
class Environment:
    """A Python with packages. `paths` precede its installed packages."""

    python: str
    paths: tuple[str, ...] = ()

    def script(self, name: str) -> str:
        return str(Path(self.python).with_name(name))

    def versions(self) -> dict[str, str]:
        """Return the versions of the compared packages."""
        listed = subprocess.run(
            [self.python, "-m", "pip", "list", "--format", "json"],
            check=True,
            capture_output=True,
            text=True,
        )
        found = {
            item["name"].lower(): item["version"] for item in json.loads(listed.stdout)
        }
        return {name: found[name] for name in COMPARED if name in found}


def here() -> Environment:
    """Return the running Python with this source tree, for a quick run."""
    return Environment(sys.executable, tuple(SOURCES))


def create(name: str, cache: Path) -> Environment:
    """Create an environment, or return the cached one."""
    place = cache / name
    scripts = "Scripts" if os.name == "nt" else "bin"
    python = str(place / scripts / "python")
    packages = PACKAGES[name] + (_own_requirements() if name == "own" else [])
    mark = place / "packages.json"
    if not mark.exists() or json.loads(mark.read_text()) != packages:
        print(f"creating the environment {name!r}: {', '.join(packages)}", flush=True)
        venv.create(place, clear=True, with_pip=True)
        _pip(python, "install", *packages)
        mark.write_text(json.dumps(packages))
    if name == "own":
        _install_this(python)
    return Environment(python)


def _own_requirements() -> list[str]:
    lines = (ROOT / "setup.cfg").read_text().split("install_requires =\n")[1].splitlines()
    wanted = []
    for line in lines:
        if not line.startswith("    "):
            break
        wanted.append(line.strip())
    return wanted


def _install_this(python: str) -> None:
    """Install this tree as a wheel, without leaving files in the tree."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "tree"
        copy.mkdir()
        for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, copy / name)
        for name in ("muxcore", "strategies", "backends"):
            leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, copy / name, ignore=leave)
        _pip(
            python, "install", "--no-deps", "--no-build-isolation", "--force-reinstall",
            str(copy),
        )  # fmt: skip


def _pip(python: str, *arguments: str) -> None:
    subprocess.run([python, "-m", "pip", "--quiet", *arguments], check=True)
