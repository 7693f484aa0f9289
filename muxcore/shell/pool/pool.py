"""A pool's state, shared by threads, and the calls that wait for a slot.

The core decides; this module says when it is asked, and wakes the calls that it decided for.
Whenever anything changes, the waiting calls choose again in the order of their arrival,
before any new call does, so none is overtaken. A waiting call sleeps until it is served or
its wait is over: nothing polls.

A KeyboardInterrupt may come between any two calls of functions. So every change passes
through `Pool._store`, and is made in three steps: it is worked out, stored together with the decisions
that come with it, and delivered. What an interrupt left undelivered is delivered by the next
change, which the interrupted call itself makes when it settles. For the same reason the only
locks are those implemented in C, in `with` statements alone (see `parker`).
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeAlias

from attrs import frozen

from muxcore.core.outcomes import Cancelled, CancelReason, Outcome
from muxcore.core.protocol import Sleep, Slept, Slot, choose, choose_all
from muxcore.core.records import Call, Exhausted, PoolState, Wait
from muxcore.core.strategy import Strategy
from muxcore.core.updating import update
from muxcore.errors import CallCancelledError, ClosedError
from muxcore.shell import clock as system_clock
from muxcore.shell.clock import LONGEST_SLEEP, Clock
from muxcore.shell.pool.parker import Parker
from muxcore.shell.pool.waiter import Decision, Waiter, Waiting

A_MOMENT = timedelta(milliseconds=1)
"""By how much two readings of the clocks may differ that mean the same time."""


@frozen
class Change:
    """One change of the pool: its new state and line, and the decisions that it brings."""

    state: PoolState
    line: tuple[Waiter, ...] = ()
    decisions: tuple[tuple[Waiter, Decision], ...] = ()


Observer: TypeAlias = Callable[[PoolState, Change], None]
"""Sees the state before each change, and the change, before any call hears of it."""


@frozen
class Nap:
    """A wait as a thread sleeps it: at most `seconds`, begun at `since`."""

    seconds: float
    since: float


class _Owner(weakref.ref[object]):
    """Refers to the object that holds a call; its callback runs when that is forgotten."""

    __slots__ = ("waiter",)
    waiter: Waiter


class Pool:
    """The state of a pool, shared by threads."""

    def __init__(
        self,
        state: PoolState,
        strategy: Strategy,
        *,
        clock: Clock = system_clock,
        observer: Observer | None = None,
    ) -> None:
        self.strategy = strategy
        self._state = state
        self._undelivered: tuple[PoolState, Change] | None = None
        """The state before the latest change, and that change, until it is delivered."""
        self._clock = clock
        self._observer = observer
        self._guard = threading.Lock()
        self._line: tuple[Waiter, ...] = ()
        """The waiting calls, in the order of arrival."""
        self._abandoned: deque[Waiter] = deque()
        """Calls that the garbage collector found: settled when the guard is free."""
        self._owners: dict[Waiter, _Owner] = {}
        self._orphaned: deque[_Owner] = deque()
        """The same, for calls that had an owner."""
        self._closed = False

    @property
    def state(self) -> PoolState:
        return self._state

    def choose(self, call: Call, waiter: Waiter) -> Slot | Wait | Exhausted:
        """Choose for `call`; if it must wait, it has its place in the line from now on."""
        now, moment = self._clock.now(), self._clock.elapsed()
        timely = call
        if waiter.limit is not None:
            timely = waiter.timely(call, now, now, moment)
        elif call.deadline is not None:
            waiter.limit = moment + (call.deadline - now).total_seconds()

        def change(state: PoolState) -> Change:
            if self._closed:
                raise ClosedError
            if waiter.cancelled:
                raise CallCancelledError
            served = self._serve(state, now)
            state, choice = choose(served.state, self.strategy, now, timely)
            line = served.line
            if isinstance(choice, Wait):
                waiter.parker = waiter.parker or Parker()
                waiter.waiting = Waiting(call, moment, choice.until)
                waiter.wakes_at = moment + (choice.until - now).total_seconds()
                line = (*line, waiter)
            return Change(state, line, (*served.decisions, (waiter, choice)))

        self._apply(change)
        return waiter.decided()

    def begin_sleep(self, sleep: Sleep, waiter: Waiter) -> Nap:
        """Begin a wait: the thread sleeps as long as the nap says, unless it is woken."""
        moment = self._clock.elapsed()
        waiter.waiting = Waiting(sleep.call, moment, sleep.wait.until)
        return Nap(min(max(0.0, waiter.wakes_at - moment), LONGEST_SLEEP), moment)

    def end_sleep(self, sleep: Sleep, waiter: Waiter, nap: Nap, *, woken: bool) -> Slept:
        """End a wait: the thread was `woken`, or it slept for the whole nap."""
        if not woken:
            # So it is over, even if the clock stands still or was set back meanwhile.
            now = max(self._clock.now(), sleep.wait.until)
            self._apply(lambda state: self._serve(state, now, late=waiter))
        waited = timedelta(seconds=self._clock.elapsed() - nap.since)
        return Slept(waited, waiter.decided())

    def record(self, outcome: Outcome) -> None:
        """Fold an outcome into the state, and let the waiting calls choose again."""
        now = self._clock.now()
        self._apply(lambda state: self._serve(update(state, outcome, now), now))

    def adopt(
        self, strategy: Strategy, migrate_state: Callable[[PoolState], PoolState]
    ) -> None:
        """Continue with another mode, and the state that `migrate_state` makes of this one."""
        now = self._clock.now()

        def change(state: PoolState) -> Change:
            self.strategy = strategy
            return self._serve(migrate_state(state), now)

        self._apply(change)

    def settle(self, waiter: Waiter) -> None:
        """Take out a call that is over, however it ended: it keeps no place and no slot."""
        if self._owners:
            self._owners.pop(waiter, None)
        if self._undelivered is None and waiter.slot is None and waiter.parker is None:
            # It was never in the line, so no other thread can have given it anything.
            return
        with self._guard:
            # What an interrupt left undelivered may hold a slot for this very call.
            self._deliver()
            self._take_out(waiter)
        self._sweep()

    def own(self, owner: object, waiter: Waiter) -> None:
        """Give a call an owner: when that is forgotten, the next change settles the call.

        No interrupt can prevent it, as it can a `__del__`: only C code is involved.
        """
        reference = _Owner(owner, self._orphaned.append)
        reference.waiter = waiter
        self._owners[waiter] = reference

    def abandon(self, waiter: Waiter) -> None:
        """Settle a call that is no longer referenced; safe in the garbage collector.

        That may run in the thread which holds the guard; then the release does the work.
        """
        self._abandoned.append(waiter)
        self._sweep()

    def cancel(self, waiter: Waiter) -> None:
        """End the wait of this call, now or as soon as it would begin one."""
        waiter.cancelled = True

        def change(state: PoolState) -> Change:
            if waiter not in self._line:
                return Change(state, self._line)
            served = self._serve(state, self._clock.now(), leaving=waiter)
            decisions = (*served.decisions, (waiter, CallCancelledError()))
            return Change(served.state, served.line, decisions)

        self._apply(change)

    def close(self) -> None:
        """End every wait; every later call is refused."""
        self._closed = True

        def change(state: PoolState) -> Change:
            # One error for each: several threads which raise the same mix up its traceback.
            decisions = tuple((waiter, ClosedError()) for waiter in self._line)
            return Change(state, (), decisions)

        self._apply(change)

    def after_fork(self) -> None:
        """In a forked child: the calls under way are the parent's, so end them here.

        A thread of the parent may have held the lock at that moment.
        """
        self._guard = threading.Lock()
        self._line = ()
        self._abandoned.clear()
        self._owners.clear()
        self._orphaned.clear()
        self._undelivered = None
        for candidate in self.state.candidates:
            for attempt in candidate.health.under_way:
                alias = candidate.endpoint.alias
                self.record(Cancelled(alias, attempt, CancelReason.FORKED))

    def _apply(self, change: Callable[[PoolState], Change]) -> None:
        with self._guard:
            self._deliver()
            self._store(change)
            self._deliver()
        self._sweep()

    def _store(self, change: Callable[[PoolState], Change]) -> None:
        """Make one change of the pool, with the guard held. Every change passes through here."""
        before = self._state
        made = change(before)
        # No call stands between the two stores, and CPython looks for signals at calls and
        # loops only: an interrupt cannot leave an attempt begun and its call unaware of it.
        self._state, self._undelivered = made.state, (before, made)

    def _deliver(self) -> None:
        if self._undelivered is not None:
            before, made = self._undelivered
            if self._observer is not None:
                self._observer(before, made)
            self._line = made.line
            for waiter, decision in made.decisions:
                waiter.receive(decision)
            self._undelivered = None

    def _serve(
        self,
        state: PoolState,
        now: datetime,
        *,
        late: Waiter | None = None,
        leaving: Waiter | None = None,
    ) -> Change:
        """Let the waiting calls choose again. The `late` one hears the decision in any case."""
        if not self._line:
            return Change(state)
        line = [waiter for waiter in self._line if waiter is not leaving]
        moment = self._clock.elapsed()
        # For the late one, `now` may be a time which this clock has not reached.
        wall = now if late is None else self._clock.now()
        waits = [waiter.waiting for waiter in line]
        calls = [
            waiter.timely(waiting.call, now, wall, moment, waiting.duration(moment))
            for waiter, waiting in zip(line, waits, strict=True)
        ]
        state, choices = choose_all(state, self.strategy, now, calls)
        still: list[Waiter] = []
        decisions: list[tuple[Waiter, Decision]] = []
        for waiter, waiting, choice in zip(line, waits, choices, strict=True):
            if isinstance(choice, Wait):
                still.append(waiter)
                if choice.until > waiting.until - A_MOMENT and waiter is not late:
                    continue
                waiter.wakes_at = moment + (choice.until - now).total_seconds()
            decisions.append((waiter, choice))
        return Change(state, tuple(still), tuple(decisions))

    def _sweep(self) -> None:
        # A thread which finds the guard taken leaves the rest to its holder, which looks
        # again after releasing it.
        while (self._abandoned or self._orphaned) and not self._guard.locked():
            with self._guard:
                self._deliver()
                while self._orphaned:
                    self._abandoned.append(self._orphaned[0].waiter)
                    self._orphaned.popleft()
                while self._abandoned:
                    # Removed only when it is done, in case an interrupt comes between.
                    waiter = self._abandoned[0]
                    self._take_out(waiter)
                    self._owners.pop(waiter, None)
                    self._abandoned.popleft()

    def _take_out(self, waiter: Waiter) -> None:
        """Take a call out, with the guard held."""

        def change(state: PoolState) -> Change:
            now = self._clock.now()
            if waiter.slot is not None:
                alias = waiter.slot.endpoint.alias
                state = update(state, Cancelled(alias, waiter.slot.attempt), now)
            return self._serve(state, now, leaving=waiter)

        if waiter.slot is not None or waiter in self._line:
            self._store(change)
            self._deliver()
            waiter.slot = None
