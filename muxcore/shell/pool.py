"""One pool's state, the clock, and the line of calls that wait for it.

What is chosen and learnt is the core's; this module says when it is asked, and whom it wakes.
Whenever anything changes, the waiting calls choose anew in the order of their arrival, before
any newcomer does, so nobody is overtaken. A waiter sleeps until it is served or its time has
come: nothing polls.

A KeyboardInterrupt may come between any two calls. So a change is made in three steps: worked
out, stored together with whom it concerns, and delivered; what an interrupt left undelivered
is delivered by the next change, which the interrupted call itself makes when it settles.
"""

from __future__ import annotations

import threading
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
from muxcore.shell.store import MemoryStore, Store

LONGEST_SLEEP = 1_000_000.0
"""Seconds; a thread cannot be told to sleep for much longer."""

News: TypeAlias = Granted | Wait | Exhausted | MultiplexerError


class Ticket:
    """One call's place in the pool: what it was told last, and the slot it holds."""

    __slots__ = ("cancelled", "granted", "news", "waiting", "woken")

    def __init__(self) -> None:
        self.news: News | None = None
        self.granted: Granted | None = None
        """The attempt whose slot it holds, until its end is recorded."""
        self.cancelled = False
        self.waiting: _Waiting | None = None
        self.woken: threading.Event | None = None

    def take(self, news: News) -> None:
        self.news = news
        if isinstance(news, Granted):
            self.granted = news
        if self.woken is not None:
            self.woken.set()


@frozen
class _Waiting:
    """What a call in the line waits for; `since` is on the clock that only runs forward."""

    call: Call
    since: float
    until: datetime

    def at(self, moment: float) -> Call:
        waited = timedelta(seconds=moment - self.since)
        return evolve(self.call, waited=self.call.waited + waited)


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
        self._closed = False

    @property
    def state(self) -> PoolState:
        return self._store.state

    def choose(self, call: Call, ticket: Ticket) -> Granted | Wait | Exhausted:
        """Choose for `call`; if it must wait, it has its place in the line from now on."""
        now = clock.now()

        def change(state: PoolState) -> tuple[PoolState, _Turn]:
            if self._closed:
                raise MultiplexerError("closed")
            if ticket.cancelled:
                raise MultiplexerError("cancelled")
            state, turn = self._serve(state, now)
            state, choice = choose(state, self.strategy, now, call)
            line = turn.line
            if isinstance(choice, Wait):
                ticket.woken = ticket.woken or threading.Event()
                ticket.waiting = _Waiting(call, clock.elapsed(), choice.until)
                line = (*line, ticket)
            return state, _Turn(line, (*turn.news, (ticket, choice)))

        self._change(change)
        return _told(ticket)

    def pause(self, pause: Pause, ticket: Ticket) -> Woken:
        """Sleep until this call is served, or its time has come."""
        until = pause.wait.until
        since = clock.elapsed()
        ticket.waiting = _Waiting(pause.call, since, until)
        woken = ticket.woken
        assert woken is not None  # noqa: S101 - `choose` made it, with the place in the line
        seconds = (until - clock.now()).total_seconds()
        if not woken.wait(min(max(0.0, seconds), LONGEST_SLEEP)):
            # It ran its full length, so it is over, even if the clock stands still or was
            # set back meanwhile.
            now = max(clock.now(), until)
            self._change(lambda state: self._serve(state, now, late=ticket))
        woken.clear()
        return Woken(timedelta(seconds=clock.elapsed() - since), _told(ticket))

    def record(self, outcome: Outcome) -> None:
        """Fold an outcome in, and serve the line."""
        now = clock.now()
        self._change(lambda state: self._serve(update(state, outcome, now), now))

    def adopt(
        self, strategy: Strategy, carry: Callable[[PoolState], PoolState]
    ) -> None:
        """Go on with another mode and the state that `carry` makes of this one."""
        now = clock.now()

        def change(state: PoolState) -> tuple[PoolState, _Turn]:
            self.strategy = strategy
            return self._serve(carry(state), now)

        self._change(change)

    def settle(self, ticket: Ticket, why: str = "") -> None:
        """Take a call out that is over, however it ended: it keeps no place and no slot."""

        def change(state: PoolState) -> tuple[PoolState, _Turn]:
            now = clock.now()
            if ticket.granted is not None:
                alias = ticket.granted.endpoint.alias
                state = update(state, Cancelled(alias, ticket.granted.attempt, why), now)
            return self._serve(state, now, leaving=ticket)

        if self.result is not None:
            # An interrupt left this undelivered: it may hold a slot for this very ticket.
            with self._guard:
                self._deliver()
        if ticket.granted is not None or ticket in self._line:
            self._change(change)
            ticket.granted = None

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
            line = tuple(other for other in self._line if other is not ticket)
            return state, _Turn(line, ((ticket, cancelled),))

        self._change(change)

    def close(self) -> None:
        """End every wait; every later call is refused."""
        self._closed = True
        closed = MultiplexerError("closed")
        self._change(
            lambda state: (
                state,
                _Turn((), tuple((ticket, closed) for ticket in self._line)),
            )
        )

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
        waits = [ticket.waiting for ticket in line]
        calls = [waiting.at(moment) for waiting in waits if waiting is not None]
        state, choices = serve(state, self.strategy, now, calls)
        still: list[Ticket] = []
        news: list[tuple[Ticket, News]] = []
        for ticket, waiting, choice in zip(line, waits, choices, strict=True):
            if isinstance(choice, Wait):
                still.append(ticket)
                if (
                    waiting is not None
                    and choice.until >= waiting.until
                    and ticket is not late
                ):
                    continue
            news.append((ticket, choice))
        return state, _Turn(tuple(still), tuple(news))

    def _change(self, change: Callable[[PoolState], tuple[PoolState, _Turn]]) -> None:
        with self._guard:
            self._deliver()
            self._store.transact(change, into=self)
            self._deliver()
        if self._abandoned:
            self._sweep()

    def _sweep(self) -> None:
        while self._abandoned and self._guard.acquire(blocking=False):
            # Checked with the guard free, so whoever fails to take it leaves the rest to
            # its holder, who looks again after releasing it.
            self._guard.release()
            try:
                ticket = self._abandoned.popleft()
            except IndexError:
                return
            self.settle(ticket, "abandoned")

    def _deliver(self) -> None:
        turn = self.result
        if isinstance(turn, _Turn):
            self._line = turn.line
            for ticket, news in turn.news:
                ticket.take(news)
            self.result = None


def _told(ticket: Ticket) -> Granted | Wait | Exhausted:
    news = ticket.news
    if isinstance(news, MultiplexerError):
        raise news
    assert news is not None  # noqa: S101 - told by the change that has just been made
    return news
