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

from muxcore.core.calling import Granted, Pause, Woken, choose, serve
from muxcore.core.outcomes import Cancelled, Outcome
from muxcore.core.records import Call, Exhausted, PoolState, Wait
from muxcore.core.strategy import Strategy
from muxcore.core.updating import update
from muxcore.errors import MultiplexerError
from muxcore.shell import clock
from muxcore.shell.bell import Bell
from muxcore.shell.store import MemoryStore, Store

A_MOMENT = timedelta(milliseconds=1)
"""By how much two readings of the clocks may differ that were meant as one."""

LONGEST_SLEEP = 1_000_000.0
"""Seconds; a thread cannot be told to sleep for much longer."""

NOT_AT_ALL = timedelta()

News: TypeAlias = Granted | Wait | Exhausted | MultiplexerError


class Ticket:
    """One call's place in the pool: what it was told last, and the slot it holds."""

    __slots__ = ("bell", "cancelled", "granted", "limit", "news", "waiting", "wakes_at")

    def __init__(self) -> None:
        self.news: News | None = None
        self.granted: Granted | None = None
        """The attempt whose slot it holds, until its end is recorded."""
        self.cancelled = False
        self.waiting: _Waiting | None = None
        self.bell: Bell | None = None
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

    def take(self, news: News) -> None:
        self.news = news
        if isinstance(news, Granted):
            self.granted = news
        if self.bell is not None:
            self.bell.ring()


class _Owner(weakref.ref[object]):
    """Whoever holds a call's slot, and the call, should it be forgotten."""

    __slots__ = ("ticket",)
    ticket: Ticket


@frozen
class _Waiting:
    """What a call in the line waits for; `since` is on the clock that only runs forward."""

    call: Call
    since: float
    until: datetime

    def length(self, moment: float) -> timedelta:
        return timedelta(seconds=moment - self.since)


@frozen
class _Turn:
    """The line after a change, and the news that the change brought."""

    line: tuple[Ticket, ...]
    news: tuple[tuple[Ticket, News], ...] = ()


