"""Recorded answers: good ones in the dialect of OpenAI, and refusals of many providers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from attrs import field, frozen

from muxcore.chat import Json
from muxcore.core.outcomes import Fault, Kind, Limit, Refusal
from muxcore.plugins.backend import HttpResponse

ERROR_EVENT = b'data: {"error": {"message": "The server had an error", "code": 500}}\n\n'


@frozen
class Sample:
    """One answer of a server, in the bytes of its dialect, and the reply it stands for.

    `reply` is the body of the whole answer, `stream` the same answer as server-sent events,
    and `error` an event that reports an error in such a stream. `message` has the members
    that the message must have either way: `content`, `reasoning_content`, `tool_calls`.
    """

    name: str
    reply: bytes
    stream: bytes
    message: Json
    finish_reason: str = "stop"
    error: bytes = ERROR_EVENT


@frozen
class Row:
    """One row of the failure table: an answer, and the kinds that it may be classified as."""

    name: str
    answer: HttpResponse = field(repr=False)
    kinds: tuple[Kind, ...]


def failure_table() -> tuple[Row, ...]:
    """Return refusals and broken answers of many providers, each with its kinds."""
    text = resources.files(__package__).joinpath("answers.json").read_text("utf-8")
    return tuple(_row(**facts) for facts in json.loads(text))


def _row(
    name: str, status: int, headers: Mapping[str, str], body: object, kinds: list[str]
) -> Row:
    raw = body if isinstance(body, str) else json.dumps(body)
    return Row(name, HttpResponse(status, headers, raw.encode()), tuple(map(_kind, kinds)))


def _kind(value: str) -> Kind:
    every: list[Kind] = [*Limit, *Fault, *Refusal]
    return next(kind for kind in every if kind == value)


def _openai(name: str, message: Json, finish_reason: str, *deltas: Json) -> Sample:
    """Make a sample from a message and the deltas that stream it."""
    head: Json = {"id": "chatcmpl-1", "created": 1767225600, "model": "model-1"}
    usage = {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19}
    reply = {
        **head,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": usage,
    }
    choices: list[Json] = [
        {"index": 0, "delta": delta, "finish_reason": None}
        for delta in ({"role": "assistant", "content": ""}, *deltas)
    ]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish_reason})
    chunks: list[Json] = [
        *({"choices": [choice]} for choice in choices),
        {"choices": [], "usage": usage},
    ]
    events = [
        json.dumps({**head, "object": "chat.completion.chunk", **chunk}, ensure_ascii=False)
        for chunk in chunks
    ]
    stream = "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])
    return Sample(name, json.dumps(reply).encode(), stream.encode(), message, finish_reason)


def _call(identity: str, name: str, arguments: str) -> Json:
    function = {"name": name, "arguments": arguments}
    return {"id": identity, "type": "function", "function": function}


def _piece(index: int, arguments: str, **more: Any) -> Json:
    return {"index": index, **more, "function": {"arguments": arguments}}


def _first_piece(index: int, identity: str, name: str) -> Json:
    return {"index": index, **_call(identity, name, "")}


OPENAI_SAMPLES: tuple[Sample, ...] = (
    _openai(
        "text",
        {"role": "assistant", "content": "Grüße, 世界 👋"},
        "stop",
        {"content": "Grü"},
        {"content": "ße, 世"},
        {"content": "界 👋"},
    ),
    _openai(
        "reasoning",
        {"role": "assistant", "content": "4", "reasoning_content": "Two and two."},
        "stop",
        {"reasoning_content": "Two "},
        {"reasoning_content": "and two."},
        {"content": "4"},
    ),
    _openai(
        "tool calls",
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                _call("call00001", "read_file", '{"path": "a.py"}'),
                _call("call00002", "list", "{}"),
            ],
        },
        "tool_calls",
        {"tool_calls": [_first_piece(0, "call00001", "read_file")]},
        {"tool_calls": [_piece(0, '{"path": ')]},
        {"tool_calls": [_piece(0, '"a.py"}')]},
        {"tool_calls": [_first_piece(1, "call00002", "list")]},
        {"tool_calls": [_piece(1, "{}")]},
    ),
)
"""What most servers send. A dialect of another shape needs its own samples."""
