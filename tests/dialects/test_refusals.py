"""The judges refuse what the real servers refuse, in wordings that are classified alike.

Each history here goes to its server as it is: were a judge too lenient, the properties that
rest on it would show nothing.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from muxcore.core.outcomes import Refusal
from muxcore.plugins.backend import HttpResponse
from tests.dialects.table import BY_NAME

NOW = datetime(2026, 1, 1, tzinfo=UTC)

USER = {"role": "user", "content": "hi"}


def call(identity: str, name: str = "look", arguments: str = "{}") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": identity, "type": "function", "function": function}


def calling(*calls: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": list(calls), **more}


def result(identity: str, content: Any = "r") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": identity, "content": content}


NINE = "abcDEF123"
OPENAIS = "call_" + "a" * 24
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}

REFUSED: list[tuple[str, list[Any], str]] = [
    ("mistral", [], "at least one message"),
    ("mistral", [USER, calling(call(OPENAIS)), result(OPENAIS)], "with a length of 9"),
    (
        "mistral",
        [USER, calling(call(NINE)), result(NINE), USER],
        "role 'user' after role 'tool'",
    ),
    ("mistral", [USER, result(NINE)], "Unexpected role 'tool' after role 'user'"),
    ("mistral", [calling(call(NINE)), result(NINE)], "Unexpected tool call id"),
    ("mistral", [USER, calling(call(NINE)), USER], "Not the same number of function calls"),
    ("mistral", [USER, calling(call(NINE))], "Expected last role User or Tool"),
    (
        "mistral",
        [USER, calling(call(NINE), call(NINE)), result(NINE)],
        "Duplicate tool call",
    ),
    (
        "mistral",
        [USER, calling(call(NINE)), result(NINE), result("123456789")],
        "Unexpected tool call id",
    ),
    ("mistral", [USER, {"role": "assistant", "content": ""}, USER], "but not none"),
    ("mistral", [USER, {"role": "assistant", "content": "a"}], "Expected last role"),
    (
        "mistral",
        [USER, {"role": "assistant", "content": "a", "reasoning_content": "x"}, USER],
        "reasoning_content",
    ),
    ("mistral", [{**USER, "name": "me"}], "extra_forbidden"),
    ("mistral", [USER, {"role": "developer", "content": "x"}], "union_tag_invalid"),
    ("mistral", [USER, {"role": "assistant", "content": [THOUGHT]}, USER], "not enabled"),
    ("mistral", [{"role": "user", "content": [IMAGE]}], "Image input is not enabled"),
    ("mistral", [{"role": "user", "content": [THOUGHT]}], "Unexpected content chunk types"),
    ("mistral", [{"role": "user", "content": [{**IMAGE, "a": 1}]}], "extra_forbidden"),
    ("mistral", [USER, calling({**call(NINE), "a": 1}), result(NINE)], "extra_forbidden"),
    ("mistral", [USER, calling(call(NINE, "a.b")), result(NINE)], "Function name was a.b"),
    ("openai", [USER, calling(call("a" * 41)), result("a" * 41)], "maximum length 40"),
    ("openai", [USER, calling(call("a")), USER], "must be followed by tool messages"),
    ("openai", [USER, calling(call("a"))], "must be followed by tool messages"),
    ("openai", [USER, result("a")], "must be a response to a preceeding message"),
    (
        "openai",
        [USER, {"role": "assistant", "content": None}],
        "expected a string, got null",
    ),
    (
        "openai",
        [USER, {"role": "assistant", "content": "a", "tool_calls": []}],
        "empty array",
    ),
    ("openai", [{"role": "user", "content": []}], "empty array"),
    ("openai", [USER, {"role": "assistant", "content": [THOUGHT]}], "Invalid value"),
    (
        "openai",
        [USER, {"role": "assistant", "content": "a", "prefix": 1}],
        "Unknown parameter",
    ),
    ("openai", [USER, calling(call("a")), result("a", [IMAGE])], "only allowed for"),
    ("openai", [USER, calling(call("a", "b.c")), result("a")], "does not match pattern"),
    ("openai", [USER, calling({**call("a"), "type": None}), result("a")], "Invalid type"),
    ("groq", [{"role": "user", "content": [IMAGE]}], "image_url is not supported"),
    (
        "groq",
        [USER, {"role": "assistant", "content": "a", "reasoning_content": "x"}],
        "property 'reasoning_content' is unsupported",
    ),
    ("google", [USER, calling(call("a")), result("a")], "missing a thought_signature"),
    ("google", [{**USER, "x": 1}], "Unknown name"),
    ("deepseek", [USER, {"role": "assistant", "content": "a"}], "must be passed back"),
    (
        "deepseek",
        [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
        "sequence",
    ),
    ("deepseek", [USER, {"role": "assistant"}], "missing field `content`"),
    ("kimi", [USER, calling(call("a"), reasoning_content=""), result("a")], "is missing"),
    (
        "kimi",
        [USER, {"role": "assistant", "content": "", "reasoning_content": " "}],
        "must not be empty",
    ),
    ("llama.cpp", [USER, USER], "must alternate"),
    ("llama.cpp", [{"role": "assistant", "content": "a"}], "must alternate"),
    (
        "llama.cpp",
        [USER, {"role": "system", "content": "a"}],
        "Only user, assistant and tool",
    ),
    ("llama.cpp", [USER, calling(call(OPENAIS)), result(OPENAIS)], "with length 9"),
    (
        "llama.cpp",
        [USER, calling(call(NINE, "a", "{")), result(NINE)],
        "Failed to parse tool",
    ),
    ("llama.cpp", [{"role": "user", "content": [IMAGE]}], "image input is not supported"),
    ("llama.cpp", [{"role": "user", "content": [THOUGHT]}], "unsupported content"),
    ("llama.cpp", [{"role": "user"}], "must contain 'content'"),
    ("ollama", [{"role": "user", "content": None}], "invalid message content type"),
    ("ollama", [USER, calling(call("a", "b", "[]")), result("a")], "invalid tool call"),
    ("ollama", [{"role": "user", "content": [THOUGHT]}], "invalid message format"),
]


@pytest.mark.parametrize(("name", "messages", "words"), REFUSED)
def test_each_stand_in_refuses_these_histories(
    name: str, messages: list[Any], words: str
) -> None:
    dialect = BY_NAME[name]
    refusal = dialect.judge({"model": "m", "messages": messages})
    assert refusal is not None
    status, body = refusal
    assert words in json.dumps(body)
    failure = dialect.backend.failure(
        HttpResponse(status, {}, json.dumps(body).encode()), NOW
    )
    assert isinstance(failure.kind, Refusal), failure


def test_a_member_of_the_body_that_mistral_does_not_know() -> None:
    refusal = BY_NAME["mistral"].judge({"messages": [USER], "store": True})
    assert refusal is not None
    assert refusal[0] == 422


def text(words: str = "hi") -> dict[str, Any]:
    return {"type": "text", "text": words}


def use(identity: str = "a", **more: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": identity, "name": "look", "input": {}, **more}


def done(identity: str = "a", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": identity, **more}


def turns(*contents: Any) -> list[Any]:
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": list(c)} for n, c in enumerate(contents)]


SIGNED = {"type": "thinking", "thinking": "hm", "signature": "c2lnbmVkclaude-thinking"}
PICTURE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": ""},
}

REFUSED_BY_CLAUDE: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "at least one message"),
    ({"seed": 1, "messages": turns([text()])}, "seed: Extra inputs are not permitted"),
    (
        {"messages": turns([text()])[:1] + turns([text()], [text()])[1:]},
        "must end with a user",
    ),
    ({"messages": turns([text()], [text()])[1:]}, "first message must use"),
    ({"messages": turns([text("")])}, "must be non-empty"),
    ({"messages": turns([text(" ")])}, "non-whitespace"),
    ({"messages": turns([{**text(), "a": 1}])}, "Extra inputs are not permitted"),
    ({"messages": turns([use()])}, "not permitted for role user"),
    ({"messages": turns([text()], [use()], [text()])}, "without `tool_result` blocks"),
    ({"messages": turns([text()], [text()], [done()])}, "unexpected `tool_use_id`"),
    ({"messages": turns([text()], [use()], [text(), done()])}, "must come first"),
    ({"messages": turns([text()], [use()], [done(), done()])}, "single result"),
    ({"messages": turns([text()], [use(), use()], [done()])}, "must be unique"),
    (
        {"messages": turns([text()], [use()], [done()], [use()], [done()])},
        "must be unique",
    ),
    ({"messages": turns([text()], [use("a:b")], [done("a:b")])}, "should match pattern"),
    ({"messages": turns([text()], [use(input="")], [done()])}, "valid dictionary"),
    ({"messages": turns([text()], [use(name="a.b")], [done()])}, "tool_use.name"),
    ({"messages": turns([text()], [use()], [done()])}, "must define tools"),
    (
        {
            "messages": turns([text()], [use()], [done()]),
            "tools": [{}],
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        },
        "Expected `thinking` or `redacted_thinking`, but found `tool_use`",
    ),
    (
        {
            "messages": turns([text()]),
            "thinking": {"type": "enabled", "budget_tokens": 9999},
        },
        "must be greater than",
    ),
    (
        {
            "messages": turns([text()]),
            "temperature": 0.2,
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        },
        "may only be set to 1",
    ),
    (
        {"messages": turns([text()], [{**SIGNED, "signature": "x"}, text()], [text()])},
        "Invalid `signature`",
    ),
    (
        {
            "messages": turns(
                [{**PICTURE, "source": {**PICTURE["source"], "media_type": "text/x"}}]  # type: ignore[dict-item]
            )
        },
        "media_type",
    ),
]


@pytest.mark.parametrize(("body", "words"), REFUSED_BY_CLAUDE)
def test_claude_refuses_these_requests(body: dict[str, Any], words: str) -> None:
    refusal = BY_NAME["claude-thinking"].judge({"max_tokens": 2048, **body})
    assert refusal is not None
    assert words in json.dumps(refusal[1])


def test_claude_refuses_these_requests_too() -> None:
    refusal = BY_NAME["claude-thinking"].judge({"messages": turns([text()])})
    assert refusal is not None
    assert "max_tokens: Field required" in str(refusal[1])
    refusal = BY_NAME["claude"].judge({"max_tokens": 1, "messages": turns([PICTURE])})
    assert refusal is not None
    assert "images are not supported" in str(refusal[1])
    thinking = {"type": "enabled", "budget_tokens": 1024}
    refusal = BY_NAME["claude-adaptive"].judge(
        {"max_tokens": 2048, "thinking": thinking, "messages": turns([text()])}
    )
    assert refusal is not None
    assert "thinking.type.adaptive" in str(refusal[1])
