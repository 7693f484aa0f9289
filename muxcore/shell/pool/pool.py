"""A pool's state, shared by threads, and the calls that wait for a slot.

The core decides; this module says when it is asked, and wakes the calls that it decided for.
Whenever anything changes, the waiting calls choose again in the order of their arrival,
before any new call does, so none is overtaken. A waiting call sleeps until it is served or
its wait is over: nothing polls.

Each change is made of entries, and the state is their fold: the pool writes its own journal.
The clock is read with the guard held, so the entries of all threads are in the order of `now`.

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
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from attrs import evolve, frozen

from muxcore.core.entries import Asked, CallResult, Configured, Ended, Entry
from muxcore.core.outcomes import Cancelled, CancelReason, Started
from muxcore.core.protocol import Sleep, Slept, Slot, choose, choose_all
from muxcore.core.records import Call, Exhausted, PoolState, Wait
from muxcore.core.strategy import Strategy
from muxcore.core.updating import update
from muxcore.errors import CallCancelledError, ClosedError
from muxcore.journal.recent import RecentEntries
from muxcore.shell import clock as system_clock
from muxcore.shell.clock import LONGEST_SLEEP, Clock
from muxcore.shell.pool.parker import Parker
from muxcore.shell.pool.waiter import Decision, Waiter, Waiting

A_MOMENT = timedelta(milliseconds=1)
"""By how much two readings of the clocks may differ that mean the same time."""

A_SECOND = timedelta(seconds=1)
"""A clock that runs backwards by less than this is a clock that is being adjusted."""

NEVER = datetime.min.replace(tzinfo=UTC)


@frozen
class Change:
    """One change of the pool: its new state and line, and the decisions that it brings.

    `entries` are those that the state is folded from, all at `now`.
    """

    state: PoolState
    now: datetime
    line: tuple[Waiter, ...] = ()
    decisions: tuple[tuple[Waiter, Decision], ...] = ()
    entries: tuple[Entry, ...] = ()


MakeChange: TypeAlias = Callable[[PoolState, datetime], Change]
"""Works out a change of the present state, at a moment. The guard is held."""
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
        mode: str = "",
        clock: Clock = system_clock,
        observer: Observer | None = None,
    ) -> None:
        self.strategy = strategy
        self.mode = mode
        """What the config calls the strategy."""
        self.journal = RecentEntries()
        self._state = state
        self._undelivered: tuple[PoolState, Change, int] | None = None
        """The state before the latest change, that change, and the number of the first of its
        entries, until it is delivered."""
        self._next_entry = 1
        self._latest = NEVER
        """The moment of the last entry."""
        self._calls = 0
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
        moment = self._clock.elapsed()
        limit = waiter.limit

        def change(state: PoolState, now: datetime) -> Change:
            if self._closed:
                raise ClosedError
            if waiter.cancelled:
                raise CallCancelledError
            timely = call
            if limit is not None:
                timely = waiter.timely(call, now, now, moment)
            elif call.deadline is not None:
                waiter.limit = moment + (call.deadline - now).total_seconds()
            served = self._serve(state, now)
            entries = served.entries
            if waiter.number is None:
                self._calls += 1
                waiter.number = self._calls
                entries = (*entries, Asked(self._calls, call, waiter.tokens, self.mode))
            state, choice = choose(served.state, self.strategy, now, timely)
            line = served.line
            if isinstance(choice, Wait):
                waiter.parker = waiter.parker or Parker()
                waiter.waiting = Waiting(call, moment, choice.until)
                waiter.wakes_at = moment + (choice.until - now).total_seconds()
                line = (*line, waiter)
            elif isinstance(choice, Slot):
                entries = (*entries, _started(choice, waiter))
            return Change(state, now, line, (*served.decisions, (waiter, choice)), entries)

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
            until = sleep.wait.until
            self._apply(lambda state, now: self._serve(state, max(now, until), late=waiter))
        waited = timedelta(seconds=self._clock.elapsed() - nap.since)
        return Slept(waited, waiter.decided())

    def record(self, entry: Entry) -> None:
        """Fold an entry into the state, and let the waiting calls choose again."""
        self._apply(
            lambda state, now: self._serve(update(state, entry, now), now, entries=(entry,))
        )

    def adopt(self, strategy: Strategy, configured: Configured, mode: str = "") -> None:
        """Continue with another config, and the mode that it names."""

        def change(state: PoolState, now: datetime) -> Change:
            self.strategy, self.mode = strategy, mode
            return self._serve(update(state, configured, now), now, entries=(configured,))

        self._apply(change)

    def settle(self, waiter: Waiter) -> None:
        """Take out a call that is over, however it ended: it keeps no place and no slot."""
        if self._owners:
            self._owners.pop(waiter, None)
        if waiter.number is None and self._undelivered is None:
            # It has never chosen, so it holds nothing.
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

        def change(state: PoolState, now: datetime) -> Change:
            if waiter not in self._line:
                return Change(state, now, self._line)
            served = self._serve(state, now, leaving=waiter)
            decisions = (*served.decisions, (waiter, CallCancelledError()))
            return evolve(served, decisions=decisions)

        self._apply(change)

    def close(self) -> None:
        """End every wait; every later call is refused."""
        self._closed = True

        def change(state: PoolState, now: datetime) -> Change:
            # One error for each: several threads which raise the same mix up its traceback.
            decisions = tuple((waiter, ClosedError()) for waiter in self._line)
            return Change(state, now, (), decisions)

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

    def _apply(self, change: MakeChange) -> None:
        with self._guard:
            self._deliver()
            self._store(change)
            self._deliver()
        self._sweep()

    def _store(self, change: MakeChange) -> None:
        """Make one change of the pool, with the guard held. Every change passes through here."""
        before, number = self._state, self._next_entry
        made = change(before, self._now())
        latest = made.now if made.entries else self._latest
        following = number + len(made.entries)
        # No call stands between the stores, and CPython looks for signals at calls and
        # loops only: an interrupt cannot leave an attempt begun and its call unaware of it.
        self._state, self._undelivered = made.state, (before, made, number)
        self._latest, self._next_entry = latest, following

    def _now(self) -> datetime:
        """Read the clock. A clock that is set back by a second or more is taken as it is."""
        now, latest = self._clock.now(), self._latest
        return latest if now < latest and latest - now < A_SECOND else now

    def _deliver(self) -> None:
        if self._undelivered is not None:
            before, made, number = self._undelivered
            if self._observer is not None:
                self._observer(before, made)
            if made.entries:
                self.journal.extend(number, made.now, made.entries)
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
        entries: tuple[Entry, ...] = (),
    ) -> Change:
        """Let the waiting calls choose again, after `entries` have made this state.

        The `late` one hears the decision in any case.
        """
        if not self._line:
            return Change(state, now, (), (), entries)
        line = [waiter for waiter in self._line if waiter is not leaving]
        moment = self._clock.elapsed()
        # For the late one, `now` may be a time which this clock has not reached.
        wall = now if late is None else self._now()
        waits = [waiter.waiting for waiter in line]
        calls = [
            waiter.timely(waiting.call, now, wall, moment, waiting.duration(moment))
            for waiter, waiting in zip(line, waits, strict=True)
        ]
        state, choices = choose_all(state, self.strategy, now, calls)
        still: list[Waiter] = []
        decisions: list[tuple[Waiter, Decision]] = []
        begun: list[Entry] = []
        for waiter, waiting, choice in zip(line, waits, choices, strict=True):
            if isinstance(choice, Wait):
                still.append(waiter)
                if choice.until > waiting.until - A_MOMENT and waiter is not late:
                    continue
                waiter.wakes_at = moment + (choice.until - now).total_seconds()
            elif isinstance(choice, Slot):
                begun.append(_started(choice, waiter))
            decisions.append((waiter, choice))
        return Change(state, now, tuple(still), tuple(decisions), (*entries, *begun))

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

        def change(state: PoolState, now: datetime) -> Change:
            entries: tuple[Entry, ...] = ()
            if waiter.slot is not None:
                alias = waiter.slot.endpoint.alias
                cancelled = Cancelled(alias, waiter.slot.attempt)
                state, entries = update(state, cancelled, now), (cancelled,)
            if waiter.number is not None:
                # What was served so far is of no use to a caller who leaves a stream.
                left = waiter.slot is not None
                result = CallResult.CANCELLED if left else waiter.result
                entries = (*entries, Ended(waiter.number, result))
            if not holds_place:
                return Change(state, now, self._line, (), entries)
            return self._serve(state, now, leaving=waiter, entries=entries)

        holds_place = waiter.slot is not None or waiter in self._line
        if holds_place or waiter.number is not None:
            self._store(change)
            self._deliver()
            waiter.slot = waiter.number = None


def _started(slot: Slot, waiter: Waiter) -> Started:
    return Started(slot.endpoint.alias, slot.memory, waiter.number, slot.demand)
