"""Run every check in environments of its own making: `python3 .ci/check.py`.

It needs Python 3.11 or newer and the package registry, nothing more. The newest Python from
3.11 on that it finds here runs linters, type checks and tests with the newest versions of
all that the project depends on; the oldest runs the tests with the lowest versions that
setup.cfg allows. Where there are two cores, the two run side by side, and the type checks
begin on the first that is free.

`--all` adds the tests marked `slow`, and the oldest Python with the newest versions; a vibe, or
another agent, that cannot be installed is then a failure.
`--here` checks with the Python that runs it alone.
"""

from __future__ import annotations

import argparse
import configparser
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
NEWEST_TRIED = (3, 20)
COVERED = 95
"""Percent of lines and branches that the tests reach, in all."""
WHOLE = "muxcore/core/*,strategies/muxcore_strategies/*"
"""What decides: all of it is reached."""
PRODUCT = ("muxcore", "strategies", "backends")
"""What is type-checked for the oldest Python. The tests run there: with `--all`, they are too."""
HISTORIES = "400"
"""With `--all`, tests/dialects/test_any_switch.py takes as many through each of its doors."""
LINTERS = re.compile(r"ruff|mypy|import-linter|types-")
"""What the tests do without. These need newer libraries than the lowest versions."""
BOUND = re.compile(r"([\w.-]+)\s*>=\s*([\w.]+)$")
CLOSING_LINE = re.compile(r"\d+ passed\b.* in [\d.]+s")
NOT_RUN = "NOT RUN: "
"""What tests/conftest.py begins the line of a skipped group of tests with."""
MISSED = "no real "
"""What a test is skipped with if it cannot install a vibe, or another agent."""
NEVER_RUN = (
    "other versions of Python, other systems than this one",
    "servers of real providers: every model is a stand-in",
)

installing = threading.Lock()
"""An editable install writes into the sources."""
printing = threading.Lock()


class CheckFailedError(Exception):
    """A step of a lane failed; the message names it."""


@dataclass
class Lane:
    """The checks that one Python runs, one after the other."""

    python: str
    version: tuple[int, int]
    lowest: bool = False
    """With the lowest versions that setup.cfg allows."""
    measured: bool = False
    """Also linted, type-checked, and with its coverage measured."""
    slow: bool = False
    environment: Path = Path()
    failures: list[str] = field(default_factory=list)
    """The steps that failed."""
    closing_line: str = ""
    not_run: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        label = ".".join(map(str, self.version))
        return f"{label} lowest" if self.lowest else label

    def show(self, line: str) -> None:
        with printing:
            print(f"{self.name} | {line}", flush=True)

    def run(self, *command: str | Path) -> None:
        """Run a program and show what it prints, line by line."""
        shown = [Path(command[0]).name, *map(str, command[1:])]
        self.show(f"$ {' '.join(shown)}")
        kept = {
            name: value
            for name, value in os.environ.items()
            if not re.fullmatch(
                r"PYTHON(PATH|HOME|DONTWRITEBYTECODE)|VIRTUAL_ENV|VIBE_.*|.*_API_KEY",
                name,
            )
        }
        # Two runs side by side must not write the same file.
        more = {"COVERAGE_FILE": str(self.environment / "coverage")}
        if self.slow:
            more["VIBE_MUX_HISTORIES"] = HISTORIES
        started = time.perf_counter()
        with subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            env=kept | more,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process:
            assert process.stdout is not None  # noqa: S101
            for line in map(str.rstrip, process.stdout):
                self.show(line)
                if line.startswith(NOT_RUN):
                    self.not_run.append(line.removeprefix(NOT_RUN))
                elif CLOSING_LINE.search(line):
                    self.closing_line = line
        self.show(f"({time.perf_counter() - started:.1f} s)")
        if process.returncode:
            raise CheckFailedError(" ".join(shown[:4]))

    @property
    def tools(self) -> Path:
        return self.environment / ("Scripts" if os.name == "nt" else "bin")

    def check(self, threads: Executor) -> None:
        """Make an environment and run all checks of this lane in it.

        The types are checked by the first thread that has nothing else to do.
        """
        own = self.tools / "python"
        self.run(self.python, "-m", "venv", self.environment)
        self.install(own)
        tests = ["-m", "pytest", "-q", *([] if self.slow else ["-m", "not slow"])]
        if not self.measured:
            self.run(own, *tests)
            return
        threads.submit(self.note_failure, self.check_types)
        self.run(self.tools / "ruff", "check", ".")
        self.run(self.tools / "ruff", "format", "--check", ".")
        self.run(self.tools / "lint-imports")
        self.run(own, "-m", "coverage", "run", *tests)
        self.run(own, "-m", "coverage", "report", f"--fail-under={COVERED}")
        whole = (f"--include={WHOLE}", "--fail-under=100")
        self.run(own, "-m", "coverage", "report", *whole)

    def note_failure(self, part: Callable[..., None], *arguments: Executor) -> None:
        """Run a part of this lane, and note which of its steps failed, if one did."""
        try:
            part(*arguments)
        except CheckFailedError as error:
            self.failures.append(str(error))
        except Exception as error:  # noqa: BLE001 - nobody else hears of it
            self.failures.append(repr(error))

    def check_types(self) -> None:
        """Check them for this Python, and those of the product for the oldest."""
        mypy = self.tools / "mypy"
        self.run(mypy)
        product = () if self.slow else PRODUCT
        self.run(mypy, "--python-version", ".".join(map(str, OLDEST)), *product)

    def install(self, own: Path) -> None:
        run, development, extras = requirements()
        constraints = self.environment / "constraints.txt"
        if self.lowest:
            development = [one for one in development if not LINTERS.match(one)]
            constraints.write_text("\n".join(lowest([*run, *extras])), encoding="utf-8")
        else:
            constraints.touch()
        wanted = dict.fromkeys([*run, *development, *extras])
        # Twice quiet: errors only. What is imported is compiled then; most never is.
        pip = (own, "-m", "pip", "install", "--quiet", "--quiet", "--no-compile")
        self.run(*pip, "--upgrade", "pip")
        self.run(*pip, "--constraint", constraints, *wanted)
        with installing:
            self.run(*pip, "--no-deps", "--editable", ".")


