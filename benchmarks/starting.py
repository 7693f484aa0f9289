"""Measure the start: imports, and the command."""

from __future__ import annotations

import resource
import subprocess
import time
from collections import defaultdict
from pathlib import Path

from contenders import KEY, pool_config
from environments import Environment
from workers import NO_ENVIRONMENT, in_turn

PROGRAMS = {
    "nothing": "pass",
    "import requests": "import requests",
    "import muxcore": "import muxcore",
    "from muxcore import Multiplexer": "from muxcore import Multiplexer",
}


def starts(environment: Environment, rounds: int, place: Path) -> dict[str, list[tuple]]:
    """Return CPU and wall time of each start of each program."""
    prelude = f"import sys; sys.path[:0] = {list(environment.paths)!r}; "
    prelude = prelude if environment.paths else ""
    programs = {
        name: [environment.python, "-I", "-c", prelude + program]
        for name, program in PROGRAMS.items()
    }
    config = place / "config.toml"
    config.write_text(as_toml(pool_config("http://127.0.0.1:1/v1")))
    check = ["check", "--config", str(config)]
    if environment.paths:
        main = f"from muxcore.__main__ import command; sys.argv[1:] = {check!r}; command()"
        programs["vibe-mux check"] = [environment.python, "-I", "-c", prelude + main]
    else:
        programs["vibe-mux check"] = [environment.script("vibe-mux"), *check]
    for program in programs.values():
        # One start is not measured, so that everything is compiled and in memory.
        subprocess.run(program, env=_for_keys(), check=True, stdout=subprocess.DEVNULL)
    took: dict[str, list[tuple]] = defaultdict(list)

    def one(name: str, program: list[str]) -> None:
        took[name].append(_start(program))

    in_turn(programs, rounds, one, "starting")
    return took


def readiness(environment: Environment, rounds: int, place: Path) -> dict[str, list[float]]:
    """Return the time from start to ready of a program, alone and under `vibe-mux run`.

    It stands for vibe: what it takes itself to be ready is the same both ways.
    """
    vibe = [environment.python, "-I", "-c", "import time; print(time.monotonic_ns())"]
    config = place / "run.toml"
    config.write_text(as_toml(pool_config("http://127.0.0.1:1/v1")))
    through = [environment.script("vibe-mux"), "run", "--config", str(config), "--", *vibe]
    programs = {"alone": vibe, "run": through}
    variables = {**_for_keys(), "HOME": str(place), "PATH": "/usr/bin:/bin"}
    took: dict[str, list[float]] = defaultdict(list)

    def one(name: str, program: list[str]) -> None:
        began = time.monotonic_ns()
        done = subprocess.run(program, env=variables, check=True, capture_output=True)
        took[name].append((int(done.stdout.split()[-1]) - began) / 1e6)

    in_turn(programs, rounds, one, "running")
    return took


def _start(program: list[str]) -> tuple[float, float]:
    began = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(program, env=_for_keys(), check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, wall


def _for_keys() -> dict[str, str]:
    return {**NO_ENVIRONMENT, "BENCH_KEY": KEY}


def as_toml(config: dict) -> str:
    lines = []
    for section in ("providers", "models"):
        for entry in config[section]:
            lines += [f"[[{section}]]", *_members(entry)]
    multiplexer = dict(config["multiplexer"])
    pool = multiplexer.pop("pool")
    lines += ["[multiplexer]", *_members(multiplexer)]
    for entry in pool:
        lines += ["[[multiplexer.pool]]", *_members(entry)]
    return "\n".join(lines) + "\n"


def _members(entry: dict) -> list[str]:
    words = {True: "true", False: "false"}
    return [
        f"{name} = {words[value] if isinstance(value, bool) else repr(value)}"
        for name, value in entry.items()
    ]
