"""The front door of OpenAI's chat completions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muxcore.assembling import usage_of
from muxcore.chat import Chat, Chunk, Json, Reply
from muxcore.gateway.front_doors.body import (
    count_in,
    is_objects,
    model_in,
    optional,
    optional_objects,
    parsed,
    refuse,
)
from muxcore.gateway.front_doors.door import ClientRequest, FrontDoor, Stamp, event
from muxcore.gateway.http.wire import ErrorResponse

DONE = b"data: [DONE]\n\n"

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


def read_request(body: bytes) -> ClientRequest:
    """Read a request; members that are not known go to `chat.extra`."""
    members = parsed(body)
    model = model_in(members)
    optional(members, "stream_options", dict)
    chat = Chat(
        messages=_messages(members.get("messages")),
        tools=optional_objects(members, "tools"),
        tool_choice=members.get("tool_choice"),
        temperature=optional(members, "temperature", float, int),
        max_tokens=count_in(members, "max_tokens"),
        stream=optional(members, "stream", bool) or False,
        extra={
            name: value for name, value in members.items() if name not in _KNOWN_MEMBERS
        },
    )
    return ClientRequest(model, chat, members)


def _messages(value: object) -> list[Json]:
    if not isinstance(value, list) or not value or not is_objects(value):
        refuse("messages", "a list of objects, and not empty")
    for position, message in enumerate(value):
        if not isinstance(message.get("role", ""), str):
            refuse(f"messages[{position}].role", "a text")
        content, calls = message.get("content"), message.get("tool_calls")
        if not (content is None or isinstance(content, str) or _is_parts(content)):
            refuse(f"messages[{position}].content", "a text, or a list of parts")
        if not (calls is None or is_objects(calls)):
            refuse(f"messages[{position}].tool_calls", "a list of objects")
    return value


def _is_parts(value: object) -> bool:
    return (
        isinstance(value, list)
        and is_objects(value)
        and all(isinstance(part.get("text", ""), str | None) for part in value)
    )


def completion(request: ClientRequest, stamp: Stamp, reply: Reply) -> Json:
    """Write a whole response: the model's own object, with missing fields filled in."""
    own = _completed(request, stamp, reply.raw, "chat.completion")
    choices = own.get("choices") or [{}]
    first = {"index": 0, "finish_reason": reply.finish_reason, **choices[0]}
    first["message"] = {"role": "assistant", "content": None, **reply.message}
    own["choices"] = [first, *choices[1:]]
    return own


def _completed(
    request: ClientRequest, stamp: Stamp, raw: Mapping[str, Any], kind: str
) -> Json:
    """Fill in the fields that every response must have, where the model left them out."""
    own = {**raw, "object": kind}
    for name, value in (
        ("id", f"chatcmpl-{stamp.id}"),
        ("created", stamp.created),
        ("model", request.model),
    ):
        if own.get(name) is None:
            own[name] = value
    return own


class CompletionEncoder:
    """Writes chunks as events: the model's own objects, with missing fields filled in.

    The first event names the role, which strict clients require and some models leave out.
    The usage is sent once, after everything else, and only if the client asked for it:
    clients that add up each usage would count a second one twice.
    """

    __slots__ = ("_begun", "_request", "_stamp", "_usage", "_usage_chunk")

    def __init__(self, request: ClientRequest, stamp: Stamp) -> None:
        self._request = request
        self._stamp = stamp
        self._begun = False
        self._usage: object = None
        """The last usage of the stream."""
        self._usage_chunk: Mapping[str, Any] = {}
        """The chunk that held it."""

    def feed(self, chunk: Chunk) -> bytes:
        raw = chunk.raw
        if raw.get("usage"):
            self._usage, self._usage_chunk = raw["usage"], raw
            if not raw.get("choices"):
                return b""
        if "usage" in raw:
            raw = {name: value for name, value in raw.items() if name != "usage"}
        written = self._chunk(raw)
        if not self._begun and written.get("choices"):
            self._begun = True
            written["choices"][0]["delta"] = {"role": "assistant", **chunk.delta}
        return event(written)

    def end(self) -> bytes:
        options = self._request.chat.extra.get("stream_options") or {}
        asked = options.get("include_usage") is True
        # Strict clients refuse a usage without all of its counts.
        if asked and usage_of({"usage": self._usage}).total_tokens is not None:
            others = self._usage_chunk if not self._usage_chunk.get("choices") else {}
            last = {**self._chunk({**others, "choices": []}), "usage": self._usage}
            return event(last) + DONE
        return DONE

    def fail(self, error: ErrorResponse) -> bytes:
        return event(error_body(error))

    def _chunk(self, raw: Mapping[str, Any]) -> Json:
        own = _completed(self._request, self._stamp, raw, "chat.completion.chunk")
        choices = own.get("choices")
        if choices:
            # Strict clients reject a choice without these.
            first = {"index": 0, "finish_reason": None, **choices[0]}
            own["choices"] = [first, *choices[1:]]
        return own


def error_body(response: ErrorResponse) -> Json:
    return {
        "error": {
            "message": response.message,
            "type": response.kind,
            "param": response.param,
            "code": response.code,
        }
    }


FRONT_DOOR = FrontDoor(read_request, completion, CompletionEncoder, error_body)
