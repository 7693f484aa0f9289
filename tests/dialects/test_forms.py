"""What other APIs and older clients write otherwise is taken by every server, and means the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from muxcore.dialects.reading import UNKNOWN_PART
from tests.dialects.table import DIALECTS, Dialect

HI = {"role": "user", "content": "hi"}
BASE64 = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
LOOK = {"name": "look", "arguments": "{}"}
CALL = {"id": "c1", "type": "function", "function": LOOK}


def user(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "w1e"}]}]


def assistant(*parts: Any) -> list[Any]:
    content = [*parts, {"type": "text", "text": "w1e"}]
    return [HI, {"role": "assistant", "content": content}, HI]


def result(part: Any) -> list[Any]:
    answer = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    return [HI, answer, {"role": "tool", "tool_call_id": "c1", "content": [part]}]


HISTORIES: dict[str, tuple[list[Any], list[str]]] = {
    # the history, and the words that each server must get
    "a text of the Responses API": (user({"type": "input_text", "text": "w0e"}), ["w0e"]),
    "an answer of the Responses API": (
        assistant({"type": "output_text", "text": "w0e"}),
        ["w0e"],
    ),
    "a text without a type": (user({"text": "w0e"}), ["w0e"]),
    "a text of nothing": (user({"type": "text", "text": None}), ["w1e"]),
    "a refusal": (assistant({"type": "refusal", "refusal": "w0e"}), ["w0e", "w1e"]),
    "reasoning in a part": (assistant({"type": "reasoning", "text": "t0e"}), ["w1e"]),
    "encrypted thinking": (assistant({"type": "redacted_thinking", "data": "x"}), ["w1e"]),
    "a call in a part": (
        assistant({"type": "tool_use", "id": "t", "name": "look", "input": {}}),
        ["w1e"],
    ),
    "a result of another protocol": (
        result({"type": "resource", "resource": {"uri": "x"}}),
        [UNKNOWN_PART.format(kind="resource")],
    ),
    "an image of the Messages API": (user({"type": "image", "source": BASE64}), ["w1e"]),
    "an image of the Responses API": (
        user({"type": "input_image", "image_url": "data:image/png;base64,AAAA"}),
        ["w1e"],
    ),
    "the older function call": (
        [
            HI,
            {"role": "assistant", "content": None, "function_call": LOOK},
            {"role": "function", "name": "look", "content": "r0e"},
        ],
        ["look", "r0e"],
    ),
    "signed thoughts that are none": (
        [HI, {"role": "assistant", "content": "w0e", "thinking_blocks": "x"}, HI],
        ["w0e"],
    ),
    "signed items that are none": (
        [HI, {"role": "assistant", "content": "w0e", "reasoning_items": {"a": 1}}, HI],
        ["w0e"],
    ),
}


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_every_server_takes_the_history(dialect: Dialect, name: str) -> None:
    messages, words = HISTORIES[name]
    body = dialect.body(messages)
    assert dialect.judge(body) is None
    text = json.dumps(body)
    assert all(word in text for word in words)
    if "image" in name:
        assert ("AAAA" in text) is dialect.sees
