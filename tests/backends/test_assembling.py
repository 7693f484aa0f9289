"""The whole reply of a stream's chunks is the same however the stream was cut."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from muxcore.assembling import Assembler
from muxcore.chat import Chunk, Reply, Usage
from muxcore.core.records import Endpoint
from muxcore.plugins.backend import ServerEvent
from muxcore_backends.generic import Generic

USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_cache_hit_tokens": 5}


def chunk(finish_reason: str | None = None, **delta: Any) -> Chunk:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return Chunk({"id": "c", "created": 7, "model": "m", "choices": [choice]})


def assembled(*chunks: Chunk) -> Reply:
    assembler = Assembler()
    for piece in chunks:
        assembler.add(piece)
    return assembler.reply()


def test_no_chunks_are_an_empty_answer() -> None:
    reply = assembled()
    assert reply.message == {"role": "assistant", "content": ""}
    assert (reply.finish_reason, reply.usage, reply.tool_calls) == (None, Usage(), [])


def test_a_whole_answer_has_the_shape_of_one() -> None:
    reply = assembled(
        chunk(role="assistant", content=""),
        chunk(reasoning_content="h"),
        chunk(reasoning_content="m", content=None),
        chunk(content="Hel"),
        chunk(content="lo", refusal=None),
        chunk("stop"),
        Chunk({"choices": [], "usage": USAGE}),
    )
    message = {"role": "assistant", "content": "Hello", "reasoning_content": "hm"}
    assert reply.message == message
    assert reply.usage == Usage(9, 4, 5)
    assert reply.raw == {
        "id": "c",
        "created": 7,
        "model": "m",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": USAGE,
    }


def test_the_last_usage_counts() -> None:
    usages = ({"prompt_tokens": 9, "completion_tokens": n} for n in (1, 2))
    chunks = [Chunk({**chunk(content="x").raw, "usage": usage}) for usage in usages]
    assert assembled(*chunks).usage == Usage(9, 2)


def test_unknown_members_are_kept() -> None:
    reply = assembled(
        chunk(details=[{"a": 1}], audio={"id": 1}),
        chunk(details=[{"b": 2}], audio={"id": 2}),
    )
    assert reply.message["details"] == [{"a": 1}, {"b": 2}]
    assert reply.message["audio"] == {"id": 2}


def test_tool_calls_keep_unknown_members() -> None:
    reply = assembled(
        chunk(tool_calls=[{"index": 1, "id": "b", "type": "function", "extra_content": 1}]),
        chunk(tool_calls=[{"index": 0, "id": "a", "type": "function", "function": None}]),
        chunk(tool_calls=[{"index": 1, "function": {"name": "cat", "arguments": "{"}}]),
        chunk(tool_calls=[{"index": 1, "function": {"name": "cat", "arguments": "}"}}]),
    )
    assert reply.message["content"] is None
    assert reply.tool_calls == [
        {"id": "a", "type": "function", "function": {"name": "", "arguments": ""}},
        {
            "id": "b",
            "type": "function",
            "extra_content": 1,
            "function": {"name": "cat", "arguments": "{}"},
        },
    ]


def test_a_reply_can_be_read_at_any_time() -> None:
    assembler = Assembler()
    assembler.add(chunk(content="Hel", details=[1]))
    before = assembler.reply()
    assembler.add(chunk(content="lo", details=[2]))
    assert (before.text, before.message["details"]) == ("Hel", [1])
    assert (assembler.reply().text, assembler.reply().text) == ("Hello", "Hello")


TEXT = st.text(max_size=30)
CALLS = st.lists(
    st.builds(
        lambda name, arguments: {
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        },
        st.text(min_size=1, max_size=5),
        TEXT,
    ),
    max_size=4,
)


def pieces(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=5)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def cut_messages(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Draw a message and the deltas of one way to stream it, its calls interleaved."""
    calls: list[dict[str, Any]] = [
        {**call, "id": f"id{n}"} for n, call in enumerate(draw(CALLS))
    ]
    message: dict[str, Any] = {"role": "assistant", "content": draw(TEXT)}
    deltas: list[dict[str, Any]] = [{"role": "assistant"}]
    if reasoning := draw(TEXT):
        message["reasoning_content"] = reasoning
        deltas += [{"reasoning_content": piece} for piece in pieces(draw, reasoning)]
    deltas += [{"content": piece} for piece in pieces(draw, message["content"])]
    if calls:
        message["tool_calls"] = calls
        message["content"] = message["content"] or None
        deltas += [{"tool_calls": [start(n, call)]} for n, call in enumerate(calls)]
        queues = [pieces(draw, call["function"]["arguments"]) for call in calls]
        while any(queues):
            index = draw(st.sampled_from([n for n, queue in enumerate(queues) if queue]))
            function = {"arguments": queues[index].pop(0)}
            deltas.append({"tool_calls": [{"index": index, "function": function}]})
    return message, deltas


def start(index: int, call: dict[str, Any]) -> dict[str, Any]:
    return {**call, "index": index, "function": {"name": call["function"]["name"]}}


@given(cut_messages())
def test_any_division_into_chunks_gives_the_same_message(
    cut: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    message, deltas = cut
    assembler, decoder = Assembler(), Generic().stream(Endpoint("a"))
    for delta in [*deltas, {}]:
        choice = {"delta": delta, "finish_reason": None if delta else "stop"}
        for piece in decoder.feed(ServerEvent(json.dumps({"choices": [choice]}))):
            assembler.add(piece)
    assert assembler.reply().message == message
    assert decoder.done
