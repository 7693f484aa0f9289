"""Run the contenders, each in its own process, in turn and in random order."""

from __future__ import annotations

import json
import random  # noqa: TID251 - seeded
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environments import Environment

PLACE = Path(__file__).resolve().parent
NO_ENVIRONMENT: dict[str, str] = {}
"""The environment affects the speed of a program, so each gets an empty one."""


@dataclass(frozen=True)
class Figure:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


def ratios(of: Sequence[float], to: Sequence[float]) -> list[float]:
    """Divide the values of the same round: the noise of the machine is in both."""
    return [one / other for one, other in zip(of, to, strict=True)]


class Worker:
    """A contender's process."""

    def __init__(self, environment: Environment, contender: str, base: str) -> None:
        arguments = json.dumps([list(environment.paths), contender, base])
        self._process = subprocess.Popen(
            [environment.python, str(PLACE / "worker.py"), arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=NO_ENVIRONMENT,
            text=True,
        )
        self._name = contender
        self._answer()

    def do(self, action: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": action, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended with {self._process.wait()}")
        return json.loads(line)


@contextmanager
def model_server(environment: Environment) -> Iterator[str]:
    """Run the model server of all contenders; yield its address."""
    process = subprocess.Popen(
        [environment.python, str(PLACE / "model.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=NO_ENVIRONMENT,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


@contextmanager
def workers(environments: dict[str, Environment], base: str) -> Iterator[dict[str, Worker]]:
    with ExitStack() as stack:
        running = {}
        for name, environment in environments.items():
            worker = Worker(environment, name, base)
            stack.callback(worker.close)
            running[name] = worker
        yield running


def in_turn(
    running: dict[str, Any], rounds: int, one: Callable[[str, Any], None], title: str
) -> None:
    """Run each once in every round, in random order."""
    names = list(running)
    for number in range(rounds):
        random.shuffle(names)
        for name in names:
            one(name, running[name])
        print(f"\r{title}: {number + 1}/{rounds} ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
