"""One pool's state, the clock, and the line of calls that wait for it.

What is chosen and learnt is the core's; this module says when it is asked, and whom it wakes.
Whenever anything changes, the waiting calls choose anew in the order of their arrival, before
any newcomer does, so nobody is overtaken. A waiter sleeps until it is served or its time has
come: nothing polls.

A KeyboardInterrupt may come between any two calls. So a change is made in three steps: worked
out, stored together with whom it concerns, and delivered; what an interrupt left undelivered
is delivered by the next change, which the interrupted call itself makes when it settles. For
the same reason only C's own locks are used, in `with` statements alone (see `bell`).
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeAlias

from attrs import evolve, frozen

from muxcore.core.outcomes import Cancelled, CancelReason, Outcome
from muxcore.core.protocol import Sleep, Slept, Slot, choose, choose_all
from muxcore.core.records import Call, Exhausted, PoolState, Wait
from muxcore.core.strategy import Strategy
from muxcore.core.updating import update
from muxcore.errors import CallCancelledError, ClosedError, MultiplexerError
from muxcore.shell import clock
from muxcore.shell.pool.parker import Parker
from muxcore.shell.pool.store import MemoryStore, Store

A_MOMENT = timedelta(milliseconds=1)
"""By how much two readings of the clocks may differ that were meant as one."""

LONGEST_SLEEP = 1_000_000.0
"""Seconds; a thread cannot be told to sleep for much longer."""

NOT_AT_ALL = timedelta()

Decision: TypeAlias = Slot | Wait | Exhausted | MultiplexerError


class Waiter:
    """One call's place in the pool: what it was told last, and the slot it holds."""

    __slots__ = ("cancelled", "decision", "limit", "parker", "slot", "waiting", "wakes_at")

    def __init__(self) -> None:
        self.decision: Decision | None = None
        self.slot: Slot | None = None
        """The attempt whose slot it holds, until its end is recorded."""
        self.cancelled = False
        self.waiting: _Waiting | None = None
        self.parker: Parker | None = None
        """What it is woken by; None until it first waits."""
        self.limit: float | None = None
        """When its time is over, on the clock that only runs forward."""
        self.wakes_at = 0.0
        """When the wait that it was told of is over, on that clock too."""

    def timely(
        self,
        call: Call,
        now: datetime,
        wall: datetime,
        moment: float,
        waited: timedelta = NOT_AT_ALL,
    ) -> Call:
        """Return its call after `waited` more, its deadline in terms of `now` (`moment`).

        A wall clock set back must not lend it time; one set forward has taken some.
        """
        deadline = call.deadline
        if self.limit is not None and deadline is not None:
            left = min(self.limit - moment, (deadline - wall).total_seconds())
            deadline = now + timedelta(seconds=left)
        return evolve(call, waited=call.waited + waited, deadline=deadline)

    def take(self, decision: Decision) -> None:
        self.decision = decision
        if isinstance(decision, Slot):
            self.slot = decision
        if self.parker is not None:
            self.parker.unpark()


class _Owner(weakref.ref[object]):
    """Whoever holds a call's slot, and the call, should it be forgotten."""

    __slots__ = ("waiter",)
    waiter: Waiter


@frozen
class _Waiting:
    """What a call in the line waits for; `since` is on the clock that only runs forward."""

    call: Call
    since: float
    until: datetime

    def length(self, moment: float) -> timedelta:
        return timedelta(seconds=moment - self.since)


@frozen
class _Change:
    """The line after a change, and the news that the change brought."""

    line: tuple[Waiter, ...]
    decision: tuple[tuple[Waiter, Decision], ...] = ()


