"""Whole answers: how a good one is read, and every form of a bad one."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxcore.chat import Reply, Usage
from muxcore.core.outcomes import Fault, Kind, Limit, Refusal
from muxcore.core.records import Endpoint, Wire
from muxcore.plugins.backend import BadReplyError, Failure, HttpResponse, ServerEvent
from muxcore_backends.generic import Generic
from muxcore_backends.mistral import Mistral

ENDPOINT = Endpoint("a", "m")


def completion(message: Any, finish_reason: Any = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], **more}


def read(raw: Any, endpoint: Endpoint = ENDPOINT) -> Reply:
    body = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    return Generic().reply(endpoint, HttpResponse(200, {}, body))


def refused(raw: Any) -> Failure:
    with pytest.raises(BadReplyError) as caught:
        read(raw)
    assert caught.value.failure is not None
    assert str(caught.value) == caught.value.failure.message
    assert caught.value.failure.message
    return caught.value.failure


def test_a_plain_answer_is_passed_on_unchanged() -> None:
    message = {"role": "assistant", "content": "hello", "refusal": None, "x": [1]}
    raw = completion(
        message,
        usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        model="m-1",
    )
    reply = read(raw)
    assert (reply.text, reply.message, reply.finish_reason) == ("hello", message, "stop")
    assert reply.raw == raw
    assert reply.usage == Usage(3, 2)


USAGES: list[tuple[Any, Usage]] = [
    (None, Usage()),
    ([], Usage()),
    ({}, Usage()),
    ({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}, Usage(9, 2)),
    (
        {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 7}},
        Usage(9, None, 7),
    ),
    ({"prompt_tokens": 9, "prompt_tokens_details": None}, Usage(9)),
    ({"prompt_tokens": 9, "prompt_cache_hit_tokens": 6}, Usage(9, None, 6)),
    ({"prompt_tokens": None, "completion_tokens": "2"}, Usage()),
    ({"prompt_tokens": -1, "completion_tokens": True}, Usage()),
    ({"prompt_tokens": 1.5, "prompt_tokens_details": {"cached_tokens": []}}, Usage()),
]


@pytest.mark.parametrize(("usage", "read_as"), USAGES)
def test_usage(usage: Any, read_as: Usage) -> None:
    assert read(completion({"content": "x"}, usage=usage)).usage == read_as


CALL = {"id": "c1", "type": "function", "function": {"name": "ls", "arguments": "{}"}}
TOOL_CALLS: list[tuple[Any, list[Any]]] = [
    (None, []),
    ([], []),
    ([CALL], [CALL]),
    ([{**CALL, "index": 0, "extra_content": {"google": 1}}],) * 2,
    (
        [{"function": {"name": "ls", "arguments": {"a": 1}}}],
        [
            {
                "id": "call_0_chatcmpl1",
                "type": "function",
                "function": {"name": "ls", "arguments": '{"a": 1}'},
            }
        ],
    ),
    (
        [{"id": "", "type": None, "function": {"name": "ls"}}, CALL],
        [
            {
                "id": "call_0_chatcmpl1",
                "type": "function",
                "function": {"name": "ls", "arguments": ""},
            },
            CALL,
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "seen"), TOOL_CALLS)
def test_tool_calls(sent: Any, seen: list[Any]) -> None:
    reply = read(completion({"content": None, "tool_calls": sent}, "tool_calls"))
    assert reply.tool_calls == seen


def test_an_id_is_generated_even_without_the_completions() -> None:
    raw = completion(
        {"content": None, "tool_calls": [{"function": {"name": "ls"}}]}, id=None
    )
    assert read(raw).tool_calls[0]["id"] == "call_0_"


def test_a_generated_id_is_short_enough_for_all_servers() -> None:
    raw = completion(
        {"tool_calls": [{"function": {"name": "ls"}}]}, id="chatcmpl-" + "é9" * 99
    )
    identity = read(raw).tool_calls[0]["id"]
    assert len(identity) <= 40
    assert identity.isascii()


CONTENTS: list[tuple[Any, str | None, str | None]] = [
    ("text", "text", None),
    (None, None, None),
    ("", "", None),
    ([], "", None),
    ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab", None),
    (
        [
            {
                "type": "thinking",
                "thinking": [{"type": "text", "text": "h"}, {"text": "m"}, 1],
            },
            {"type": "text", "text": "a"},
        ],
        "a",
        "hm",
    ),
    ([{"type": "thinking", "thinking": "hm"}, {"type": "thinking"}], "", "hm"),
    (
        [{"type": "reference", "reference_ids": [1]}, {"type": "text", "text": None}],
        "",
        None,
    ),
    (["a", "b"], "ab", None),
    ({"type": "text", "text": "a"}, "a", None),
    (
        [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "output_text", "text": "a"},
        ],
        "a",
        "hm",
    ),
]


@pytest.mark.parametrize(("content", "text", "reasoning"), CONTENTS)
def test_contents_become_text(
    content: Any, text: str | None, reasoning: str | None
) -> None:
    body = json.dumps(completion({"role": "assistant", "content": content})).encode()
    reply = Mistral().reply(ENDPOINT, HttpResponse(200, {}, body))
    assert reply.message["content"] == text
    assert reply.message.get("reasoning_content") == reasoning
    assert reply.raw["choices"][0]["message"] is reply.message


@pytest.mark.parametrize("reasoning", ["hm", "", None])
def test_reasoning_has_one_name(reasoning: str | None) -> None:
    endpoint = Endpoint("a", wire=Wire(reasoning_field_name="reasoning"))
    reply = read(completion({"content": "x", "reasoning": reasoning}), endpoint)
    assert reply.message == {"content": "x", "reasoning_content": reasoning}
    assert read(completion({"content": "x"}), endpoint).message == {"content": "x"}


FINISH_REASONS = {
    "stop": ("stop", "STOP", "end_turn", "eos", "stop_sequence", "complete", "whatever"),
    "length": (
        "length",
        "MAX_TOKENS",
        "max_output_tokens",
        "model_context_window_exceeded",
    ),
    "content_filter": (
        "content_filter",
        "content-filter",
        "SAFETY",
        "sensitive",
        "refusal",
    ),
    "tool_calls": ("tool_calls", "tool_use", "function_call"),
    None: (None, ""),
}
"""OpenAI's names, and other servers' for the same ends; what nobody knows is an ordinary end."""


@pytest.mark.parametrize(
    ("said", "finish_reason"),
    [(said, reason) for reason, names in FINISH_REASONS.items() for said in names],
)
def test_finish_reasons_have_openais_names(
    said: str | None, finish_reason: str | None
) -> None:
    calls = (
        [{"id": "a", "function": {"name": "ls"}}] if finish_reason == "tool_calls" else []
    )
    message = {"content": "x", "tool_calls": calls}
    assert read(completion(message, said)).finish_reason == finish_reason


@pytest.mark.parametrize(
    "said",
    [
        *(
            "network_error",
            "abort",
            "ERROR",
            "timeout",
            "cancelled",
            "insufficient_resource",
        ),
        *("malformed_function_call", "unexpected_tool_call", "rate_limited", "quota_spent"),
        *("engine_overloaded", "server_shutdown", "preempted", "killed", "model_unloaded"),
        "function_call_filter: MALFORMED_FUNCTION_CALL",
    ],
)
def test_a_finish_reason_that_names_a_failure_is_no_answer(said: str) -> None:
    text = f"the answer ended with the finish reason {said!r}"
    assert refused(completion({"content": "x"}, said)) == Failure(
        Fault.TRANSIENT, message=text
    )


@pytest.mark.parametrize("finish_reason", [None, "length", "content_filter"])
def test_finish_reasons_are_passed_on(finish_reason: str | None) -> None:
    assert read(completion({"content": ""}, finish_reason)).finish_reason == finish_reason


BAD: list[tuple[Any, Kind]] = [
    (b"", Fault.TRANSIENT),
    (b"{", Fault.TRANSIENT),
    (b'{"choices": [{"message": {"content": "hal', Fault.TRANSIENT),
    (b"\xff\xfe\xfd", Fault.TRANSIENT),
    (b"[" * 100_000, Fault.TRANSIENT),
    (b"<html>Sign in to Wi-Fi</html>", Fault.TRANSIENT),
    (b"data: {}\n\n", Fault.TRANSIENT),
    (b"no healthy upstream", Fault.TRANSIENT),
    (None, Fault.TRANSIENT),
    ([], Fault.TRANSIENT),
    ("text", Fault.TRANSIENT),
    (1, Fault.TRANSIENT),
    ({}, Fault.TRANSIENT),
    ({"choices": None}, Fault.TRANSIENT),
    ({"choices": []}, Fault.TRANSIENT),
    ({"choices": {}}, Fault.TRANSIENT),
    ({"choices": [None]}, Fault.TRANSIENT),
    ({"choices": [{}]}, Fault.TRANSIENT),
    ({"choices": [{"text": "x"}]}, Fault.TRANSIENT),
    (completion(None), Fault.TRANSIENT),
    (completion("text"), Fault.TRANSIENT),
    (completion({"content": 5}), Fault.TRANSIENT),
    (completion({"content": {"a": 1}}), Fault.TRANSIENT),
    (completion({"content": [{"type": "text", "text": 5}]}), Fault.TRANSIENT),
    (completion({"content": "x", "reasoning_content": 5}), Fault.TRANSIENT),
    (completion({"content": "x"}, 5), Fault.TRANSIENT),
    (completion({"content": "x"}, "error"), Fault.TRANSIENT),
    (completion({"tool_calls": "ls"}), Fault.TRANSIENT),
    (completion({"tool_calls": ["ls"]}), Fault.TRANSIENT),
    (completion({"tool_calls": [{}]}), Fault.TRANSIENT),
    (completion({"tool_calls": [{"function": "ls"}]}), Fault.TRANSIENT),
    (completion({"tool_calls": [{"function": {"name": ""}}]}), Fault.TRANSIENT),
    (completion({"tool_calls": [{"function": {"name": 5}}]}), Fault.TRANSIENT),
    (
        completion({"tool_calls": [{"function": {"name": "ls", "arguments": 5}}]}),
        Fault.TRANSIENT,
    ),
    (
        completion({"tool_calls": [{"id": [5], "function": {"name": "ls"}}]}),
        Fault.TRANSIENT,
    ),
    ({"error": {"code": 429, "message": "x"}}, Limit.RATE),
    ({"error": "prompt too long"}, Refusal.TOO_LONG),
    ({"object": "error", "message": "x", "code": 401}, Fault.AUTH),
    ({"message": "Rate limit exceeded"}, Limit.RATE),
    (
        {**completion({"content": "x"}), "error": {"code": 400, "message": "x"}},
        Refusal.REQUEST,
    ),
    (
        {"choices": [{"error": {"code": 429, "message": "x"}, "message": {"content": ""}}]},
        Limit.RATE,
    ),
]


def called(**members: Any) -> dict[str, Any]:
    return {"tool_calls": [{"function": {"name": "ls"}, **members}]}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": 5}, "the content is neither text nor a list of parts"),
        ({"content": [{"type": "text", "text": 5}]}, "a part of the content is no text"),
        ({"content": "x", "reasoning_content": 5}, "the reasoning is no text"),
        ({"tool_calls": "ls"}, "the tool calls are no list of objects"),
        (called(function={}), "a tool call names no function"),
        (called(function="ls"), "a tool call's function is no object"),
        (called(function={"name": 5}), "a tool call's function name is no text"),
        (
            called(function={"name": "a", "arguments": 5}),
            "a tool call's arguments are no text",
        ),
        (called(id=[5]), "a tool call's id is no text"),
    ],
)
def test_what_is_malformed_is_named(message: dict[str, Any], text: str) -> None:
    assert refused(completion(message)).message == f"the answer is malformed: {text}"
    chunk = {"choices": [{"delta": message, "finish_reason": "tool_calls"}]}
    with pytest.raises(BadReplyError) as caught:
        Generic().stream(Endpoint("a")).feed(ServerEvent(json.dumps(chunk)))
    assert str(caught.value) == f"a chunk is malformed: {text}"


def test_a_finish_reason_that_is_no_text_is_malformed() -> None:
    text = "the answer is malformed: the finish reason is no text"
    assert refused(completion({"content": "x"}, 5)).message == text


@pytest.mark.parametrize(
    ("message", "calls"),
    [
        ({"function_call": {"name": "ls"}}, ["ls"]),
        ({"function_call": {"name": "ls"}, "tool_calls": []}, ["ls"]),
        ({"function_call": None}, []),
        ({"function_call": {"name": "old"}, **called()}, ["ls"]),
    ],
)
def test_the_older_function_call_is_a_call_of_one_tool(
    message: dict[str, Any], calls: list[str]
) -> None:
    reply = read(completion({"content": "x", **message}))
    assert [call["function"]["name"] for call in reply.tool_calls] == calls
    assert "function_call" not in reply.message


@pytest.mark.parametrize(
    ("said", "native", "reason"),
    [
        ("stop", "SAFETY", "content_filter"),
        ("stop", "STOP", "stop"),
        ("stop", "MAX_TOKENS", "stop"),
        ("length", "SAFETY", "length"),
        ("stop", 5, "stop"),
    ],
)
def test_a_filter_that_a_router_quotes_counts(said: str, native: Any, reason: str) -> None:
    answer = completion({"content": "x"}, said)
    answer["choices"][0]["native_finish_reason"] = native
    assert read(answer).finish_reason == reason


@pytest.mark.parametrize(("raw", "kind"), BAD)
def test_a_malformed_answer_is_a_bad_reply(raw: Any, kind: Kind) -> None:
    assert refused(raw).kind is kind


def test_a_null_error_is_no_error() -> None:
    assert read({**completion({"content": "x"}), "error": None}).text == "x"


PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "message",
                    "content",
                    "tool_calls",
                    "function",
                    "name",
                    "type",
                    "finish_reason",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
)


@given(st.binary() | PARTS.map(lambda choice: json.dumps({"choices": [choice]}).encode()))
def test_any_json_is_a_reply_or_a_bad_reply(body: bytes) -> None:
    try:
        reply = Generic().reply(ENDPOINT, HttpResponse(200, {}, body))
    except BadReplyError:
        return
    assert isinstance(reply.text, str)
    assert isinstance(reply.tool_calls, list)
