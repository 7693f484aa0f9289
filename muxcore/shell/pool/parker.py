"""Waking a thread that sleeps: the one primitive that nothing can catch half-way."""

from __future__ import annotations

import threading
from contextlib import suppress


class Parker:
    """Wakes one sleeper, now or as soon as it would sleep.

    `threading.Event` and `Condition` take their lock in Python code, so a KeyboardInterrupt
    between taking and using it leaves it taken for ever, and so does the garbage collector
    when it runs there and rings. This is one lock of C's, taken by whoever is woken.
    """

    __slots__ = ("_silent",)

    def __init__(self) -> None:
        self._silent = threading.Lock()
        self._silent.acquire()

    def unpark(self) -> None:
        # What has been rung already need not be rung again.
        with suppress(RuntimeError):
            self._silent.release()

    def park(self, seconds: float) -> bool:
        """Sleep until it rings, which it then has to do anew; False if it did not."""
        return self._silent.acquire(timeout=seconds)