class Pool:
    """The state of a pool, shared by threads."""

    def __init__(
        self, state: PoolState, strategy: Strategy, store: Store | None = None
    ) -> None:
        self.strategy = strategy
        self.result: object = None
        self._store = store or MemoryStore(state)
        self._guard = threading.Lock()
        self._line: tuple[Waiter, ...] = ()
        """The calls that wait, in the order of arrival."""
        self._abandoned: deque[Waiter] = deque()
        """Calls that the garbage collector found: settled when the guard is free."""
        self._owners: dict[Waiter, _Owner] = {}
        self._orphaned: deque[_Owner] = deque()
        """The same, for calls that were owned."""
        self._closed = False

    @property
    def state(self) -> PoolState:
        return self._store.state

    def choose(self, call: Call, waiter: Waiter) -> Slot | Wait | Exhausted:
        """Choose for `call`; if it must wait, it has its place in the line from now on."""
        now, moment = clock.now(), clock.elapsed()
        timely = call
        if waiter.limit is not None:
            timely = waiter.timely(call, now, now, moment)
        elif call.deadline is not None:
            waiter.limit = moment + (call.deadline - now).total_seconds()

        def change(state: PoolState) -> tuple[PoolState, _Change]:
            if self._closed:
                raise ClosedError
            if waiter.cancelled:
                raise CallCancelledError
            state, turn = self._serve(state, now)
            state, choice = choose(state, self.strategy, now, timely)
            line = turn.line
            if isinstance(choice, Wait):
                waiter.parker = waiter.parker or Parker()
                waiter.waiting = _Waiting(call, moment, choice.until)
                waiter.wakes_at = moment + (choice.until - now).total_seconds()
                line = (*line, waiter)
            return state, _Change(line, (*turn.decision, (waiter, choice)))

        self._change(change)
        return _decision(waiter)

    def pause(self, pause: Sleep, waiter: Waiter) -> Slept:
        """Sleep until this call is served, or its time has come."""
        seconds = self.begin_sleep(pause, waiter)
        parker = waiter.parker
        assert parker is not None  # noqa: S101 - `choose` made it, with the place in the line
        return self.end_sleep(pause, waiter, called=parker.park(seconds))

    def begin_sleep(self, pause: Sleep, waiter: Waiter) -> float:
        """Begin a pause; return for how many seconds to sleep, unless the bell rings."""
        moment = clock.elapsed()
        waiter.waiting = _Waiting(pause.call, moment, pause.wait.until)
        return min(max(0.0, waiter.wakes_at - moment), LONGEST_SLEEP)

    def end_sleep(self, pause: Sleep, waiter: Waiter, *, called: bool) -> Slept:
        """End a pause: the bell has `called`, or the sleep ran its full length."""
        waiting, parker = waiter.waiting, waiter.parker
        assert waiting is not None  # noqa: S101 - `fall_asleep` made it
        assert parker is not None  # noqa: S101
        if not called:
            # So it is over, even if the clock stands still or was set back meanwhile.
            now = max(clock.now(), pause.wait.until)
            self._change(lambda state: self._serve(state, now, late=waiter))
            # That rang: the news is read right here.
            parker.park(0.0)
        return Slept(timedelta(seconds=clock.elapsed() - waiting.since), _decision(waiter))

    def record(self, outcome: Outcome) -> None:
        """Fold an outcome in, and serve the line."""
        now = clock.now()
        self._change(lambda state: self._serve(update(state, outcome, now), now))

    def adopt(self, strategy: Strategy, carry: Callable[[PoolState], PoolState]) -> None:
        """Go on with another mode and the state that `carry` makes of this one."""
        now = clock.now()

        def change(state: PoolState) -> tuple[PoolState, _Change]:
            self.strategy = strategy
            return self._serve(carry(state), now)

        self._change(change)

    def settle(self, waiter: Waiter) -> None:
        """Take a call out that is over, however it ended: it keeps no place and no slot."""
        if self._owners:
            self._owners.pop(waiter, None)
        if self.result is None and waiter.slot is None and waiter.parker is None:
            # It was never in the line, so nobody else can have given it anything.
            return
        with self._guard:
            # What an interrupt left undelivered may hold a slot for this very ticket.
            self._deliver()
            self._take_out(waiter)
        self._sweep()

    def own(self, owner: object, waiter: Waiter) -> None:
        """Give a call an owner: when that is forgotten, the next change settles the call.

        No interrupt can prevent it, as it can a `__del__`: all that happens is C's.
        """
        reference = _Owner(owner, self._orphaned.append)
        reference.waiter = waiter
        self._owners[waiter] = reference

    def abandon(self, waiter: Waiter) -> None:
        """Settle a call that nobody holds any more; safe in the garbage collector.

        That may run in a thread which holds the guard; then this is done on its release.
        """
        self._abandoned.append(waiter)
        self._sweep()

    def cancel(self, waiter: Waiter) -> None:
        """End the wait of this call, now or as soon as it would begin one."""
        waiter.cancelled = True
        cancelled = CallCancelledError()

        def change(state: PoolState) -> tuple[PoolState, _Change]:
            if waiter not in self._line:
                return state, _Change(self._line)
            state, turn = self._serve(state, clock.now(), leaving=waiter)
            return state, _Change(turn.line, (*turn.decision, (waiter, cancelled)))

        self._change(change)

    def close(self) -> None:
        """End every wait; every later call is refused."""
        self._closed = True

        def change(state: PoolState) -> tuple[PoolState, _Change]:
            # An error for each: one that several threads raise mixes up their tracebacks.
            decision = tuple((waiter, ClosedError()) for waiter in self._line)
            return state, _Change((), decision)

        self._change(change)

    def after_fork(self) -> None:
        """In a forked child: the calls under way are the parent's, and none of them is here.

        A thread of the parent may have held the lock at that moment.
        """
        self._guard = threading.Lock()
        self._store.after_fork()
        self._line = ()
        self._abandoned.clear()
        self._owners.clear()
        self._orphaned.clear()
        self.result = None
        for candidate in self.state.candidates:
            for attempt in candidate.health.under_way:
                self.record(
                    Cancelled(candidate.endpoint.alias, attempt, CancelReason.FORKED)
                )

    def _serve(
        self,
        state: PoolState,
        now: datetime,
        *,
        late: Waiter | None = None,
        leaving: Waiter | None = None,
    ) -> tuple[PoolState, _Change]:
        """Let the waiting calls choose anew, the `late` one to be told in any case."""
        if not self._line:
            return state, _Change(())
        line = [waiter for waiter in self._line if waiter is not leaving]
        moment = clock.elapsed()
        # Who is late may be told at a moment that this clock has not reached, or again.
        wall = now if late is None else clock.now()
        waits = [waiter.waiting for waiter in line]
        calls = [
            waiter.timely(waiting.call, now, wall, moment, waiting.length(moment))
            for waiter, waiting in zip(line, waits, strict=True)
            if waiting is not None
        ]
        state, choices = choose_all(state, self.strategy, now, calls)
        still: list[Waiter] = []
        decision: list[tuple[Waiter, Decision]] = []
        for waiter, waiting, choice in zip(line, waits, choices, strict=True):
            if isinstance(choice, Wait):
                still.append(waiter)
                if (
                    waiting is not None
                    and choice.until > waiting.until - A_MOMENT
                    and waiter is not late
                ):
                    continue
                waiter.wakes_at = moment + (choice.until - now).total_seconds()
            decision.append((waiter, choice))
        return state, _Change(tuple(still), tuple(decision))

    def _change(self, change: Callable[[PoolState], tuple[PoolState, _Change]]) -> None:
        with self._guard:
            self._deliver()
            self._store.transact(change, into=self)
            self._deliver()
        self._sweep()

    def _sweep(self) -> None:
        # Whoever finds the guard taken leaves the rest to its holder, who looks again after
        # releasing it.
        while (self._abandoned or self._orphaned) and not self._guard.locked():
            with self._guard:
                self._deliver()
                while self._orphaned:
                    self._abandoned.append(self._orphaned[0].waiter)
                    self._orphaned.popleft()
                while self._abandoned:
                    # Forgotten only when it is done, should an interrupt come between.
                    waiter = self._abandoned[0]
                    self._take_out(waiter)
                    self._owners.pop(waiter, None)
                    self._abandoned.popleft()

    def _take_out(self, waiter: Waiter) -> None:
        """Take a call out, with the guard held."""

        def change(state: PoolState) -> tuple[PoolState, _Change]:
            now = clock.now()
            if waiter.slot is not None:
                alias = waiter.slot.endpoint.alias
                state = update(state, Cancelled(alias, waiter.slot.attempt), now)
            return self._serve(state, now, leaving=waiter)

        if waiter.slot is not None or waiter in self._line:
            self._store.transact(change, into=self)
            self._deliver()
            waiter.slot = None

    def _deliver(self) -> None:
        turn = self.result
        if isinstance(turn, _Change):
            self._line = turn.line
            for waiter, decision in turn.decision:
                waiter.take(decision)
            self.result = None


def _decision(waiter: Waiter) -> Slot | Wait | Exhausted:
    if waiter.parker is not None:
        # Whatever it rang for so far is read right here.
        waiter.parker.park(0.0)
    decision = waiter.decision
    if isinstance(decision, MultiplexerError):
        raise decision
    assert decision is not None  # noqa: S101 - told by the change that has just been made
    return decision
