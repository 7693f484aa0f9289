"""What the rules observe beside the states: the callers, why the pool changes, the mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from muxcore.core.entries import Entry
from muxcore.core.outcomes import End, Responding
from muxcore.core.protocol import Sleep, Slept, Slot
from muxcore.core.records import Call, Candidate, Endpoint, Exhausted, PoolState, Wait
from muxcore.core.strategy import Strategy
from muxcore.shell.clock import Clock
from muxcore.shell.pool.pool import Nap, Pool
from muxcore.shell.pool.waiter import Decision, Waiter

if TYPE_CHECKING:
    from muxcore.testing.simulation.rules import RuleChecker


class ViolationError(AssertionError):
    """A rule is broken. `rule` is its number."""

    def __init__(self, rule: int, text: str) -> None:
        self.rule = rule
        super().__init__(f"rule {rule}: {text}")


def demand(truth: object, rule: int, text: str) -> None:
    if not truth:
        raise ViolationError(rule, text)


@define(eq=False)
class Caller:
    """What the rules need to know of one call."""

    number: int
    deadline: int
    waiter: Waiter
    asked: Call = field(factory=Call)
    """As it asked last, before it had waited."""
    slots: list[Slot] = field(factory=list)
    outcomes: list[Responding | End] = field(factory=list)
    ended: str = ""

    @property
    def repeats(self) -> int:
        return len(self.slots) - len({one.endpoint.alias for one in self.slots})


@frozen
class Cause:
    """What the pool was just asked to do, and when that is."""

    name: str
    now: datetime
    wall: datetime
    """What the wall clock shows; a wait that is over may count as later."""
    outcome: Entry | None = None
    caller: Caller | None = None


class ObservedStrategy:
    """A mode that is looked at: what it was shown, what it picked, and its memory."""

    def __init__(self, mode: Strategy, *, by_weight: bool) -> None:
        self._mode = mode
        self.memories: list[tuple[str, object]] = []
        self._shares = Shares() if by_weight else None

    def pick(
        self, candidates: Sequence[Candidate], memory: object, call: Call, now: datetime
    ) -> tuple[Endpoint, object]:
        demand(candidates, 3, "a mode was shown nobody")
        endpoint, memory = self._mode.pick(candidates, memory, call, now)
        self.memories.append((endpoint.alias, memory))
        if self._shares is not None:
            self._shares.count(candidates, endpoint)
        return endpoint, memory

    def memory_of(self, alias: str) -> object:
        """Return the memory that came with the pick of `alias`, passing over lost ones."""
        for position, (picked, memory) in enumerate(self.memories):
            if picked == alias:
                del self.memories[: position + 1]
                return memory
        raise ViolationError(13, f"nobody picked {alias}")


class Shares:
    """Rule 10, counted anew: shares while the set of shown models is unchanged."""

    def __init__(self) -> None:
        self._key: object = None
        self._picks = 0
        self._counts: dict[str, int] = {}
        self._first = True

    def count(self, candidates: Sequence[Candidate], picked: Endpoint) -> None:
        key = [
            (c.endpoint.alias, c.endpoint.weight, c.tally.rate_limited + c.tally.failed)
            for c in candidates
        ]
        if key != self._key:
            self._first = self._key is None
            self._key, self._picks, self._counts = key, 0, {}
        counts = self._counts
        counts[picked.alias] = counts.get(picked.alias, 0) + 1
        self._picks += 1
        total = sum(candidate.endpoint.weight for candidate in candidates)
        # What was owed before the set changed may come on top, and that is one at most.
        most = total if self._first else 2 * total
        for alias, weight, _ in key:
            lag = self._picks * weight - counts.get(alias, 0) * total
            demand(abs(lag) < most, 10, f"{alias} is off its share by {lag}/{total}")


class ObservedPool(Pool):
    """The real pool; the rule checker learns what each change is made for."""

    def __init__(
        self,
        state: PoolState,
        mode: ObservedStrategy,
        checker: RuleChecker,
        clock: Clock,
    ) -> None:
        super().__init__(state, mode, clock=clock, observer=checker.check)
        self._checker = checker

    def choose(self, call: Call, waiter: Waiter) -> Slot | Wait | Exhausted:
        caller = self._checker.callers[waiter]
        caller.asked = call
        self._begin("choose", caller)
        return super().choose(call, waiter)

    def end_sleep(self, sleep: Sleep, waiter: Waiter, nap: Nap, *, woken: bool) -> Slept:
        wall = self._clock.now()
        now = wall if woken else max(wall, sleep.wait.until)
        caller = self._checker.callers[waiter]
        self._checker.begin(Cause("wake", now, wall, caller=caller))
        return super().end_sleep(sleep, waiter, nap, woken=woken)

    def record(self, entry: Entry) -> None:
        now = self._clock.now()
        self._checker.begin(Cause("record", now, now, entry))
        super().record(entry)
        # Whatever follows does not come from this outcome.
        self._begin("settle")

    def settle(self, waiter: Waiter) -> None:
        self._begin("settle", self._checker.callers.get(waiter))
        super().settle(waiter)

    def _begin(self, name: str, caller: Caller | None = None) -> None:
        now = self._clock.now()
        self._checker.begin(Cause(name, now, now, caller=caller))


class ObservedWaiter(Waiter):
    """A waiter which the simulation hears receiving a decision."""

    __slots__ = ("heard",)

    def __init__(self) -> None:
        super().__init__()
        self.heard: Callable[[], None] | None = None

    def receive(self, decision: Decision) -> None:
        super().receive(decision)
        if self.heard is not None:
            self.heard()
