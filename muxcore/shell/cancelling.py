"""Giving a call up from another thread, wherever it stands."""

from __future__ import annotations

import threading

from muxcore.shell.cutting import Cut, CutReason
from muxcore.shell.pool import Pool, Ticket


class Cancellation:
    """Give one to a call, and `cancel` it from any thread, at any time, any number of times.

    The call then gives its slot back (`Cancelled`: nobody's availability changes) and raises
    `MultiplexerError("cancelled")`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._pool: Pool | None = None
        self._ticket: Ticket | None = None
        self._cut: Cut | None = None

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            cut, pool, ticket = self._cut, self._pool, self._ticket
        if cut is not None:
            cut.now(CutReason.LEFT)
        if pool is not None and ticket is not None:
            pool.cancel(ticket)

    def watch_over(self, pool: Pool, ticket: Ticket) -> None:
        """Begin with a call."""
        with self._lock:
            # The last call's attempt is not this one's.
            self._pool, self._ticket, self._cut = pool, ticket, None
            ticket.cancelled = self._cancelled

    def watch_attempt(self, cut: Cut) -> None:
        """Go on with an attempt of it."""
        with self._lock:
            self._cut = cut
            cancelled = self._cancelled
        if cancelled:
            cut.now(CutReason.LEFT)
