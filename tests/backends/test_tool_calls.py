"""Calls are never mixed up: each has its own id and arguments, however a server sends them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxcore.assembling import Assembler
from muxcore.chat import Reply
from muxcore.core.records import Endpoint
from muxcore.plugins.backend import BadReplyError, HttpResponse, ServerEvent
from muxcore_backends.anthropic import Anthropic
from muxcore_backends.generic import Generic
from muxcore_backends.shapes import MalformedError
from muxcore_backends.toolcalls import FragmentJoint, complete_tool_calls

BOTH = [("read", '{"p":1}'), ("write", '{"p":2}')]
TWICE = [("read", '{"p":1}'), ("read", '{"p":2}')]


def fragment(
    name: str = "", arguments: str = "", identity: str | None = None, index: Any = 0
) -> dict[str, Any]:
    call: dict[str, Any] = {"function": {"name": name, "arguments": arguments}}
    if index is not None:
        call["index"] = index
    return call if identity is None else {**call, "id": identity, "type": "function"}


def joined(*fragments: dict[str, Any]) -> Reply:
    joint, assembler = FragmentJoint(), Assembler()
    decoder = Generic().stream(Endpoint("a"))
    assert not joint.begun
    for sent in fragments:
        chunk = {"id": "c-7", "choices": [{"delta": {"tool_calls": [sent]}}]}
        for piece in decoder.feed(ServerEvent(json.dumps(chunk))):
            assembler.add(piece)
    return assembler.reply()


def calls_of(reply: Reply) -> list[tuple[str, str]]:
    ids = [call["id"] for call in reply.tool_calls]
    assert len(set(ids)) == len(ids)
    assert all(ids)
    functions = (call["function"] for call in reply.tool_calls)
    return [(function["name"], function["arguments"]) for function in functions]


@pytest.mark.parametrize("identity", ["call_1", "", None])
@pytest.mark.parametrize("index", [0, None])
@pytest.mark.parametrize("calls", [BOTH, TWICE])
def test_parallel_calls_may_share_their_index_and_their_id(
    calls: list[tuple[str, str]], identity: str | None, index: int | None
) -> None:
    sent = (fragment(name, arguments, identity, index) for name, arguments in calls)
    assert calls_of(joined(*sent)) == calls


FRAGMENTED: dict[str, tuple[list[dict[str, Any]], list[tuple[str, str]]]] = {
    "one id under two indices, in turns": (
        [
            fragment("read", '{"p"', "c1", 0),
            fragment("read", '{"p"', "c1", 1),
            fragment("", ":1}", None, 0),
            fragment("", ":2}", None, 1),
        ],
        TWICE,
    ),
    "own ids under one index": (
        [fragment("read", '{"p":1}', "c1"), fragment("read", '{"p":2}', "c2")],
        TWICE,
    ),
    "the name and the id in each fragment": (
        [fragment("read", a, "c1") for a in ("", '{"p":', "1}")],
        [("read", '{"p":1}')],
    ),
    "the name in each fragment, no id": (
        [fragment("read", a) for a in ("", '{"p":', "1}", "")],
        [("read", '{"p":1}')],
    ),
    "bare arguments after whole ones are another call of the tool": (
        [fragment("read", '{"p":1}'), fragment("", '{"p":2}')],
        TWICE,
    ),
    "arguments in pieces, then another call": (
        [
            fragment("read", '{"p"', "x"),
            fragment("", ":1}"),
            fragment("write", "", "x"),
            fragment("", '{"p":2}'),
        ],
        BOTH,
    ),
    "pieces of two calls in turn, distinguished by their ids": (
        [
            fragment("read", "", "a"),
            fragment("write", "", "b"),
            fragment("", '{"p":1', "a"),
            fragment("", '{"p":', "b"),
            fragment("", "}", "a"),
            fragment("", "2}", "b"),
        ],
        BOTH,
    ),
    "a whole call that is sent again at its end": (
        [
            fragment("read", '{"p"', "a"),
            fragment("", ":1}", "a"),
            fragment("read", '{"p":1}', "a"),
            fragment("", '{"p":1}'),
        ],
        [("read", '{"p":1}')],
    ),
    "braces that end no object": (
        [fragment("read", '{"p":"{}'), fragment("", '{"}')],
        [("read", '{"p":"{}{"}')],
    ),
    "indexes of their own": (
        [fragment("read", '{"p":1}', "a", 0), fragment("read", '{"p":2}', "a", 1)],
        TWICE,
    ),
}


@pytest.mark.parametrize("case", FRAGMENTED)
def test_fragments_are_joined(case: str) -> None:
    fragments, calls = FRAGMENTED[case]
    assert calls_of(joined(*fragments)) == calls


OBJECTS = st.dictionaries(
    st.text(max_size=4), st.text(max_size=9) | st.integers(), max_size=3
)


@given(
    st.lists(
        st.tuples(st.sampled_from(["read", "write"]), OBJECTS), min_size=1, max_size=5
    ),
    st.sampled_from([None, "", "one", "own"]),
    st.sampled_from(["one", "own", "none"]),
    st.integers(1, 9),
)
def test_consecutive_calls_stay_separate(
    calls: list[tuple[str, dict[str, Any]]], identity: str | None, index: str, size: int
) -> None:
    """Rule 8: no call is lost, doubled, or given another's arguments."""
    sent: list[dict[str, Any]] = []
    for position, (name, said) in enumerate(calls):
        own = f"id{position}" if identity == "own" else identity
        place = {"one": 0, "own": position, "none": None}[index]
        text = json.dumps(said)
        # A repeated whole call with its id is the same call.
        if own == "one" and (name, said) in calls[:position]:
            return
        for at in range(0, len(text), size):
            first = at == 0
            sent.append(
                fragment(
                    name if first else "",
                    text[at : at + size],
                    own if first else None,
                    place,
                )
            )
    assert calls_of(joined(*sent)) == [(name, json.dumps(said)) for name, said in calls]


