"""`POST /v1/responses`: requests, whole responses and streams, against the official types."""

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

from muxcore.chat import REASONING, Chunk, Json, Reply
from muxcore.dialects.reading import UNKNOWN_PART
from muxcore.gateway.front_doors.door import ClientRequest, Stamp
from muxcore.gateway.front_doors.responses import FRONT_DOOR, read_request, response
from muxcore.gateway.http.wire import RefusedError
from muxcore.standin import Answer, Cut, ToolCall, rate_limited, refusal
from tests.dialects.official import need
from tests.gateway.conftest import Served

Serve = Callable[..., Served]
STAMP = Stamp("0a", 1234)
PATH = "/v1/responses"
LOOK: Json = {
    "type": "function",
    "name": "look",
    "description": "Looks.",
    "parameters": {"type": "object", "properties": {}},
    "strict": True,
}
AGENTS: Json = {
    "type": "namespace",
    "name": "agents",
    "description": "Agents.",
    "tools": [{"type": "function", "name": "spawn"}],
}


def body(**members: Any) -> bytes:
    return json.dumps({"model": "mux", "input": "hi", **members}).encode()


def read(**members: Any) -> ClientRequest:
    return read_request(body(**members))


# --- requests -------------------------------------------------------------------------------


def test_a_request_becomes_a_chat() -> None:
    request = read(
        instructions="Be kind.",
        stream=True,
        temperature=0,
        max_output_tokens=5,
        top_p=0.5,
        reasoning={"effort": "high", "summary": "auto"},
        text={"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True}},
        tools=[LOOK, AGENTS],
        tool_choice={"type": "function", "name": "look"},
        parallel_tool_calls=False,
        prompt_cache_key="key",
        include=["reasoning.encrypted_content"],
        store=False,
        client_metadata={"a": "b"},
    )
    chat = request.chat
    assert request.model == "mux"
    assert chat.messages == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "hi"},
    ]
    function = {
        name: LOOK[name] for name in ("name", "description", "parameters", "strict")
    }
    assert chat.tools == [
        {"type": "function", "function": function},
        {"type": "function", "function": {"name": "agents__spawn"}},
    ]
    assert chat.tool_choice == {"type": "function", "function": {"name": "look"}}
    assert (chat.temperature, chat.max_tokens, chat.stream) == (0, 5, True)
    assert chat.extra == {
        "top_p": 0.5,
        "reasoning_effort": "high",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {}, "strict": True},
        },
        "parallel_tool_calls": False,
        "prompt_cache_key": "key",
    }


def test_a_plain_request_sets_nothing() -> None:
    chat = read(parallel_tool_calls=True, tool_choice="auto", tools=[]).chat
    assert (chat.tools, chat.temperature, chat.max_tokens, chat.extra) == (
        None,
        None,
        None,
        {},
    )


def test_items_become_messages() -> None:
    items = [
        {"role": "developer", "content": [{"type": "input_text", "text": "d"}]},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "u"},
                {"type": "input_image", "image_url": "data:x", "detail": "low"},
            ],
        },
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "a"}],
        },
        {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"},
        {
            "type": "function_call",
            "call_id": "2",
            "name": "spawn",
            "namespace": "agents",
            "arguments": "{}",
        },
        {"type": "function_call_output", "call_id": "1", "output": "r"},
        {
            "type": "function_call_output",
            "call_id": "2",
            "output": [{"type": "input_text", "text": "s"}],
        },
        {"role": "assistant", "content": "b"},
        {"role": "assistant", "content": "c"},
    ]
    assert read(input=items).chat.messages == [
        {"role": "developer", "content": "d"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "u"},
                {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}},
            ],
        },
        {
            "role": "assistant",
            REASONING: "hm",
            "content": "a",
            "tool_calls": [
                {
                    "id": "1",
                    "type": "function",
                    "function": {"name": "look", "arguments": "{}"},
                },
                {
                    "id": "2",
                    "type": "function",
                    "function": {"name": "agents__spawn", "arguments": "{}"},
                },
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "r"},
        {"role": "tool", "tool_call_id": "2", "content": "s"},
        {"role": "assistant", "content": "b"},
        {"role": "assistant", "content": "c"},
    ]


