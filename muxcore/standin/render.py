"""Render an answer as bytes, whole or streamed, without headers. Pure and deterministic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import AnyStr

from attrs import evolve, frozen

from muxcore.chat import Json, Usage
from muxcore.standin.script import Answer, Received, ToolCall

CREATED = 1_700_000_000
JSON_TYPE = "application/json"
STREAM_TYPE = "text/event-stream"
DONE = b"data: [DONE]\n\n"
CHARACTERS_PER_TOKEN = 4


@frozen
class RenderedBody:
    """The parts of an answer, between which it can be delayed or broken off."""

    content_type: str
    opening: bytes
    contents: tuple[bytes, ...]
    closing: bytes

    @property
    def length(self) -> int | None:
        """The value of `content-length`; None for a stream."""
        if self.content_type == STREAM_TYPE:
            return None
        return sum(map(len, self.contents)) + len(self.closing)


def body(answer: Answer, label: str, received: Received) -> RenderedBody:
    render_body = _streamed if received.streams else _whole
    return render_body(answer, label, received, finish_reason(answer))


def unfinished(
    answer: Answer, label: str, received: Received, *, says_done: bool
) -> RenderedBody:
    """Render an answer without a finish reason."""
    if not received.streams:
        return _whole(answer, label, received, None)
    rendered = _streamed(answer, label, received, None)
    return evolve(rendered, closing=DONE if says_done else b"")


def finish_reason(answer: Answer) -> str:
    return answer.finish_reason or ("tool_calls" if answer.tool_calls else "stop")


def as_json(value: object) -> bytes:
    # Not escaped to ASCII: real providers send UTF-8, and a piece may end within a character.
    return json.dumps(value, ensure_ascii=False).encode()


def event(value: object) -> bytes:
    return b"data: " + as_json(value) + b"\n\n"


def _text(answer: Answer, label: str) -> str | None:
    if answer.text is None and not answer.tool_calls:
        return f"pong from {label}"
    return answer.text


def _whole(
    answer: Answer, label: str, received: Received, finish: str | None
) -> RenderedBody:
    message: Json = {"role": "assistant", "content": _text(answer, label)}
    if answer.reasoning:
        message[answer.reasoning_field] = answer.reasoning
    if answer.tool_calls:
        message["tool_calls"] = [
            _tool_call(index, call) for index, call in enumerate(answer.tool_calls)
        ]
    data = as_json(
        {
            "id": _identifier(label, received),
            "object": "chat.completion",
            "created": CREATED,
            "model": received.body.get("model"),
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": _usage(answer, label, received),
        }
    )
    # One more part, so that an answer of a single piece can be cut before its end, too.
    *contents, closing = _split(data, answer.pieces + 1)
    return RenderedBody(JSON_TYPE, b"", tuple(contents), closing)


def _streamed(
    answer: Answer, label: str, received: Received, finish: str | None
) -> RenderedBody:
    frame: Json = {
        "id": _identifier(label, received),
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": received.body.get("model"),
    }

    def chunk(delta: Json, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return event({**frame, "choices": [choice]})

    usage = event({**frame, "choices": [], "usage": _usage(answer, label, received)})
    return RenderedBody(
        STREAM_TYPE,
        chunk({"role": "assistant", "content": ""}),
        tuple(map(chunk, _deltas(answer, label))),
        chunk({}, finish) + (usage if received.wants_usage else b"") + DONE,
    )


def _deltas(answer: Answer, label: str) -> Iterator[Json]:
    for piece in _split(answer.reasoning, answer.pieces):
        yield {answer.reasoning_field: piece}
    for piece in _split(_text(answer, label) or "", answer.pieces):
        yield {"content": piece}
    for index, call in enumerate(answer.tool_calls):
        first, *others = _split(call.arguments, answer.pieces) or [""]
        opening = _tool_call(index, ToolCall(call.name, first, call.id))
        yield {"tool_calls": [{"index": index, **opening}]}
        for piece in others:
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _tool_call(index: int, call: ToolCall) -> Json:
    function = {"name": call.name, "arguments": call.arguments}
    return {
        "id": call.id or f"call{index:05}",
        "type": "function",
        "function": function,
    }


def _split(whole: AnyStr, count: int) -> list[AnyStr]:
    """Cut into `count` parts of about equal length; fewer if some would be empty."""
    size = max(1, -(-len(whole) // count))
    return [whole[start : start + size] for start in range(0, len(whole), size)]


def _identifier(label: str, received: Received) -> str:
    return f"chatcmpl-{label}-{received.number}"


def _usage(answer: Answer, label: str, received: Received) -> Json:
    usage = answer.usage or Usage(
        prompt_tokens=_tokens(as_json(received.body.get("messages")).decode()),
        completion_tokens=_tokens(
            (_text(answer, label) or "")
            + answer.reasoning
            + "".join(call.arguments for call in answer.tool_calls)
        ),
    )
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens or 0},
    }


def _tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)
