"""Cancelling a call from another thread, wherever it stands."""

from __future__ import annotations

import threading

from muxcore.core.outcomes import CancelReason
from muxcore.shell.http.cancel_scope import CancelScope
from muxcore.shell.pool.pool import Pool
from muxcore.shell.pool.waiter import Waiter


class Cancellation:
    """Pass one to a call, and `cancel` it from any thread, at any time, any number of times.

    The call then gives its slot back (`Cancelled`: no model's availability changes) and raises
    `CallCancelledError`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._pool: Pool | None = None
        self._waiter: Waiter | None = None
        self._scope: CancelScope | None = None

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            scope, pool, waiter = self._scope, self._pool, self._waiter
        if scope is not None:
            scope.cancel(CancelReason.LEFT)
        if pool is not None and waiter is not None:
            pool.cancel(waiter)

    def watch_over(self, pool: Pool, waiter: Waiter) -> None:
        """Begin to watch over a call."""
        with self._lock:
            # An earlier call may have left its attempt here.
            self._pool, self._waiter, self._scope = pool, waiter, None
            waiter.cancelled = self._cancelled

    def watch_attempt(self, scope: CancelScope) -> None:
        """Watch over this attempt of the call."""
        with self._lock:
            self._scope = scope
            cancelled = self._cancelled
        if cancelled:
            scope.cancel(CancelReason.LEFT)
