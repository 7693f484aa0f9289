"""Leases: connections whose clients keep the server alive and hear of calls and of its end."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Generator

from muxcore.gateway.http.connection import Connection
from muxcore.gateway.lease_events import BEGAN, DRAINING, ENDED, HELD, RELEASED
from muxcore.http_framing import chunk


def event(name: bytes) -> bytes:
    return chunk(name + b"\n")


class Leases:
    """The leases held now, each with the label of its `run`. Shared by threads."""

    def __init__(self, on_last: Callable[[], None]) -> None:
        self._on_last = on_last
        self._lock = threading.Lock()
        self._labels: dict[Connection, str] = {}
        self._running: Counter[str] = Counter()
        """Calls that run now, by label."""

    def __len__(self) -> int:
        # Whoever has read "held" must find the lease counted.
        with self._lock:
            return len(self._labels)

    def __contains__(self, connection: object) -> bool:
        return connection in self._labels

    @contextlib.contextmanager
    def hold(
        self, connection: Connection, label: str, begin: Callable[[bytes], object]
    ) -> Generator[None]:
        """Count a lease while the block runs; call `on_last` when none is left.

        `begin` sends the first events, before any other thread can send another.
        """
        with self._lock:
            begin(HELD + b"\n" + self._running[label] * (BEGAN + b"\n"))
            self._labels[connection] = label
        try:
            yield
            # The client ended the lease, and may still be reading.
            connection.send_now(event(RELEASED))
        finally:
            with self._lock:
                del self._labels[connection]
                is_last = not self._labels
            if is_last:
                self._on_last()

    @contextlib.contextmanager
    def call(self, label: str) -> Generator[None]:
        """Report to the lease with this label that a call runs while the block does."""
        self._count(label, 1)
        try:
            yield
        finally:
            self._count(label, -1)

    def _count(self, label: str, change: int) -> None:
        with self._lock:
            self._running[label] += change
            if not self._running[label]:
                del self._running[label]
            name = BEGAN if change > 0 else ENDED
            for connection, own in self._labels.items():
                if own == label:
                    connection.send_now(event(name))

    def drain(self) -> None:
        """Report to all that the server accepts no more calls."""
        with self._lock:
            for connection in self._labels:
                connection.send_now(event(DRAINING))