def test_the_choice_among_allowed_tools_leaves_the_others_out() -> None:
    other = {**LOOK, "name": "other"}
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"name": "other"}]}
    chat = read(tools=[LOOK, other], tool_choice=allowed).chat
    assert [tool["function"]["name"] for tool in chat.tools or ()] == ["other"]
    assert chat.tool_choice == "required"


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"model": 3}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a"]}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": 3}]}, "input[0].content"),
        ({"input": [{"type": 3}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"text": "a"}]}]},
            "input[0].content[0].type",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
            "input[0].content[0]",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"input": [{"type": "function_call", "name": "a"}]}, "input[0].arguments"),
        ({"instructions": 3}, "instructions"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{**AGENTS, "tools": [{"type": "mcp"}]}]}, "tools[0].type"),
        ({"tools": [LOOK, {"type": "custom"}]}, "tools[1]"),
        ({"tools": [{**AGENTS, "tools": [{"name": "x"}]}]}, "tools[0].tools[0].type"),
        ({"input": [{"type": "additional_tools", "tools": "x"}]}, "input[0].tools"),
        ({"tools": {}}, "tools"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"stream": "yes"}, "stream"),
        ({"reasoning": "high"}, "reasoning"),
    ],
)
def test_what_is_not_served_is_refused_by_name(members: Json, param: str) -> None:
    with pytest.raises(RefusedError) as caught:
        read(**members)
    assert caught.value.response.status == 400
    assert caught.value.response.param == param


# --- what other servers began ---------------------------------------------------------------

PATCH: Json = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Patches.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: PATCH"},
}


def test_what_only_its_provider_can_run_is_left_out() -> None:
    tools = [{"type": "web_search"}, LOOK, {"type": "tool_search", "execution": "server"}]
    chat = read(tools=tools).chat
    assert [tool["function"]["name"] for tool in chat.tools or ()] == ["look"]


def test_a_tool_of_free_text_is_a_function_with_one_parameter() -> None:
    chat = read(tools=[PATCH], tool_choice={"type": "custom", "name": "apply_patch"}).chat
    (tool,) = chat.tools or ()
    assert tool["function"] == {
        "name": "apply_patch",
        "description": "Patches.\n\nstart: PATCH",
        "parameters": {
            "type": "object",
            "properties": {"input": {"type": "string"}},
            "required": ["input"],
        },
    }
    assert chat.tool_choice == {"type": "function", "function": {"name": "apply_patch"}}


def test_the_conversation_offers_further_tools() -> None:
    offer = {"type": "additional_tools", "role": "developer", "tools": [PATCH, LOOK]}
    chat = read(tools=[LOOK], input=[offer, {"role": "user", "content": "hi"}]).chat
    assert [t["function"]["name"] for t in chat.tools or ()] == ["look", "apply_patch"]
    assert chat.messages == [{"role": "user", "content": "hi"}]


