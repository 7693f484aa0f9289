"""Requests for a completion, read; answers, written in OpenAI's shape. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NoReturn

from attrs import field, frozen

from muxcore.chat import Chat, Chunk, Json, Reply
from muxcore.gateway.http.wire import ErrorResponse, RefusedError

POOL = "mux"
"""The `model` that stands for the whole pool."""

DONE = b"data: [DONE]\n\n"

# Escaping what is not ASCII also carries the halves of characters that UTF-8 refuses.
_encode = json.JSONEncoder(separators=(",", ":")).encode

WORDS = {bool: "true or false", dict: "an object", int: "an integer", float: "a number"}
"""What each kind of value is called."""

_READ_HERE = frozenset(
    {
        "max_tokens",
        "messages",
        "model",
        "stream",
        "temperature",
        "tool_choice",
        "tools",
    }
)


@frozen
class CompletionRequest:
    """A request for a completion. What is not understood is in `chat.extra`."""

    model: str
    chat: Chat
    streams: bool
    wants_usage: bool


def read_request(body: bytes, left_out: Collection[str] = ()) -> CompletionRequest:
    """Read a request, without the members of `left_out`. Raise `RefusedError`."""
    raw = _parsed(body)
    said = {name: value for name, value in raw.items() if name not in left_out}
    model = raw.get("model")
    if not isinstance(model, str):
        _refuse("model", "a text")
    streams = _optional(said, "stream", bool) or False
    options = _optional(said, "stream_options", dict) or {}
    temperature = _optional(said, "temperature", float, int)
    chat = Chat(
        messages=_messages(said.get("messages")),
        tools=_objects(said, "tools"),
        tool_choice=said.get("tool_choice"),
        temperature=temperature,
        max_tokens=_optional(said, "max_tokens", int),
        stream=streams,
        extra={name: value for name, value in said.items() if name not in _READ_HERE},
    )
    return CompletionRequest(model, chat, streams, options.get("include_usage") is True)


def _parsed(body: bytes) -> Json:
    try:
        raw = json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise RefusedError(ErrorResponse(400, "The body is not valid JSON.")) from None
    if not isinstance(raw, dict):
        raise RefusedError(ErrorResponse(400, "The body is no JSON object."))
    return raw


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _optional(said: Json, name: str, *kinds: type) -> Any:
    value = said.get(name)
    # To Python a bool is an int, to JSON it is not.
    right = isinstance(value, kinds) and (type(value) is not bool or bool in kinds)
    if not (value is None or right):
        _refuse(name, WORDS[kinds[0]])
    return value


def _objects(said: Json, name: str) -> list[Json] | None:
    value = said.get(name)
    if not (value is None or _is_objects(value)):
        _refuse(name, "a list of objects")
    return value


def _messages(value: object) -> list[Json]:
    if not isinstance(value, list) or not value or not _is_objects(value):
        _refuse("messages", "a list of objects, and not empty")
    for position, message in enumerate(value):
        content, calls = message.get("content"), message.get("tool_calls")
        if not (content is None or isinstance(content, str) or _is_parts(content)):
            _refuse(f"messages[{position}].content", "a text, or a list of parts")
        if not (calls is None or _is_objects(calls)):
            _refuse(f"messages[{position}].tool_calls", "a list of objects")
    return value


def _is_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _is_parts(value: object) -> bool:
    return (
        isinstance(value, list)
        and _is_objects(value)
        and all(isinstance(part.get("text", ""), str | None) for part in value)
    )


def _refuse(name: str, expected: str) -> NoReturn:
    raise RefusedError(ErrorResponse(400, f"{name} must be {expected}.", param=name))


@frozen
class Frame:
    """What an answer must have, where the model that gave it has left it out."""

    id: str
    created: int
    model: str

    def whole(self, reply: Reply) -> Json:
        """Write a whole answer: the model's own object, completed."""
        own = self._completed(reply.raw, "chat.completion")
        choices = own.get("choices") or [{}]
        first = {"index": 0, "finish_reason": reply.finish_reason, **choices[0]}
        first["message"] = {"role": "assistant", "content": None, **reply.message}
        own["choices"] = [first, *choices[1:]]
        return own

    def chunk(self, raw: Mapping[str, Any]) -> Json:
        """Write one chunk: the model's own object, completed."""
        own = self._completed(raw, "chat.completion.chunk")
        choices = own.get("choices")
        if choices:
            # Strict clients refuse a choice without these.
            first = {"index": 0, "finish_reason": None, **choices[0]}
            own["choices"] = [first, *choices[1:]]
        return own

    def usage(self, usage: object, raw: Mapping[str, Any]) -> Json:
        """Write the chunk that only tells the usage."""
        others = raw if not raw.get("choices") else {}
        return {**self.chunk({**others, "choices": []}), "usage": usage}

    def _completed(self, raw: Mapping[str, Any], kind: str) -> Json:
        own = {**raw, "object": kind}
        for name, value in (
            ("id", self.id),
            ("created", self.created),
            ("model", self.model),
        ):
            if own.get(name) is None:
                own[name] = value
        return own


@frozen
class SentStream:
    """The usage that a stream has told so far, and the chunk that told it."""

    usage: object = None
    raw: Mapping[str, Any] = field(factory=dict[str, Any])


def events(chunks: Iterator[Chunk], frame: Frame, *, wants_usage: bool) -> Iterator[bytes]:
    """Write the chunks of a stream as events, all but `DONE`.

    The first one names the role, which strict clients want and some models leave out.
    Whatever a model does, its usage is told once, after everything else, and only to those
    who have asked: clients that add up what they are told would count it twice.
    """
    told = SentStream()
    begun = False
    for chunk in chunks:
        raw = chunk.raw
        if raw.get("usage"):
            told = SentStream(raw["usage"], raw)
            if not raw.get("choices"):
                continue
        if "usage" in raw:
            raw = {name: value for name, value in raw.items() if name != "usage"}
        written = frame.chunk(raw)
        if not begun and written.get("choices"):
            begun = True
            written["choices"][0]["delta"] = {"role": "assistant", **chunk.delta}
        yield event(written)
    if wants_usage and told.usage:
        yield event(frame.usage(told.usage, told.raw))


def event(value: object) -> bytes:
    return b"data: " + as_json(value) + b"\n\n"


def as_json(value: object) -> bytes:
    return _encode(value).encode()


def said_by_server(text: str) -> tuple[Reply, tuple[Chunk, ...]]:
    """Make an answer of words that no model has said, whole and in chunks."""
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    message: Json = {"role": "assistant", "content": text}
    whole = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
    deltas: list[tuple[Json, str | None]] = [
        ({"role": "assistant", "content": ""}, None),
        ({"content": text}, None),
        ({}, "stop"),
    ]
    chunks = [
        Chunk({"choices": [{"delta": delta, "finish_reason": reason}]})
        for delta, reason in deltas
    ]
    chunks.append(Chunk({"choices": [], "usage": usage}))
    return Reply(message, "stop", raw=whole), tuple(chunks)


def models(aliases: Collection[str], created: int) -> Json:
    """List what `model` may be."""
    return {"object": "list", "data": [model(alias, created) for alias in aliases]}


def model(alias: str, created: int) -> Json:
    return {"id": alias, "object": "model", "created": created, "owned_by": "vibe-mux"}
