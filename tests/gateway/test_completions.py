from __future__ import annotations

import json
from typing import Any

import pytest

from muxcore.chat import Chunk, Reply
from muxcore.gateway.api.skill import reply_of
from muxcore.gateway.front_doors.completions import (
    DONE,
    CompletionEncoder,
    completion,
    read_request,
)
from muxcore.gateway.front_doors.door import ClientRequest, Stamp, as_json
from muxcore.gateway.http.wire import RefusedError

STAMP = Stamp("id-1", 1234)
GOOD: dict[str, Any] = {"model": "mux", "messages": [{"role": "user", "content": "hi"}]}


def body(**members: Any) -> bytes:
    return json.dumps({**GOOD, **members}).encode()


def request(**members: Any) -> ClientRequest:
    return read_request(body(**members))


def test_a_request_is_read() -> None:
    asked = read_request(
        body(
            stream=True,
            stream_options={"include_usage": True, "other": 1},
            tools=[{"type": "function"}],
            tool_choice="auto",
            temperature=0,
            max_tokens=5,
            session="mine",
            timeout=3,
            cancellation={"a": []},
            logprobs=None,
        )
    )
    assert asked.model == "mux"
    chat = asked.chat
    assert chat.messages == GOOD["messages"]
    assert (chat.tools, chat.tool_choice) == ([{"type": "function"}], "auto")
    assert (chat.temperature, chat.max_tokens, chat.stream) == (0, 5, True)
    # Members that are not understood stay, whatever names they have.
    assert chat.extra == {
        "stream_options": {"include_usage": True, "other": 1},
        "session": "mine",
        "timeout": 3,
        "cancellation": {"a": []},
        "logprobs": None,
    }


@pytest.mark.parametrize(
    "messages",
    [
        [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "data:"}}],
            }
        ],
        [{"role": "assistant", "tool_calls": [{"id": "1", "function": {}}]}],
        [{"role": "assistant", "content": None, "tool_calls": None}],
        [{"role": "user", "content": "\ud83d"}],
        [{}],
    ],
)
def test_messages_of_any_kind_are_accepted(messages: list[Any]) -> None:
    assert read_request(body(messages=messages)).chat.messages == messages


def test_a_request_without_a_model_is_for_the_pool() -> None:
    assert read_request(body(model=None)).model == "mux"


def test_a_number_of_tokens_may_be_written_as_a_float() -> None:
    """As some clients do, which count in JavaScript or read a YAML file."""
    count = read_request(body(max_tokens=100.0)).chat.max_tokens
    assert (type(count), count) == (int, 100)
    with pytest.raises(RefusedError, match="max_tokens must be an integer"):
        read_request(body(max_tokens=100.5))


@pytest.mark.parametrize(
    ("data", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b'"text"', None),
        (b"\xff{}", None),
        (b"[" * 100_000, None),
        (body().replace(b'"hi"', b"NaN"), None),
        (body(temperature=1).replace(b"1", b"Infinity"), None),
        (body().decode().encode("utf-16"), None),
        (b"{}", "messages"),
        (body(model=["mux"]), "model"),
        (body(messages=None), "messages"),
        (body(messages=[]), "messages"),
        (body(messages={}), "messages"),
        (body(messages=["hi"]), "messages"),
        (body(messages=[{"role": {"a": 1}}]), "messages[0].role"),
        (body(messages=[{"content": 3}]), "messages[0].content"),
        (body(messages=[{}, {"content": {"a": 1}}]), "messages[1].content"),
        (body(messages=[{"content": ["a"]}]), "messages[0].content"),
        (body(messages=[{"content": [{"text": 3}]}]), "messages[0].content"),
        (body(messages=[{"tool_calls": 3}]), "messages[0].tool_calls"),
        (body(messages=[{"tool_calls": [3]}]), "messages[0].tool_calls"),
        (body(stream="yes"), "stream"),
        (body(stream=1), "stream"),
        (body(stream_options=[]), "stream_options"),
        (body(temperature="hot"), "temperature"),
        (body(temperature=True), "temperature"),
        (body(max_tokens=1.5), "max_tokens"),
        (body(max_tokens=False), "max_tokens"),
        (body(tools={}), "tools"),
        (body(tools=["a"]), "tools"),
    ],
)
def test_an_invalid_request_is_refused(data: bytes, param: str | None) -> None:
    with pytest.raises(RefusedError) as caught:
        read_request(data)
    assert caught.value.response.status == 400
    assert caught.value.response.param == param


def test_a_number_that_no_model_could_read_is_named() -> None:
    """Rule 6: it is the caller's fault, so no model is asked for its opinion."""
    for number, words in (
        (b"1e999", "The body holds 1e999, a number too large for a model to read."),
        (b"-1e999", "The body holds -1e999, a number too large for a model to read."),
        (b"NaN", "The body is not valid JSON: NaN is no number of JSON."),
    ):
        with pytest.raises(RefusedError) as caught:
            read_request(body(temperature=1).replace(b"1", number))
        assert caught.value.response.message == words