def test_a_client_searches_for_its_own_tools() -> None:
    """Codex keeps the tools of its servers behind such a search."""
    about: Json = {"description": "Finds tools.", "parameters": {"type": "object"}}
    search = {"type": "tool_search", "execution": "client", **about}
    request = read(tools=[search])
    function = {"name": "tool_search", **about}
    assert request.chat.tools == [{"type": "function", "function": function}]
    asked = {"name": "tool_search", "arguments": '{"query": "look"}'}
    call = {"id": "call_1", "type": "function", "function": asked}
    reply = Reply({"role": "assistant", "content": None, "tool_calls": [call]}, "stop")
    written = response(request, STAMP, reply)
    official("Response").validate_python(written)
    (item,) = written["output"]
    assert (item["type"], item["execution"]) == ("tool_search_call", "client")
    assert item["arguments"] == {"query": "look"}
    found = {"type": "tool_search_output", "call_id": "call_1", "tools": [LOOK]}
    chat = read(tools=[search], input=[item, found]).chat
    assert [t["function"]["name"] for t in chat.tools or ()] == ["tool_search", "look"]
    answer, result = chat.messages
    assert answer["tool_calls"] == [call]
    assert result == {"role": "tool", "tool_call_id": "call_1", "content": "look"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"input": "*** Begin\\n"}', "*** Begin\n"),
        ('{"patch": "*** Begin"}', "*** Begin"),
        ('{"input": "*** Begin", "why": "so"}', "*** Begin"),
        ("*** Begin", "*** Begin"),
        ('{"input": 3}', '{"input": 3}'),
        ("", ""),
    ],
)
def test_a_call_of_free_text_comes_back_as_its_text(arguments: str, text: str) -> None:
    function = {"name": "apply_patch", "arguments": arguments}
    call = {"id": "call_1", "type": "function", "function": function}
    request = read(tools=[PATCH, LOOK])
    reply = Reply({"role": "assistant", "content": None, "tool_calls": [call]}, "stop")
    written = response(request, STAMP, reply)
    (item,) = written["output"]
    assert (item["type"], item["name"], item["input"]) == (
        "custom_tool_call",
        "apply_patch",
        text,
    )
    official("Response").validate_python(written)
    done = {"type": "custom_tool_call_output", "call_id": "call_1", "output": "Done."}
    answer, result = read(input=[item, done]).chat.messages
    assert json.loads(answer["tool_calls"][0]["function"]["arguments"]) == {"input": text}
    assert result == {"role": "tool", "tool_call_id": "call_1", "content": "Done."}


def test_a_call_of_free_text_is_streamed_in_the_official_events() -> None:
    encoder = FRONT_DOOR.stream(read(tools=[PATCH]), STAMP)
    pieces = ('{"inp', 'ut": "*** ', 'Begin"}')
    deltas: list[Json] = [{"id": "call_1", "function": {"name": "apply_patch"}}]
    deltas += [{"function": {"name": "", "arguments": piece}} for piece in pieces]
    written = b""
    for delta in deltas:
        choice = {"index": 0, "delta": {"tool_calls": [{"index": 0, **delta}]}}
        written += encoder.feed(Chunk({"choices": [choice]}))
    events = events_of(written + encoder.end())
    for event in events:
        official("ResponseStreamEvent").validate_python(event)
    assert [e["type"] for e in events][2:-1] == [
        "response.output_item.added",
        "response.custom_tool_call_input.delta",
        "response.custom_tool_call_input.done",
        "response.output_item.done",
    ]
    assert events[3]["delta"] == events[4]["input"] == "*** Begin"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            {"type": "local_shell_call", "call_id": "1", "action": {"command": ["ls"]}},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {
                            "name": "local_shell",
                            "arguments": '{"action": {"command": ["ls"]}}',
                        },
                    }
                ],
            },
        ),
        (
            {"type": "shell_call_output", "call_id": "1", "output": [{"stdout": "a"}]},
            {"role": "tool", "tool_call_id": "1", "content": '[{"stdout":"a"}]'},
        ),
        (
            {"type": "function_call_output", "call_id": "1", "output": None},
            {"role": "tool", "tool_call_id": "1", "content": ""},
        ),
        (
            {"type": "compaction", "encrypted_content": "x"},
            {"role": "user", "content": UNKNOWN_PART.format(kind="compaction")},
        ),
        (
            {"type": "agent_message", "content": [{"type": "input_text", "text": "a"}]},
            {"role": "user", "content": "a"},
        ),
        (
            {"role": "user", "content": [{"type": "input_file", "file_id": "f"}]},
            {"role": "user", "content": UNKNOWN_PART.format(kind="input_file")},
        ),
        ({"type": "web_search_call", "id": "w", "action": {"query": "a"}}, None),
        ({"type": "ghost_snapshot", "ghost_commit": {}}, None),
    ],
)
def test_a_session_of_another_server_goes_on(item: Json, message: Json | None) -> None:
    """An agent sends the whole session each time: a refusal would be for good."""
    hi = {"role": "user", "content": "hi"}
    messages = [hi] if message is None else [hi, message]
    assert read(input=[hi, item]).chat.messages == messages


