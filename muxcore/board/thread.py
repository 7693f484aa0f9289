"""The one thread of a pool which does the board's I/O: no call ever does."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Protocol

from attrs import define

from muxcore.board.journal_file import JournalPlace
from muxcore.board.leasing import RENEW_SECONDS
from muxcore.board.link import BoardLink, PoolSide
from muxcore.core.folding.leases import LeaseWanted
from muxcore.core.outcomes import (
    Cancelled,
    Failed,
    RateLimited,
    Refuted,
    Rejected,
    Reset,
    Succeeded,
)
from muxcore.core.records import Call
from muxcore.core.status import Totals
from muxcore.journal.recent import JournalLine
from muxcore.plugins.board import Board, BoardBusyError

HEAR_SECONDS = 0.04
"""How often it listens while there are calls: others' limits are obeyed within 150 ms."""
ACTIVE_SECONDS = 30.0
"""For how long after the last call it does; then it sleeps until the next one."""
LEASE_SECONDS = 0.005
"""How often it asks again for what the board did not give."""
LISTENED_SECONDS = 0.05
"""The same for a board that rings when a slot is free: only a lease that ran out has no bell."""
STOP_SECONDS = 1.0
START_FACTOR = 5
"""The first call waits so many times longer: the board must be opened."""
SLOW_SECONDS = 1.0
"""Once a call has waited in vain, no other waits for so long."""
STUCK_SECONDS = 1.0
ENDS = (Succeeded, RateLimited, Failed, Rejected, Cancelled)
URGENT = (RateLimited, Failed, Refuted, Reset)


class Waker(Protocol):
    """What wakes one sleeping thread, as the shell's `Parker` does."""

    def unpark(self) -> None: ...

    def park(self, seconds: float) -> bool: ...


@define(eq=False)
class _Ask:
    """A call which waits a moment for a lease, before it chooses."""

    wanted: LeaseWanted
    waker: Waker
    over: bool = False


