"""Wake a sleeping thread, with a primitive that no interrupt leaves in an invalid state."""

from __future__ import annotations

import threading
from contextlib import suppress


class Parker:
    """Wakes one thread, now or as soon as it sleeps.

    `threading.Event` and `Condition` take their lock in Python code, so a KeyboardInterrupt
    between acquiring and releasing it leaves it locked for ever, and so does a garbage
    collection which runs there and unparks. This is a single lock implemented in C, acquired by the
    thread that is woken.
    """

    __slots__ = ("_permit",)

    def __init__(self) -> None:
        self._permit = threading.Lock()
        self._permit.acquire()

    def unpark(self) -> None:
        # There is at most one permit.
        with suppress(RuntimeError):
            self._permit.release()

    def park(self, seconds: float) -> bool:
        """Sleep until unparked, and take the permit; return False after `seconds`."""
        return self._permit.acquire(timeout=seconds)
