"""Anthropic's Messages API: requests and answers, against the official client's own types."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import pytest
from attrs import evolve

from muxcore.assembling import Assembler
from muxcore.chat import REASONING, Chat, Json, Reply, Usage
from muxcore.core.outcomes import Fault, Kind, Limit, Refusal
from muxcore.core.records import Endpoint, Wire
from muxcore.plugins.backend import BadReplyError, HttpResponse, KeyHeader, ServerEvent
from muxcore_backends.anthropic import Anthropic
from muxcore_backends.anthropic.settings import SAMPLING
from muxcore_backends.capabilities import claude_version
from muxcore_backends.history import phrases
from tests.dialects.official import need
from tests.dialects.table import BY_NAME, TOOLS, Said

BASE = "https://api.anthropic.com/v1"
WIRE = Wire(BASE, "ANTHROPIC_API_KEY")
SONNET = Endpoint("a", "claude-sonnet-4-5", "anthropic", wire=WIRE)
OPUS = evolve(SONNET, model="claude-opus-5")
USER = {"role": "user", "content": "hi"}
EPHEMERAL = {"type": "ephemeral"}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def text(words: str, *, last: bool = False) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "text", "text": words}
    return {**block, "cache_control": EPHEMERAL} if last else block


def body(chat: Chat, endpoint: Endpoint = SONNET, **wire: Any) -> Any:
    endpoint = evolve(endpoint, wire=evolve(endpoint.wire, **wire))
    return json.loads(Anthropic().request(endpoint, chat).body)


def rewrites(chat: Chat, endpoint: Endpoint = SONNET, **wire: Any) -> tuple[str, ...]:
    endpoint = evolve(endpoint, wire=evolve(endpoint.wire, **wire))
    return Anthropic().request(endpoint, chat).rewrites


@lru_cache
def official_request(*, streams: bool) -> Any:
    """Make the judge of requests, once: it is slow to make, and lists are read lazily."""
    from anthropic.types import message_create_params as params
    from pydantic import ConfigDict, TypeAdapter, with_config

    kind = (
        params.MessageCreateParamsStreaming
        if streams
        else params.MessageCreateParamsNonStreaming
    )
    return TypeAdapter(with_config(ConfigDict(extra="forbid"))(kind))


def expect_official(sent: Any) -> None:
    """Expect the official client to know every member, and to take its value.

    It has given up what only models before Claude 4.7 take.
    """
    need("anthropic")
    if claude_version(sent["model"]) < (4, 7):
        sent = {name: value for name, value in sent.items() if name not in SAMPLING}
    adapter = official_request(streams="stream" in sent)
    _read_whole(adapter.validate_python(sent))


def _read_whole(value: Any) -> None:
    """Read every list to its end: only then are its members checked."""
    if isinstance(value, Mapping):
        for member in value.values():
            _read_whole(member)
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for item in value:
            _read_whole(item)


def test_the_official_types_reject_invalid_requests() -> None:
    need("anthropic")
    from pydantic import ValidationError

    sent = body(Chat([USER, calls("a"), result("a")], TOOLS))
    expect_official(sent)
    for bad in (
        {**sent, "seed": 1},
        {**sent, "max_tokens": None},
        {**sent, "messages": [{"role": "user", "content": [{"type": "tool_use"}]}]},
        {**sent, "tools": [{"name": "x"}]},
        {**sent, "tool_choice": {"type": "required"}},
    ):
        with pytest.raises(ValidationError):
            expect_official(bad)


def test_a_plain_request() -> None:
    sent = body(Chat([{"role": "system", "content": "s"}, USER]), temperature=0.2)
    assert sent == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 32_000,
        "temperature": 0.2,
        "system": [text("s", last=True)],
        "messages": [{"role": "user", "content": [text("hi", last=True)]}],
    }
    expect_official(sent)


def test_the_address_and_headers() -> None:
    for base in (BASE, f"{BASE}/", "https://api.anthropic.com"):
        wire = evolve(WIRE, api_base=base, extra_headers=(("anthropic-beta", "x"),))
        request = Anthropic().request(evolve(SONNET, wire=wire), Chat([USER]))
        assert request.url == "https://api.anthropic.com/v1/messages"
    assert request.headers == {
        "Content-Type": "application/json",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "x",
    }
    assert request.key_header == KeyHeader("x-api-key", "")
    keyless = evolve(SONNET, wire=evolve(WIRE, key_variable=""))
    assert Anthropic().request(keyless, Chat([USER])).key_header is None


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
WEB = {"type": "image_url", "image_url": "https://example.com/i.png"}
SVG = {"type": "image_url", "image_url": {"url": "data:image/svg+xml;base64,AAAA"}}


def test_images() -> None:
    parts = [{"type": "text", "text": "see"}, IMAGE, WEB, SVG, {"type": "file", "file": {}}]
    messages: list[Any] = [{"role": "user", "content": parts}]
    sent = body(Chat(messages), supports_images=True)
    assert sent["messages"][0]["content"] == [
        text("see"),
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
        },
        {"type": "image", "source": {"type": "url", "url": "https://example.com/i.png"}},
        text(phrases.NO_IMAGE),
        text("(A part of type file that this model cannot read.)", last=True),
    ]
    expect_official(sent)
    blind = body(Chat([{"role": "user", "content": [IMAGE]}]))
    assert blind["messages"][0]["content"] == [text(phrases.NO_IMAGE, last=True)]


def calls(*identities: str) -> dict[str, Any]:
    made = [
        {
            "id": identity,
            "type": "function",
            "function": {"name": "look", "arguments": '{"n": "1"}'},
        }
        for identity in identities
    ]
    return {"role": "assistant", "content": None, "tool_calls": made}


def result(identity: str, content: Any = "r") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": identity, "content": content}


def test_calls_and_results() -> None:
    history = [USER, calls("a", "b"), result("a"), result("b", ""), USER]
    sent = body(Chat(history, TOOLS, "auto"))
    assert sent["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "a", "name": "look", "input": {"n": "1"}},
                {"type": "tool_use", "id": "b", "name": "look", "input": {"n": "1"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": [text("r")]},
                {"type": "tool_result", "tool_use_id": "b"},
                text("hi", last=True),
            ],
        },
    ]
    assert sent["tools"][0] == {
        "name": "look",
        "description": "A tool.",
        "input_schema": {"type": "object", "properties": {"n": {"type": "string"}}},
    }
    assert sent["tool_choice"] == {"type": "auto"}
    expect_official(sent)


def test_who_speaks_first_and_last() -> None:
    answer = {"role": "assistant", "content": "a"}
    assert [t["content"][0]["text"] for t in body(Chat([answer]))["messages"]] == [
        phrases.EARLIER,
        "a",
        phrases.GO_ON,
    ]
    assert body(Chat([{"role": "user", "content": " \n"}]))["messages"] == [
        {"role": "user", "content": [text(phrases.GO_ON, last=True)]}
    ]


CHOICES: list[tuple[Any, Any, Any]] = [
    # as asked, whether in parallel, as sent
    (None, None, None),
    ("auto", None, {"type": "auto"}),
    ("none", False, {"type": "none"}),
    ("required", None, {"type": "any"}),
    ("any", True, {"type": "any"}),
    ("strange", None, None),
    (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
    (
        {"type": "function", "function": {"name": "look"}},
        False,
        {"type": "tool", "name": "look", "disable_parallel_tool_use": True},
    ),
]


@pytest.mark.parametrize(("asked", "parallel", "choice"), CHOICES)
def test_the_choice_of_tools(asked: Any, parallel: Any, choice: Any) -> None:
    extra = {} if parallel is None else {"parallel_tool_calls": parallel}
    sent = body(Chat([USER], TOOLS, asked, extra=extra))
    assert sent.get("tool_choice") == choice
    expect_official(sent)


def test_tools_of_a_history_are_defined_where_none_are() -> None:
    history = [USER, calls("a"), result("a"), calls("b"), result("b")]
    sent = body(Chat(history))
    assert sent["tools"] == [{"name": "look", "input_schema": {"type": "object"}}]
    assert sent["tool_choice"] == {"type": "none"}
    assert "tools" not in body(Chat([USER]))
    expect_official(sent)


def test_tools_without_a_schema_and_its_own() -> None:
    tools: list[Any] = [{"type": "function", "function": {"name": "look"}}]
    tools.append({"type": "bash_20250124", "name": "bash"})
    sent = body(Chat([USER], tools))
    assert sent["tools"] == [
        {"name": "look", "input_schema": {"type": "object"}},
        {"type": "bash_20250124", "name": "bash"},
    ]
    expect_official(sent)


SETTINGS: list[tuple[Endpoint, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # the endpoint, its wire, the chat, and what is sent besides the conversation
    (SONNET, {}, {}, {"max_tokens": 32_000}),
    (SONNET, {"max_output_tokens": 64_000}, {}, {"max_tokens": 64_000}),
    (SONNET, {"max_output_tokens": 9}, {"max_tokens": 10}, {"max_tokens": 9}),
    (SONNET, {}, {"extra": {"max_completion_tokens": 7}}, {"max_tokens": 7}),
    (SONNET, {}, {"extra": {"max_tokens": 7}}, {"max_tokens": 7}),
    (evolve(SONNET, model="claude-3-haiku-20240307"), {}, {}, {"max_tokens": 4096}),
    (evolve(SONNET, model="claude-3-7-sonnet"), {}, {}, {"max_tokens": 8192}),
    (
        SONNET,
        {"temperature": 0.2, "top_p": 0.9},
        {},
        {"max_tokens": 32_000, "temperature": 0.2},
    ),
    (SONNET, {"top_p": 0.9}, {}, {"max_tokens": 32_000, "top_p": 0.9}),
    (SONNET, {}, {"temperature": 1.5}, {"max_tokens": 32_000, "temperature": 1.0}),
    (OPUS, {"temperature": 0.2, "top_p": 0.9}, {}, {"max_tokens": 32_000}),
    (SONNET, {}, {"extra": {"top_k": 5}}, {"max_tokens": 32_000, "top_k": 5}),
    (OPUS, {}, {"extra": {"top_k": 5}}, {"max_tokens": 32_000}),
    (
        SONNET,
        {"thinking": "low"},
        {"extra": {"top_k": 5, "thinking": {"type": "disabled"}}},
        {"max_tokens": 32_000, "top_k": 5, "thinking": {"type": "disabled"}},
    ),
    (
        SONNET,
        {},
        {"extra": {"stop": "x", "user": "u", "stream": True, "model": "y"}},
        {"max_tokens": 32_000, "stop_sequences": ["x"], "metadata": {"user_id": "u"}},
    ),
    (
        SONNET,
        {},
        {"extra": {"stop": ["x", "y"], "response_format": {"type": "text"}}},
        {"max_tokens": 32_000, "stop_sequences": ["x", "y"]},
    ),
    (
        SONNET,
        {},
        {
            "extra": {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"type": "object"}},
                }
            }
        },
        {
            "max_tokens": 32_000,
            "output_config": {
                "format": {"type": "json_schema", "schema": {"type": "object"}}
            },
        },
    ),
    (
        SONNET,
        {"thinking": "high", "temperature": 0.2},
        {},
        {"max_tokens": 32_000, "thinking": {"type": "enabled", "budget_tokens": 16_000}},
    ),
    (
        SONNET,
        {"thinking": "low"},
        {},
        {"max_tokens": 32_000, "thinking": {"type": "enabled", "budget_tokens": 2048}},
    ),
    (
        SONNET,
        {"thinking": "strange"},
        {"max_tokens": 5000},
        {"max_tokens": 5000, "thinking": {"type": "enabled", "budget_tokens": 2500}},
    ),
    (
        OPUS,
        {"thinking": "max"},
        {},
        {
            "max_tokens": 32_000,
            "thinking": {"type": "adaptive"},
            "output_config": {"effort": "max"},
        },
    ),
    (
        OPUS,
        {"thinking": "strange"},
        {},
        {"max_tokens": 32_000, "thinking": {"type": "adaptive"}},
    ),
    (
        SONNET,
        {"thinking": "high"},
        {"extra": {"thinking": {"type": "disabled"}}},
        {"max_tokens": 32_000, "thinking": {"type": "disabled"}},
    ),
    (
        SONNET,
        {},
        {"extra": {"reasoning_effort": "low"}},
        {"max_tokens": 32_000, "thinking": {"type": "enabled", "budget_tokens": 2048}},
    ),
    (
        SONNET,
        {"thinking": "high"},
        {"extra": {"reasoning_effort": "none"}},
        {"max_tokens": 32_000},
    ),
]


@pytest.mark.parametrize(("endpoint", "wire", "chat", "settings"), SETTINGS)
def test_settings(
    endpoint: Endpoint, wire: dict[str, Any], chat: dict[str, Any], settings: dict[str, Any]
) -> None:
    sent = body(Chat([USER], **chat), endpoint, **wire)
    expect_official(sent)
    assert sent.pop("model") == endpoint.model
    assert sent.pop("messages")
    assert sent == settings


def test_unknown_members_are_left_out_and_reported() -> None:
    chat = Chat([USER], extra={"seed": 1, "logit_bias": {}, "reasoning_effort": "low"})
    assert rewrites(chat) == ("left out: logit_bias, seed",)
    expect_official(body(chat))


def test_too_little_room_to_think() -> None:
    chat = Chat([USER], max_tokens=2000)
    assert "thinking" not in body(chat, thinking="high")
    assert rewrites(chat, thinking="high") == ("thinking off: too little room",)


def test_the_window_limits_the_answer_and_the_thinking() -> None:
    small = evolve(SONNET, context_window=20_000)
    request = Anthropic().request(small, Chat([USER]))
    limit = json.loads(request.body)["max_tokens"]
    assert 19_900 < limit < 20_000
    assert request.rewrites == (f"max_tokens lowered to {limit}",)
    thinking = evolve(small, wire=evolve(WIRE, thinking="high"))
    assert "thinking" in json.loads(Anthropic().request(thinking, Chat([USER])).body)
    tiny = evolve(thinking, context_window=10_000)
    sent = json.loads(Anthropic().request(tiny, Chat([USER])).body)
    assert "thinking" not in sent
    expect_official(sent)


# --- thoughts -------------------------------------------------------------------------------

THINKER = BY_NAME["claude-thinking"]


def thought(number: int = 1, *names: str) -> dict[str, Any]:
    said = Said("w", "hm", tuple((name, "{}") for name in names))
    return THINKER.answer(said, number)


def test_signed_thoughts_go_back_to_the_model_that_signed_them() -> None:
    answer = thought(1, "look")
    history = [USER, answer, result(answer["tool_calls"][0]["id"])]
    sent = THINKER.body(history)
    assert sent["messages"][1]["content"][0] == {
        "type": "thinking",
        "thinking": "hm",
        "signature": answer["thinking_blocks"][0]["signature"],
    }
    assert sent["thinking"]["type"] == "enabled"
    assert THINKER.request(history).rewrites == ()
    other = BY_NAME["claude-adaptive"]
    assert "hm" not in other.request(history).body.decode()
    assert other.request(history).rewrites == ("reasoning left out",)


def test_thoughts_of_another_model_never_become_text() -> None:
    answer = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    assert "hm" not in str(THINKER.body([USER, answer, USER]))
    assert THINKER.request([USER, answer, USER]).rewrites == ("reasoning left out",)


def test_thinking_is_off_in_a_turn_of_another_model() -> None:
    history = [USER, calls("a"), result("a")]
    assert "thinking" not in THINKER.body(history)
    assert THINKER.request(history).rewrites == ("thinking off until the user speaks",)
    assert "thinking" in THINKER.body(
        [*history, {"role": "assistant", "content": "a"}, USER]
    )
    assert "thinking" in BY_NAME["claude-adaptive"].body(history)


def test_thoughts_of_the_same_model_are_kept_among_others() -> None:
    answer = thought()
    foreign = {"type": "thinking", "thinking": "x", "signature": "y", "origin": "z"}
    mixed = {**answer, "thinking_blocks": [*answer["thinking_blocks"], foreign]}
    content = THINKER.body([USER, mixed, USER])["messages"][1]["content"]
    assert [block["type"] for block in content] == ["thinking", "text"]
    silent = {
        "role": "assistant",
        "content": "",
        "thinking_blocks": answer["thinking_blocks"],
    }
    assert len(THINKER.body([USER, silent, USER])["messages"]) == 1


# --- answers --------------------------------------------------------------------------------


def official_answer(*blocks: Any, **more: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 3,
        "cache_creation_input_tokens": 5,
        "cache_read_input_tokens": 7,
        "output_tokens": 2,
    }
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": list(blocks),
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
        **more,
    }


def read(raw: Any) -> Reply:
    return Anthropic().reply(SONNET, HttpResponse(200, {}, json.dumps(raw).encode()))


THINKING = {"type": "thinking", "thinking": "hm", "signature": "s"}
REDACTED = {"type": "redacted_thinking", "data": "d"}
USE = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"n": 1}}


def test_a_whole_answer() -> None:
    raw = official_answer(
        THINKING, REDACTED, text("hel"), text("lo"), USE, stop_reason="tool_use"
    )
    need("anthropic")
    from anthropic.types import Message

    Message.model_validate(raw, strict=True)
    reply = read(raw)
    origin = {"origin": "anthropic/claude-sonnet-4-5"}
    assert reply.message == {
        "role": "assistant",
        "content": "hello",
        "reasoning_content": "hm",
        "thinking_blocks": [{**THINKING, **origin}, {**REDACTED, **origin}],
        "tool_calls": [
            {
                "id": "toolu_1",
                "type": "function",
                "function": {"name": "look", "arguments": '{"n": 1}'},
            }
        ],
    }
    assert reply.finish_reason == "tool_calls"
    assert reply.usage == Usage(15, 2, 7)
    need("openai")
    from openai.types.chat import ChatCompletion

    ChatCompletion.model_validate(reply.raw, strict=True)


def test_smaller_answers() -> None:
    assert (
        read(official_answer(USE, {"type": "server_tool_use"})).message["content"] is None
    )
    bare = read({"content": [text("x")]})
    assert (bare.text, bare.usage, bare.finish_reason) == ("x", Usage(), None)
    assert read(official_answer()).message == {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("tool_use", "stop"),
    ],
)
def test_stop_reasons(stop_reason: str, finish_reason: str) -> None:
    assert read(official_answer(stop_reason=stop_reason)).finish_reason == finish_reason


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"{", Fault.TRANSIENT),
        (b"[]", Fault.TRANSIENT),
        (b"{}", Fault.TRANSIENT),
        (b'{"content": [1]}', Fault.TRANSIENT),
        (b'{"content": [{"type": "text"}]}', Fault.TRANSIENT),
        (b'{"content": [{"type": "text", "text": 5}]}', Fault.TRANSIENT),
        (b'{"content": [], "stop_reason": 5}', Fault.TRANSIENT),
        (
            b'{"type": "error", "error": {"type": "rate_limit_error", "message": "x"}}',
            Limit.RATE,
        ),
    ],
)
def test_a_malformed_answer_is_a_bad_reply(raw: bytes, kind: Kind) -> None:
    with pytest.raises(BadReplyError) as caught:
        Anthropic().reply(SONNET, HttpResponse(200, {}, raw))
    assert caught.value.failure is not None
    assert caught.value.failure.kind is kind


def said_error(kind: str, message: str = "x") -> bytes:
    return json.dumps(
        {"type": "error", "error": {"type": kind, "message": message}}
    ).encode()


FAILURES: list[tuple[int, dict[str, str], bytes, Kind, timedelta | None]] = [
    (
        429,
        {"retry-after": "7"},
        said_error("rate_limit_error"),
        Limit.RATE,
        timedelta(seconds=7),
    ),
    (
        429,
        {
            "anthropic-ratelimit-input-tokens-remaining": "0",
            "anthropic-ratelimit-input-tokens-reset": "2026-01-01T00:00:30Z",
            "anthropic-ratelimit-requests-remaining": "9",
            "anthropic-ratelimit-requests-reset": "2026-01-01T00:09:00Z",
        },
        said_error("rate_limit_error"),
        Limit.RATE,
        timedelta(seconds=30),
    ),
    (529, {}, said_error("overloaded_error", "Overloaded"), Fault.TRANSIENT, None),
    (401, {}, said_error("authentication_error"), Fault.AUTH, None),
    (404, {}, said_error("not_found_error", "model: x"), Fault.NOT_FOUND, None),
    (
        400,
        {},
        said_error("invalid_request_error", "Your credit balance is too low to access"),
        Fault.UNPAID,
        None,
    ),
    (
        400,
        {},
        said_error(
            "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"
        ),
        Refusal.TOO_LONG,
        None,
    ),
    (400, {}, said_error("invalid_request_error"), Refusal.REQUEST, None),
]


@pytest.mark.parametrize(("status", "headers", "raw", "kind", "hint"), FAILURES)
def test_failures(
    status: int, headers: dict[str, str], raw: bytes, kind: Kind, hint: timedelta | None
) -> None:
    failure = Anthropic().failure(HttpResponse(status, headers, raw), NOW)
    assert (failure.kind, failure.hint) == (kind, hint)


# --- streams --------------------------------------------------------------------------------


def event(data: Any) -> ServerEvent:
    kind = data.get("type", "message") if isinstance(data, dict) else "message"
    return ServerEvent(data if isinstance(data, str) else json.dumps(data), kind)


def opened(index: int, block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def grown(index: int, kind: str, **delta: Any) -> dict[str, Any]:
    return {
        "type": "content_block_delta",
        "index": index,
        "delta": {"type": kind, **delta},
    }


def closed(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


START = {
    "type": "message_start",
    "message": official_answer(stop_reason=None)
    | {
        "usage": {
            "input_tokens": 3,
            "cache_read_input_tokens": 7,
            "cache_creation_input_tokens": 5,
            "output_tokens": 1,
        }
    },
}
STOP = {
    "type": "message_delta",
    "delta": {"stop_reason": "tool_use", "stop_sequence": None},
    "usage": {"output_tokens": 20, "input_tokens": None},
}
END = {"type": "message_stop"}
EVENTS: list[Any] = [
    START,
    {"type": "ping"},
    opened(0, {"type": "thinking", "thinking": "", "signature": ""}),
    grown(0, "thinking_delta", thinking="h"),
    grown(0, "thinking_delta", thinking="m"),
    grown(0, "thinking_delta", thinking=""),
    grown(0, "signature_delta", signature="s"),
    closed(0),
    opened(1, REDACTED),
    closed(1),
    opened(2, {"type": "text", "text": ""}),
    grown(2, "text_delta", text="hel"),
    grown(2, "text_delta", text="lo"),
    closed(2),
    opened(3, {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}),
    grown(3, "input_json_delta", partial_json=""),
    grown(3, "input_json_delta", partial_json='{"n":'),
    grown(3, "input_json_delta", partial_json=" 1}"),
    closed(3),
    opened(4, {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {}}),
    closed(4),
    STOP,
    END,
]


def streamed(events: list[Any]) -> tuple[list[Any], Any]:
    decoder = Anthropic().stream(SONNET)
    chunks = [chunk for data in events for chunk in decoder.feed(event(data))]
    return chunks, decoder


def test_a_stream_is_the_whole_answer_in_pieces() -> None:
    need("anthropic")
    from anthropic.types import RawMessageStreamEvent
    from pydantic import TypeAdapter

    adapter: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    for data in EVENTS:
        if data["type"] != "ping":
            adapter.validate_python(data)
    chunks, decoder = streamed(EVENTS)
    assert (decoder.done, decoder.ended) == (True, True)
    assembler = Assembler()
    for chunk in chunks:
        assembler.add(chunk)
    streamed_reply = assembler.reply()
    second = {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {}}
    blocks = (THINKING, REDACTED, text("hello"), USE, second)
    whole = read(official_answer(*blocks, stop_reason="tool_use"))
    assert streamed_reply.message == whole.message
    assert streamed_reply.finish_reason == whole.finish_reason
    assert streamed_reply.usage == Usage(15, 20, 7)


def test_a_stream_of_another_server_loses_nothing() -> None:
    """Some end no block, send thoughts and arguments at once, and end with zeros."""
    call = {"type": "tool_use", "id": "t", "name": "look", "input": {"n": 1}}
    beginning = {"id": "m", "usage": {"input_tokens": 7, "output_tokens": 1}}
    events: list[Json] = [
        {"type": "message_start", "message": beginning},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "hm"},
        },
        {"type": "content_block_start", "index": 1, "content_block": call},
        {"type": "message_delta", "usage": {"output_tokens": 1}},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use"},
            "usage": {"input_tokens": 0, "output_tokens": 2},
        },
    ]
    decoder, assembler = Anthropic().stream(Endpoint("a", "claude")), Assembler()
    for event in events:
        for chunk in decoder.feed(ServerEvent(json.dumps(event), event["type"])):
            assembler.add(chunk)
    reply = assembler.reply()
    assert (reply.message[REASONING], reply.usage) == ("hm", Usage(7, 2, 0))
    assert reply.tool_calls[0]["function"] == {"name": "look", "arguments": '{"n": 1}'}


def test_a_stream_is_whole_after_its_end() -> None:
    for count, done in ((-2, False), (-1, True)):
        _, decoder = streamed(EVENTS[:count])
        assert (decoder.done, decoder.ended) == (done, False)


def test_arguments_that_come_with_the_call() -> None:
    chunks, _ = streamed([opened(0, USE), closed(0)])
    call = [chunk.delta["tool_calls"][0] for chunk in chunks]
    assert [piece["function"]["arguments"] for piece in call] == ["", '{"n": 1}']


SAYS_NOTHING: list[Any] = [
    "",
    {"type": "ping"},
    {"type": "new"},
    opened(0, {"type": "server_tool_use", "id": "x", "name": "y", "input": {}}),
    grown(0, "input_json_delta", partial_json="{}"),
    grown(0, "citations_delta", citation={}),
    closed(0),
    {"type": "message_delta", "delta": {"stop_reason": None}, "usage": None},
]


def test_events_without_content_are_ignored() -> None:
    assert streamed(SAYS_NOTHING)[0] == []


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("{", Fault.TRANSIENT),
        ("[]", Fault.TRANSIENT),
        ({"type": "message_start"}, Fault.TRANSIENT),
        ({"type": "message_start", "message": 5}, Fault.TRANSIENT),
        (grown(0, "text_delta", text=5), Fault.TRANSIENT),
        (opened(0, {"type": "tool_use", "id": "x"}), Fault.TRANSIENT),
        (
            {
                "type": "error",
                "error": {"type": "overloaded_error", "message": "Overloaded"},
            },
            Fault.TRANSIENT,
        ),
        ({"type": "error", "error": {"type": "rate_limit_error"}}, Limit.RATE),
    ],
)
def test_malformed_events_break_a_stream(data: Any, kind: Kind) -> None:
    decoder = Anthropic().stream(SONNET)
    with pytest.raises(BadReplyError) as caught:
        list(decoder.feed(event(data)))
    assert caught.value.failure is not None
    assert caught.value.failure.kind is kind


def test_a_stream_is_asked_for() -> None:
    sent = body(Chat([USER], stream=True))
    assert sent["stream"] is True
    expect_official(sent)