def test_values_without_json_form_are_replaced() -> None:
    assert as_json({"a": [float("nan"), float("-inf"), 1.5]}) == b'{"a":[null,null,1.5]}'
    assert as_json({"a": "cut \ud83d"}) == '{"a":"cut \ufffd"}'.encode()


def test_an_incomplete_usage_is_not_sent() -> None:
    for usage in ({"prompt_tokens": 1}, {}, None):
        chunk = Chunk({"choices": [], "usage": usage})
        assert not any("usage" in sent for sent in written(chunk, wants_usage=True))


def test_a_whole_reply_is_passed_on_with_missing_fields_filled_in() -> None:
    raw = {
        "id": None,
        "object": "odd",
        "choices": [
            {"message": {"content": "hi"}, "finish_reason": "stop", "logprobs": {"x": 1}},
            {"index": 1},
        ],
        "usage": {"prompt_tokens": 1},
        "timings": [1, 2],
    }
    reply = Reply({"content": "hi", "reasoning_content": "hm"}, "stop", raw=raw)
    assert completion(request(), STAMP, reply) == {
        "id": "chatcmpl-id-1",
        "object": "chat.completion",
        "created": 1234,
        "model": "mux",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "logprobs": {"x": 1},
                "message": {
                    "role": "assistant",
                    "content": "hi",
                    "reasoning_content": "hm",
                },
            },
            {"index": 1},
        ],
        "usage": {"prompt_tokens": 1},
        "timings": [1, 2],
    }
    assert raw["id"] is None


def test_a_reply_without_its_raw_object_is_written() -> None:
    written = completion(request(), STAMP, Reply({"content": "hi"}, "stop"))
    assert written["choices"][0]["message"] == {"role": "assistant", "content": "hi"}


def delta(content: str | None, finish: str | None = None, **more: Any) -> Chunk:
    choice = {
        "delta": {} if content is None else {"content": content},
        "finish_reason": finish,
    }
    return Chunk({"id": "up", "model": "m", "choices": [choice], **more})


def written(*chunks: Chunk, wants_usage: bool) -> list[Any]:
    options = {"stream_options": {"include_usage": wants_usage}}
    encoder = CompletionEncoder(request(**options), STAMP)
    text = b"".join(map(encoder.feed, chunks)) + encoder.end()
    assert text.endswith(DONE)
    pieces = text.removesuffix(DONE).split(b"\n\n")
    assert pieces.pop() == b""
    assert all(piece.startswith(b"data: ") for piece in pieces)
    return [json.loads(piece.removeprefix(b"data: ")) for piece in pieces]


USAGE = {"prompt_tokens": 3, "completion_tokens": 1}


@pytest.mark.parametrize(
    "chunks",
    [
        (delta("a"), delta(None, "stop"), Chunk({"choices": [], "usage": USAGE})),
        (delta("a", usage=None), delta(None, "stop", usage=USAGE)),
        (
            delta("a", usage={"prompt_tokens": 3}),
            delta(None, "stop"),
            Chunk({"id": "up", "choices": [], "usage": USAGE}),
        ),
    ],
)
def test_usage_is_sent_once_at_the_end_and_only_on_request(
    chunks: tuple[Chunk, ...],
) -> None:
    chunks_sent = written(*chunks, wants_usage=True)
    assert [chunk.get("usage") for chunk in chunks_sent] == [None, None, USAGE]
    assert chunks_sent[-1]["choices"] == []
    assert chunks_sent[-1]["object"] == "chat.completion.chunk"
    silent = written(*chunks, wants_usage=False)
    assert len(silent) == 2
    assert not any("usage" in chunk for chunk in silent)


def test_no_usage_is_invented() -> None:
    assert len(written(delta("a"), delta(None, "stop"), wants_usage=True)) == 2


def test_unknown_members_and_chunks_without_choices_are_passed_on() -> None:
    chunks_sent = written(
        Chunk({"choices": [], "prompt_filter_results": [1]}),
        delta("a", system_fingerprint="f"),
        Chunk({"choices": [], "usage": USAGE, "timings": {"t": 1}}),
        wants_usage=True,
    )
    assert chunks_sent[0]["prompt_filter_results"] == [1]
    assert chunks_sent[1]["system_fingerprint"] == "f"
    assert chunks_sent[2]["timings"] == {"t": 1}


def test_the_first_choice_names_the_role_once() -> None:
    chunks_sent = written(
        Chunk({"choices": []}),
        delta("a"),
        delta("b"),
        delta(None, "stop"),
        wants_usage=False,
    )
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks_sent if chunk["choices"]]
    assert deltas == [{"role": "assistant", "content": "a"}, {"content": "b"}, {}]


def test_the_gateways_own_reply_has_the_same_shape() -> None:
    reply, chunks = reply_of("all is well")
    whole = completion(request(), STAMP, reply)
    assert whole["choices"][0]["message"]["content"] == "all is well"
    assert whole["usage"]["total_tokens"] == 0
    chunks_sent = written(*chunks, wants_usage=True)
    assert [c["choices"][0]["delta"].get("content") for c in chunks_sent[:-1]] == [
        "",
        "all is well",
        None,
    ]
    assert chunks_sent[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks_sent[-1]["usage"]["total_tokens"] == 0
