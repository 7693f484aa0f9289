"""The Responses API as a backend: requests and answers, against the official client's types."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import pytest
from attrs import evolve

from muxcore.assembling import Assembler
from muxcore.chat import ORIGIN, REASONING, REASONING_ITEMS, Chat, Json, Reply, Usage
from muxcore.core.outcomes import Fault, Kind, Limit, Refusal
from muxcore.core.records import Endpoint, Wire
from muxcore.dialects.reading import UNKNOWN_PART
from muxcore.dialects.responses.items import messages_of
from muxcore.plugins.backend import BadReplyError, HttpResponse, ServerEvent
from muxcore.plugins.catalogue import built_in
from muxcore_backends.history import phrases
from muxcore_backends.openai_responses import Responses
from tests.dialects.official import need
from tests.dialects.servers import streamed
from tests.dialects.table import BY_NAME, TOOLS, Said, native_answer

BASE = "https://api.openai.com/v1"
GPT_5 = Endpoint("a", "gpt-5", "openai", wire=Wire(BASE, "OPENAI_API_KEY"))
GPT_4 = evolve(GPT_5, model="gpt-4.1")
USER = {"role": "user", "content": "hi"}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
THINKER = BY_NAME["responses-reasoning"]


def body(chat: Chat, endpoint: Endpoint = GPT_5, **wire: Any) -> Any:
    endpoint = evolve(endpoint, wire=evolve(endpoint.wire, **wire))
    return json.loads(Responses().request(endpoint, chat).body)


def rewrites(chat: Chat, endpoint: Endpoint = GPT_5, **wire: Any) -> tuple[str, ...]:
    endpoint = evolve(endpoint, wire=evolve(endpoint.wire, **wire))
    return Responses().request(endpoint, chat).rewrites


@lru_cache
def official_request(*, streams: bool) -> Any:
    """Make the judge of requests, once: it is slow to make."""
    from openai.types.responses import response_create_params as params
    from pydantic import ConfigDict, TypeAdapter, with_config

    kind = (
        params.ResponseCreateParamsStreaming
        if streams
        else params.ResponseCreateParamsNonStreaming
    )
    return TypeAdapter(with_config(ConfigDict(extra="forbid"))(kind))


def expect_official(sent: Any) -> None:
    """Expect the official client to know every member, and to take its value."""
    need("openai")
    _read_whole(official_request(streams="stream" in sent).validate_python(sent))


def _read_whole(value: Any) -> None:
    """Read every list to its end: only then are its members checked."""
    if isinstance(value, Mapping):
        for member in value.values():
            _read_whole(member)
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for item in value:
            _read_whole(item)


def words(text: str, role: str = "user") -> Json:
    return {
        "type": "message",
        "role": role,
        "content": [{"type": "input_text", "text": text}],
    }


def calls(*ids: str) -> Json:
    function = {"name": "look", "arguments": '{"n": "1"}'}
    made = [{"id": each, "type": "function", "function": function} for each in ids]
    return {"role": "assistant", "content": None, "tool_calls": made}


# --- requests -------------------------------------------------------------------------------


def test_a_plain_request() -> None:
    sent = body(Chat([{"role": "system", "content": "s"}, USER], stream=True), GPT_4)
    assert sent == {
        "model": "gpt-4.1",
        "store": False,
        "stream": True,
        "input": [words("s", "system"), words("hi")],
    }
    expect_official(sent)


def test_the_address_and_its_name_in_a_config() -> None:
    for base in (BASE, f"{BASE}/"):
        wire = evolve(GPT_5.wire, api_base=base, extra_headers=(("x-a", "b"),))
        request = Responses().request(evolve(GPT_5, wire=wire), Chat([USER]))
        assert request.url == "https://api.openai.com/v1/responses"
        assert request.headers["x-a"] == "b"
    assert "openai-responses" in built_in().backends


def test_a_whole_conversation() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    history = [
        USER,
        {**calls("1", "2"), "content": "I look."},
        {"role": "tool", "tool_call_id": "1", "content": "a"},
        {"role": "tool", "tool_call_id": "2", "content": [image]},
        {"role": "assistant", "content": "Seen."},
        {"role": "user", "content": [{"type": "text", "text": "This?"}, image]},
    ]
    sent = body(Chat(history, TOOLS), supports_images=True)
    picture = {
        "type": "input_image",
        "image_url": "data:image/png;base64,AA",
        "detail": "auto",
    }
    call = {"type": "function_call", "name": "look", "arguments": '{"n": "1"}'}
    said = {"type": "message", "role": "assistant"}
    assert sent["input"] == [
        words("hi"),
        {**said, "content": [{"type": "output_text", "text": "I look."}]},
        {**call, "call_id": "1"},
        {**call, "call_id": "2"},
        {"type": "function_call_output", "call_id": "1", "output": "a"},
        {"type": "function_call_output", "call_id": "2", "output": [picture]},
        {**said, "content": [{"type": "output_text", "text": "Seen."}]},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "This?"}, picture],
        },
    ]
    # What it reads is what was written: one codec, two directions.
    assert messages_of(sent["input"])[1:] == [
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": calls("1", "2")["tool_calls"],
        },
        *[{**each, "content": each["content"]} for each in history[2:]],
    ]


def test_what_the_model_cannot_read_is_said_in_words() -> None:
    sound = {"type": "input_audio", "input_audio": {}}
    image = {"type": "image_url", "image_url": "data:image/png;base64,AA"}
    sent = body(Chat([{"role": "user", "content": [sound, image]}]))
    said = [part["text"] for part in sent["input"][0]["content"]]
    assert said == [UNKNOWN_PART.format(kind="input_audio"), phrases.NO_IMAGE]


def test_settings() -> None:
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True}
    extra = {
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": schema},
        "verbosity": "low",
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "seed": 1,
        "stop": ["x"],
    }
    chat = Chat([USER], TOOLS, "any", 0.5, 100, extra=extra)
    sent = body(chat, max_output_tokens=50)
    assert sent["reasoning"] == {"effort": "low"}
    assert sent["include"] == ["reasoning.encrypted_content"]
    assert sent["text"] == {"format": {"type": "json_schema", **schema}, "verbosity": "low"}
    assert (sent["max_output_tokens"], sent["parallel_tool_calls"]) == (50, False)
    assert (sent["tool_choice"], sent["prompt_cache_key"]) == ("required", "k")
    assert sent["tools"][0] == {
        "type": "function",
        "name": "look",
        "description": "A tool.",
        "parameters": {"type": "object", "properties": {"n": {"type": "string"}}},
        "strict": False,
    }
    assert "temperature" not in sent
    assert rewrites(chat) == ("left out: seed, stop",)
    expect_official({n: v for n, v in sent.items() if n != "tool_choice"})


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("auto", "auto"),
        ("none", "none"),
        (
            {"type": "function", "function": {"name": "look"}},
            {"type": "function", "name": "look"},
        ),
    ],
)
def test_the_choice_of_a_tool(given: Any, written: Any) -> None:
    sent = body(Chat([USER], TOOLS, given))
    assert sent["tool_choice"] == written
    expect_official(sent)


def test_a_temperature_goes_to_models_that_take_one() -> None:
    chat = Chat([USER], temperature=0.5)
    assert body(chat, GPT_4)["temperature"] == 0.5
    assert body(chat, api_base="http://127.0.0.1:8000/v1")["temperature"] == 0.5
    assert "temperature" not in body(chat)
    assert body(chat, capabilities=("takes_sampling",))["temperature"] == 0.5


def test_thinking_by_level() -> None:
    assert "reasoning" not in body(Chat([USER]))
    assert body(Chat([USER]), thinking="high")["reasoning"] == {"effort": "high"}
    assert body(Chat([USER]), thinking="max")["reasoning"] == {"effort": "xhigh"}


def test_the_answers_limit_is_lowered_to_the_window() -> None:
    endpoint = evolve(GPT_5, context_window=2000)
    assert body(Chat([USER], max_tokens=9000), endpoint)["max_output_tokens"] < 2000


# --- reasoning ------------------------------------------------------------------------------


def test_reasoning_of_a_turn_that_was_interrupted_is_left_out() -> None:
    """A server refuses reasoning which no words or calls follow."""
    one, other = (
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}
        for text in ("one", "other")
    )
    said = {"type": "message", "role": "assistant", "content": "hi"}
    answer = {"role": "assistant", "content": "hi", "reasoning_content": "other"}
    assert messages_of([USER, one, other, said]) == [USER, answer]
    assert messages_of([USER, said, one, other]) == [
        USER,
        {"role": "assistant", "content": "hi"},
        {"role": "assistant", "content": None, "reasoning_content": "other"},
    ]


def test_encrypted_reasoning_goes_back_to_its_endpoint_only() -> None:
    message = THINKER.answer(Said("Yes.", "hm"), 1)
    assert message[REASONING] == "hm"
    assert message[REASONING_ITEMS][0][ORIGIN] == "r1/gpt-5"
    own = THINKER.body([USER, message, USER])["input"]
    assert [item["type"] for item in own] == ["message", "reasoning", "message", "message"]
    assert ORIGIN not in own[1]
    assert not THINKER.request([USER, message, USER]).rewrites
    for name in ("responses", "openai", "claude-thinking", "mistral-reasoning"):
        other = json.dumps(BY_NAME[name].body([USER, message, USER]))
        assert "encrypted_content" not in other.replace("reasoning.encrypted_content", "")


def test_reasoning_that_cannot_be_returned_is_words_only() -> None:
    item = {"type": "reasoning", "id": "rs", "summary": [{"text": "hm"}, {"text": "so"}]}
    said = {"type": "message", "content": [{"type": "output_text", "text": "Yes."}]}
    message = reply(output=[item, said]).message
    assert message == {"role": "assistant", REASONING: "hm\n\nso", "content": "Yes."}


# --- answers --------------------------------------------------------------------------------


def reply(**members: Any) -> Reply:
    raw = {**native_answer(THINKER, Said("Yes."), 1), **members}
    return Responses().reply(GPT_5, HttpResponse(200, {}, json.dumps(raw).encode()))


def chunks(*events: Any) -> Reply:
    """Decode a stream of these events."""
    decoder = Responses().stream(GPT_5)
    assembler = Assembler()
    for event in events:
        data = event if isinstance(event, str) else json.dumps(event)
        for chunk in decoder.feed(ServerEvent(data)):
            assembler.add(chunk)
    assert decoder.done is decoder.ended is True
    return assembler.reply()


def events_of(raw: Json) -> list[str]:
    return [piece.decode().partition("data: ")[2].strip() for piece in streamed(raw)]


SAID = Said("I look.", "hm", (("look", '{"n": "1"}'), ("write_file", "{}")))


def test_a_stream_says_what_the_whole_answer_says() -> None:
    raw = native_answer(THINKER, SAID, 1)
    whole, assembled = reply(**raw), chunks(*events_of(raw))
    assert assembled.message == whole.message
    assert assembled.finish_reason == whole.finish_reason == "tool_calls"
    assert assembled.usage == whole.usage == Usage(10, 5, 6)
    assert (assembled.raw["id"], assembled.raw["model"]) == ("resp_1", "gpt-5")
    details = whole.raw["usage"]["completion_tokens_details"]
    assert details == {"reasoning_tokens": 1}


def test_a_server_that_streams_only_the_end() -> None:
    raw = native_answer(THINKER, SAID, 1)
    first, *_, last = events_of(raw)
    assert chunks(first, last).message == reply(**raw).message


@pytest.mark.parametrize("left_out", [".delta", ".added", "output_item.done", "item", "."])
def test_a_stream_that_leaves_out_events_says_the_same(left_out: str) -> None:
    """Each part comes several times: in pieces, as an item, and in the whole response."""
    raw = native_answer(THINKER, SAID, 1)
    first, *others, last = events_of(raw)
    rest = [event for event in others if left_out not in json.loads(event)["type"]]
    assert len(rest) < len(others)
    assert chunks(first, *rest, last).message == reply(**raw).message


def test_calls_whose_arguments_come_at_once() -> None:
    item = {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"}
    at = {"output_index": 0}
    end = {"type": "response.completed", "response": {"status": "completed"}}
    done = {"type": "response.output_item.done", **at, "item": item}
    added = {"type": "response.output_item.added", **at, "item": {**item, "arguments": ""}}
    for events in ([added, done, end], [done, end], [done, end, "[DONE]", '"ping"']):
        got = chunks(*events)
        assert got.tool_calls[0]["function"] == {"name": "look", "arguments": "{}"}
        assert got.finish_reason == "tool_calls"


def test_several_summaries_are_told_apart() -> None:
    kind = "response.reasoning_summary"
    parts = [{"type": f"{kind}_part.added"}, {"type": f"{kind}_text.delta", "delta": "a"}]
    end = {"type": "response.completed", "response": {"status": "completed"}}
    assert chunks(*parts, *parts, end).message[REASONING] == "a\n\na"


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        ({"reason": "max_output_tokens"}, "length"),
        ({"reason": "content_filter"}, "content_filter"),
        (None, "length"),
    ],
)
def test_an_answer_that_was_cut_says_why(details: Any, reason: str) -> None:
    cut = {"status": "incomplete", "incomplete_details": details}
    assert reply(**cut).finish_reason == reason
    event = {"type": "response.incomplete", "response": cut}
    assert chunks(event).finish_reason == reason


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "rate_limit_exceeded", "message": "slow down"}, Limit.RATE),
        ({"code": "server_error", "message": "oops"}, Fault.TRANSIENT),
        (
            {"code": "context_length_exceeded", "message": "input exceeds the window"},
            Refusal.TOO_LONG,
        ),
    ],
)
def test_an_error_in_an_answer_is_classified(error: Json, kind: Kind) -> None:
    failed = {"status": "failed", "error": error}
    for event in (
        {"type": "response.failed", "response": failed},
        {"type": "error", **error},
        {"type": "error", "error": error},
    ):
        with pytest.raises(BadReplyError, match=error["message"]) as caught:
            chunks(event)
        assert caught.value.failure is not None
        assert caught.value.failure.kind is kind
    with pytest.raises(BadReplyError, match=error["message"]):
        reply(**failed)


@pytest.mark.parametrize(
    "members",
    [
        {"output": None},
        {"output": [3]},
        {"output": [{"type": "function_call"}]},
        {"output": [{"type": "message", "content": 3}]},
        {"status": "failed"},
        {"status": "cancelled"},
    ],
)
def test_a_malformed_answer_is_none(members: Json) -> None:
    with pytest.raises(BadReplyError):
        reply(**members)


@pytest.mark.parametrize(
    "data",
    [
        "{",
        "[]",
        '{"type": "response.output_text.delta"}',
        '{"type": "response.output_text.delta", "delta": 3}',
        '{"type": "response.output_item.added", "item": {"type": "function_call"}}',
        '{"type": "response.completed"}',
        '{"type": "response.completed", "response": {"status": "failed"}}',
    ],
)
def test_a_malformed_event_is_an_error(data: str) -> None:
    with pytest.raises(BadReplyError):
        Responses().stream(GPT_5).feed(ServerEvent(data))