class BoardThread:
    """Runs a pool's link to its board. Make it when the pool is made; `stop` ends it."""

    def __init__(
        self,
        open_board: Callable[[], Board],
        pool: PoolSide,
        waker: Callable[[], Waker],
        timeout: timedelta,
    ) -> None:
        self._bell = waker()
        self._link = BoardLink(open_board, pool, self._bell.unpark)
        self._pool = pool
        self._waker = waker
        self._timeout = timeout.total_seconds()
        self._waiting: deque[Waker] = deque()
        """The calls that wait for a step."""
        self._write_wanted = False
        self._asks: deque[_Ask] = deque()
        self._stepped_at = pool.elapsed()
        self._slow_until = float("-inf")
        self._active_until = pool.elapsed() + ACTIVE_SECONDS
        self._is_new = True
        self._stopping = False
        self._forked = False
        pool.follow(self._follow)
        self._thread = threading.Thread(
            target=self._run, name="vibe-mux-board", daemon=True
        )
        self._thread.start()

    @property
    def notice(self) -> str:
        """Why the board is not used, for the status; "" while it is."""
        return self._link.notice

    @property
    def totals(self) -> Mapping[str, Totals]:
        """What all journals count, by alias."""
        return self._link.totals

    @property
    def recorded_in(self) -> JournalPlace | None:
        """Where the journal is written; None while it is in memory alone."""
        return self._link.recorded_in

    def freshen(self, *, written: bool = False) -> None:
        """Wait until it has heard what others published, if it has not for a while.

        This takes at most the board's timeout, and nothing while the board is gone or slow.
        With `written`, wait until the journal is written, too.
        """
        elapsed = self._pool.elapsed()
        self._active_until = elapsed + ACTIVE_SECONDS
        heard_lately = elapsed - self._link.heard_at < 3 * HEAR_SECONDS
        is_fresh = (heard_lately or self._link.is_listening) and not written
        if is_fresh or self.notice or elapsed < self._slow_until or self._stopping:
            return
        self._write_wanted = self._write_wanted or written
        waker = self._waker()
        self._waiting.append(waker)
        self._bell.unpark()
        longest = self._timeout * (START_FACTOR if self._is_new else 1)
        if not waker.park(longest):
            self._slow_until = self._pool.elapsed() + SLOW_SECONDS

    def acquire(self, call: Call) -> None:
        """Ask for the lease that this call lacks, and wait for it, for a moment at most.

        Without it the place counts as busy, so the call waits in line or goes elsewhere.
        """
        if self._link.leasing is None or self._stopping:
            return
        wanted = self._pool.lacks(call)
        if wanted is None:
            return
        ask = _Ask(wanted, self._waker())
        try:
            self._asks.append(ask)
            self._bell.unpark()
            ask.waker.park(self._timeout)
        finally:
            ask.over = True
        if self._pool.elapsed() - self._stepped_at > STUCK_SECONDS + self._timeout:
            # A board that answers nobody is as good as gone: caps count in the process.
            self._link.unshare()

    def unshare(self) -> None:
        """Count slots and probes within the process."""
        self._link.unshare()

    def stop(self) -> None:
        """Send and write what is left, and close the board; this takes a second at most."""
        if self._forked:
            return
        self._stopping = True
        self._bell.unpark()
        self._thread.join(STOP_SECONDS)

    def leave(self) -> None:
        """Stop, and let the pool go on alone."""
        self.stop()
        self._pool.follow(None)
        self.unshare()

    def after_fork(self) -> None:
        """In a forked child: the thread and the board are the parent's."""
        self._forked = self._stopping = True
        self._pool.follow(None)
        self._link.after_fork()

    def _follow(self, lines: Sequence[JournalLine]) -> None:
        """Take new entries of the pool, whose guard is held."""
        self._link.follow(lines)
        leasing = self._link.leasing
        leased = () if leasing is None else leasing.aliases
        for _, _, entry in lines:
            if isinstance(entry, URGENT) or (
                leased and isinstance(entry, ENDS) and entry.alias in leased
            ):
                self._bell.unpark()
                return

    # -- In the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._step()
                if not self._stopping:
                    self._bell.park(self._pause())
            until = self._pool.elapsed() + STOP_SECONDS
            self._write_wanted = True
            while not self._step(last=True) and self._pool.elapsed() < until:
                self._write_wanted = True
        except Exception as error:  # noqa: BLE001 - a plugin's board may raise anything
            self._link.lose(f"{type(error).__name__}: {error}")
        finally:
            self._release(len(self._waiting))
            if not self._forked:
                self._link.close()

    def _pause(self) -> float:
        leasing = self._link.leasing
        if self._waiting or (leasing is not None and leasing.is_waiting):
            return LISTENED_SECONDS if self._link.is_listening else LEASE_SECONDS
        is_active = self._pool.elapsed() < self._active_until or self._link.has_unsent
        if is_active:
            return HEAR_SECONDS
        if leasing is not None and leasing.aliases:
            return RENEW_SECONDS
        # Longer than any idle time: the next call rings the bell.
        return 3600.0

    def _step(self, *, last: bool = False) -> bool:
        """Make one step; return False if the board was busy."""
        # Those who come while this step is under way wait for the next one.
        waiting = len(self._waiting)
        write, self._write_wanted = self._write_wanted, False
        while self._asks and self._asks[0].over:
            self._asks.popleft()
        asks = [ask for ask in tuple(self._asks) if not ask.over]

        def wanted() -> Sequence[LeaseWanted]:
            return (*(ask.wanted for ask in asks), *self._pool.wanted())

        def ready() -> None:
            nonlocal waiting
            self._is_new = False
            self._answer(asks)
            if not write:
                self._release(waiting)
                waiting = 0

        try:
            self._link.step(wanted, ready, write=write, last=last)
        except BoardBusyError:
            # They wait for the next step, as long as they can.
            return False
        finally:
            self._stepped_at = self._pool.elapsed()
        if self._link.leasing is None:
            # The board is gone: caps count within the process from now on.
            for ask in asks:
                ask.over = True
                ask.waker.unpark()
        self._release(waiting)
        return True

    def _answer(self, asks: Sequence[_Ask]) -> None:
        """Wake the calls whose lease is there, or is not needed any more."""
        for ask in asks:
            wanted = ask.wanted
            candidate = self._link.folded.find(wanted.alias)
            leases = None if candidate is None else candidate.leases
            if leases is None or (
                (leases.slots or not wanted.slot) and (leases.probes or not wanted.probe)
            ):
                ask.over = True
                ask.waker.unpark()

    def _release(self, number: int) -> None:
        """Wake the first of those that wait for a step."""
        for _ in range(min(number, len(self._waiting))):
            self._waiting.popleft().unpark()
