"""`POST /v1/messages`: requests, whole answers and streams, against the official types."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from muxcore.chat import REASONING, THINKING_BLOCKS, Chunk, Json, Reply
from muxcore.dialects.reading import UNKNOWN_PART
from muxcore.gateway.front_doors.door import ClientRequest, Stamp
from muxcore.gateway.front_doors.messages import FRONT_DOOR, message, read_request
from muxcore.gateway.http.wire import RefusedError
from muxcore.standin import Answer, Cut, ToolCall, rate_limited, refusal
from tests.dialects.official import need
from tests.gateway.conftest import TOKEN, Served, dialled, head, read_all
from tests.gateway.test_responses import ANYTHING, USAGE, deltas, odd

Serve = Callable[..., Served]
STAMP = Stamp("0a", 1234)
PATH = "/v1/messages"
HI: list[Json] = [{"role": "user", "content": "hi"}]
LOOK: Json = {
    "name": "look",
    "description": "Looks.",
    "input_schema": {"type": "object", "properties": {}},
    "cache_control": {"type": "ephemeral"},
}
SEARCH: Json = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}


def read(**members: Any) -> ClientRequest:
    named = {"model": "mux", "max_tokens": 5, "messages": HI, **members}
    return read_request(json.dumps(named).encode())


# --- requests -------------------------------------------------------------------------------


def test_a_request_becomes_a_chat() -> None:
    request = read(
        system=[{"type": "text", "text": "Be kind.", "cache_control": {}}],
        stream=True,
        temperature=0,
        top_p=0.5,
        top_k=3,
        stop_sequences=["x"],
        thinking={"type": "enabled", "budget_tokens": 8192},
        output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}},
        tools=[LOOK],
        tool_choice={"type": "tool", "name": "look", "disable_parallel_tool_use": True},
        metadata={"user_id": "u"},
    )
    chat = request.chat
    assert request.model == "mux"
    assert chat.messages == [{"role": "system", "content": "Be kind."}, *HI]
    function = {
        "name": "look",
        "description": "Looks.",
        "parameters": LOOK["input_schema"],
    }
    assert chat.tools == [{"type": "function", "function": function}]
    assert chat.tool_choice == {"type": "function", "function": {"name": "look"}}
    assert (chat.temperature, chat.max_tokens, chat.stream) == (0, 5, True)
    form = {"name": "answer", "schema": {"type": "object"}, "strict": True}
    assert chat.extra == {
        "top_p": 0.5,
        "stop": ["x"],
        "reasoning_effort": "medium",
        "response_format": {"type": "json_schema", "json_schema": form},
        "parallel_tool_calls": False,
    }


def test_a_plain_request_sets_nothing() -> None:
    thinking = {"type": "disabled"}
    chat = read(tools=[], stop_sequences=[], thinking=thinking).chat
    assert (chat.tools, chat.tool_choice, chat.temperature) == (None, None, None)
    assert chat.extra == {}


@pytest.mark.parametrize(
    ("members", "effort"),
    [
        ({"output_config": {"effort": "xhigh"}}, "xhigh"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 31_999}}, "max"),
        ({"thinking": {"type": "adaptive"}}, None),
    ],
)
def test_a_level_of_thinking(members: Json, effort: str | None) -> None:
    assert read(**members).chat.extra.get("reasoning_effort") == effort


@pytest.mark.parametrize(
    ("choice", "chosen"), [("auto", "auto"), ("any", "required"), ("none", "none")]
)
def test_a_choice_of_tools(choice: str, chosen: str) -> None:
    assert read(tool_choice={"type": choice}).chat.tool_choice == chosen


def test_turns_become_messages() -> None:
    image = {"type": "base64", "media_type": "image/png", "data": "AA=="}
    turns: list[Json] = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "u", "cache_control": {"type": "ephemeral"}},
                {"type": "image", "source": image},
                {"type": "image", "source": {"type": "url", "url": "https://a"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "another's"},
                {"type": "text", "text": "a"},
                {"type": "tool_use", "id": "1", "name": "look", "input": {"n": 1}},
                {"type": "tool_use", "id": "2", "name": "look", "input": {}},
                {"type": "server_tool_use", "id": "3", "name": "search", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": "r"},
                {"type": "tool_result", "tool_use_id": "2", "is_error": True},
                {"type": "text", "text": "and"},
                {"type": "document", "source": {"type": "text", "data": "doc"}},
            ],
        },
        {"role": "system", "content": "s"},
    ]
    calls = [
        {
            "id": "1",
            "type": "function",
            "function": {"name": "look", "arguments": '{"n": 1}'},
        },
        {"id": "2", "type": "function", "function": {"name": "look", "arguments": "{}"}},
    ]
    assert read(messages=turns).chat.messages == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "u"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                {"type": "image_url", "image_url": {"url": "https://a"}},
            ],
        },
        {"role": "assistant", "content": "a", REASONING: "hm", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": "r"},
        {"role": "tool", "tool_call_id": "2", "content": "", "is_error": True},
        {
            "role": "user",
            "content": [{"type": "text", "text": "and"}, {"type": "text", "text": "doc"}],
        },
        {"role": "system", "content": "s"},
    ]


def test_a_result_of_a_search_is_text() -> None:
    found = {
        "type": "search_result",
        "title": "T",
        "source": "https://a",
        "content": [{"type": "text", "text": "words"}],
    }
    result = {"type": "tool_result", "tool_use_id": "1", "content": [found]}
    (message,) = read(messages=[{"role": "user", "content": [result]}]).chat.messages
    assert message["content"] == "T\nhttps://a\nwords"


def user(*blocks: Json) -> Json:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def assistant(*blocks: Json) -> Json:
    return {"messages": [{"role": "assistant", "content": list(blocks)}]}


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"model": 3}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": ["a"]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        (user({"type": "text"}), "messages[0].content[0].text"),
        (user({"text": "a"}), "messages[0].content[0].type"),
        (
            user({"type": "image", "source": {"type": "base64"}}),
            "messages[0].content[0].source",
        ),
        (user({"type": "image"}), "messages[0].content[0].source"),
        (user({"type": "document"}), "messages[0].content[0].source"),
        (user({"type": "tool_result"}), "messages[0].content[0].tool_use_id"),
        (
            user({"type": "tool_result", "tool_use_id": "1", "content": [{"a": 1}]}),
            "messages[0].content[0].content[0].type",
        ),
        (
            assistant({"type": "tool_use", "id": "1", "name": "a", "input": 3}),
            "messages[0].content[0].input",
        ),
        ({"system": [{"type": "text"}]}, "system[0].text"),
        ({"system": 3}, "system"),
        ({"tools": [SEARCH]}, "tools[0].type"),
        (
            {
                "tools": [LOOK, SEARCH],
                "tool_choice": {"type": "tool", "name": "web_search"},
            },
            "tool_choice",
        ),
        ({"tools": [{"name": "x"}]}, "tools[0]"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"thinking": "much"}, "thinking"),
        ({"output_config": {"effort": 3}}, "output_config.effort"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
    ],
)
def test_what_is_not_served_is_refused_by_name(members: Json, param: str) -> None:
    with pytest.raises(RefusedError) as caught:
        read(**members)
    assert caught.value.response.status == 400
    assert caught.value.response.param == param


def test_a_tool_that_only_anthropic_can_run_is_left_out() -> None:
    chat = read(tools=[SEARCH, LOOK]).chat
    assert [tool["function"]["name"] for tool in chat.tools or ()] == ["look"]


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (
            {"type": "document", "source": {"type": "base64", "data": "x"}},
            UNKNOWN_PART.format(kind="document"),
        ),
        (
            {"type": "document", "source": {"type": "content", "content": "inside"}},
            "inside",
        ),
        (
            {"type": "image", "source": {"type": "file", "file_id": "f"}},
            UNKNOWN_PART.format(kind="image"),
        ),
        (
            {"type": "container_upload", "file_id": "f"},
            UNKNOWN_PART.format(kind="container_upload"),
        ),
        ({"type": "tool_reference", "tool_name": "look"}, "look"),
    ],
)
def test_a_session_goes_on_with_what_no_model_reads(block: Json, words: str) -> None:
    """An agent sends the whole session each time: a refusal would be for good."""
    result = {"type": "tool_result", "tool_use_id": "1", "content": [block]}
    for members in (user(block), user(result)):
        assert read(**members).chat.messages[-1]["content"] == words


def test_a_document_keeps_its_title() -> None:
    source = {"type": "text", "data": "Body."}
    block = {"type": "document", "title": "notes.txt", "context": None, "source": source}
    (message,) = read(**user(block)).chat.messages
    assert [part["text"] for part in message["content"]] == ["notes.txt", "Body."]


def test_an_odd_answer_of_another_server_is_read() -> None:
    blocks: list[Json] = [
        {"type": "compaction", "content": "Before, we looked. "},
        {"type": "thinking", "signature": "s"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "text", "text": "So."},
        {"type": "tool_use", "id": "1", "name": "look", "input": '{"n": 1}'},
    ]
    (message,) = read(**assistant(*blocks)).chat.messages
    assert message["content"] == "Before, we looked. So."
    assert message["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"n": 1}'}
    empty = read(messages=[{"role": "assistant", "content": None}]).chat.messages
    assert empty == [{"role": "assistant", "content": ""}]


# --- whole answers and streams --------------------------------------------------------------

CALLS: list[Json] = [
    {
        "id": f"call_{n}",
        "type": "function",
        "function": {"name": "look", "arguments": f'{{"n": {n}}}'},
    }
    for n in range(2)
]
MESSAGE: Json = {
    "role": "assistant",
    REASONING: "hm, yes",
    THINKING_BLOCKS: [{"type": "thinking", "signature": "s", "origin": "a/b"}],
    "content": "I look.",
    "tool_calls": CALLS,
}


def events_of(data: bytes) -> list[Json]:
    found = []
    for text in data.decode().split("\n\n")[:-1]:
        name, _, rest = text.partition("\n")
        event = json.loads(rest.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def streamed(request: ClientRequest, chunks: Sequence[Chunk]) -> list[Json]:
    encoder = FRONT_DOOR.stream(request, STAMP)
    return events_of(b"".join(map(encoder.feed, chunks)) + encoder.end())


@lru_cache
def official(name: str) -> Any:
    """Make a judge of the official type with this name, which is slow to make."""
    need("anthropic")
    from anthropic import types
    from pydantic import TypeAdapter

    return TypeAdapter(getattr(types, name))


def test_a_whole_answer() -> None:
    reply = Reply(MESSAGE, "tool_calls", raw={"model": "m", "usage": USAGE})
    written = message(read(), STAMP, reply)
    official("Message").validate_python(written)
    thinking, text, first, second = written["content"]
    assert (written["id"], written["model"], written["stop_reason"]) == (
        "msg_0a",
        "m",
        "tool_use",
    )
    assert thinking["thinking"] == "hm, yes"
    assert text == {"type": "text", "text": "I look."}
    assert first == {"type": "tool_use", "id": "call_0", "name": "look", "input": {"n": 0}}
    assert second["input"] == {"n": 1}
    assert (written["usage"]["input_tokens"], written["usage"]["output_tokens"]) == (7, 2)


def test_cached_tokens_are_counted_apart() -> None:
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 5}}
    written = message(read(), STAMP, Reply(MESSAGE, raw={"usage": usage}))["usage"]
    assert (written["input_tokens"], written["cache_read_input_tokens"]) == (2, 5)


def test_an_answer_comes_back_as_the_message_that_it_was() -> None:
    """Signed reasoning too, though the client cannot read it."""
    written = message(read(), STAMP, Reply(MESSAGE, "tool_calls"))
    turn = {"role": "assistant", "content": written["content"]}
    assert read(messages=[*HI, turn]).chat.messages[1:] == [MESSAGE]


def test_arguments_that_broke_off_reach_the_client_as_an_object() -> None:
    function = {"name": "look", "arguments": '{"n'}
    broken = {**MESSAGE, "tool_calls": [{"id": "1", "function": function}]}
    written = message(read(), STAMP, Reply(broken, "length"))
    assert written["content"][-1]["input"] == {"unreadable_arguments": '{"n'}
    assert written["stop_reason"] == "max_tokens"


def test_a_stream_has_the_events_of_the_official_api_in_order() -> None:
    """One block after another, though the model mixes the pieces of its calls."""
    events = streamed(read(), deltas(MESSAGE, "tool_calls"))
    for event in events:
        official("RawMessageStreamEvent").validate_python(event)
    shown = [
        (event["type"], event.get("index"), event.get("delta", {}).get("type"))
        for event in events
    ]

    def block(index: int, *kinds: str) -> list[Any]:
        return [
            ("content_block_start", index, None),
            *(("content_block_delta", index, kind) for kind in kinds),
            ("content_block_stop", index, None),
        ]

    assert shown == [
        ("message_start", None, None),
        *block(0, *["thinking_delta"] * 3, "signature_delta"),
        *block(1, *["text_delta"] * 3),
        *block(2, "input_json_delta"),
        *block(3, "input_json_delta"),
        ("message_delta", None, None),
        ("message_stop", None, None),
    ]


def added_up(events: Sequence[Json]) -> Json:
    """Make the message of its events, as the official client does."""
    whole: Json = {}
    for event in events:
        match event:
            case {"type": "message_start", "message": whole}:
                pass
            case {"type": "content_block_start", "content_block": block}:
                whole["content"].append(
                    {**block, "input": ""} if "input" in block else block
                )
            case {"type": "content_block_delta", "index": index, "delta": delta}:
                ((name, piece),) = ((n, v) for n, v in delta.items() if n != "type")
                block = whole["content"][index]
                block["input" if name == "partial_json" else name] += piece
            case {"type": "message_delta"}:
                whole |= {**event["delta"], "usage": event["usage"]}
            case _:
                pass
    for block in whole["content"]:
        if "input" in block:
            block["input"] = json.loads(block["input"])
    return whole


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter", "tool_calls"])
def test_a_stream_adds_up_to_the_whole_answer(reason: str) -> None:
    raw = {"model": "m", "usage": USAGE}
    whole = message(read(), STAMP, Reply(MESSAGE, reason, raw=raw))
    assert added_up(streamed(read(), deltas(MESSAGE, reason))) == whole


def test_words_after_a_call_wait_for_its_end() -> None:
    parts: list[Json] = [
        {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "look"}}]},
        {"content": "and"},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
    ]
    chunks = [Chunk({"choices": [{"delta": part}]}) for part in parts]
    encoder = FRONT_DOOR.stream(read(), STAMP)
    first = [events_of(encoder.feed(chunk)) for chunk in chunks]
    assert [len(events) for events in first] == [2, 0, 1]
    kinds = [(e["type"], e.get("index")) for e in events_of(encoder.end())]
    assert kinds[:4] == [
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
    ]


def test_a_call_gets_an_id_that_no_other_call_has() -> None:
    first = {"type": "tool_use", "id": "call_0", "name": "look", "input": {}}
    request = read(messages=[*HI, {"role": "assistant", "content": [first]}])
    twice = {**MESSAGE, "tool_calls": [CALLS[0], CALLS[0], CALLS[1]]}
    written = message(request, STAMP, Reply(twice, "tool_calls"))
    ids = [block["id"] for block in written["content"] if block["type"] == "tool_use"]
    assert ids == ["toolu_0a0", "toolu_0a1", "call_1"]


# --- over HTTP ------------------------------------------------------------------------------


def client(served: Served, **options: Any) -> Any:
    anthropic = need("anthropic")
    options = {"max_retries": 0, "api_key": TOKEN, **options}
    return anthropic.Anthropic(base_url=served.gateway.url, **options)


ASKED: Json = {"model": "mux", "max_tokens": 100}


@pytest.mark.parametrize("key", ["api_key", "auth_token"])
def test_the_official_client_with_its_defaults(key: str, serve: Serve) -> None:
    served = serve()
    served.large.then(rate_limited())
    with client(served, **{"api_key": None, key: TOKEN}) as api:
        answer = api.messages.create(**ASKED, messages=HI)
    assert answer.content[0].text == "pong from small-model"
    assert answer.usage.output_tokens > 0


def test_the_official_client_streams_a_call_and_returns_its_result(serve: Serve) -> None:
    served = serve()
    calls = (ToolCall("look", '{"at": "a"}'), ToolCall("look", '{"at": "b"}'))
    served.large.then(Answer("I look.", tool_calls=calls, pieces=4), Answer("Seen."))
    history: list[Any] = [{"role": "user", "content": "look"}]
    with client(served) as api:
        asked = {**ASKED, "messages": history, "tools": [LOOK]}
        with api.messages.stream(**asked) as stream:
            final = stream.get_final_message()
        text, *used = final.content
        assert (text.text, final.stop_reason) == ("I look.", "tool_use")
        assert [call.input for call in used] == [{"at": "a"}, {"at": "b"}]
        history.append({"role": "assistant", "content": final.content})
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": "a mouse"}
            for call in used
        ]
        history.append({"role": "user", "content": results})
        answer = api.messages.create(**asked)
    assert answer.content[0].text == "Seen."
    sent = served.large.requests[-1].body["messages"]
    assert [each["role"] for each in sent] == ["user", "assistant", "tool", "tool"]
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"]


def test_tokens_are_estimated_without_a_call(serve: Serve) -> None:
    served = serve()
    long = [{"role": "user", "content": "word " * 400}]
    with client(served) as api:
        count = api.messages.count_tokens(model="mux", messages=long, tools=[LOOK])
    assert count.input_tokens == pytest.approx(520, abs=30)
    assert not served.large.requests


def test_a_stream_that_breaks_says_which_model_and_why(serve: Serve) -> None:
    anthropic = need("anthropic")
    served = serve()
    served.large.then(Cut(2))
    with (
        client(served) as api,
        pytest.raises(anthropic.APIStatusError, match="large broke off") as broken,
    ):
        list(api.messages.create(**ASKED, messages=HI, stream=True))
    assert broken.value.type == "overloaded_error"


def test_an_agent_that_run_has_started_is_told_too(serve: Serve) -> None:
    served = serve()
    served.large.then(Cut(2))
    answer = served.ask("/run/r-1/v1/messages", **ASKED, messages=HI, stream=True)
    pieces: list[bytes] = []
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        pieces.extend(answer.iter_content(None))
    received = b"".join(pieces)
    assert b"event: error" in received
    assert b"large broke off" in received


def test_refusals_have_the_official_shape(serve: Serve) -> None:
    anthropic = need("anthropic")
    served = serve()
    with client(served) as api:
        with pytest.raises(anthropic.BadRequestError, match="mcp_servers") as bad:
            api.messages.create(**ASKED, messages=HI, extra_body={"mcp_servers": [{}]})
        assert bad.value.type == "invalid_request_error"
        with pytest.raises(anthropic.NotFoundError, match="known are mux") as unknown:
            api.messages.create(model="claude-opus-5", max_tokens=1, messages=HI)
        assert unknown.value.type == "not_found_error"
        served.large.then(refusal(400, "maximum context length is 8 tokens"))
        served.small.then(refusal(400, "maximum context length is 8 tokens"))
        # Clients know these words, and shorten the conversation.
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
            api.messages.create(**ASKED, messages=HI)
    with (
        client(served, api_key="wrong") as api,
        pytest.raises(anthropic.AuthenticationError, match="x-api-key") as wrong,
    ):
        api.messages.create(**ASKED, messages=HI)
    assert wrong.value.type == "authentication_error"


def test_a_key_that_is_there_twice_is_refused(serve: Serve) -> None:
    gateway = serve().gateway
    first = f"POST {PATH} HTTP/1.1\r\nX-Api-Key: a\r\nX-Api-Key: {TOKEN}"
    with dialled(gateway, head(gateway, first, Content_Length="0")) as sock:
        assert read_all(sock).startswith(b"HTTP/1.1 400 ")


def test_mux_is_answered_here_too(serve: Serve) -> None:
    served = serve()
    for stream in (False, True):
        mux = [{"role": "user", "content": "/mux"}]
        answer = served.ask(PATH, **ASKED, messages=mux, stream=stream)
        assert "Multiplexer Status" in answer.text
    assert not served.large.requests


# --- odd requests ---------------------------------------------------------------------------

TEXT = st.just("a")
SOURCE = odd(
    ("base64", "url", "text", "content"),
    media_type=TEXT,
    data=TEXT,
    url=TEXT,
    content=st.lists(odd(("text",), text=TEXT), max_size=1),
)
INNER = odd(
    ("text", "image", "document", "tool_reference", "x"),
    text=TEXT,
    source=SOURCE,
    tool_name=TEXT,
)
BLOCKS = st.lists(
    odd(
        ("text", "image", "thinking", "redacted_thinking", "tool_use", "tool_result"),
        text=TEXT,
        source=SOURCE,
        thinking=TEXT,
        signature=st.sampled_from(("a", "mux.e30=")),
        id=TEXT,
        name=TEXT,
        input=st.dictionaries(TEXT, ANYTHING),
        tool_use_id=TEXT,
        content=st.lists(INNER, max_size=2),
    ),
    max_size=3,
)
TURN = st.fixed_dictionaries(
    {
        "role": st.sampled_from(("user", "assistant", "system")) | ANYTHING,
        "content": BLOCKS | ANYTHING,
    }
)
TOOL = odd(("custom",), name=TEXT, input_schema=ANYTHING, description=ANYTHING)
MEMBERS: dict[str, Any] = {
    "messages": st.lists(TURN, max_size=3) | ANYTHING,
    "system": BLOCKS | ANYTHING,
    "tools": st.lists(TOOL, max_size=2) | ANYTHING,
    "tool_choice": odd(("auto", "any", "tool"), name=TEXT),
    "thinking": odd(("enabled",), budget_tokens=st.integers(-1, 9)),
    "output_config": st.fixed_dictionaries(
        {}, optional={"effort": ANYTHING, "format": odd(("json_schema",), schema=ANYTHING)}
    )
    | ANYTHING,
    **dict.fromkeys(("max_tokens", "stop_sequences", "top_p", "mcp_servers"), ANYTHING),
}


@settings(max_examples=300)
@given(st.fixed_dictionaries({}, optional=MEMBERS))
def test_an_odd_request_is_read_or_refused(members: Json) -> None:
    with suppress(RefusedError):
        message(read(**members), STAMP, Reply(MESSAGE, "tool_calls"))