# --- whole responses and streams ------------------------------------------------------------

CALLS: list[Json] = [
    {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": "{}"}}
    for n, name in enumerate(("look", "agents__spawn"))
]
MESSAGE: Json = {
    "role": "assistant",
    REASONING: "hm, yes",
    "thinking_blocks": [{"type": "thinking", "signature": "s", "origin": "a/b"}],
    "content": "I look.",
    "tool_calls": CALLS,
}
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


def deltas(message: Json, reason: str) -> list[Chunk]:
    """Cut a message into chunks, as backends do."""
    parts: list[Json] = [{"role": "assistant", "content": ""}]
    parts += [
        {REASONING: word} for word in message.get(REASONING, "").partition(" ") if word
    ]
    if blocks := message.get("thinking_blocks"):
        parts.append({"thinking_blocks": blocks})
    parts += [
        {"content": word} for word in (message["content"] or "").partition(" ") if word
    ]
    for index, call in enumerate(message.get("tool_calls") or ()):
        first = {**call["function"], "arguments": ""}
        parts.append({"tool_calls": [{**call, "index": index, "function": first}]})
    for index, call in enumerate(message.get("tool_calls") or ()):
        # Some servers mix the pieces of parallel calls.
        rest = {"name": "", "arguments": call["function"]["arguments"]}
        parts.append({"tool_calls": [{"index": index, "function": rest}]})
    chunks = [Chunk({"model": "m", "choices": [{"delta": part}]}) for part in parts]
    chunks.append(Chunk({"choices": [{"delta": {}, "finish_reason": reason}]}))
    return [*chunks, Chunk({"choices": [], "usage": USAGE})]


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
    need("openai")
    from openai.types import responses
    from pydantic import TypeAdapter

    return TypeAdapter(getattr(responses, name))


def expect_official(name: str, value: Json) -> Any:
    """Expect that the official type reads this."""
    return official(name).validate_python(value)


def test_a_whole_response() -> None:
    request = read(instructions="Be kind.", tools=[LOOK, AGENTS], metadata={"a": "b"})
    reply = Reply(MESSAGE, "tool_calls", raw={"model": "m", "usage": USAGE})
    written = response(request, STAMP, reply)
    reasoning, message, look, spawn = written["output"]
    assert written["id"] == "resp_0a"
    assert (written["status"], written["model"], written["created_at"]) == (
        "completed",
        "m",
        1234,
    )
    assert (written["instructions"], written["metadata"]) == ("Be kind.", {"a": "b"})
    assert reasoning["summary"] == [{"type": "summary_text", "text": "hm, yes"}]
    assert message["content"][0]["text"] == "I look."
    assert (look["call_id"], look["name"], look["arguments"]) == ("call_0", "look", "{}")
    assert (spawn["name"], spawn["namespace"]) == ("spawn", "agents")
    assert written["usage"]["total_tokens"] == 9
    # The first official types know no namespaces.
    without = {**written, "tools": [LOOK], "output": written["output"][:3]}
    assert expect_official("Response", without).output_text == "I look."


def test_an_answer_comes_back_as_the_message_that_it_was() -> None:
    """Signed reasoning too, though the client cannot read it."""
    request = read(tools=[LOOK, AGENTS])
    written = response(request, STAMP, Reply(MESSAGE, "tool_calls"))
    again = read(input=[{"role": "user", "content": "hi"}, *written["output"]])
    assert again.chat.messages[1:] == [MESSAGE]


def test_what_another_server_encrypted_is_left_out() -> None:
    for text in ("gAAAA", "mux.?", "mux.e30=", "mux.W10=", "mux.eyJyb2xlIjogInVzZXIifQ=="):
        item = {"type": "reasoning", "summary": [], "encrypted_content": text}
        words = {"role": "assistant", "content": "a"}
        assert read(input=[item, words]).chat.messages == [words]


def test_a_stream_has_the_events_of_the_official_api_in_order() -> None:
    events = streamed(read(tools=[LOOK]), deltas(MESSAGE, "tool_calls"))
    for event in events:
        expect_official("ResponseStreamEvent", event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
def test_a_stream_ends_with_the_whole_response(reason: str) -> None:
    request = read(tools=[LOOK, AGENTS])
    events = streamed(request, deltas(MESSAGE, reason))
    whole = response(
        request, STAMP, Reply(MESSAGE, reason, raw={"model": "m", "usage": USAGE})
    )
    assert events[-1]["response"] == whole
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert done == whole["output"]
    incomplete = {"length": "max_output_tokens", "content_filter": "content_filter"}
    status = "incomplete" if reason in incomplete else "completed"
    assert events[-1]["type"] == f"response.{status}"
    assert (whole["incomplete_details"] or {}).get("reason") == incomplete.get(reason)


def test_a_refusal_is_a_part_of_its_own() -> None:
    refused: Json = {"role": "assistant", "content": None, "refusal": "No."}
    written = response(read(), STAMP, Reply(refused, "stop"))
    assert written["output"][0]["content"] == [{"type": "refusal", "refusal": "No."}]
    expect_official("Response", written)


def test_a_call_gets_an_id_that_no_other_call_has() -> None:
    """Kimi numbers its calls anew in each answer, and the Agents SDK drops one of two with one id."""
    first = {
        "type": "function_call",
        "call_id": "call_0",
        "name": "look",
        "arguments": "{}",
    }
    done = {"type": "function_call_output", "call_id": "call_0", "output": "a"}
    twice = {**MESSAGE, "tool_calls": [CALLS[0], CALLS[0], CALLS[1]]}
    written = response(read(input=[first, done]), STAMP, Reply(twice, "tool_calls"))
    ids = [item["call_id"] for item in written["output"] if item["type"] == "function_call"]
    assert ids == ["call_0a0", "call_0a1", "call_1"]


# --- over HTTP ------------------------------------------------------------------------------


def client(served: Served, **options: Any) -> Any:
    openai = need("openai")
    from tests.gateway.conftest import TOKEN

    options = {"max_retries": 0, **options}
    return openai.OpenAI(base_url=f"{served.gateway.url}/v1", api_key=TOKEN, **options)


def test_the_official_client_with_its_defaults(serve: Serve) -> None:
    served = serve()
    served.large.then(rate_limited())
    with client(served) as api:
        answer = api.responses.create(model="mux", input="ping")
    assert answer.output_text == "pong from small-model"
    assert answer.usage.total_tokens > 0


def test_the_official_client_streams_a_call_and_returns_its_result(serve: Serve) -> None:
    served = serve()
    served.large.then(
        Answer(tool_calls=(ToolCall("look", '{"at": "a"}'),), pieces=4), Answer("Seen.")
    )
    history: list[Any] = [{"role": "user", "content": "look"}]
    with client(served) as api:
        with api.responses.stream(model="mux", input=history, tools=[LOOK]) as stream:
            final = stream.get_final_response()
        (call,) = final.output
        assert json.loads(call.arguments) == {"at": "a"}
        history += final.output
        history.append(
            {"type": "function_call_output", "call_id": call.call_id, "output": "a mouse"}
        )
        answer = api.responses.create(model="mux", input=history, tools=[LOOK])
    assert answer.output_text == "Seen."
    asked = served.large.requests[-1].body["messages"]
    assert [message["role"] for message in asked] == ["user", "assistant", "tool"]
    assert asked[1]["tool_calls"][0]["id"] == asked[2]["tool_call_id"]


def test_a_stream_that_breaks_says_which_model_and_why(serve: Serve) -> None:
    openai = need("openai")
    served = serve()
    served.large.then(Cut(2))
    events = []
    with (
        client(served) as api,
        pytest.raises(openai.APIError, match="large broke off") as broken,
    ):
        events.extend(api.responses.create(model="mux", input="ping", stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.message == str(broken.value)
    expect_official("ResponseStreamEvent", events[-1].to_dict())


def test_an_agent_that_run_has_started_is_told_too(serve: Serve) -> None:
    served = serve()
    served.large.then(Cut(2))
    answer = served.ask("/run/r-1/v1/responses", input="ping", stream=True)
    pieces: list[bytes] = []
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        pieces.extend(answer.iter_content(None))
    received = b"".join(pieces)
    assert b"event: response.failed" in received
    assert b"large broke off" in received


def test_refusals_have_the_official_shape(serve: Serve) -> None:
    openai = need("openai")
    served = serve()
    served.large.then(refusal(422, "no"))
    served.small.then(refusal(422, "no"))
    with client(served) as api:
        with pytest.raises(openai.UnprocessableEntityError):
            api.responses.create(model="mux", input="ping")
        with pytest.raises(openai.BadRequestError, match="previous_response_id") as bad:
            api.responses.create(model="mux", input="ping", previous_response_id="resp_1")
        assert bad.value.code == "unsupported_parameter"
        with pytest.raises(openai.NotFoundError, match="known are mux"):
            api.responses.create(model="gpt-4", input="ping")


def test_mux_is_answered_here_too(serve: Serve) -> None:
    served = serve()
    for stream in (False, True):
        answer = served.session.post(
            f"{served.gateway.url}{PATH}",
            json={"model": "mux", "input": "/mux", "stream": stream},
            timeout=10,
        )
        assert "Multiplexer Status" in answer.text
    assert not served.large.requests


# --- odd requests ---------------------------------------------------------------------------

SCALARS = (
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(("", "a", "mux.e30="))
)
ANYTHING = SCALARS | st.lists(SCALARS, max_size=1) | st.dictionaries(st.just("a"), SCALARS)


def odd(kinds: Sequence[str], **usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Make objects of these types whose members are as usual, or anything, or not there."""
    members = {name: each | ANYTHING for name, each in usual.items()}
    kind = st.sampled_from(kinds) | ANYTHING
    return st.fixed_dictionaries({}, optional={"type": kind, **members}) | ANYTHING


TEXT = st.just("a")
PARTS = st.lists(
    odd(
        ("input_text", "output_text", "input_image", "refusal", "summary_text"),
        text=TEXT,
        refusal=TEXT,
        image_url=TEXT,
        detail=st.just("low"),
    ),
    max_size=2,
)
ITEMS = odd(
    (
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "shell_call",
        "shell_call_output",
        "additional_tools",
    ),
    tools=st.lists(odd(("custom",), name=TEXT, format=ANYTHING), max_size=1),
    input=TEXT,
    role=st.sampled_from(("user", "assistant", "system")),
    content=PARTS,
    summary=PARTS,
    encrypted_content=TEXT,
    call_id=TEXT,
    name=TEXT,
    namespace=TEXT,
    arguments=TEXT,
    output=PARTS,
)
TOOL = odd(("function", "custom"), name=TEXT, parameters=ANYTHING)
TOOLS = odd(("function", "namespace"), name=TEXT, tools=st.lists(TOOL, max_size=2))
CHOICE = odd(
    ("function", "allowed_tools"), name=TEXT, mode=TEXT, tools=st.lists(TOOLS, max_size=2)
)
MEMBERS: dict[str, Any] = {
    "input": st.lists(ITEMS, max_size=3) | ANYTHING,
    "tools": st.lists(TOOLS, max_size=2) | ANYTHING,
    "tool_choice": CHOICE,
    "reasoning": st.fixed_dictionaries({}, optional={"effort": ANYTHING}) | ANYTHING,
    "text": st.fixed_dictionaries({}, optional={"format": odd(("json_schema",))})
    | ANYTHING,
    **dict.fromkeys(("instructions", "metadata", "max_output_tokens", "top_p"), ANYTHING),
}


@settings(max_examples=300)
@given(st.fixed_dictionaries({}, optional=MEMBERS))
def test_an_odd_request_is_read_or_refused(members: Json) -> None:
    with suppress(RefusedError):
        response(read(**members), STAMP, Reply(MESSAGE, "tool_calls"))
