"""A front door: an API in which clients speak to the pool, as a record of pure functions.

Behind every door a call is a `Chat` and its answer a `Reply` or `Chunk`s, so a door is the codec
between one API and these; `handlers` does the same for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Protocol

from attrs import frozen

from muxcore import jsontext
from muxcore.chat import Chat, Chunk, Json, Reply
from muxcore.gateway.http.wire import ErrorResponse


@frozen
class ClientRequest:
    """A request for an answer: the `model` that the client names, its call, its whole body."""

    model: str
    chat: Chat
    body: Json


@frozen
class Stamp:
    """What an answer needs and no pure function can make: an id, and the time in seconds."""

    id: str
    created: int


class StreamEncoder(Protocol):
    """Writes one answer as a stream of events, each of which may be empty."""

    def feed(self, chunk: Chunk) -> bytes:
        """Write the events for a chunk."""
        ...

    def end(self) -> bytes:
        """Write the events after the last chunk of a whole answer."""
        ...

    def fail(self, error: ErrorResponse) -> bytes:
        """Write the event that tells a client why the answer breaks off here."""
        ...


@frozen
class FrontDoor:
    """One API. `read` raises `RefusedError` for a request that it does not know."""

    read: Callable[[bytes], ClientRequest]
    whole: Callable[[ClientRequest, Stamp, Reply], Json]
    stream: Callable[[ClientRequest, Stamp], StreamEncoder]
    error: Callable[[ErrorResponse], Json]


def as_chunk(reply: Reply) -> Chunk:
    """Return a whole answer as one piece of a stream: encoders write both alike."""
    calls = [{"index": n, **call} for n, call in enumerate(reply.tool_calls)]
    delta = {**reply.message, "tool_calls": calls}
    choice = {"delta": delta, "finish_reason": reply.finish_reason}
    return Chunk({**reply.raw, "choices": [choice]})


class CallIds:
    """Gives calls ids that no other call of the conversation has: clients tell them apart by it.

    Some servers give the same ids in each answer.
    """

    def __init__(self, request: ClientRequest, stamp: Stamp, prefix: str) -> None:
        self._beginning = f"{prefix}_{stamp.id}"
        self._taken = {
            call.get("id")
            for message in request.chat.messages
            for call in message.get("tool_calls") or ()
        }
        self._given = 0

    def own(self, identity: str) -> str:
        """Return the server's id for the next call, or one of our own."""
        if not identity or identity in self._taken:
            identity = f"{self._beginning}{self._given}"
        self._given += 1
        self._taken.add(identity)
        return identity


def event(value: object, name: str = "") -> bytes:
    """Write one server-sent event, without a name as chat completions have it."""
    named = b"event: " + name.encode() + b"\n" if name else b""
    return named + b"data: " + as_json(value) + b"\n\n"


def as_json(value: object) -> bytes:
    try:
        return jsontext.encode(value).encode()
    except ValueError:
        # A stranger's backend has read NaN, which no client could.
        return jsontext.encode(jsontext.decode(json.dumps(value))).encode()
