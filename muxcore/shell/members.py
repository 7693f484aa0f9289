"""The members of the pool at run time: an endpoint with its backend, key and connections."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from attrs import frozen

from muxcore.core.records import Endpoint
from muxcore.plugins.backend import Backend

if TYPE_CHECKING:
    from muxcore.config import Key
    from muxcore.shell.connections import Connections

DEFAULT_CONNECTIONS = 32
"""Kept alive to one host when its entry has no cap: vibe runs up to 32 sub-agents."""


@frozen
class Limits:
    """The time limits of one endpoint, in seconds; `read` is the longest silence."""

    connect: float
    read: float
    attempt: float


class Member:
    """What is needed to speak to one endpoint. Shared by threads."""

    def __init__(
        self, endpoint: Endpoint, backend: Backend, key: Key | None, limits: Limits
    ) -> None:
        self.endpoint = endpoint
        self.backend = backend
        self.limits = limits
        self.key = key
        self._connections: Connections | None = None
        self._lock = threading.Lock()

    @property
    def connections(self) -> Connections:
        """The connections to its host, made when first needed: `requests` is slow to import."""
        with self._lock:
            if self._connections is None:
                from muxcore.config.addresses import is_loopback  # noqa: PLC0415
                from muxcore.shell.connections import Connections  # noqa: PLC0415

                size = self.endpoint.max_concurrent or DEFAULT_CONNECTIONS
                url = self.endpoint.wire.api_base
                self._connections = Connections(url, size, loopback=is_loopback(url))
            return self._connections

    def close(self) -> None:
        with self._lock:
            if self._connections is not None:
                self._connections.close()
                self._connections = None

    def __repr__(self) -> str:
        return f"Member({self.endpoint.alias!r})"
