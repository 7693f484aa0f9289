"""The members of a pool: each endpoint with its backend, key and connections at run time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, frozen

from muxcore import shell
from muxcore.core.records import Endpoint
from muxcore.plugins.backend import AnnouncingBackend, Backend
from muxcore.shell import masking

KeyFinder: TypeAlias = "Callable[[], Key | None]"
Wrapping: TypeAlias = "Callable[[Sender], Sender]"

if TYPE_CHECKING:
    from muxcore.board.thread import BoardThread
    from muxcore.config import Key
    from muxcore.shell.http.cancel_scope import Deadlines
    from muxcore.shell.http.connections import Sender
    from muxcore.shell.observing import Observing
    from muxcore.shell.pool.pool import Pool

DEFAULT_CONNECTIONS = 32
"""Kept alive to one host when its entry has no cap: vibe runs up to 32 sub-agents."""


@frozen
class Limits:
    """The time limits of one endpoint, in seconds; `read` is the longest silence."""

    connect: float
    read: float
    attempt: float


@define(eq=False)
class Runtime:
    """What all calls of one multiplexer share. A config reload changes it in place."""

    pool: Pool
    deadlines: Deadlines
    members: dict[str, Member]
    """By alias. Members that left the config stay, because a call may be about to use one."""
    call_timeout: float
    """Seconds."""
    measures_prompts: bool = False
    board: BoardThread | None = None
    observing: Observing | None = None
    origin: str = ""
    """The mode and its distribution, for errors."""


class Member:
    """One endpoint at run time: its backend, key and connections. Shared by threads."""

    def __init__(
        self,
        endpoint: Endpoint,
        backend: Backend,
        key: Key | None,
        limits: Limits,
        *,
        find_key: KeyFinder | None = None,
        wrap: Wrapping | None = None,
        heeds_limits: bool = True,
    ) -> None:
        self.endpoint = endpoint
        self.backend = backend
        self.limits = limits
        self.limit_reader: AnnouncingBackend | None = None
        """The backend, if it reads what answers announce and the config heeds it."""
        if heeds_limits and isinstance(backend, AnnouncingBackend):
            self.limit_reader = backend
        self.key = key
        self._secrets = [] if key is None else [key]
        """Every key used so far, so that errors about an older key are masked too."""
        self._find_key = find_key
        self._wrap = wrap
        self._connections: Sender | None = None
        self._lock = threading.Lock()

    @property
    def connections(self) -> Sender:
        """The connections to its host, made when first needed: `requests` is slow to import."""
        with self._lock:
            if self._connections is None:
                size = self.endpoint.max_concurrent or DEFAULT_CONNECTIONS
                url = self.endpoint.wire.api_base
                loopback = shell.is_loopback(url)
                made: Sender = shell.Connections(url, size, loopback=loopback)
                self._connections = made if self._wrap is None else self._wrap(made)
            return self._connections

    def renew_key(self, refused: Key | None) -> bool:
        """Look for the key again, after `refused` was refused; return whether it has changed."""
        if self._find_key is None:
            return False
        with self._lock:
            # Another call may have found it meanwhile.
            if not _same(self.key, refused):
                return True
            found = self._find_key()
            if found is None or _same(found, refused):
                return False
            self._secrets.append(found)
            self.key = found
            return True

    def can_replace(self, other: Member) -> bool:
        """Whether this member, with its connections, can replace `other` of a newer config."""
        return (
            self.endpoint == other.endpoint
            and self.limits == other.limits
            and (self.limit_reader is None) == (other.limit_reader is None)
            and self.same_key(other)
        )

    @property
    def account(self) -> str | None:
        """The key, for the fingerprint of the place alone."""
        return None if self.key is None else self.key.reveal()

    def same_key(self, other: Member) -> bool:
        return _same(self.key, other.key)

    def masked(self, text: str) -> str:
        """Mask the secrets in a text: some servers repeat them in their errors (rule 9)."""
        return masking.masked(text, self._texts())

    def masked_bytes(self, data: bytes) -> bytes:
        """Mask the secrets in an error's body, so that no plugin sees them (rule 9)."""
        return self.masked(data.decode("latin-1")).encode("latin-1")

    def _texts(self) -> Iterator[str]:
        yield from (secret.reveal() for secret in self._secrets)
        for _, value in self.endpoint.wire.extra_headers:
            # A scheme such as "Bearer" may stand before the secret.
            yield from value.split()

    def after_fork(self) -> None:
        """Run in a forked child: the connections are the parent's, so make new ones.

        Dropping them closes only this process's side: nothing is sent or shut down.
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
