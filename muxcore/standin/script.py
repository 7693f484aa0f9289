"""What a stand-in model does, as data. `player` plays it on a connection.

Durations are `timedelta`s. A record with an `answer` takes its text from there. `after`
counts the pieces of content that are sent before the fault (0: the stream has begun, with
a role and no content).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import TypeAlias, final

from attrs import field, frozen

from muxcore.chat import Json, Usage
from muxcore.standin.gate import Gate

AT_ONCE = timedelta()


class Ending(StrEnum):
    """How a request ended, from the stand-in's view."""

    SERVED = "served"
    BROKEN = "broken off by the script"
    LEFT = "the client left"
    STOPPED = "the server stopped"
    FAILED = "the script raised"


class Break(StrEnum):
    """How a connection is closed: with a FIN or an RST."""

    CLOSE = "close"
    RESET = "reset"


class Framing(StrEnum):
    """How the end of a body of unknown length is marked: chunks, or the connection's end."""

    CHUNKED = "chunked"
    CLOSE = "close"


class Dripping(StrEnum):
    """What drips: header lines, or the part of a body that clients skip.

    The latter are comments in a stream, and blanks before JSON.
    """

    HEADERS = "headers"
    BODY = "body"


@final
@frozen
class ToolCall:
    """A tool call. An empty `id` becomes nine letters and digits, which all providers accept."""

    name: str
    arguments: str = "{}"
    id: str = ""


@final
@frozen
class Answer:
    """A good answer, streamed or whole as the request asks.

    `text` None means "pong from NAME", or no text with tool calls; `finish_reason` None means
    "stop" or "tool_calls"; `usage` None is estimated from the text. Text, reasoning and each
    tool call's arguments are cut into `pieces`, with `delay` between them; the bytes of a
    whole answer are cut and delayed in the same way.
    """

    text: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    reasoning_field: str = "reasoning_content"
    usage: Usage | None = None
    pieces: int = 3
    delay: timedelta = AT_ONCE
    finish_reason: str | None = None


@final
@frozen
class StatusAnswer:
    """Any status. A body of str or bytes is sent as it is, any other as JSON."""

    status: int
    body: object = field(factory=dict[str, object])
    headers: Mapping[str, str] = field(factory=dict[str, str])


@final
@frozen
class ConnectionClosed:
    """Read the request, then close the connection without a byte."""


@final
@frozen
class ConnectionReset:
    """Read the request, then reset the connection without a byte."""


@final
@frozen
class Silence:
    """Not a byte until `Model.release()`; then the connection is closed."""


@final
@frozen
class HeadersOnly:
    """The headers of a good answer, then silence until `Model.release()`, then closed."""


@final
@frozen
class Drip:
    """Bytes without a meaning, one drop each `interval`; then the answer.

    It drips `count` times; None means until `Model.release()`.
    """

    what: Dripping
    interval: timedelta
    count: int | None = None
    answer: Answer = Answer()


@final
@frozen
class Raw:
    """A body in exactly these pieces, properly ended. For events and UTF-8 cut anywhere."""

    pieces: tuple[bytes, ...]
    delay: timedelta = AT_ONCE
    status: int = 200
    headers: Mapping[str, str] = field(factory=dict[str, str])


@final
@frozen
class Delivery:
    """Exactly these bytes on the connection, which is then closed. For broken HTTP."""

    pieces: tuple[bytes, ...]
    delay: timedelta = AT_ONCE


@final
@frozen
class Cut:
    """The connection breaks after some pieces of the answer."""

    after: int
    how: Break = Break.CLOSE
    answer: Answer = Answer()


@final
@frozen
class Stall:
    """Silence after some pieces until `Model.release()`; then the rest."""

    after: int
    answer: Answer = Answer()


@final
@frozen
class ErrorEvent:
    """A 200 with an error: as an event after some pieces, or as the whole body."""

    error: Json
    after: int = 0
    answer: Answer = Answer()


@final
@frozen
class EndWithoutFinish:
    """The whole text, then a clean end without a `finish_reason`."""

    says_done: bool = False
    """Whether a stream still ends with `[DONE]`."""
    answer: Answer = Answer()


@final
@frozen
class Hang:
    """Silence until the gate opens, then another behaviour."""

    gate: Gate
    then: Behaviour = Answer()


@final
@frozen
class Delayed:
    """Silence for a while, then another behaviour."""

    by: timedelta
    then: Behaviour = Answer()


Behaviour: TypeAlias = (
    Answer
    | StatusAnswer
    | ConnectionClosed
    | ConnectionReset
    | Silence
    | HeadersOnly
    | Drip
    | Raw
    | Delivery
    | Cut
    | Stall
    | ErrorEvent
    | EndWithoutFinish
    | Hang
    | Delayed
)


@final
@frozen
class Received:
    """One request. `headers` have names in lower case; `ending` is None while it runs.

    `arrived` is on the monotonic clock; requests with equal `connection` shared one.
    """

    method: str
    path: str
    # Not in the repr: it holds the key, and a failing test prints what it compared.
    headers: Mapping[str, str] = field(repr=False)
    body: Json
    arrived: float
    connection: int
    number: int = 0
    ending: Ending | None = None

    @property
    def streams(self) -> bool:
        return self.body.get("stream") is True

    @property
    def wants_usage(self) -> bool:
        match self.body:
            case {"stream_options": {"include_usage": True}}:
                return True
            case _:
                return False


Play: TypeAlias = Behaviour | Callable[[Received], Behaviour]
"""What a model does with a request: fixed, or a function of it."""


def refusal(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> StatusAnswer:
    """Make an error answer with a body in OpenAI's shape."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return StatusAnswer(status, {"error": error}, headers or {})


def rate_limited(retry_after: timedelta | None = None) -> StatusAnswer:
    """Make a 429, with a `Retry-After` in seconds if one is given."""
    return refusal(
        HTTPStatus.TOO_MANY_REQUESTS,
        "Rate limit exceeded",
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        headers=(
            {}
            if retry_after is None
            else {"Retry-After": f"{retry_after.total_seconds():g}"}
        ),
    )


def server_error(status: int = HTTPStatus.SERVICE_UNAVAILABLE) -> StatusAnswer:
    """Make the answer of an overloaded server."""
    return refusal(status, "The server is overloaded", kind="server_error")