def test_whole_calls_have_distinct_ids() -> None:
    calls = [{**fragment(*said, identity="x"), "index": 0} for said in TWICE]
    calls += [fragment("look", "{}", "")]
    raw = {"id": "c-7", "choices": [{"message": {"content": None, "tool_calls": calls}}]}
    answer = HttpResponse(200, {}, json.dumps(raw).encode())
    reply = Generic().reply(Endpoint("a"), answer)
    assert calls_of(reply) == [*TWICE, ("look", "{}")]
    assert [call["id"] for call in reply.tool_calls] == ["x", "call_1_c7", "call_2_c7"]


OLD = [
    {"function_call": {"name": "read", "arguments": ""}},
    {"function_call": {"arguments": '{"p":'}, "tool_calls": None},
    {"function_call": {"arguments": "1}"}},
    {"function_call": None},
]


def test_the_older_function_call_is_a_call_of_one_tool() -> None:
    decoder, assembler = Generic().stream(Endpoint("a")), Assembler()
    chunks = [{"delta": delta} for delta in OLD]
    for choice in (*chunks, {"delta": {}, "finish_reason": "function_call"}):
        for piece in decoder.feed(
            ServerEvent(json.dumps({"id": "c", "choices": [choice]}))
        ):
            assembler.add(piece)
    reply = assembler.reply()
    assert (calls_of(reply), reply.finish_reason) == ([("read", '{"p":1}')], "tool_calls")
    assert "function_call" not in reply.message


