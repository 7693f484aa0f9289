"""Streams of every server become OpenAI's chunks, and no broken one looks whole."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxcore.assembling import Assembler
from muxcore.chat import Reply, Usage
from muxcore.core.outcomes import Fault, Kind, Limit, Refusal
from muxcore.core.records import Endpoint, Wire
from muxcore.plugins.backend import (
    BadReplyError,
    Decoder,
    Failure,
    HttpResponse,
    ServerEvent,
)
from muxcore_backends.generic import Generic
from muxcore_backends.mistral import Mistral

DONE = "[DONE]"
STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
NO_FINISH = Wire(emits_finish_reason=False)


def decoder(wire: Wire = Wire()) -> Decoder:  # noqa: B008 - frozen
    return Generic().stream(Endpoint("a", wire=wire))


def event(data: Any, kind: str = "message") -> ServerEvent:
    return ServerEvent(data if isinstance(data, str) else json.dumps(data), kind)


def delta(**members: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": members}]}


def calls(*fragments: Any) -> dict[str, Any]:
    return delta(tool_calls=list(fragments))


def whole(chunk: Any) -> Any:
    """Fill in the members that every chunk has."""
    head = {"id": "", "object": "chat.completion.chunk", "created": 0, "model": ""}
    choices = [{"index": 0, "finish_reason": None, **choice} for choice in chunk["choices"]]
    return {**head, **chunk, "choices": choices}


def fed(events: list[Any], wire: Wire = Wire()) -> tuple[list[Any], Decoder]:  # noqa: B008 - frozen
    stream = decoder(wire)
    chunks = [chunk.raw for data in events for chunk in stream.feed(event(data))]
    return chunks, stream


def assembled(events: list[Any]) -> Reply:
    assembler, stream = Assembler(), decoder()
    for data in events:
        for chunk in stream.feed(event(data)):
            assembler.add(chunk)
    return assembler.reply()


def test_an_ordinary_stream_is_passed_on_unchanged() -> None:
    events = [
        delta(role="assistant", content=""),
        delta(content="Hel"),
        delta(content="lo", x=1),
        STOP,
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
    ]
    chunks, stream = fed([*events, DONE])
    counted = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    events[-1] = {"choices": [], "usage": counted}
    assert chunks == [whole(chunk) for chunk in events]
    assert (stream.done, stream.ended) == (True, True)
    reply = assembled(events)
    assert (reply.text, reply.finish_reason, reply.usage) == ("Hello", "stop", Usage(3, 2))


WHOLE: list[tuple[list[Any], Wire, bool, bool]] = [
    # the events, whether the stream is whole, whether it has announced its end
    ([], Wire(), False, False),
    ([delta(content="x")], Wire(), False, False),
    ([delta(content="x"), DONE], Wire(), False, True),
    ([DONE], Wire(), False, True),
    ([delta(content="x"), STOP], Wire(), True, False),
    ([delta(content="x"), STOP, DONE], Wire(), True, True),
    ([STOP, f" {DONE}\n"], Wire(), True, True),
    ([], NO_FINISH, False, False),
    ([delta(role="assistant")], NO_FINISH, False, False),
    ([delta(content="x")], NO_FINISH, True, False),
    ([delta(content="x"), delta(content="")], NO_FINISH, True, False),
    ([DONE], NO_FINISH, True, True),
    ([STOP], NO_FINISH, True, False),
]


@pytest.mark.parametrize(("events", "wire", "done", "ended"), WHOLE)
def test_a_stream_is_whole_after_its_end(
    events: list[Any], wire: Wire, *, done: bool, ended: bool
) -> None:
    _, stream = fed(events, wire)
    assert (stream.done, stream.ended) == (done, ended)


NO_CHUNK: list[ServerEvent] = [
    event(""),
    event("  "),
    event({}, "ping"),
    event({"type": "ping"}),
    event({"message": "hello"}, "notice"),
]


@pytest.mark.parametrize("nothing", NO_CHUNK)
def test_events_without_content_are_ignored(nothing: ServerEvent) -> None:
    assert list(decoder().feed(nothing)) == []


SHAPED: list[tuple[Any, Any]] = [
    # as sent, as seen
    (f" {json.dumps(delta(content='x'))} ", delta(content="x")),
    (f"{json.dumps(delta(content='x'))}\n", delta(content="x")),
    ({"choices": [{"delta": None}]}, {"choices": [{"delta": {}}]}),
    ({"choices": [{"finish_reason": None}]}, {"choices": [{"finish_reason": None, "delta": {}}]}),
    ({"choices": None, "usage": None}, {"choices": [], "usage": None}),
    (
        {"usage": {"prompt_tokens": 1, "x": 2}},
        {
            "choices": [],
            "usage": {"prompt_tokens": 1, "x": 2},
        },
    ),
    ({"choices": [], "usage": []}, {"choices": [], "usage": None}),
    ({**delta(content="x"), "created": 1.5, "id": None}, {**delta(content="x"), "id": ""}),
    (delta(content=None, tool_calls=None), delta(content=None, tool_calls=None)),
    (delta(content=[]), delta(content="")),
    (
        delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]),
        delta(content="", reasoning_content="hm"),
    ),
    (delta(content=[{"type": "text", "text": "a"}]), delta(content="a")),
    ({**delta(content="x"), "error": None}, {**delta(content="x"), "error": None}),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "seen"), SHAPED)
def test_content_of_every_form_becomes_one_shape(sent: Any, seen: Any) -> None:
    assert fed([sent])[0] == [whole(seen)]


def test_mistrals_streams_have_the_same_shape() -> None:
    stream = Mistral().stream(Endpoint("a"))
    sent = delta(content=[{"type": "thinking", "thinking": "hm"}])
    assert next(iter(stream.feed(event(sent)))).raw == whole(
        delta(content="", reasoning_content="hm")
    )


def test_reasoning_has_one_name() -> None:
    wire = Wire(reasoning_field_name="reasoning")
    assert fed([delta(reasoning="hm")], wire)[0] == [whole(delta(reasoning_content="hm"))]
    assert fed([delta(content="x")], wire)[0] == [whole(delta(content="x"))]


PARTS = [{"type": "reasoning.text", "text": "hm", "signature": None}]


@pytest.mark.parametrize(
    "sent",
    [
        {"reasoning": "hm"},
        {"reasoning_text": "hm"},
        {"thinking": "hm"},
        {"reasoning": {"content": "hm"}},
        {"reasoning": "hm", "reasoning_content": "hm"},
        {"reasoning": None, "reasoning_content": "hm"},
        {"reasoning_content": [{"type": "text", "text": "hm"}]},
        {"reasoning_content": None, "reasoning_details": PARTS},
        {"reasoning": "hm", "reasoning_details": PARTS},
    ],
)
def test_reasoning_under_any_name_is_said_once(sent: Any) -> None:
    (raw,) = fed([delta(**sent)])[0]
    kept = {n: v for n, v in sent.items() if n == "reasoning_details"}
    assert raw["choices"][0]["delta"] == {**kept, "reasoning_content": "hm"}


@pytest.mark.parametrize("sent", [{"thinking": True}, {"reasoning": 5}, {"thinking": {}}])
def test_reasoning_without_words_is_none(sent: Any) -> None:
    assert fed([delta(content="x", **sent)])[0] == [whole(delta(content="x"))]


@pytest.mark.parametrize("role", ["model", "", None, 5])
def test_only_the_assistant_answers(role: Any) -> None:
    """Official clients take no other role from a model."""
    assert fed([delta(role=role)])[0] == [whole(delta(role="assistant"))]


def test_events_may_lack_the_empty_line_between_them() -> None:
    lines = [json.dumps(delta(content=text)) for text in "ab"]
    chunks, stream = fed(["\n".join([*lines, json.dumps(STOP), DONE])])
    assert [raw["choices"][0]["delta"].get("content") for raw in chunks] == ["a", "b", None]
    assert (stream.done, stream.ended) == (True, True)


def first(index: int, identity: str, name: str, arguments: str = "") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": identity, "type": "function", "function": function}


def later(index: int, arguments: str) -> dict[str, Any]:
    return {"index": index, "function": {"name": "", "arguments": arguments}}


def sent_call(**members: Any) -> dict[str, Any]:
    function = {
        name: members.pop(name) for name in ("name", "arguments") if name in members
    }
    return {**members, "function": function}


FRAGMENTS: list[tuple[str, list[Any], list[Any]]] = [
    (
        "OpenAI",
        [
            first(0, "a", "ls"),
            later(0, '{"x"'),
            later(0, ":1}"),
            first(1, "b", "cat", "{}"),
        ],
        [
            first(0, "a", "ls"),
            later(0, '{"x"'),
            later(0, ":1}"),
            first(1, "b", "cat", "{}"),
        ],
    ),
    (
        "Mistral: id and name in every fragment",
        [
            sent_call(index=0, id="a", name="ls", arguments='{"x"'),
            sent_call(index=0, id="a", name="ls", arguments=":1}"),
            sent_call(index=0, id="null", name="", arguments=" "),
        ],
        [first(0, "a", "ls", '{"x"'), later(0, ":1}"), later(0, " ")],
    ),
    (
        "Gemini: index 0 for all",
        [
            {**sent_call(index=0, id="a", name="ls", arguments="{}"), "extra_content": 1},
            sent_call(index=0, id="b", name="ls", arguments="{}"),
            sent_call(index=0, arguments=" "),
        ],
        [
            {**first(0, "a", "ls", "{}"), "extra_content": 1},
            first(1, "b", "ls", "{}"),
            later(1, " "),
        ],
    ),
    (
        "older vLLM: a new id in every fragment",
        [
            sent_call(index=0, id="a", name="ls"),
            sent_call(index=0, id="b", arguments="{}"),
        ],
        [first(0, "a", "ls"), later(0, "{}")],
    ),
    (
        "no index, ids",
        [
            sent_call(id="a", name="ls", arguments=""),
            sent_call(id="b", name="cat", arguments="{"),
            sent_call(id="a", arguments="{}"),
            sent_call(id="b", arguments="}"),
        ],
        [first(0, "a", "ls"), first(1, "b", "cat", "{"), later(0, "{}"), later(1, "}")],
    ),
    (
        "no index, no ids, whole calls with an object for arguments",
        [
            sent_call(name="ls", arguments={"x": 1}),
            sent_call(name="ls", arguments=None),
            sent_call(arguments="{}"),
        ],
        [
            first(0, "call_0_chatcmpl1", "ls", '{"x": 1}'),
            later(0, ""),
            first(1, "call_1_chatcmpl1", "ls", "{}"),
        ],
    ),
    (
        "an index that is none, indexes that skip",
        [
            sent_call(index="0", id="a", name="ls"),
            sent_call(index=None, arguments="{}"),
            sent_call(index=7, id="b", name="ls"),
            sent_call(index=7, arguments="{}"),
        ],
        [first(0, "a", "ls"), later(0, "{}"), first(1, "b", "ls"), later(1, "{}")],
    ),
    (
        "the name comes late",
        [{"index": 0, "id": "a"}, sent_call(index=0, name="ls", arguments="{}")],
        [first(0, "a", "ls", "{}")],
    ),
    (
        "the name comes after arguments",
        [
            sent_call(id="a", arguments='{"x"'),
            sent_call(id="b", name="cat", arguments="{}"),
            sent_call(id="a", name="ls", arguments=":1}"),
        ],
        [first(1, "b", "cat", "{}"), first(0, "a", "ls", '{"x":1}')],
    ),
    ("a piece of nothing", [sent_call(arguments="{}")], []),
]


@pytest.mark.parametrize(("who", "sent", "seen"), FRAGMENTS)
@pytest.mark.parametrize("together", [False, True])
def test_tool_calls_of_every_form_become_one_shape(
    who: str, sent: list[Any], seen: list[Any], *, together: bool
) -> None:
    events = [calls(*sent)] if together else [calls(fragment) for fragment in sent]
    chunks, _ = fed(events)
    deltas = [raw["choices"][0]["delta"] for raw in chunks]
    found = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert found == seen


def test_a_call_of_nothing_beside_others_is_left_out() -> None:
    sent = [sent_call(index=0, id="a", name="ls", arguments="{}"), sent_call(index=1)]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    reply = assembled([calls(*sent), end])
    assert [call["id"] for call in reply.tool_calls] == ["a"]
    message = {"content": None, "tool_calls": sent}
    whole_answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    answer = HttpResponse(200, {}, json.dumps(whole_answer).encode())
    assert [c["id"] for c in Generic().reply(Endpoint("a"), answer).tool_calls] == ["a"]


REASONS: list[tuple[str, bool, str]] = [
    # as sent, after tool calls, as seen
    ("stop", False, "stop"),
    ("stop", True, "tool_calls"),
    ("STOP", True, "tool_calls"),
    ("length", True, "length"),
    ("tool_calls", False, "stop"),
    ("function_call", True, "tool_calls"),
    ("model_length", False, "length"),
    ("content_filter", False, "content_filter"),
    ("SAFETY", False, "content_filter"),
    ("eos", False, "stop"),
]


@pytest.mark.parametrize(("sent", "with_calls", "seen"), REASONS)
def test_finish_reasons_of_every_form_become_one_shape(
    sent: str, seen: str, *, with_calls: bool
) -> None:
    call = [calls(sent_call(id="a", name="ls", arguments="{}"))] if with_calls else []
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": sent}]}
    chunks, stream = fed([*call, end])
    assert chunks[-1]["choices"][0]["finish_reason"] == seen
    assert stream.done


BAD: list[tuple[Any, str, Kind]] = [
    ('{"choices": [{"delta": {"content": "hal', "message", Fault.TRANSIENT),
    ("{}{}", "message", Fault.TRANSIENT),
    ("[DONE", "message", Fault.TRANSIENT),
    ("[]", "message", Fault.TRANSIENT),
    ("[" * 100_000, "message", Fault.TRANSIENT),
    ({"choices": {"a": 1}}, "message", Fault.TRANSIENT),
    ({"choices": ["x"]}, "message", Fault.TRANSIENT),
    ({"choices": [{"delta": "x"}]}, "message", Fault.TRANSIENT),
    ({"choices": [{"delta": {}, "finish_reason": 5}]}, "message", Fault.TRANSIENT),
    ({"choices": [{"delta": {}, "finish_reason": "error"}]}, "message", Fault.TRANSIENT),
    (delta(content=5), "message", Fault.TRANSIENT),
    (delta(reasoning_content=5), "message", Fault.TRANSIENT),
    (calls("x"), "message", Fault.TRANSIENT),
    (calls({"function": "x"}), "message", Fault.TRANSIENT),
    (calls({"function": {"arguments": 5}}), "message", Fault.TRANSIENT),
    (delta(tool_calls={"a": 1}), "message", Fault.TRANSIENT),
    ({"error": {"code": 429, "message": "x"}}, "message", Limit.RATE),
    ({"error": {"message": "x", "type": "server_error"}}, "message", Fault.TRANSIENT),
    ({"error": "Context size has been exceeded."}, "message", Refusal.TOO_LONG),
    ({**STOP, "error": {"code": 502, "message": "x"}}, "message", Fault.TRANSIENT),
    (
        {"choices": [{"delta": {}, "error": {"code": 400, "message": "x"}}]},
        "message",
        Refusal.REQUEST,
    ),
    (
        {"choices": [{"finish_reason": "error", "error": {"code": 429, "message": "x"}}]},
        "message",
        Limit.RATE,
    ),
    ({"object": "error", "message": "x", "code": 500}, "message", Fault.TRANSIENT),
    ({"type": "error"}, "notice", Fault.TRANSIENT),
    ({"detail": "rate limit"}, "message", Limit.RATE),
    ({"type": "error", "error": {"type": "overloaded_error"}}, "error", Fault.TRANSIENT),
    ({"message": "x", "code": 401}, "error", Fault.AUTH),
    (delta(content="x"), "error", Fault.TRANSIENT),
    ("boom", "error", Fault.TRANSIENT),
    ("", "error", Fault.TRANSIENT),
    (
        {"choices": [{"delta": {"content": 5}, "finish_reason": "stop"}]},
        "message",
        Fault.TRANSIENT,
    ),
    (DONE, "error", Fault.TRANSIENT),
]


@pytest.mark.parametrize(("data", "kind", "want"), BAD)
def test_malformed_events_break_a_stream(data: Any, kind: str, want: Kind) -> None:
    stream = decoder()
    stream.feed(event(delta(content="x")))
    with pytest.raises(BadReplyError) as caught:
        stream.feed(event(data, kind))
    failure = caught.value.failure
    assert isinstance(failure, Failure)
    assert failure.kind is want
    assert failure.message == str(caught.value) != ""
    assert not stream.done


DELTAS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["content", "tool_calls", "function", "name", "id", "index", "type"]
            ),
            inner,
            max_size=3,
        )
    ),
)


@given(st.lists(DELTAS | DELTAS.map(lambda value: {"choices": [{"delta": value}]})))
def test_any_event_is_chunks_or_a_bad_reply(events: list[Any]) -> None:
    assembler, stream = Assembler(), decoder()
    for data in events:
        try:
            chunks = stream.feed(event(data))
        except BadReplyError:
            continue
        for chunk in chunks:
            assembler.add(chunk)
    assert isinstance(assembler.reply().text, str)
    assert not stream.done


HALVES = [
    (["a\ud83d", "\ude00b"], "a\U0001f600b"),
    (["a\ud83d", "", "\ude00b"], "a\U0001f600b"),
    (["\ude00b", "c"], "\ufffdbc"),
    (["a\ud83d", "b"], "a\ufffdb"),
    (["a", "\ud83d"], "a\ufffd"),
]


@pytest.mark.parametrize(("pieces", "text"), HALVES)
@pytest.mark.parametrize("name", ["content", "reasoning_content"])
def test_a_character_cut_in_two_is_put_together(
    pieces: list[str], text: str, name: str
) -> None:
    chunks, _ = fed([delta(**{name: piece}) for piece in pieces] + [STOP])
    assert "".join(raw["choices"][0]["delta"].get(name, "") for raw in chunks) == text


@pytest.mark.parametrize(("pieces", "text"), HALVES)
def test_so_is_one_in_the_arguments_of_a_call(pieces: list[str], text: str) -> None:
    sent = [sent_call(index=0, id="a", name="ls", arguments='"')]
    sent += [sent_call(index=0, arguments=piece) for piece in pieces]
    sent += [sent_call(index=0, arguments='"')]
    function = assembled([*map(calls, sent), STOP]).tool_calls[0]["function"]
    assert function["arguments"] == f'"{text}"'


def test_a_whole_message_in_one_event_is_the_answer() -> None:
    message = {
        "role": "assistant",
        "content": "Hello",
        "tool_calls": [first(0, "a", "ls", "{}")],
    }
    end = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    assert assembled([end]).text == "Hello"
    assert [call["id"] for call in assembled([end]).tool_calls] == ["a"]
    # A repetition of earlier pieces adds nothing.
    assert assembled([delta(content="Hel"), delta(content="lo"), end]).text == "Hello"


def test_answers_beside_the_first_are_not_mixed_into_it() -> None:
    def choice(index: int, text: str) -> Any:
        return {"choices": [{"index": index, "delta": {"content": text}}]}

    assert assembled([choice(0, "a"), choice(1, "x"), choice(0, "b"), STOP]).text == "ab"


PLACES = [
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": {}}]},
    {"choices": [{"index": 0, "delta": {"usage": {}}, "finish_reason": "stop"}]},
    {**STOP, "x_groq": {"id": "r", "usage": {}}},
    {"choices": [], "x_vendor": {"usage": {}}},
    {"choices": [{"index": 0, "delta": {}}], "usage": {}},
]
COUNTS = [
    {"prompt_tokens": 70, "completion_tokens": 30, "cached_tokens": 20},
    {"prompt_tokens": 70.0, "completion_tokens": 30.0, "total_tokens": 100.0},
    {"input_tokens": 70, "output_tokens": 30},
    {"prompt_tokens": 70, "total_tokens": 100},
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("counts", COUNTS)
def test_usage_is_read_at_every_known_place(place: Any, counts: Any) -> None:
    text = json.dumps(place).replace('"usage": {}', f'"usage": {json.dumps(counts)}')
    usage = assembled([delta(content="x"), json.loads(text), STOP]).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (70, 30)


@pytest.mark.parametrize(
    "counts",
    [
        [(7, 2), (0, 0)],
        [(7, 0), (0, 2)],
        [(7, 1), (7, 2), (None, None)],
    ],
)
def test_a_count_that_was_told_is_kept(counts: list[Any]) -> None:
    """Some servers end with zeros, others tell each count in a chunk of its own."""
    told = [{"prompt_tokens": p, "completion_tokens": c} for p, c in counts]
    events = [delta(content="x"), *({**STOP, "usage": usage} for usage in told)]
    assert assembled(events).usage == Usage(7, 2)
    last = [raw["usage"] for raw in fed(events)[0] if raw.get("usage")][-1]
    assert last["total_tokens"] == 9


@pytest.mark.parametrize("junk", [-1, 10**13, 1.5, True, "70", None, [], 1e300])
def test_an_invalid_count_is_unknown(junk: Any) -> None:
    """It is not 0: prices and shares would be wrong."""
    usage = {"prompt_tokens": junk, "completion_tokens": 3}
    chunks, _ = fed([{"choices": [], "usage": usage}])
    assert chunks[0]["usage"] == {"completion_tokens": 3}


@pytest.mark.parametrize(
    "heartbeat",
    [
        {"type": "heartbeat"},
        {"status": "processing", "message": "position 3"},
        "keep-alive",
    ],
)
def test_heartbeats_are_ignored(heartbeat: Any) -> None:
    assert fed([heartbeat])[0] == []
