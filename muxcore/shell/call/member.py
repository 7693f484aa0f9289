"""The members of the pool at run time: an endpoint with its backend, key and connections."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen

from muxcore.core.records import Endpoint
from muxcore.plugins.backend import Backend

KeyFinder: TypeAlias = "Callable[[], Key | None]"
Wrapping: TypeAlias = "Callable[[Sender], Sender]"

if TYPE_CHECKING:
    from muxcore.config import Key
    from muxcore.shell.http.connections import Sender

SHORTEST_SECRET = 8
"""Shorter ones are placeholders, such as "ollama" or "EMPTY", and words of any message."""

MASK = "[the key]"

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
        self,
        endpoint: Endpoint,
        backend: Backend,
        key: Key | None,
        limits: Limits,
        *,
        find_key: KeyFinder | None = None,
        wrap: Wrapping | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.backend = backend
        self.limits = limits
        self.key = key
        self._secrets = [] if key is None else [key]
        """All keys it ever had: one call may be told of an older one than the present."""
        self._find_key = find_key
        self._wrap = wrap
        self._connections: Sender | None = None
        self._lock = threading.Lock()

    @property
    def connections(self) -> Sender:
        """The connections to its host, made when first needed: `requests` is slow to import."""
        with self._lock:
            if self._connections is None:
                from muxcore.config.addresses import is_loopback  # noqa: PLC0415
                from muxcore.shell.http.connections import Connections  # noqa: PLC0415

                size = self.endpoint.max_concurrent or DEFAULT_CONNECTIONS
                url = self.endpoint.wire.api_base
                made: Sender = Connections(url, size, loopback=is_loopback(url))
                self._connections = made if self._wrap is None else self._wrap(made)
            return self._connections

    def renew_key(self, refused: Key | None) -> bool:
        """Look for the key once more, as `refused` was; return whether it is another now."""
        if self._find_key is None:
            return False
        with self._lock:
            # Another call may have found it in the meantime.
            if not _same(self.key, refused):
                return True
            found = self._find_key()
            if found is None or _same(found, refused):
                return False
            self._secrets.append(found)
            self.key = found
            return True

    def goes_on_as(self, other: Member) -> bool:
        """Whether this one can stand for `other`, of a newer config, connections and all."""
        return (
            self.endpoint == other.endpoint
            and self.limits == other.limits
            and self.same_key(other)
        )

    def same_key(self, other: Member) -> bool:
        return _same(self.key, other.key)

    def masked(self, text: str) -> str:
        """Take the key out of a text: some servers repeat it in their errors (rule 9)."""
        for secret in self._secrets:
            if len(key := secret.reveal()) >= SHORTEST_SECRET:
                text = text.replace(key, MASK)
        return text

    def masked_bytes(self, data: bytes) -> bytes:
        """Take the key out of an error's body, so that no plugin sees it (rule 9)."""
        for secret in self._secrets:
            if len(key := secret.reveal()) >= SHORTEST_SECRET:
                data = data.replace(key.encode("latin-1"), MASK.encode())
        return data

    def after_fork(self) -> None:
        """In a forked child: the connections are the parent's, so make new ones.

        Dropping them closes this process's side alone: nothing is sent or shut.
        """
        self._lock = threading.Lock()
        self._connections = None

    def close(self) -> None:
        with self._lock:
            if self._connections is not None:
                self._connections.close()
                self._connections = None

    def __repr__(self) -> str:
        return f"Member({self.endpoint.alias!r})"


def _same(one: Key | None, other: Key | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.reveal() == other.reveal()