def test_blocks_of_the_messages_api_grow_by_their_index() -> None:
    def start(index: int, name: str) -> dict[str, Any]:
        block = {"type": "tool_use", "id": f"t{index}", "name": name, "input": {}}
        return {"type": "content_block_start", "index": index, "content_block": block}

    def grow(index: int, arguments: str) -> dict[str, Any]:
        delta = {"type": "input_json_delta", "partial_json": arguments}
        return {"type": "content_block_delta", "index": index, "delta": delta}

    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 1}}},
        start(0, "read"),
        start(1, "write"),
        grow(0, '{"p":'),
        grow(1, '{"p":2'),
        grow(0, "1}"),
        {"type": "content_block_stop", "index": 0},
        grow(1, "}"),
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
    ]
    decoder, assembler = Anthropic().stream(Endpoint("a", "claude")), Assembler()
    for event in events:
        for piece in decoder.feed(ServerEvent(json.dumps(event), event["type"])):
            assembler.add(piece)
    assert calls_of(assembler.reply()) == BOTH
    assert assembler.reply().usage.completion_tokens is None


@given(st.lists(st.sampled_from(["}", "{", "{}", '{"a":1}', '"', ""]), max_size=40))
def test_no_fragments_raise_an_error(pieces: list[str]) -> None:
    joint = FragmentJoint()
    names = ["ls", *("" for _ in pieces)]
    named = map(fragment, names, pieces)
    sent = [piece for call in named for piece in joint.put([call], "c")]
    assert [piece["index"] for piece in sent] == sorted(piece["index"] for piece in sent)


def test_a_generated_id_has_the_length_that_openai_allows() -> None:
    joint = FragmentJoint()
    sent = [
        joint.put([fragment("read", "{}", "", n)], "c" * 99)[0]["id"] for n in range(10)
    ]
    assert sent[9] == "call_9_" + "c" * 24
    assert all(len(identity) <= 40 for identity in sent)


def test_a_type_named_by_the_server_is_kept() -> None:
    streamed, whole = ({**fragment("read", "{}", "a"), "type": "custom"} for _ in range(2))
    assert FragmentJoint().put([streamed], "c")[0]["type"] == "custom"
    complete_tool_calls([whole], "c")
    assert whole["type"] == "custom"


@pytest.mark.parametrize("index", ["0", {}, [0], 1.5, True])
def test_an_index_that_is_no_number_counts_as_none(index: Any) -> None:
    sent = (fragment(name, arguments, "", index) for name, arguments in BOTH)
    assert calls_of(joined(*sent)) == BOTH


@pytest.mark.parametrize("calls", [{}, ["x"], [fragment("read", "{}"), "x"]])
def test_tool_calls_that_are_no_list_are_malformed(calls: Any) -> None:
    with pytest.raises(MalformedError, match="no list of objects"):
        FragmentJoint().put(calls, "c")


def test_an_id_that_is_a_number_is_taken_as_text() -> None:
    sent = [fragment("read", '{"p":1}', index=0), fragment("read", '{"p":2}', index=1)]
    reply = joined({**sent[0], "id": 11}, {**sent[1], "id": 12})
    assert [call["id"] for call in reply.tool_calls] == ["11", "12"]
    assert calls_of(reply) == TWICE


@pytest.mark.parametrize("arguments", ['{"p":1}', {"p": 1}])
def test_a_call_may_lack_the_level_of_its_function(arguments: Any) -> None:
    call = {"id": "a", "name": "read", "arguments": arguments}
    streamed = joined({**call, "index": 0})
    body = {"id": "c", "choices": [{"message": {"tool_calls": [dict(call)]}}]}
    whole = Generic().reply(Endpoint("a"), HttpResponse(200, {}, json.dumps(body).encode()))
    for reply in (streamed, whole):
        ((name, sent),) = calls_of(reply)
        assert (name, json.loads(sent)) == ("read", {"p": 1})


def test_a_call_without_a_name_ends_no_answer() -> None:
    """A caller could only guess which of its tools was meant."""
    decoder = Generic().stream(Endpoint("a"))
    calls = {"tool_calls": [fragment("", "{}", "a")]}
    for delta, finish in ((calls, None), ({}, "tool_calls")):
        chunk = {"choices": [{"delta": delta, "finish_reason": finish}]}
        if finish is None:
            decoder.feed(ServerEvent(json.dumps(chunk)))
        else:
            with pytest.raises(BadReplyError, match="a tool call names no function"):
                decoder.feed(ServerEvent(json.dumps(chunk)))
