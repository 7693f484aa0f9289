"""Ending a call from outside: its time is over, or the multiplexer is closed.

A timeout given to `requests` bounds each silence, not a drip, so the total is held here: one
thread sleeps until the earliest limit of all attempts under way and shuts that socket down,
which ends a silent read at once. A cut inside the headers, or in a body without a length,
looks like a clean end to the reader, so a `Cut` remembers that it was made, and why.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from enum import StrEnum

from muxcore.shell import clock

LONGEST_SLEEP = 1_000_000.0


class CutReason(StrEnum):
    ATTEMPT_TIME = "the time for one attempt is over"
    CALL_TIME = "the call's time is over"
    CLOSED = "closed"
    LEFT = "the caller left"


class Cut:
    """The one attempt that may be cut: its limits, its socket, and whether it was.

    Limits are on `clock.elapsed`'s scale. `reused` tells whether its connection had served
    before, so that the server may have closed it meanwhile.
    """

    __slots__ = ("_lock", "_sock", "attempt_limit", "call_limit", "reason", "reused")

    def __init__(self, attempt_limit: float, call_limit: float) -> None:
        self.attempt_limit = attempt_limit
        self.call_limit = call_limit
        self.reason: CutReason | None = None
        self.reused = False
        self._sock: socket.socket | None = None
        self._lock = threading.Lock()

    @property
    def limit(self) -> float:
        return min(self.attempt_limit, self.call_limit)

    def hold(self, sock: socket.socket | None) -> None:
        """Take the socket that this attempt reads from; shut it if the cut came before it."""
        with self._lock:
            self._sock = sock
            if self.reason is not None:
                _shut(sock)

    def release(self) -> None:
        """Forget the socket: it goes back to its pool, and is no longer this attempt's."""
        with self._lock:
            self._sock = None

    def now(self, reason: CutReason) -> None:
        with self._lock:
            if self.reason is None:
                self.reason = reason
            _shut(self._sock)

    def timeout(self, longest: float) -> float:
        """Return for how long one more step may take, `longest` at the most."""
        return max(0.001, min(longest, self.limit - clock.elapsed()))


def _shut(sock: socket.socket | None) -> None:
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


class Watch:
    """Holds the limits of all attempts under way, with one thread that sleeps in between.

    The thread starts with the first attempt and ends with `close`.
    """

    def __init__(self) -> None:
        self._cuts: set[Cut] = set()
        self._condition = threading.Condition()
        self._wakes_at = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, cut: Cut) -> None:
        with self._condition:
            if self._closed:
                cut.now(CutReason.CLOSED)
                return
            self._cuts.add(cut)
            if self._thread is None:
                self._start()
            elif cut.limit < self._wakes_at:
                self._condition.notify_all()

    def remove(self, cut: Cut) -> None:
        # Without the lock, so that the garbage collector may do it at any point.
        self._cuts.discard(cut)

    def retire(self) -> None:
        """End the thread soon. Safe at any point, in the garbage collector too."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def close(self) -> None:
        """Cut all that is under way and end the thread."""
        self.retire()
        thread = self._thread
        for cut in tuple(self._cuts):
            cut.now(CutReason.CLOSED)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _start(self) -> None:
        self._wakes_at = 0.0
        self._thread = threading.Thread(
            target=self._run, name="vibe-mux limits", daemon=True
        )
        self._thread.start()

    def _run(self) -> None:
        with self._condition:
            while not self._closed:
                moment = clock.elapsed()
                for cut in tuple(self._cuts):
                    if cut.limit <= moment:
                        self._cuts.discard(cut)
                        over = cut.call_limit <= moment
                        cut.now(CutReason.CALL_TIME if over else CutReason.ATTEMPT_TIME)
                earliest = min((cut.limit for cut in self._cuts), default=None)
                sleep = LONGEST_SLEEP if earliest is None else max(0.0, earliest - moment)
                self._wakes_at = moment + sleep
                self._condition.wait(min(sleep, LONGEST_SLEEP))
