"""Streams through the public library: what the caller sees when a model fails at any point."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import pytest
from attrs import evolve

from muxcore import (
    MultiplexerError,
    PoolExhaustedError,
    Reply,
    StreamInterruptedError,
)
from muxcore.chat import Chunk, Usage
from muxcore.shell.call import attempts
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.shell.call.stream import Stream
from muxcore.shell.http import events
from muxcore.standin import (
    Answer,
    Behaviour,
    Break,
    ConnectionClosed,
    ConnectionReset,
    Cut,
    Delivery,
    Drip,
    Dripping,
    EndWithoutFinish,
    ErrorEvent,
    Framing,
    HeadersOnly,
    Model,
    Raw,
    Stall,
    StandInServer,
    StatusAnswer,
    ToolCall,
    dead_port,
)
from tests.waiting import PATIENCE, wait_until

Make = Callable[..., Multiplexer]
Start = Callable[..., Future[Any]]

PING = [{"role": "user", "content": "ping"}]
FALLBACK = {"model": "beta", "is_fallback": True}
READ = ToolCall("read", '{"path": "a/b/c"}', "callaaaaa")
TOOLS = [{"type": "function", "function": {"name": "read", "parameters": {}}}]


def outcomes(reply: Any) -> list[tuple[str, str]]:
    return [(attempt.alias, attempt.outcome) for attempt in reply.attempts]


def event(delta: Any, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {"id": "c", "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


ROLE = event({"role": "assistant", "content": ""})
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


def collect(stream: Stream, into: list[Chunk]) -> None:
    """Read the stream to its end or its error."""
    for chunk in stream:
        into.append(chunk)  # noqa: PERF402 - what came before an error is kept


def in_flight(multiplexer: Multiplexer) -> int:
    return sum(model.in_flight for model in multiplexer.status().models)


def total(multiplexer: Multiplexer) -> int:
    """The number of attempts that are counted: rule 12."""
    return sum(
        candidate.tally.ended + candidate.health.in_flight
        for candidate in multiplexer.state.candidates
    )


@pytest.fixture(autouse=True)
def _settled(make: Make) -> Iterator[None]:
    """Whatever happened: no slot is lost, and every attempt is counted once."""
    made: list[Multiplexer] = []
    original = Multiplexer.__init__

    def init(self: Multiplexer, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        made.append(self)

    Multiplexer.__init__ = init  # type: ignore[method-assign]
    try:
        yield
    finally:
        Multiplexer.__init__ = original  # type: ignore[method-assign]
    for multiplexer in made:
        assert in_flight(multiplexer) == 0
        assert total(multiplexer) == multiplexer.state.attempts


def test_a_stream_yields_its_text_and_then_has_its_reply(make: Make, alpha: Model) -> None:
    alpha.then(Answer("Bonjour", usage=Usage(20, 5, 12)))
    multiplexer = make("alpha")
    with multiplexer.stream(PING, temperature=0.1) as stream:
        first = next(stream)
        assert outcomes(stream.reply) == [("alpha", "responding")]
        chunks = [first, *stream]
        assert list(stream) == []
    assert [chunk.text for chunk in chunks if chunk.text] == ["Bon", "jou", "r"]
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    assert all(chunk.raw["object"] == "chat.completion.chunk" for chunk in chunks)
    reply = stream.reply
    assert (reply.text, reply.finish_reason, reply.model) == ("Bonjour", "stop", "alpha")
    assert reply.usage == Usage(20, 5, 12)
    assert outcomes(reply) == [("alpha", "succeeded")]
    assert alpha.requests[0].body["stream_options"] == {"include_usage": True}
    model = multiplexer.status().models[0]
    assert (model.tokens_in, model.tokens_cached, model.tokens_out) == (20, 12, 5)


def test_tool_calls_come_through_a_stream_once(make: Make, alpha: Model) -> None:
    other = ToolCall("list", '{"dir": "."}', "callbbbbb")
    alpha.then(Answer(tool_calls=(READ, other), pieces=4))
    with make("alpha").stream(PING, tools=TOOLS) as stream:
        fragments = [f for chunk in stream for f in chunk.delta.get("tool_calls", ())]
    assert stream.reply.finish_reason == "tool_calls"
    assert stream.reply.tool_calls == [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in (READ, other)
    ]
    names = [name for f in fragments if (name := f["function"].get("name"))]
    assert names == ["read", "list"]


def test_reasoning_comes_through_a_stream(make: Make, alpha: Model) -> None:
    alpha.then(Answer("yes", reasoning="let me see"))
    with make("alpha").stream(PING) as stream:
        list(stream)
    assert stream.reply.message["reasoning_content"] == "let me see"
    assert stream.reply.text == "yes"


def test_an_answer_without_content_is_valid_if_tokens_were_counted(
    make: Make, alpha: Model
) -> None:
    alpha.then(Answer("", usage=Usage(9, 3)))
    multiplexer = make("alpha")
    with multiplexer.stream(PING) as stream:
        assert "".join(chunk.text for chunk in stream) == ""
    assert stream.reply.finish_reason == "stop"
    assert outcomes(stream.reply) == [("alpha", "succeeded")]
    assert multiplexer.status().models[0].success_count == 1


def test_a_stream_is_used_in_a_with_statement_and_entered_once(make: Make) -> None:
    multiplexer = make("alpha")
    stream = multiplexer.stream(PING)
    for use in (lambda: next(stream), lambda: stream.reply):
        with pytest.raises(MultiplexerError, match="`with` statement"):
            use()
    stream.close()
    with stream:
        with pytest.raises(MultiplexerError, match="entered once"):
            stream.__enter__()
        list(stream)


@pytest.mark.parametrize("framing", Framing)
def test_the_first_data_is_passed_on_when_it_arrives(framing: Framing) -> None:
    model = Model("model-a", Stall(1, Answer("one two", pieces=2)), framing=framing)
    with StandInServer([model]) as server, _alone(server.url) as multiplexer:
        # The rest is not sent before the beginning was read.
        with multiplexer.stream(PING, timeout=PATIENCE) as stream:
            word = next(chunk.text for chunk in stream if chunk.text)
            model.release()
            rest = "".join(chunk.text for chunk in stream)
        assert word + rest == "one two"


def _alone(url: str, **section: Any) -> Multiplexer:
    config = {
        "providers": [{"name": "p", "api_base": url}],
        "models": [{"name": "model-a", "provider": "p", "alias": "alpha"}],
        "active_model": "alpha",
        "multiplexer": {"enabled": True, **section},
    }
    return Multiplexer.from_config(config, env={})


ANSWERS = {"plain": Answer("one two three"), "tool call": Answer(tool_calls=(READ,))}
CONTENT = {
    "plain": event({"content": "one"}),
    "tool call": event(
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": READ.id,
                    "type": "function",
                    "function": {"name": "read", "arguments": '{"pa'},
                }
            ]
        }
    ),
}
COMMENTS = timedelta(milliseconds=5)
ENDLESS = b"data: " + b"x" * 200_000


def before(answer: Answer) -> dict[str, Behaviour]:
    """Return every failure before the first content."""
    return {
        "closed": ConnectionClosed(),
        "reset": ConnectionReset(),
        "headers only": HeadersOnly(),
        "begun, then silent": Stall(0, answer),
        "header drip": Drip(Dripping.HEADERS, COMMENTS, answer=answer),
        "comment drip": Drip(Dripping.BODY, COMMENTS, answer=answer),
        "cut": Cut(0, answer=answer),
        "cut by a reset": Cut(0, Break.RESET, answer),
        "malformed event": Raw((ROLE, b"data: {oops\n\n")),
        "malformed chunk": Raw((ROLE, b'data: {"choices": [{"delta": "x"}]}\n\n')),
        "cut inside an event": Raw((ROLE, CONTENT["plain"][:-10])),
        "cut inside UTF-8": Raw((ROLE, event({"content": "é"})[:-30])),
        "error event": ErrorEvent({"message": "broken", "code": 500}, answer=answer),
        "named error event": Raw((ROLE, b"event: error\ndata: broken\n\n")),
        "end without a finish_reason": Raw((ROLE,)),
        "[DONE] only": Raw((b"data: [DONE]\n\n",)),
        "[DONE] after a role": Raw((ROLE, b"data: [DONE]\n\n")),
        "empty body": Raw((b"",)),
        "wrong content type": Raw(
            (b"<html>down</html>",), headers={"content-type": "Text/HTML; charset=utf-8"}
        ),
        "JSON instead of a stream": Raw(
            (b'{"error": {"message": "no"}}',),
            headers={"content-type": "application/json"},
        ),
        "JSON by another name": Raw((b'{"error": {"message": "no"}}',)),
        "endless line": Delivery((SSE, *[ENDLESS] * 20)),
        "giant event": Delivery((SSE, *[b"data: " + b"x" * 50_000 + b"\n"] * 80)),
        "endless empty chunks": Delivery((SSE, ROLE * 400)),
        "broken chunked encoding": Delivery(
            (SSE[:-2] + b"transfer-encoding: chunked\r\n\r\nzz\r\n",)
        ),
        "no HTTP at all": Delivery((b"hello\r\n\r\n",)),
        "not gzip": Raw((b"not gzip",), headers={"content-encoding": "gzip"}),
    }


BEFORE = list(before(Answer()))
SILENT = {"headers only", "begun, then silent", "header drip", "comment drip"}


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LONGEST_EVENT", 1_000_000)
    monkeypatch.setattr(attempts, "MOST_EMPTY_CHUNKS", 100)


def hurry(multiplexer: Multiplexer, **limits: float) -> None:
    """Shorten the limits of alpha alone: on a busy machine, beta may take its time."""
    member = multiplexer._runtime.members["alpha"]
    member.limits = evolve(member.limits, **limits)


def warm(multiplexer: Multiplexer) -> None:
    """Leave an idle connection: a request over it takes another path."""
    multiplexer.complete(PING)
    with multiplexer.stream(PING) as stream:
        list(stream)


@pytest.mark.usefixtures("small_bounds")
@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("fault", BEFORE)
def test_a_failure_before_the_first_content_is_hidden_from_the_caller(
    make: Make, alpha: Model, beta: Model, fault: str, kind: str, *, kept: bool
) -> None:
    beta.default = ANSWERS[kind]
    multiplexer = make("alpha", FALLBACK, max_wait_ms=0)
    if kept:
        warm(multiplexer)
    if fault in SILENT:
        hurry(multiplexer, read=0.12, attempt=0.25)
    alpha.default = before(ANSWERS[kind])[fault]
    asked = len(alpha.requests)
    with multiplexer.stream(PING, tools=TOOLS) as stream:
        list(stream)
    reply = stream.reply
    assert outcomes(reply) == [("alpha", "error"), ("beta", "succeeded")]
    assert reply.attempts[0].message
    expect_whole(reply, kind)
    assert multiplexer.status().models[0].fail_count == 1
    # An idle connection that is closed without a byte may have been closed before.
    again = kept and fault in {"closed", "reset"}
    assert len(alpha.requests) == asked + 1 + again


def test_a_dead_address_is_hidden_from_the_caller(make: Make) -> None:
    with dead_port() as url:
        multiplexer = make("alpha", FALLBACK, urls={"alpha": url})
        with multiplexer.stream(PING) as stream:
            list(stream)
    assert outcomes(stream.reply) == [("alpha", "error"), ("beta", "succeeded")]


def expect_whole(reply: Reply, kind: str) -> None:
    if kind == "plain":
        assert reply.text == "one two three"
        assert reply.tool_calls == []
    else:
        assert reply.text == ""
        assert [call["function"] for call in reply.tool_calls] == [
            {"name": READ.name, "arguments": READ.arguments}
        ]


PAD = (b": " + b" " * 1000 + b"\n\n") * 300
"""More than one read returns, so that the text before and after it arrives separately."""


def after(kind: str) -> dict[str, tuple[Behaviour, str]]:
    """Return every failure after the first content, with its description."""
    answer, content = ANSWERS[kind], CONTENT[kind]
    return {
        "cut": (Cut(1, answer=answer), "the answer broke off"),
        "cut by a reset": (Cut(1, Break.RESET, answer), "the connection was reset"),
        "silent": (Stall(1, answer), "it was silent for too long"),
        "malformed event": (
            Raw((ROLE, content, PAD, b"data: {oops\n\n")),
            "a chunk is cut off, or no JSON",
        ),
        "malformed event in the same piece": (
            Raw((ROLE + content + b"data: {oops\n\n",)),
            "a chunk is cut off, or no JSON",
        ),
        "cut inside an event": (
            Raw((ROLE, content, content[:-10])),
            "the stream ended without a finish_reason",
        ),
        "cut inside UTF-8": (
            Raw((ROLE, content, event({"content": "é"})[:-30])),
            "the stream ended without a finish_reason",
        ),
        "error event": (
            Raw((ROLE, content, PAD, b'data: {"error": {"message": "overloaded"}}\n\n')),
            "overloaded",
        ),
        "error event by name": (
            Raw((ROLE, content, PAD, b"event: error\ndata: broken\n\n")),
            "broken",
        ),
        "end without a finish_reason": (
            Raw((ROLE, content)),
            "the stream ended without a finish_reason",
        ),
        "[DONE] without a finish_reason": (
            Raw((ROLE, content, b"data: [DONE]\n\n")),
            "the stream ended without a finish_reason",
        ),
        "closed, not chunked": (
            Delivery((SSE, ROLE, content)),
            "the stream ended without a finish_reason",
        ),
        "endless line": (
            Delivery((SSE, ROLE, content, *[ENDLESS] * 20)),
            "an event of more than 1000000 bytes",
        ),
        "giant event": (
            Delivery((SSE, ROLE, content, *[b"data: " + b"x" * 50_000 + b"\n"] * 80)),
            "an event of more than 1000000 bytes",
        ),
        "broken chunked encoding": (
            Delivery(
                (
                    SSE[:-2] + b"transfer-encoding: chunked\r\n\r\n",
                    b"%x\r\n%b\r\n" % (len(content + PAD), content + PAD),
                    b"zz\r\n",
                )
            ),
            "the answer broke off",
        ),
    }


# In one piece with the error, nothing has reached the caller yet: that is failed over.
UNSEEN = {"malformed event in the same piece"}
AFTER = [fault for fault in after("plain") if fault not in UNSEEN]


@pytest.mark.usefixtures("small_bounds")
@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("fault", AFTER)
def test_a_failure_after_content_is_raised_with_the_partial_reply(
    make: Make, alpha: Model, beta: Model, fault: str, kind: str, *, kept: bool
) -> None:
    behaviour, text = after(kind)[fault]
    multiplexer = make("alpha", FALLBACK)
    if kept:
        warm(multiplexer)
    if fault == "silent":
        hurry(multiplexer, read=0.1)
    alpha.then(behaviour)
    seen: list[Chunk] = []
    with (
        pytest.raises(StreamInterruptedError) as caught,
        multiplexer.stream(PING, tools=TOOLS) as stream,
    ):
        collect(stream, seen)
    error = caught.value
    assert str(error) == f"alpha broke off in the middle of its answer: {text}"
    assert outcomes(error) == [("alpha", "error")]
    assert error.attempts[0].message == text
    assert error.reply.finish_reason is None
    assert error.reply.model == "alpha"
    assert error.reply == stream.reply
    assert not beta.requests
    if kind == "plain":
        words = "".join(chunk.text for chunk in seen)
        assert words
        assert error.reply.text == words
    else:
        calls = error.reply.tool_calls
        assert len(calls) == 1
        assert READ.arguments.startswith(calls[0]["function"]["arguments"])
    assert multiplexer.status().models[0].fail_count == 1
    assert multiplexer.status().models_available == 1
    # A second `next` raises the same error.
    with pytest.raises(StreamInterruptedError):
        next(stream)


def test_content_in_one_piece_with_an_error_is_failed_over(
    make: Make, alpha: Model
) -> None:
    alpha.then(after("plain")["malformed event in the same piece"][0])
    with make("alpha", FALLBACK).stream(PING) as stream:
        words = "".join(chunk.text for chunk in stream)
    assert words == "pong from model-b"


def test_chunks_before_an_error_in_the_same_piece_are_yielded_first(
    make: Make, alpha: Model
) -> None:
    piece = event({"content": " two"}) + event({"content": " three"}) + b"data: {oops\n\n"
    alpha.then(Raw((ROLE + CONTENT["plain"], piece), delay=timedelta(milliseconds=20)))
    seen: list[Chunk] = []
    with pytest.raises(StreamInterruptedError) as caught, make("alpha").stream(PING) as s:
        collect(s, seen)
    words = "".join(chunk.text for chunk in seen)
    assert words == "one two three" == caught.value.reply.text


def test_a_cut_after_the_finish_reason_does_no_harm(make: Make, alpha: Model) -> None:
    whole = event({"content": "all"}) + event({}, "stop")
    announced = SSE[:-2] + b"content-length: 5000\r\n\r\n"
    for behaviour, text in (
        (Delivery((announced, ROLE, whole)), "all"),
        (Raw((ROLE, whole, b"data: {oops\n\n"), timedelta(milliseconds=5)), "all"),
    ):
        alpha.then(behaviour)
        multiplexer = make("alpha")
        with multiplexer.stream(PING) as stream:
            assert "".join(chunk.text for chunk in stream) == text
        assert stream.reply.finish_reason == "stop"
        assert multiplexer.status().models[0].success_count == 1


NO_FINISH = {"emits_finish_reason": False}


@pytest.mark.parametrize("says_done", [False, True])
def test_a_provider_without_finish_reasons_ends_cleanly(
    make: Make, alpha: Model, *, says_done: bool
) -> None:
    alpha.then(EndWithoutFinish(says_done=says_done, answer=Answer("all")))
    multiplexer = make("alpha", provider=NO_FINISH)
    with multiplexer.stream(PING) as stream:
        assert "".join(chunk.text for chunk in stream) == "all"
    assert multiplexer.status().models[0].success_count == 1


def test_a_cut_of_a_provider_without_finish_reasons_is_an_interruption(
    make: Make, alpha: Model
) -> None:
    alpha.then(Cut(1))
    multiplexer = make("alpha", provider=NO_FINISH)
    with pytest.raises(StreamInterruptedError), multiplexer.stream(PING) as stream:
        list(stream)
    assert multiplexer.status().models[0].fail_count == 1


def test_leaving_a_provider_without_finish_reasons_is_no_success(
    make: Make, alpha: Model
) -> None:
    multiplexer = make("alpha", provider=NO_FINISH)
    with multiplexer.stream(PING) as stream:
        next(stream)
    assert multiplexer.status().models[0].cancelled_count == 1


def test_the_whole_matrix_never_calls_a_tool_twice(
    make: Make, alpha: Model, beta: Model
) -> None:
    alpha.then(Cut(1, answer=Answer(tool_calls=(READ,), pieces=2)))
    beta.default = Answer(tool_calls=(READ,))
    seen: list[Chunk] = []
    multiplexer = make("alpha", FALLBACK)
    with pytest.raises(StreamInterruptedError), multiplexer.stream(PING) as stream:
        collect(stream, seen)
    fragments = [f for chunk in seen for f in chunk.delta.get("tool_calls", ())]
    assert [f["id"] for f in fragments if f.get("id")] == [READ.id]


# A stream that is not read to its end.


def leave_by_break(multiplexer: Multiplexer) -> None:
    with multiplexer.stream(PING) as stream:
        for _ in stream:
            break


def leave_by_exception(multiplexer: Multiplexer) -> None:
    def read() -> None:
        with multiplexer.stream(PING) as stream:
            next(stream)
            raise LookupError

    with pytest.raises(LookupError):
        read()


def leave_unread(multiplexer: Multiplexer) -> None:
    with multiplexer.stream(PING):
        pass


def leave_by_close(multiplexer: Multiplexer) -> None:
    with multiplexer.stream(PING) as stream:
        next(stream)
        stream.close()
        stream.close()
        with pytest.raises(MultiplexerError, match="closed before its end"):
            next(stream)


def leave_to_the_collector(multiplexer: Multiplexer) -> None:
    stream = multiplexer.stream(PING).__enter__()
    next(stream)
    assert in_flight(multiplexer) == 1
    del stream
    gc.collect()


def leave_in_a_cycle(multiplexer: Multiplexer) -> None:
    cycle: list[Any] = [multiplexer.stream(PING).__enter__()]
    cycle.append(cycle)
    del cycle
    gc.collect()


@pytest.mark.parametrize(
    "leave",
    [
        leave_by_break,
        leave_by_exception,
        leave_unread,
        leave_by_close,
        leave_to_the_collector,
        leave_in_a_cycle,
    ],
)
def test_an_abandoned_stream_gives_its_slot_back(
    make: Make, alpha: Model, leave: Callable[[Multiplexer], None]
) -> None:
    alpha.then(Stall(2))
    multiplexer = make({"model": "alpha", "max_concurrent": 1})
    leave(multiplexer)
    assert in_flight(multiplexer) == 0
    model = multiplexer.status().models[0]
    assert (model.cancelled_count, model.is_disabled) == (1, False)
    # The connection is closed, and another call takes the slot at once.
    alpha.wait_for(lambda model: model.in_flight == 0)
    assert multiplexer.complete(PING, timeout=PATIENCE).model == "alpha"


def test_an_abandoned_stream_reports_that_it_was_abandoned(
    make: Make, alpha: Model
) -> None:
    alpha.then(Stall(1))
    with make("alpha").stream(PING) as stream:
        next(stream)
    assert outcomes(stream.reply) == [("alpha", "cancelled")]
    assert stream.reply.attempts[0].message == "the caller left"


def test_a_stream_left_after_its_finish_reason_is_a_success(
    make: Make, alpha: Model
) -> None:
    alpha.then(Raw((ROLE, event({"content": "all"}), event({}, "stop"))))
    multiplexer = make("alpha")
    with multiplexer.stream(PING) as stream:
        for chunk in stream:
            if chunk.finish_reason:
                break
    assert multiplexer.status().models[0].success_count == 1
    assert outcomes(stream.reply) == [("alpha", "succeeded")]
    assert list(stream) == []


def test_a_waiting_call_takes_over_from_an_abandoned_stream(
    make: Make, start: Start, alpha: Model
) -> None:
    alpha.then(Stall(1))
    multiplexer = make({"model": "alpha", "max_concurrent": 1})
    with multiplexer.stream(PING) as stream:
        next(stream)
        waiting = start(multiplexer.complete, PING)
        wait_until(lambda: multiplexer._runtime.pool._line)
        assert len(alpha.requests) == 1
    assert waiting.result(PATIENCE).model == "alpha"


def test_a_server_that_keeps_the_stream_open_after_done_costs_no_time(
    make: Make, alpha: Model
) -> None:
    done = event({"content": "all"}) + event({}, "stop") + b"data: [DONE]\n\n"
    alpha.then(Raw((done, b": more\n\n"), delay=timedelta(days=1)))
    with make("alpha").stream(PING) as stream:
        assert "".join(chunk.text for chunk in stream) == "all"


def test_data_after_done_is_not_read(make: Make, alpha: Model) -> None:
    done = event({"content": "all"}) + event({}, "stop") + b"data: [DONE]\n\n"
    alpha.then(Raw((done + event({"content": "more"}),)))
    alpha.then(Delivery((SSE + done, b": more\n\n" * 50_000)))
    multiplexer = make("alpha")
    for _ in range(2):
        with multiplexer.stream(PING) as stream:
            assert "".join(chunk.text for chunk in stream) == "all"


def test_every_model_failing_raises_on_entering(
    make: Make, alpha: Model, beta: Model
) -> None:
    alpha.default, beta.default = Cut(0), StatusAnswer(503)
    multiplexer = make("alpha", FALLBACK, max_wait_ms=0)
    with pytest.raises(PoolExhaustedError) as caught, multiplexer.stream(PING):
        pass
    assert outcomes(caught.value) == [("alpha", "error"), ("beta", "error")]


def test_a_long_answer_costs_no_more_than_its_length(make: Make, alpha: Model) -> None:
    pieces = event({"content": "word "}) * 5000
    alpha.then(Raw((ROLE, pieces, event({}, "stop"))))
    with make("alpha").stream(PING) as stream:
        count = sum(1 for _ in stream)
    assert count == 5002
    assert stream.reply.text == "word " * 5000
