"""Cancel attempts from another thread: at their time limit, or when the pool closes.

A timeout given to `requests` limits each silence, not a slow drip. So one thread sleeps until
the earliest time limit of all attempts under way and shuts that socket down, which ends a
silent read at once. Within the headers, or in a body without a length, the reader takes this
for a clean end, so a `CancelScope` keeps the reason.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from enum import StrEnum
from typing import TypeAlias

from muxcore.core.outcomes import CancelReason
from muxcore.shell import clock
from muxcore.shell.pool.parker import Parker


class TimeLimit(StrEnum):
    """The time limit of one attempt, which counts as a failure: another model may be tried."""

    ATTEMPT = "the time for one attempt is over"


StopReason: TypeAlias = CancelReason | TimeLimit
"""Why an attempt was cancelled. A `CancelReason` ends its call as well."""


class CancelScope:
    """One attempt that can be cancelled: its time limits, its socket, and the reason.

    Limits are times of `clock.elapsed`. `reused` says that the connection was used before, so
    the server may have closed it meanwhile.
    """

    __slots__ = ("_lock", "_sock", "attempt_limit", "call_limit", "reason", "reused")

    def __init__(self, attempt_limit: float, call_limit: float) -> None:
        self.attempt_limit = attempt_limit
        self.call_limit = call_limit
        self.reason: StopReason | None = None
        self.reused = False
        self._sock: socket.socket | None = None
        # Reentrant: the garbage collector may end a stream while the lock is held.
        self._lock = threading.RLock()

    @property
    def limit(self) -> float:
        return min(self.attempt_limit, self.call_limit)

    def attach(self, sock: socket.socket | None) -> None:
        """Set the socket that this attempt reads from; shut it down if already cancelled."""
        with self._lock:
            self._sock = sock
            if self.reason is not None:
                _shut(sock)

    def detach(self) -> None:
        """Release the socket, which another attempt may use from now on."""
        with self._lock:
            self._sock = None

    def detach_if(self, sock: socket.socket) -> None:
        """Release the socket if it is this one, because another attempt takes it over."""
        with self._lock:
            if self._sock is sock:
                self._sock = None

    def cancel(self, reason: StopReason) -> None:
        """Shut the socket down. The first reason stays."""
        with self._lock:
            if self.reason is None:
                self.reason = reason
            _shut(self._sock)

    def after_fork(self) -> None:
        """Run in a forked child: the socket is the parent's, and a shutdown would end its call."""
        self._lock = threading.RLock()
        self._sock = None
        self.reason = CancelReason.FORKED

    def timeout(self, longest: float) -> float:
        """Return how many seconds one more step may take, at most `longest`."""
        return max(0.001, min(longest, self.limit - clock.elapsed()))


def _shut(sock: socket.socket | None) -> None:
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


class Deadlines:
    """The time limits of all attempts under way, kept by one thread that sleeps in between.

    The thread starts with the first attempt and ends with `close`. Only its start takes a
    lock: an interrupt or the garbage collector may come at any point.
    """

    def __init__(self) -> None:
        self._scopes: set[CancelScope] = set()
        self._parker = Parker()
        self._wakes_at = math.inf
        """When the thread wakes without being unparked. Infinite while it is awake, so that a
        thread which adds a scope meanwhile unparks it."""
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, scope: CancelScope) -> None:
        self._scopes.add(scope)
        if self._closed:
            self._scopes.discard(scope)
            scope.cancel(CancelReason.CLOSED)
            return
        if self._thread is None or not self._thread.is_alive():
            try:
                self._start()
            except RuntimeError:
                # Without the thread there would be no limit.
                self._scopes.discard(scope)
                scope.cancel(CancelReason.LACKING)
                return
        if scope.limit < self._wakes_at:
            self._parker.unpark()

    def remove(self, scope: CancelScope) -> None:
        self._scopes.discard(scope)

    def retire(self) -> None:
        """End the thread soon. Safe at any point, in the garbage collector too."""
        self._closed = True
        self._parker.unpark()

    def close(self) -> None:
        """Cancel everything under way and end the thread."""
        self.retire()
        for scope in tuple(self._scopes):
            scope.cancel(CancelReason.CLOSED)
        with self._starting:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            # A thread whose start was interrupted cannot be joined.
            with contextlib.suppress(RuntimeError):
                thread.join()

    def after_fork(self) -> None:
        """Run in a forked child: no thread runs here, and the attempts are the parent's."""
        for scope in tuple(self._scopes):
            scope.after_fork()
        self._scopes.clear()
        self._parker = Parker()
        self._wakes_at = math.inf
        self._starting = threading.Lock()
        self._thread = None

    def _start(self) -> None:
        with self._starting:
            # An interrupt may have left a thread that never started.
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return
            self._wakes_at = math.inf
            self._thread = threading.Thread(
                target=self._run, name="vibe-mux limits", daemon=True
            )
            self._thread.start()

    def _run(self) -> None:
        # After an interrupted start, two threads may run for a time: the newer one stays.
        while not self._closed and self._thread is threading.current_thread():
            self._wakes_at = math.inf
            moment = clock.elapsed()
            earliest = moment + clock.LONGEST_SLEEP
            for scope in tuple(self._scopes):
                limit = scope.limit
                if limit > moment:
                    earliest = min(earliest, limit)
                else:
                    self._scopes.discard(scope)
                    call_is_over = scope.call_limit <= moment
                    scope.cancel(
                        CancelReason.CALL_TIME if call_is_over else TimeLimit.ATTEMPT
                    )
            self._wakes_at = earliest
            self._parker.park(max(0.0, earliest - clock.elapsed()))
        # The permit may have woken this thread instead of the newer one: pass it on.
        self._parker.unpark()
