"""A door that a play waits at, without polling and without a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Lock


class Gate:
    """Opens once, for all who wait. `threading.Event` cannot be awaited beside a socket."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._is_open = False
        self._bells: set[Callable[[], None]] = set()

    @property
    def is_open(self) -> bool:
        return self._is_open

    def open(self) -> None:
        with self._lock:
            self._is_open = True
            bells = tuple(self._bells)
        # Outside the lock, so that a bell may ask or leave the gate.
        for ring in bells:
            ring()

    @contextmanager
    def ringing(self, ring: Callable[[], None]) -> Generator[None]:
        """Have `ring` called if the gate opens while the block runs.

        Ask `is_open` inside the block: a gate that was open before does not ring.
        """
        with self._lock:
            self._bells.add(ring)
        try:
            yield
        finally:
            with self._lock:
                self._bells.discard(ring)