class Pool:
    """The state of a pool, shared by threads."""

    def __init__(
        self, state: PoolState, strategy: Strategy, store: Store | None = None
    ) -> None:
        self.strategy = strategy
        self.result: object = None
        self._store = store or MemoryStore(state)
        self._guard = threading.Lock()
        self._line: tuple[Ticket, ...] = ()
        """The calls that wait, in the order of arrival."""
        self._abandoned: deque[Ticket] = deque()
        """Calls that the garbage collector found: settled when the guard is free."""
        self._owners: dict[Ticket, _Owner] = {}
        self._orphaned: deque[_Owner] = deque()
        """The same, for calls that were owned."""
        self._closed = False

    @property
    def state(self) -> PoolState:
        return self._store.state

    def choose(self, call: Call, ticket: Ticket) -> Granted | Wait | Exhausted:
        """Choose for `call`; if it must wait, it has its place in the line from now on."""
        now, moment = clock.now(), clock.elapsed()
        timely = call
        if ticket.limit is not None:
            timely = ticket.timely(call, now, now, moment)
        elif call.deadline is not None:
            ticket.limit = moment + (call.deadline - now).total_seconds()

        def change(state: PoolState) -> tuple[PoolState, _Turn]:
            if self._closed:
                raise MultiplexerError("closed")
            if ticket.cancelled:
                raise MultiplexerError("cancelled")
            state, turn = self._serve(state, now)
            state, choice = choose(state, self.strategy, now, timely)
            line = turn.line
            if isinstance(choice, Wait):
                ticket.bell = ticket.bell or Bell()
                ticket.waiting = _Waiting(call, moment, choice.until)
                ticket.wakes_at = moment + (choice.until - now).total_seconds()
                line = (*line, ticket)
            return state, _Turn(line, (*turn.news, (ticket, choice)))

        self._change(change)
        return _told(ticket)

    def pause(self, pause: Pause, ticket: Ticket) -> Woken:
        """Sleep until this call is served, or its time has come."""
        seconds = self.fall_asleep(pause, ticket)
        bell = ticket.bell
        assert bell is not None  # noqa: S101 - `choose` made it, with the place in the line
        return self.wake_up(pause, ticket, called=bell.wait(seconds))

    def fall_asleep(self, pause: Pause, ticket: Ticket) -> float:
        """Begin a pause; return for how many seconds to sleep, unless the bell rings."""
        moment = clock.elapsed()
        ticket.waiting = _Waiting(pause.call, moment, pause.wait.until)
        return min(max(0.0, ticket.wakes_at - moment), LONGEST_SLEEP)

    def wake_up(self, pause: Pause, ticket: Ticket, *, called: bool) -> Woken:
        """End a pause: the bell has `called`, or the sleep ran its full length."""
        waiting, bell = ticket.waiting, ticket.bell
        assert waiting is not None  # noqa: S101 - `fall_asleep` made it
        assert bell is not None  # noqa: S101
        if not called:
            # So it is over, even if the clock stands still or was set back meanwhile.
            now = max(clock.now(), pause.wait.until)
            self._change(lambda state: self._serve(state, now, late=ticket))
            # That rang: the news is read right here.
            bell.wait(0.0)
        return Woken(timedelta(seconds=clock.elapsed() - waiting.since), _told(ticket))

    def record(self, outcome: Outcome) -> None:
        """Fold an outcome in, and serve the line."""
        now = clock.now()
        self._change(lambda state: self._serve(update(state, outcome, now), now))

    def adopt(self, strategy: Strategy, carry: Callable[[PoolState], PoolState]) -> None:
        """Go on with another mode and the state that `carry` makes of this one."""
        now = clock.now()

        def change(state: PoolState) -> tuple[PoolState, _Turn]:
            self.strategy = strategy
            return self._serve(carry(state), now)

        self._change(change)

    def settle(self, ticket: Ticket, why: str = "") -> None:
        """Take a call out that is over, however it ended: it keeps no place and no slot."""
        if self._owners:
            self._owners.pop(ticket, None)
        if self.result is None and ticket.granted is None and ticket.bell is None:
            # It was never in the line, so nobody else can have given it anything.
            return
        with self._guard:
            # What an interrupt left undelivered may hold a slot for this very ticket.
            self._deliver()
            self._take_out(ticket, why)
        self._sweep()

    def own(self, owner: object, ticket: Ticket) -> None:
        """Give a call an owner: when that is forgotten, the next change settles the call.

        No interrupt can prevent it, as it can a `__del__`: all that happens is C's.
        """
        reference = _Owner(owner, self._orphaned.append)
        reference.ticket = ticket
        self._owners[ticket] = reference

    def abandon(self, ticket: Ticket) -> None:
        """Settle a call that nobody holds any more; safe in the garbage collector.

        That may run in a thread which holds the guard; then this is done on its release.
        """
        self._abandoned.append(ticket)
        self._sweep()

    def cancel(self, ticket: Ticket) -> None:
        """End the wait of this call, now or as soon as it would begin one."""
        ticket.cancelled = True
        cancelled = MultiplexerError("cancelled")

        def change(state: PoolState) -> tuple[PoolState, _Turn]:
            if ticket not in self._line:
                return state, _Turn(self._line)
            state, turn = self._serve(state, clock.now(), leaving=ticket)
            return state, _Turn(turn.line, (*turn.news, (ticket, cancelled)))

        self._change(change)

    def close(self) -> None:
        """End every wait; every later call is refused."""
        self._closed = True

        def change(state: PoolState) -> tuple[PoolState, _Turn]:
            # An error for each: one that several threads raise mixes up their tracebacks.
            news = tuple((ticket, MultiplexerError("closed")) for ticket in self._line)
            return state, _Turn((), news)

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
                self.record(Cancelled(candidate.endpoint.alias, attempt, "forked"))

    def _serve(
        self,
        state: PoolState,
        now: datetime,
        *,
        late: Ticket | None = None,
        leaving: Ticket | None = None,
    ) -> tuple[PoolState, _Turn]:
        """Let the waiting calls choose anew, the `late` one to be told in any case."""
        if not self._line:
            return state, _Turn(())
        line = [ticket for ticket in self._line if ticket is not leaving]
        moment = clock.elapsed()
        # Who is late may be told at a moment that this clock has not reached, or again.
        wall = now if late is None else clock.now()
        waits = [ticket.waiting for ticket in line]
        calls = [
            ticket.timely(waiting.call, now, wall, moment, waiting.length(moment))
            for ticket, waiting in zip(line, waits, strict=True)
            if waiting is not None
        ]
        state, choices = serve(state, self.strategy, now, calls)
        still: list[Ticket] = []
        news: list[tuple[Ticket, News]] = []
        for ticket, waiting, choice in zip(line, waits, choices, strict=True):
            if isinstance(choice, Wait):
                still.append(ticket)
                if (
                    waiting is not None
                    and choice.until > waiting.until - A_MOMENT
                    and ticket is not late
                ):
                    continue
                ticket.wakes_at = moment + (choice.until - now).total_seconds()
            news.append((ticket, choice))
        return state, _Turn(tuple(still), tuple(news))

    def _change(self, change: Callable[[PoolState], tuple[PoolState, _Turn]]) -> None:
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
                    self._abandoned.append(self._orphaned[0].ticket)
                    self._orphaned.popleft()
                while self._abandoned:
                    # Forgotten only when it is done, should an interrupt come between.
                    ticket = self._abandoned[0]
                    self._take_out(ticket, "abandoned")
                    self._owners.pop(ticket, None)
                    self._abandoned.popleft()

    def _take_out(self, ticket: Ticket, why: str) -> None:
        """Take a call out, with the guard held."""

        def change(state: PoolState) -> tuple[PoolState, _Turn]:
            now = clock.now()
            if ticket.granted is not None:
                alias = ticket.granted.endpoint.alias
                state = update(state, Cancelled(alias, ticket.granted.attempt, why), now)
            return self._serve(state, now, leaving=ticket)

        if ticket.granted is not None or ticket in self._line:
            self._store.transact(change, into=self)
            self._deliver()
            ticket.granted = None

    def _deliver(self) -> None:
        turn = self.result
        if isinstance(turn, _Turn):
            self._line = turn.line
            for ticket, news in turn.news:
                ticket.take(news)
            self.result = None


def _told(ticket: Ticket) -> Granted | Wait | Exhausted:
    if ticket.bell is not None:
        # Whatever it rang for so far is read right here.
        ticket.bell.wait(0.0)
    news = ticket.news
    if isinstance(news, MultiplexerError):
        raise news
    assert news is not None  # noqa: S101 - told by the change that has just been made
    return news
