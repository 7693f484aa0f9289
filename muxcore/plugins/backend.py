"""The `Backend` protocol: a pure codec for one wire dialect. The shell does the HTTP.

A backend is made once by its factory and shared between threads, so it keeps no state between
calls. It never sees a key: `HttpRequest.key_header` says where the shell puts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Protocol, TypeAlias, runtime_checkable

from attrs import frozen

from muxcore.chat import Chat, Chunk, Reply
from muxcore.core.allowance import Allowance
from muxcore.core.outcomes import Kind
from muxcore.core.records import Endpoint


@frozen
class KeyHeader:
    """The header that carries the key, and the prefix of its value."""

    name: str = "Authorization"
    prefix: str = "Bearer "


BEARER = KeyHeader()


@frozen
class HttpRequest:
    """A POST for the shell to make. `rewrites` describes what was changed in the history.

    `prompt_tokens` is the estimated size of the prompt. It is set only for a server that is
    known to truncate long prompts silently: the shell compares it with the answer's count.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes
    key_header: KeyHeader | None = BEARER
    rewrites: tuple[str, ...] = ()
    prompt_tokens: int | None = None


@frozen
class HttpResponse:
    """A provider's whole answer. The names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@frozen
class Failure:
    """The meaning of an answer that is not a reply.

    `hint` is how long the server asks clients to wait, `window` the model's context window in
    tokens as the server states it, `message` the server's message without control characters.
    """

    kind: Kind
    hint: timedelta | None = None
    message: str = ""
    window: int | None = None


class BadReplyError(Exception):
    """An answer with status 200 that is not a reply. Without `failure` it counts as transient."""

    def __init__(self, message: str, failure: Failure | None = None) -> None:
        self.failure = failure
        super().__init__(message)


BadReply: TypeAlias = BadReplyError


@frozen
class ServerEvent:
    """One server-sent event: `event` is its type ("message" if it named none)."""

    data: str
    event: str = "message"


class Decoder(Protocol):
    """Turns the events of one stream into chunks. Each stream has its own decoder."""

    def feed(self, event: ServerEvent) -> Iterable[Chunk]:
        """Return the chunks of this event; raise `BadReplyError` for an error in the stream."""
        ...

    @property
    def done(self) -> bool:
        """Whether the answer is complete, as the dialect marks it."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the stream has marked its end, as `[DONE]` does."""
        ...


class Backend(Protocol):
    """A wire dialect. Every method is pure.

    A backend that reads what is left of a provider's limits also has a method `allowances`
    (see `AnnouncingBackend`).
    """

    def request(self, endpoint: Endpoint, chat: Chat) -> HttpRequest:
        """Encode `chat` for `endpoint`, with the history rewritten in a copy where it has to be."""
        ...

    def reply(self, endpoint: Endpoint, answer: HttpResponse) -> Reply:
        """Decode a whole answer with status 200; raise `BadReplyError` if it is not a reply."""
        ...

    def stream(self, endpoint: Endpoint) -> Decoder:
        """Make the decoder of one stream."""
        ...

    def failure(self, answer: HttpResponse, now: datetime) -> Failure:
        """Classify an answer that is not a reply. `now` is for hints that name a moment."""
        ...


@runtime_checkable
class AnnouncingBackend(Protocol):
    """A backend that reads how much of its limits a provider announces to be left.

    Answers of any status may announce it.
    """

    def allowances(
        self, headers: Mapping[str, str], now: datetime
    ) -> tuple[Allowance, ...]:
        """Read the headers, whose names are in lower case. `now` is when they arrived."""
        ...
