"""Cancel a call from another thread, at any step."""

from __future__ import annotations

import threading

from muxcore.core.outcomes import CancelReason
from muxcore.shell.http.cancel_scope import CancelScope
from muxcore.shell.pool.pool import Pool
from muxcore.shell.pool.waiter import Waiter


class Cancellation:
    """Pass it to a call, and call `cancel` from any thread, at any time, any number of times.

    The call then raises `CallCancelledError`. It gives its slot back, and the availability of
    no model changes.
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

    def attach_call(self, pool: Pool, waiter: Waiter) -> None:
        """Cancel this call from now on."""
        with self._lock:
            # The attempt may be that of an earlier call.
            self._pool, self._waiter, self._scope = pool, waiter, None
            waiter.cancelled = self._cancelled

    def attach_attempt(self, scope: CancelScope) -> None:
        """Cancel this attempt with the call."""
        with self._lock:
            self._scope = scope
            cancelled = self._cancelled
        if cancelled:
            scope.cancel(CancelReason.LEFT)
