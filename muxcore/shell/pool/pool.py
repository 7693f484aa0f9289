"""The state of a pool, shared by threads, and the line of calls that wait for a slot.

The core decides. This module calls it, one change at a time, and wakes the calls that got a
decision. It does no I/O. After every change, the waiting calls choose again in the order of
their arrival, before any new call, so none is overtaken. A waiting call sleeps until it gets a
decision or its wait is over: nothing polls.

Each change is made of entries, and the state is their fold: the pool writes its own journal.
The clock is read with the guard held, so the entries of all threads are in the order of `now`.

A KeyboardInterrupt may come between any two function calls. So every change passes through
`Pool._store` and is made in three steps: it is computed, stored together with its decisions,
and delivered. If an interrupt prevents the delivery, the next change delivers; the interrupted
call makes one when it settles. For the same reason all locks are implemented in C, and used
only in `with` statements (see `parker`).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeAlias

from attrs import frozen

from muxcore.core.entries import Asked, CallResult, Chosen, Configured, Ended, Entry
from muxcore.core.outcomes import Cancelled, CancelReason, Started
from muxcore.core.protocol import Sleep, Slept, Slot, choose, choose_all
from muxcore.core.records import Call, Exhausted, PoolState, Wait
from muxcore.core.strategy import Strategy
from muxcore.core.updating import update
from muxcore.errors import CallCancelledError, ClosedError, StrategyError
from muxcore.journal.recent import Checkpoint, Journal, RecentEntries
from muxcore.shell import clock as system_clock
from muxcore.shell.clock import LONGEST_SLEEP, Clock
from muxcore.shell.pool.parker import Parker
from muxcore.shell.pool.waiter import A_MOMENT, Decision, Waiter, Waiting

A_SECOND = timedelta(seconds=1)
"""A clock that goes back by less is being adjusted, not set."""

NEVER = datetime.min.replace(tzinfo=UTC)


class Change(NamedTuple):
    """One change of the pool: its new state and line, and the decisions that it brings.

    `entries` are those that the state is folded from, all at `now`. A tuple is made in half
    the time of a frozen record, and each call makes three.
    """

    state: PoolState
    now: datetime
    line: tuple[Waiter, ...] = ()
    decisions: tuple[tuple[Waiter, Decision], ...] = ()
    entries: tuple[Entry, ...] = ()


MakeChange: TypeAlias = Callable[[PoolState, datetime], Change]
"""Computes a change of the present state, with the guard held."""
ChangeListener: TypeAlias = Callable[[PoolState, Change], None]
"""Gets the state before each change, and the change, before any call gets its decision."""


@frozen
class Nap:
    """A wait as a thread sleeps it: at most `seconds`, begun at `since`."""

    seconds: float
    since: float


class _Owner(weakref.ref[object]):
    """A reference to the object that owns a call; its callback runs when that is collected."""

    __slots__ = ("waiter",)
    waiter: Waiter


class Pool:
    """The state of a pool, its lock and its line of waiters. Shared by threads."""

    def __init__(
        self,
        state: PoolState,
        strategy: Strategy,
        *,
        mode: str = "",
        options: object = None,
        clock: Clock = system_clock,
        observer: ChangeListener | None = None,
    ) -> None:
        self.strategy = strategy
        self.mode = mode
        """The name of the strategy in the config."""
        self.options = options
        """The table of its own options."""
        self.journal = RecentEntries()
        self.acquire: Callable[[Call], None] | None = None
        """Asks the board for what a call lacks before it chooses, where there is a board."""
        self._state = state
        self._undelivered: tuple[PoolState, Change, int] | None = None
        """The state before the latest change, that change, and the number of its first entry,
        until it is delivered."""
        self._next_entry = 1
        self._latest = NEVER
        """The moment of the last entry."""
        self._calls = 0
        self._prefix = os.urandom(4).hex()
        """Of the ids of its calls."""
        self._clock = clock
        self.observer = observer
        self._guard = threading.Lock()
        self._line: tuple[Waiter, ...] = ()
        """The waiting calls, in the order of arrival."""
        self._abandoned: deque[Waiter] = deque()
        """Calls that the garbage collector found, to be settled when the guard is free."""
        self._owners: dict[Waiter, _Owner] = {}
        self._orphaned: deque[_Owner] = deque()
        """The same, for calls that had an owner."""
        self._closed = False

    @property
    def state(self) -> PoolState:
        return self._state

    def waiting_calls(self) -> tuple[Call, ...]:
        """Return the calls in the line, in the order of arrival."""
        return tuple(waiter.waiting.call for waiter in self._line)

    def choose(self, call: Call, waiter: Waiter) -> Slot | Wait | Exhausted:
        """Choose an endpoint for `call`. A call that must wait joins the line."""
        if self.acquire is not None:
            self.acquire(call)
        moment, wall = self._clock.elapsed(), self._clock.now()

        def change(state: PoolState, now: datetime) -> Change:
            if self._closed:
                raise ClosedError
            if waiter.cancelled:
                raise CallCancelledError
            if waiter.limit is None and call.deadline is not None:
                waiter.limit = moment + (call.deadline - wall).total_seconds()
            timely = waiter.timely(call, now, wall, moment)
            served = self._serve(state, now)
            asked = None
            if waiter.number is None:
                self._calls += 1
                waiter.number = self._calls
                waiter.id = f"{self._prefix}-{self._calls}"
                asked = Asked(self._calls, timely, self.mode, waiter.id)
            choice: Slot | Wait | Exhausted | StrategyError
            try:
                state, choice = choose(served.state, self.strategy, now, timely)
            except StrategyError as error:
                state, choice = served.state, error
            entries = _entries_of(choice, waiter, timely, asked)
            line = served.line
            if isinstance(choice, Wait):
                waiter.parker = waiter.parker or Parker()
                waiter.waiting = Waiting(call, moment, choice.until)
                waiter.wakes_at = moment + (choice.until - now).total_seconds()
                line = (*line, waiter)
            decisions = (*served.decisions, (waiter, choice))
            return Change(state, now, line, decisions, (*served.entries, *entries))

        self._apply(change)
        return waiter.decided()

    def begin_sleep(self, sleep: Sleep, waiter: Waiter) -> Nap:
        """Begin a wait. The thread then sleeps for the nap, or until it is woken."""
        moment = self._clock.elapsed()
        waiter.waiting = Waiting(sleep.call, moment, sleep.wait.until)
        return Nap(min(max(0.0, waiter.wakes_at - moment), LONGEST_SLEEP), moment)

    def end_sleep(self, sleep: Sleep, waiter: Waiter, nap: Nap, *, woken: bool) -> Slept:
        """End a wait. The thread was `woken`, or it slept for the whole nap."""
        if not woken:
            # The wait is over, even if the wall clock stands still or was set back.
            until = sleep.wait.until
            self._apply(lambda state, now: self._serve(state, max(now, until), late=waiter))
        waited = timedelta(seconds=self._clock.elapsed() - nap.since)
        return Slept(waited, waiter.decided())

    def record(self, entry: Entry) -> None:
        """Fold an entry into the state, and let the waiting calls choose again."""
        self._apply(
            lambda state, now: self._serve(update(state, entry, now), now, entries=(entry,))
        )

    def checkpoint(self) -> Checkpoint:
        """Return the state and the number of its last entry."""
        with self._guard:
            self._deliver()
            return Checkpoint(self._next_entry - 1, self._state, self.mode, self.options)

    def recorded(self) -> Journal | None:
        """Return the newest entries of the journal; None before the first."""
        return self.journal.journal(self.mode, self.options)

    def adopt(self, strategy: Strategy, configured: Configured) -> None:
        """Continue with another config and its mode."""

        def change(state: PoolState, now: datetime) -> Change:
            self.strategy = strategy
            self.mode, self.options = configured.mode, configured.options
            return self._serve(update(state, configured, now), now, entries=(configured,))

        self._apply(change)

    def settle(self, waiter: Waiter) -> None:
        """Remove a call that is over. It gives back its slot and its place in the line."""
        if self._owners:
            self._owners.pop(waiter, None)
        if waiter.number is None and self._undelivered is None:
            # It has never asked for an endpoint, so it holds nothing.
            return
        with self._guard:
            # An undelivered change may hold a slot for this call.
            self._deliver()
            self._remove(waiter)
        self._sweep()

    def own(self, owner: object, waiter: Waiter) -> None:
        """Give a call an owner. After that is collected, the next change settles the call.

        Only C code is involved, so no interrupt can prevent it, as it could in a `__del__`.
        """
        reference = _Owner(owner, self._orphaned.append)
        reference.waiter = waiter
        self._owners[waiter] = reference

    def abandon(self, waiter: Waiter) -> None:
        """Settle a call that is no longer referenced. Safe in the garbage collector.

        That may run in the thread which holds the guard; then that thread settles the call
        after it has released the guard.
        """
        self._abandoned.append(waiter)
        self._sweep()

    def cancel(self, waiter: Waiter) -> None:
        """Cancel this call: its wait, or the next choice that it asks for."""
        waiter.cancelled = True

        def change(state: PoolState, now: datetime) -> Change:
            served = self._serve(state, now, leaving=waiter)
            if waiter not in self._line:
                return served
            decisions = (*served.decisions, (waiter, CallCancelledError()))
            return served._replace(decisions=decisions)

        self._apply(change)

    def close(self) -> None:
        """End every wait, and refuse every later call."""
        self._closed = True

        def change(state: PoolState, now: datetime) -> Change:
            # One error each: threads that raise the same one would mix up its traceback.
            decisions = tuple((waiter, ClosedError()) for waiter in self._line)
            return Change(state, now, (), decisions)

        self._apply(change)

    def after_fork(self) -> None:
        """Run in a forked child: the calls under way are the parent's, so end them here.

        The locks are new, as a thread of the parent may have held the old ones.
        """
        self._guard = threading.Lock()
        self._prefix = os.urandom(4).hex()
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
        """Make one change of the pool, with the guard held. All changes pass through here."""
        before, number = self._state, self._next_entry
        made = change(before, self._now())
        latest = made.now if made.entries else self._latest
        following = number + len(made.entries)
        # CPython handles signals only at calls and loops, and there is none between these two
        # stores. So no interrupt can leave an attempt without the decision for its call.
        self._state, self._undelivered = made.state, (before, made, number)
        self._latest, self._next_entry = latest, following

    def _now(self) -> datetime:
        """Read the clock. It counts as running backwards only by a second or more."""
        now, latest = self._clock.now(), self._latest
        return latest if now < latest and latest - now < A_SECOND else now

    def _deliver(self) -> None:
        if self._undelivered is not None:
            before, made, number = self._undelivered
            if self.observer is not None:
                self.observer(before, made)
            if made.entries:
                self.journal.extend(number, made.now, made.entries, before)
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
        """Let the waiting calls choose again in this state, which `entries` lead to.

        The `late` waiter gets its decision even if that has not changed.
        """
        if not self._line:
            return Change(state, now, (), (), entries)
        line = [waiter for waiter in self._line if waiter is not leaving]
        # `now` may lie ahead of the clock: for a late waiter, and where that was set back a little.
        moment, wall = self._clock.elapsed(), self._clock.now()
        waits = [waiter.waiting for waiter in line]
        calls = [
            waiter.timely(waiting.call, now, wall, moment, waiting.duration(moment))
            for waiter, waiting in zip(line, waits, strict=True)
        ]
        state, choices = choose_all(state, self.strategy, now, calls)
        still: list[Waiter] = []
        decisions: list[tuple[Waiter, Decision]] = []
        begun: list[Entry] = []
        for waiter, waiting, call, choice in zip(line, waits, calls, choices, strict=True):
            if isinstance(choice, Wait):
                still.append(waiter)
                if choice.until > waiting.until - A_MOMENT and waiter is not late:
                    continue
                waiter.wakes_at = moment + (choice.until - now).total_seconds()
            begun += _entries_of(choice, waiter, call)
            decisions.append((waiter, choice))
        return Change(state, now, tuple(still), tuple(decisions), (*entries, *begun))

    def _sweep(self) -> None:
        # If the guard is taken, its holder does the rest: it sweeps after releasing it.
        while (self._abandoned or self._orphaned) and not self._guard.locked():
            with self._guard:
                self._deliver()
                while self._orphaned:
                    self._abandoned.append(self._orphaned[0].waiter)
                    self._orphaned.popleft()
                while self._abandoned:
                    # Popped only afterwards, in case of an interrupt.
                    waiter = self._abandoned[0]
                    self._remove(waiter)
                    self._owners.pop(waiter, None)
                    self._abandoned.popleft()

    def _remove(self, waiter: Waiter) -> None:
        """Remove a call, with the guard held."""

        def change(state: PoolState, now: datetime) -> Change:
            entries: tuple[Entry, ...] = ()
            if waiter.slot is not None:
                alias = waiter.slot.endpoint.alias
                cancelled = Cancelled(alias, waiter.slot.attempt)
                state, entries = update(state, cancelled, now), (cancelled,)
            if waiter.number is not None:
                # A caller that leaves a stream has not been served.
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


def _entries_of(
    choice: Slot | Wait | Exhausted | StrategyError,
    waiter: Waiter,
    call: Call,
    asked: Asked | None = None,
) -> tuple[Entry, ...]:
    """Return the entries of a choice for this call. `asked` begins it."""
    number = waiter.number or 0
    if isinstance(choice, Slot):
        alias, memory = choice.endpoint.alias, choice.memory
        begun = Started(alias, memory, number, choice.demand, choice.reason)
        return asked or Chosen(number, call), begun
    first = () if asked is None else (asked,)
    if isinstance(choice, StrategyError):
        return first
    return (*first, Chosen(number, call, choice))
