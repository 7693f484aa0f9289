"""What the rules observe: the callers, the causes of changes, the mode, where endpoints stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from attrs import define, field, frozen

from muxcore.core.entries import Entry
from muxcore.core.outcomes import End, Responding
from muxcore.core.protocol import Sleep, Slept, Slot
from muxcore.core.records import (
    Call,
    Candidate,
    Cooldown,
    Endpoint,
    Exhausted,
    PoolState,
    Wait,
)
from muxcore.core.strategy import Strategy
from muxcore.shell.clock import Clock
from muxcore.shell.pool.pool import ChangeListener, Nap, Pool
from muxcore.shell.pool.waiter import Decision, Waiter


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
    """One call, as the rules see it."""

    number: int
    deadline: int
    waiter: Waiter
    call: Call = field(factory=Call)
    """As it last asked for an endpoint, without the wait since then."""
    slots: list[Slot] = field(factory=list)
    outcomes: list[Responding | End] = field(factory=list)
    ended: str = ""

    @property
    def repeats(self) -> int:
        return len(self.slots) - len({slot.endpoint.alias for slot in self.slots})


@frozen
class Cause:
    """What the pool is asked to do, and when."""

    name: str
    now: datetime
    wall: datetime
    """The wall clock. A wait that is over may choose as of a later moment."""
    outcome: Entry | None = None
    caller: Caller | None = None


class ObservedStrategy:
    """A mode that records what it is shown, what it picks, and its memory."""

    def __init__(self, mode: Strategy, *, by_weight: bool) -> None:
        self._mode = mode
        self.memories: list[tuple[str, object]] = []
        self._shares = Shares() if by_weight else None

    def pick(
        self, candidates: Sequence[Candidate], memory: object, call: Call, now: datetime
    ) -> tuple[Endpoint, object]:
        demand(candidates, 3, "a mode was shown no candidate")
        endpoint, memory = self._mode.pick(candidates, memory, call, now)
        self.memories.append((endpoint.alias, memory))
        if self._shares is not None:
            self._shares.count(candidates, endpoint)
        return endpoint, memory

    def memory_of(self, alias: str) -> object:
        """Return the memory that came with the pick of `alias`; skip picks that were dropped."""
        for position, (picked, memory) in enumerate(self.memories):
            if picked == alias:
                del self.memories[: position + 1]
                return memory
        raise ViolationError(13, f"the mode did not pick {alias}")


class Shares:
    """Rule 10, counted independently: shares while the set of shown models is unchanged."""

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
        # The lag from before the set changed may come on top; it is one request at most.
        most = total if self._first else 2 * total
        for alias, weight, _ in key:
            lag = self._picks * weight - counts.get(alias, 0) * total
            demand(abs(lag) < most, 10, f"{alias} is off its share by {lag}/{total}")


class ObservedPool(Pool):
    """The real pool. It calls `begin` with the cause of each change, before the change."""

    def __init__(
        self,
        state: PoolState,
        mode: ObservedStrategy,
        clock: Clock,
        observer: ChangeListener,
        begin: Callable[[Cause], None],
        callers: Mapping[Waiter, Caller],
    ) -> None:
        super().__init__(state, mode, clock=clock, observer=observer)
        self._report = begin
        self._callers = callers

    def choose(self, call: Call, waiter: Waiter) -> Slot | Wait | Exhausted:
        caller = self._callers[waiter]
        caller.call = call
        self._begin("choose", caller)
        return super().choose(call, waiter)

    def end_sleep(self, sleep: Sleep, waiter: Waiter, nap: Nap, *, woken: bool) -> Slept:
        wall = self._clock.now()
        now = wall if woken else max(wall, sleep.wait.until)
        caller = self._callers[waiter]
        self._report(Cause("wake", now, wall, caller=caller))
        return super().end_sleep(sleep, waiter, nap, woken=woken)

    def record(self, entry: Entry) -> None:
        now = self._clock.now()
        self._report(Cause("record", now, now, entry))
        super().record(entry)
        # Later changes have other causes.
        self._begin("settle")

    def settle(self, waiter: Waiter) -> None:
        self._begin("settle", self._callers.get(waiter))
        super().settle(waiter)

    def _begin(self, name: str, caller: Caller | None = None) -> None:
        now = self._clock.now()
        self._report(Cause(name, now, now, caller=caller))


class ObservedWaiter(Waiter):
    """A waiter that calls back when it receives a decision."""

    __slots__ = ("on_decision",)

    def __init__(self) -> None:
        super().__init__()
        self.on_decision: Callable[[], None] | None = None

    def receive(self, decision: Decision) -> None:
        super().receive(decision)
        if self.on_decision is not None:
            self.on_decision()


def standings_of(state: PoolState, call: Call, now: datetime) -> dict[str, str]:
    """Return the standing of each endpoint, computed without the core.

    One that announces limits may be spent instead of open or busy, and counts as neither.
    """
    fitting = {c.endpoint.alias: window_of(c) for c in state.candidates if _suits(c, call)}
    needed = call.prompt_tokens or 0
    windows = list(fitting.values())
    if needed and windows and all(w is not None and w < needed for w in windows):
        needed = max(window or 0 for window in windows)
    standings = {}
    for candidate in state.candidates:
        endpoint, health = candidate.endpoint, candidate.health
        window, cap = window_of(candidate), endpoint.max_concurrent
        unfit = endpoint.alias not in fitting
        if unfit or (window is not None and window < needed):
            standing = "unfit"
        elif endpoint.alias in call.tried:
            standing = "tried"
        elif any(is_active(cooldown, now) for cooldown in health.cooldowns):
            standing = "disabled"
        elif is_probed(candidate, now):
            standing = "probed"
        elif cap is not None and len(health.under_way) >= cap:
            standing = "busy" if candidate.headroom is None else "busy or spent"
        elif candidate.headroom is not None:
            standing = "open or spent"
        else:
            standing = "open"
        standings[endpoint.alias] = standing
    return standings


def _suits(candidate: Candidate, call: Call) -> bool:
    if call.only not in {None, candidate.endpoint.alias}:
        return False
    if call.larger_than is None:
        return True
    window = window_of(candidate)
    larger = window is None or window > call.larger_than
    return larger and candidate.endpoint.alias not in call.outgrown


def window_of(candidate: Candidate) -> int | None:
    windows = (candidate.endpoint.context_window, candidate.learnt_window)
    return min((window for window in windows if window is not None), default=None)


def is_active(cooldown: Cooldown, now: datetime) -> bool:
    return cooldown.since <= now < cooldown.until


def is_probed(candidate: Candidate, now: datetime) -> bool:
    under_way = candidate.health.under_way
    return bool(under_way) and any(
        under_way[-1] > cooldown.newest
        and (not cooldown.proven or is_active(cooldown, now))
        for cooldown in candidate.health.cooldowns
    )
