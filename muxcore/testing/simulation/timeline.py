"""Simulated time: the clocks, the agenda, and the record of what happened."""

from __future__ import annotations

import hashlib
import heapq
import random  # noqa: TID251 - made from a seed, and nowhere else
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from attrs import define, frozen

from muxcore.testing.simulation.labels import SERVED, STREAMED
from muxcore.testing.simulation.observation import ViolationError
from muxcore.testing.simulation.worlds import SECOND, Arrival

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAUSE_BETWEEN = 50
"""The longest time between two steps of a thread, in microseconds: others may run in it."""


@define
class SimulatedClock:
    """The two clocks of the shell. `moment` never runs backwards; the wall clock may be set."""

    moment: int = 0
    set_by: int = 0

    def now(self) -> datetime:
        return START + timedelta(microseconds=self.moment + self.set_by)

    def elapsed(self) -> float:
        return self.moment / SECOND


class Timeline:
    """The agenda of a world, in the order of time. The seed decides between equal moments."""

    def __init__(self, seed: int, *, keep: bool) -> None:
        self.clock = SimulatedClock()
        self.steps = 0
        self._dice = random.Random(seed)  # noqa: S311 - the same every time
        self._agenda: list[tuple[int, int, int, Callable[[], None]]] = []
        self._entries = 0
        self._hash = hashlib.sha256()
        self._lines: list[str] | None = [] if keep else None

    def at(self, moment: int, act: Callable[[], None]) -> None:
        """Schedule an action."""
        self._entries += 1
        entry = (moment, self._dice.getrandbits(16), self._entries, act)
        heapq.heappush(self._agenda, entry)

    def soon(self, act: Callable[[], None]) -> None:
        """Schedule an action for the next moment at which its thread runs."""
        self.at(self.clock.moment + self._dice.randrange(PAUSE_BETWEEN), act)

    def run(self) -> None:
        """Run every action, until none is left."""
        while self._agenda:
            moment, _, _, act = heapq.heappop(self._agenda)
            self.clock.moment = max(moment, self.clock.moment)
            self.steps += 1
            act()

    def report(self, text: str, label: str) -> None:
        """Report what happened: `text` for people, `label` for the hash, in fixed words."""
        self._hash.update(f"{self.clock.moment} {label}\n".encode())
        if self._lines is not None:
            self._lines.append(f"{self.clock.moment / SECOND:12.6f} {text}")

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    @property
    def trace(self) -> tuple[str, ...]:
        """The reports, one line each, if they are kept."""
        return tuple(self._lines or ())


@frozen
class Run:
    """The result of a world: how each call ended, and a hash over everything that happened."""

    endings: tuple[str, ...]
    steps: int
    attempts: int
    digest: str
    trace: tuple[str, ...] = ()


@frozen
class EndedCall:
    """A call that is over: how and when it ended, and when a client may retry."""

    arrival: Arrival
    how: str
    at: int
    retry_after: int | None = None
    """Whole seconds, as in the gateway's header."""

    @property
    def is_served(self) -> bool:
        return self.how in {SERVED, STREAMED}


class BrokenWorldError(AssertionError):
    """A world in which a rule is broken, with everything that happened until then."""

    def __init__(self, error: Exception, trace: tuple[str, ...]) -> None:
        self.rule = error.rule if isinstance(error, ViolationError) else 0
        self.trace = trace
        text = str(error) if self.rule else f"{type(error).__name__}: {error}"
        super().__init__(text)
