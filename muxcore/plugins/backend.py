"""The `Backend` protocol: a pure codec for one wire dialect. The shell does the HTTP.

A backend is made once by its factory and shared between threads, so it keeps nothing between
calls. It never sees a key: `HttpRequest.key_header` says where the shell is to put it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Protocol, TypeAlias

from attrs import frozen

from muxcore.chat import Chat, Chunk, Reply
from muxcore.core.outcomes import Kind
from muxcore.core.records import Endpoint


@frozen
class KeyHeader:
    """The header that carries the key, and what stands before it."""

    name: str = "Authorization"
    prefix: str = "Bearer "


@frozen
class HttpRequest:
    """A POST that the shell is to make. `rewrites` tells people what the history needed.

    `prompt_tokens` is the estimated size of the prompt, set only for a server that is known
    to cut one that is too long without a word: then the answer's own count is held against it.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes
    key_header: KeyHeader | None = KeyHeader()
    rewrites: tuple[str, ...] = ()
    prompt_tokens: int | None = None


@frozen
class HttpResponse:
    """A provider's answer, whole. The names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@frozen
class Failure:
    """What an answer that is no reply means.

    `hint` is how long the server asks to be left alone, `window` the size in tokens that it
    names as the model's, `message` its own words, cleaned for people.
    """

    kind: Kind
    hint: timedelta | None = None
    message: str = ""
    window: int | None = None


class BadReplyError(Exception):
    """An answer that looked well is not one. With `failure` None it counts as transient."""

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
    """Makes chunks of one stream's events. One decoder serves one stream."""

    def feed(self, event: ServerEvent) -> Iterable[Chunk]:
        """Give the chunks of this event; raise `BadReplyError` for an error in band."""
        ...

    @property
    def done(self) -> bool:
        """Whether the answer is whole, by what the stream has said in its dialect's way."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the stream has said that nothing more will come, such as `[DONE]`."""
        ...


class Backend(Protocol):
    """A wire dialect. Every method is pure."""

    def request(self, endpoint: Endpoint, chat: Chat) -> HttpRequest:
        """Encode `chat` for `endpoint`, rewriting a copy of the history as it demands."""
        ...

    def reply(self, endpoint: Endpoint, answer: HttpResponse) -> Reply:
        """Decode a whole answer with status 200; raise `BadReplyError` if it is none."""
        ...

    def stream(self, endpoint: Endpoint) -> Decoder:
        """Make the decoder of one stream."""
        ...

    def failure(self, answer: HttpResponse, now: datetime) -> Failure:
        """Classify an answer that is no reply. `now` is for hints that name a moment."""
        ...
