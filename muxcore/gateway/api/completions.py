"""Reads requests for a chat completion; writes responses in OpenAI's shape. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from http import HTTPStatus
from typing import Any, NoReturn

from attrs import field, frozen

from muxcore import jsontext
from muxcore.assembling import usage_of
from muxcore.chat import Chat, Chunk, Json, Reply
from muxcore.gateway.http.wire import ErrorResponse, RefusedError

POOL = "mux"
"""The `model` that stands for the whole pool."""

DONE = b"data: [DONE]\n\n"

WORDS = {bool: "true or false", dict: "an object", int: "an integer", float: "a number"}
"""What an error calls each type of value."""

_KNOWN_MEMBERS = frozenset(
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
    """A request for a completion. Unknown members are in `chat.extra`.

    `effort` is its `reasoning_effort`, whatever is left out of the chat.
    """

    model: str
    chat: Chat
    streams: bool
    wants_usage: bool
    effort: object = None


def read_request(body: bytes, left_out: Collection[str] = ()) -> CompletionRequest:
    """Read a request, dropping the members in `left_out`. Raise `RefusedError`."""
    raw = _parsed(body)
    members = {name: value for name, value in raw.items() if name not in left_out}
    model = raw.get("model")
    if not isinstance(model, str):
        _refuse("model", "a text")
    streams = _optional(members, "stream", bool) or False
    options = _optional(members, "stream_options", dict) or {}
    temperature = _optional(members, "temperature", float, int)
    chat = Chat(
        messages=_messages(members.get("messages")),
        tools=_objects(members, "tools"),
        tool_choice=members.get("tool_choice"),
        temperature=temperature,
        max_tokens=_optional(members, "max_tokens", int),
        stream=streams,
        extra={
            name: value for name, value in members.items() if name not in _KNOWN_MEMBERS
        },
    )
    return CompletionRequest(
        model,
        chat,
        streams,
        options.get("include_usage") is True,
        raw.get("reasoning_effort"),
    )


def _parsed(body: bytes) -> Json:
    try:
        raw = json.loads(
            body.decode("utf-8"), parse_constant=_reject_constant, parse_float=_finite
        )
    except _NumberError as error:
        raise RefusedError(ErrorResponse(HTTPStatus.BAD_REQUEST, str(error))) from None
    except (ValueError, RecursionError):
        text = "The body is not valid JSON."
        raise RefusedError(ErrorResponse(HTTPStatus.BAD_REQUEST, text)) from None
    if not isinstance(raw, dict):
        text = "The body is no JSON object."
        raise RefusedError(ErrorResponse(HTTPStatus.BAD_REQUEST, text))
    return raw


class _NumberError(ValueError):
    """A number of the body is one that JSON does not have, or that no model could read."""


def _reject_constant(text: str) -> NoReturn:
    raise _NumberError(f"The body is not valid JSON: {text[:40]} is no number of JSON.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _NumberError(
            f"The body holds {text[:40]}, a number too large for a model to read."
        )
    return number


def _optional(members: Json, name: str, *kinds: type) -> Any:
    value = members.get(name)
    # To Python a bool is an int, to JSON it is not.
    right = isinstance(value, kinds) and (type(value) is not bool or bool in kinds)
    if not (value is None or right):
        _refuse(name, WORDS[kinds[0]])
    return value


def _objects(members: Json, name: str) -> list[Json] | None:
    value = members.get(name)
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
    text = f"{name} must be {expected}."
    raise RefusedError(ErrorResponse(HTTPStatus.BAD_REQUEST, text, param=name))


@frozen
class Frame:
    """The fields every response must have; used where the model left them out."""

    id: str
    created: int
    model: str

    def whole(self, reply: Reply) -> Json:
        """Write a whole response: the model's own object, with missing fields filled in."""
        own = self._completed(reply.raw, "chat.completion")
        choices = own.get("choices") or [{}]
        first = {"index": 0, "finish_reason": reply.finish_reason, **choices[0]}
        first["message"] = {"role": "assistant", "content": None, **reply.message}
        own["choices"] = [first, *choices[1:]]
        return own

    def chunk(self, raw: Mapping[str, Any]) -> Json:
        """Write one chunk: the model's own object, with missing fields filled in."""
        own = self._completed(raw, "chat.completion.chunk")
        choices = own.get("choices")
        if choices:
            # Strict clients reject a choice without these.
            first = {"index": 0, "finish_reason": None, **choices[0]}
            own["choices"] = [first, *choices[1:]]
        return own

    def usage(self, usage: object, raw: Mapping[str, Any]) -> Json:
        """Write the chunk that holds the usage alone."""
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
class StreamUsage:
    """The last usage in a stream, and the chunk that held it."""

    usage: object = None
    raw: Mapping[str, Any] = field(factory=dict[str, Any])


def events(chunks: Iterator[Chunk], frame: Frame, *, wants_usage: bool) -> Iterator[bytes]:
    """Write the chunks of a stream as events, without `DONE`.

    The first event names the role, which strict clients require and some models leave out.
    The usage is sent once, after everything else, and only if the client asked for it:
    clients that add up each usage would count a second one twice.
    """
    last = StreamUsage()
    begun = False
    for chunk in chunks:
        raw = chunk.raw
        if raw.get("usage"):
            last = StreamUsage(raw["usage"], raw)
            if not raw.get("choices"):
                continue
        if "usage" in raw:
            raw = {name: value for name, value in raw.items() if name != "usage"}
        written = frame.chunk(raw)
        if not begun and written.get("choices"):
            begun = True
            written["choices"][0]["delta"] = {"role": "assistant", **chunk.delta}
        yield event(written)
    # Strict clients refuse a usage without all of its counts.
    if wants_usage and usage_of({"usage": last.usage}).total_tokens is not None:
        yield event(frame.usage(last.usage, last.raw))


def event(value: object) -> bytes:
    return b"data: " + as_json(value) + b"\n\n"


def as_json(value: object) -> bytes:
    try:
        return jsontext.encode(value).encode()
    except ValueError:
        # A stranger's backend has read NaN, which no client could.
        return jsontext.encode(jsontext.decode(json.dumps(value))).encode()


def gateway_reply(text: str) -> tuple[Reply, tuple[Chunk, ...]]:
    """Make a reply of the gateway's own text, whole and in chunks. No model is called."""
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
    """List the valid values of `model`."""
    return {"object": "list", "data": [model(alias, created) for alias in aliases]}


def model(alias: str, created: int) -> Json:
    return {"id": alias, "object": "model", "created": created, "owned_by": "vibe-mux"}
