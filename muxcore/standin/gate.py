"""A gate that a behaviour waits at, without polling or a separate thread."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Lock


class Gate:
    """Opens once, for all waiters. `threading.Event` cannot be awaited together with a socket."""

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
        # Outside the lock, so that a callback may use the gate.
        for ring in bells:
            ring()

    @contextmanager
    def ringing(self, ring: Callable[[], None]) -> Generator[None]:
        """Call `ring` if the gate opens while the block runs.

        Check `is_open` inside the block: a gate that was open before does not ring.
        """
        with self._lock:
            self._bells.add(ring)
        try:
            yield
        finally:
            with self._lock:
                self._bells.discard(ring)
