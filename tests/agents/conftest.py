"""The real agents of other makers, each from its registry, over stand-in models."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest
from attrs import frozen

from muxcore.standin import (
    Answer,
    Behaviour,
    Cut,
    Model,
    Play,
    StandInServer,
    dead_port,
    rate_limited,
    refusal,
    server_error,
)
from tests.gateway.conftest import as_toml, config
from tests.processes import COMMAND, environment

SECONDS = 120
WORD = "heron"

REFUSED = "refused connection"
"""Nobody listens where the first model should be."""

FAULTS: Mapping[str, Behaviour] = {
    "429": rate_limited(),
    "500": server_error(500),
    REFUSED: Answer(),
    "cut before content": Cut(0),
    "refusal": refusal(422, "This model takes no tools."),
}
"""What the first model does each time that it is asked."""


@frozen(eq=False)
class Ran:
    """How a program ended, and what it printed."""

    code: int
    said: str
    remarks: str
    """All of stderr but the multiplexer's own lines."""
    mux: list[str]


@frozen(eq=False)
class Desk:
    """A user with a config over two models, and programs that `run` brings to them."""

    home: Path
    env: Mapping[str, str]
    large: Model
    small: Model

    def run(self, *command: str) -> Ran:
        done = subprocess.run(
            [*COMMAND, "run", "--config", str(self.home / "config.toml"), "--", *command],
            env=self.env,
            cwd=self.home / "work",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        lines = done.stderr.splitlines()
        mux = [line for line in lines if line.startswith("vibe-mux: ")]
        remarks = "\n".join(line for line in lines if line not in mux)
        return Ran(done.returncode, done.stdout.strip(), remarks, mux)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    numbers = itertools.count(1)
    with ExitStack() as stack:

        def make(play: Play, fault: str = "") -> Desk:
            """Let both models play, and the first one have a fault."""
            large, small = Model("large-model", play), Model("small-model", play)
            large.default = FAULTS.get(fault, play)
            server = stack.enter_context(StandInServer([large, small]))
            made = config(server.url, "large", "small")
            if fault == REFUSED:
                gone = {**made["providers"][0], "name": "gone"}
                gone["api_base"] = stack.enter_context(dead_port())
                made["providers"].append(gone)
                made["models"][0]["provider"] = "gone"
            home = tmp_path / f"{next(numbers)}"
            (home / "work").mkdir(parents=True)
            (home / "work" / "word.txt").write_text(f"{WORD}\n")
            (home / "config.toml").write_text(as_toml(made))
            # opencode goes by the shell's variable, not by the directory that it is started in.
            env = environment(home / "run", HOME=str(home), PWD=str(home / "work"))
            (home / "run").mkdir(mode=0o700)
            return Desk(home, env, large, small)

        yield make


@pytest.fixture(scope="session")
def from_npm(pytestconfig: pytest.Config) -> Callable[[str, str], Path]:
    """Give a program of the newest version of an npm package, which is installed when missing.

    They are kept between runs, in `MUXCORE_TEST_AGENTS` or in pytest's own cache.
    """
    cache = pytestconfig.cache
    assert cache is not None
    given = os.environ.get("MUXCORE_TEST_AGENTS")
    folder = Path(given) if given else Path(cache.mkdir("agents"))

    def give(package: str, name: str) -> Path:
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip(f"no real {name}: there is no Node here")
        try:
            version = _output([npm, "view", package, "version"])
            place = folder / f"{name}-{version}"
            if not (place / "whole").exists():
                place.mkdir(parents=True, exist_ok=True)
                _output([npm, "install", "--prefix", str(place), f"{package}@{version}"])
                (place / "whole").touch()
        except (OSError, subprocess.SubprocessError) as error:
            _skip(name, error)
        return place / "node_modules" / ".bin" / name

    return give


@pytest.fixture(scope="session")
def python_with(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """Give the Python of an environment that has these packages, made when missing."""
    cache = pytestconfig.cache
    assert cache is not None
    given = os.environ.get("MUXCORE_TEST_AGENTS")
    folder = Path(given) if given else Path(cache.mkdir("agents"))

    def give(packages: str) -> Path:
        number = f"{sys.version_info.major}.{sys.version_info.minor}"
        place = folder / re.sub(r"[^\w-]+", "+", f"{packages}-py{number}")
        python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
        if not (place / "whole").exists():
            try:
                _output([sys.executable, "-m", "venv", str(place)])
                _output([str(python), "-m", "pip", "install", "--quiet", *packages.split()])
            except (OSError, subprocess.SubprocessError) as error:
                _skip(packages, error)
            (place / "whole").touch()
        return python

    return give


def _skip(name: str, error: Exception) -> NoReturn:
    last = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
    pytest.skip(f"no real {name}: not installed: {' '.join(last)}")


def _output(command: list[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, check=True
    )
    return done.stdout.strip()