def requirements() -> tuple[list[str], list[str], list[str]]:
    """Return what setup.cfg names: for a run, for development, and for the other extras."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = {
        name: text.split("\n") for name, text in config["options.extras_require"].items()
    }
    development = extras.pop("dev")
    run = config["options"]["install_requires"].split("\n")
    named = (run, development, [one for extra in extras.values() for one in extra])
    one, two, three = ([line for line in lines if line] for lines in named)
    return one, two, three


def lowest(named: Iterable[str]) -> list[str]:
    """Turn lower bounds into exact versions. Raise `CheckFailedError` for one without."""
    exact = []
    for requirement in named:
        bound = BOUND.match(requirement)
        if bound is None:
            raise CheckFailedError(f"setup.cfg: {requirement!r}, expected NAME>=VERSION")
        exact.append("==".join(bound.groups()))
    return exact


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


def lanes(*, here: bool, slow: bool) -> list[Lane]:
    """Return what is to run, the longest first."""
    found = {sys.version_info[:2]: sys.executable} if here else pythons()
    if not found or min(found) < OLDEST:
        return []
    newest, oldest = max(found), min(found)
    made = [Lane(found[newest], newest, measured=True, slow=slow)]
    if not here:
        made.append(Lane(found[oldest], oldest, lowest=True))
        if slow and oldest != newest:
            made.append(Lane(found[oldest], oldest, slow=True))
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description="Run every check of the project.")
    parser.add_argument("--all", action="store_true", help="run the slow tests, too")
    parser.add_argument("--here", action="store_true", help="use this Python alone")
    options = parser.parse_args()
    chosen = lanes(here=options.here, slow=options.all)
    if not chosen:
        print("vibe-mux needs Python 3.11 or newer, and none was found.", file=sys.stderr)
        return 1
    with (
        tempfile.TemporaryDirectory(prefix="vibe-mux-check-") as folder,
        ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as threads,
    ):
        for number, lane in enumerate(chosen):
            lane.environment = Path(folder) / str(number)
        # While they run, they may ask for more.
        wait([threads.submit(lane.note_failure, lane.check, threads) for lane in chosen])
    print()
    for lane in chosen:
        failed = ", ".join(lane.failures)
        # A line of its own: programs that read a log look for pytest's.
        print(f"Python {lane.name}: {f'FAILED: {failed}' if failed else 'passed'}")
        print(lane.closing_line)
    print("Not run, and in brackets the number of tests:")
    for line in dict.fromkeys(line for lane in chosen for line in lane.not_run):
        where = ", ".join(lane.name for lane in chosen if line in lane.not_run)
        print(f"- {line} ({where})")
    for line in NEVER_RUN:
        print(f"- {line}")
    missed = [
        line for lane in chosen if lane.slow for line in lane.not_run if MISSED in line
    ]
    if missed:
        print(f"FAILED: --all is to run the tests against real agents: {missed[0]}")
    return int(any(lane.failures for lane in chosen) or bool(missed))


if __name__ == "__main__":
    sys.exit(main())
