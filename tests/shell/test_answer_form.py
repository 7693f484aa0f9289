"""An answer in the wrong form is accepted, and a response without an answer is a failure (§3)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest

from muxcore import PoolExhaustedError, RequestRejectedError, StreamInterruptedError
from muxcore.chat import Chunk, Reply
from muxcore.shell.call.answer_form import LastFinish
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.standin import (
    ConnectionClosed,
    ConnectionReset,
    Delivery,
    Model,
    Raw,
    StandInServer,
)

Make = Callable[..., Multiplexer]

APART = timedelta(milliseconds=20)
"""Between two pieces: long enough for the first one to be read alone."""
PING = [{"role": "user", "content": "ping"}]
POOL = ("alpha", {"model": "beta", "is_fallback": True})
COUNTED = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
NOTHING = {"prompt_tokens": 10, "completion_tokens": 0, "total_tokens": 10}
CALL = {"id": "c1", "type": "function", "function": {"name": "read", "arguments": "{}"}}


def response(
    body: bytes, content_type: str = "application/json", *, announced: bool = True
) -> Delivery:
    length = f"content-length: {len(body)}\r\n" if announced else ""
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n{length}connection: close\r\n"
    )
    return Delivery((head.encode() + b"\r\n" + body,))


def completion(message: Any, finish: str | None = "stop", usage: Any = None) -> Delivery:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return response(json.dumps({"id": "c", "choices": [choice], "usage": usage}).encode())


def event(delta: Any, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
    return b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n"


def streamed(*events: bytes, content_type: str = "text/event-stream") -> Delivery:
    return response(b"".join(events), content_type)


ROLE = event({"role": "assistant", "content": ""})
STOP = event({}, "stop")
USAGE = b'data: {"choices": [], "usage": ' + json.dumps(COUNTED).encode() + b"}\n\n"
UNCOUNTED = b'data: {"choices": [], "usage": ' + json.dumps(NOTHING).encode() + b"}\n\n"


def asked(mux: Multiplexer, *, stream: bool) -> Reply:
    if not stream:
        return mux.complete(PING)
    with mux.stream(PING) as chunks:
        text = "".join(chunk.text for chunk in chunks)
    assert text == chunks.reply.text
    return chunks.reply


def pool_of(alpha: str, beta: str, name: str = "one") -> Multiplexer:
    """Make a pool of two servers, by their addresses."""
    return Multiplexer.from_config(
        {
            "active_model": "alpha",
            "providers": [
                {"name": name, "api_base": alpha},
                {"name": "two", "api_base": beta},
            ],
            "models": [
                {"name": "alpha", "provider": name},
                {"name": "beta", "provider": "two"},
            ],
            "multiplexer": {
                "enabled": True,
                "mode": "failover",
                "pool": [{"model": "alpha"}, {"model": "beta", "is_fallback": True}],
            },
        }
    )


def outcomes(answered: Any) -> list[tuple[str, str]]:
    return [(attempt.alias, attempt.outcome) for attempt in answered.attempts]


JSON_FOR_A_STREAM = {
    "text": ({"content": "whole", "reasoning_content": "hm"}, "stop", "whole", []),
    "tool calls": ({"content": None, "tool_calls": [CALL]}, "tool_calls", "", [CALL]),
    "an old call": (
        {"content": None, "function_call": {"name": "read", "arguments": "{}"}},
        "function_call",
        "",
        [{**CALL, "id": "call_0_c"}],
    ),
}


@pytest.mark.parametrize("case", JSON_FOR_A_STREAM)
def test_json_in_answer_to_a_stream_request_is_streamed(
    make: Make, alpha: Model, case: str
) -> None:
    message, finish, text, calls = JSON_FOR_A_STREAM[case]
    alpha.then(completion(message, finish, COUNTED))
    reply = asked(make("alpha"), stream=True)
    assert (reply.text, reply.usage.prompt_tokens) == (text, 10)
    assert [{**call, "index": 0} for call in reply.tool_calls] == [
        {**call, "index": 0} for call in calls
    ]
    assert outcomes(reply) == [("alpha", "succeeded")]


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"message": "overloaded"}}',
        b"<html>Sign in</html>",
        b"[]",
        b'{"choices":',
    ],
)
def test_json_that_is_no_answer_fails_over(
    make: Make, alpha: Model, beta: Model, body: bytes
) -> None:
    alpha.then(response(body))
    assert asked(make(*POOL), stream=True).model == "beta"


@pytest.mark.parametrize("content_type", ["text/event-stream", "application/json", "x/y"])
@pytest.mark.parametrize("stream", [False, True])
def test_events_are_an_answer_whatever_was_requested_and_announced(
    make: Make, alpha: Model, content_type: str, *, stream: bool
) -> None:
    whole = (
        b"\n: ping\n\n",
        event({"content": "who"}),
        event({"content": "le"}),
        STOP,
        USAGE,
    )
    alpha.then(streamed(*whole, content_type=content_type))
    reply = asked(make("alpha"), stream=stream)
    assert (reply.text, reply.finish_reason, reply.usage.completion_tokens) == (
        "whole",
        "stop",
        2,
    )


def json_lines(*events: bytes) -> Delivery:
    """Write the same objects without the fields of an event stream, one a line."""
    return response(b"\n".join(e.removeprefix(b"data: ").strip() for e in events) + b"\n")


@pytest.mark.parametrize("stream", [False, True])
def test_the_chunks_may_come_as_lines_of_json(
    make: Make, alpha: Model, *, stream: bool
) -> None:
    alpha.then(json_lines(event({"content": "who"}), event({"content": "le"}), STOP, USAGE))
    reply = asked(make("alpha"), stream=stream)
    assert (reply.text, reply.usage.completion_tokens) == ("whole", 2)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("lines", [[event({"content": "hal"})] * 2, [b'{"n": 1}', b"{}"]])
def test_other_lines_of_json_are_no_answer(
    make: Make, alpha: Model, beta: Model, lines: list[bytes], *, stream: bool
) -> None:
    alpha.then(json_lines(*lines))
    assert asked(make(*POOL), stream=stream).model == "beta"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [b"201 Created", b"203 Other"])
def test_an_answer_counts_under_any_status_of_success(
    make: Make, alpha: Model, status: bytes, *, stream: bool
) -> None:
    whole = completion({"content": "whole"})
    alpha.then(Delivery((whole.pieces[0].replace(b"200 OK", status),)))
    assert asked(make("alpha"), stream=stream).text == "whole"


def test_incomplete_events_are_no_answer(make: Make, alpha: Model, beta: Model) -> None:
    alpha.then(streamed(event({"content": "hal"})))
    assert asked(make(*POOL), stream=False).model == "beta"


@pytest.mark.parametrize(
    "tail", [b"", b"\n", b"\r\n", b"\n\ndata: [DONE]", b"\n\ndata: [done]"]
)
@pytest.mark.parametrize("announced", [False, True])
def test_the_last_event_of_a_clean_end_needs_no_empty_line(
    make: Make, alpha: Model, tail: bytes, *, announced: bool
) -> None:
    body = event({"content": "whole"}) + STOP.rstrip() + tail
    alpha.then(response(body, "text/event-stream", announced=announced))
    assert asked(make("alpha"), stream=True).finish_reason == "stop"


def test_a_last_event_that_is_cut_is_ignored(make: Make, alpha: Model) -> None:
    alpha.then(streamed(event({"content": "whole"}), STOP[:-9]))
    with pytest.raises(StreamInterruptedError, match="without a finish_reason"):
        asked(make("alpha"), stream=True)


HEARTBEATS = [
    b"data: ping\n\n",
    b'data: "ping"\n\n',
    b"data: 1\n\n",
    b"data:\n\n",
    b":\n\n",
]


@pytest.mark.parametrize("heartbeat", HEARTBEATS)
def test_heartbeats_of_any_form_are_ignored(
    make: Make, alpha: Model, heartbeat: bytes
) -> None:
    words = (
        heartbeat,
        event({"content": "who"}),
        heartbeat,
        event({"content": "le"}),
        STOP,
    )
    alpha.then(streamed(*words, heartbeat))
    assert asked(make("alpha"), stream=True).text == "whole"


EMPTY = {
    "null": ({"content": None}, None, None),
    "a text of nothing": ({"content": ""}, "stop", NOTHING),
    "a call announced, and none": ({"content": ""}, "tool_calls", None),
    "an object of nulls": (
        {"content": "", "provider_fields": {"refusal": None}},
        "stop",
        None,
    ),
}


@pytest.mark.parametrize("case", EMPTY)
@pytest.mark.parametrize("stream", [False, True])
def test_an_empty_answer_without_a_token_is_a_failure(
    make: Make, alpha: Model, beta: Model, case: str, *, stream: bool
) -> None:
    message, finish, usage = EMPTY[case]
    counted = UNCOUNTED if usage else b""
    events = (event(message), event({}, finish or "stop"), counted)
    alpha.then(streamed(*events) if stream else completion(message, finish, usage))
    reply = asked(make(*POOL), stream=stream)
    assert outcomes(reply) == [("alpha", "error"), ("beta", "succeeded")]
    assert reply.attempts[0].message == "the answer is empty"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("message", "usage"),
    [({"content": ""}, COUNTED), ({"content": "", "reasoning_content": "hm"}, NOTHING)],
)
def test_an_empty_answer_with_tokens_counted_is_a_success(
    make: Make, alpha: Model, beta: Model, message: Any, usage: Any, *, stream: bool
) -> None:
    counted = USAGE if usage is COUNTED else UNCOUNTED
    events = (event(message), STOP, counted)
    alpha.then(streamed(*events) if stream else completion(message, "stop", usage))
    assert outcomes(asked(make(*POOL), stream=stream)) == [("alpha", "succeeded")]


FAILURES: Iterable[tuple[str, dict[str, Any]]] = [
    ("network_error", {}),
    ("abort", {}),
    ("error", {}),
    ("function_call_filter: MALFORMED_FUNCTION_CALL", {}),
    ("insufficient_system_resource", {}),
    ("stop", {"native_finish_reason": "MALFORMED_FUNCTION_CALL"}),
]


@pytest.mark.parametrize(("reason", "more"), FAILURES)
def test_a_finish_reason_that_names_a_failure_is_a_failure(
    make: Make, alpha: Model, beta: Model, reason: str, more: dict[str, Any]
) -> None:
    alpha.then(streamed(ROLE, event({}, reason, **more)))
    reply = asked(make(*POOL), stream=True)
    assert outcomes(reply) == [("alpha", "error"), ("beta", "succeeded")]
    named = more.get("native_finish_reason", reason)
    assert reply.attempts[0].message == f"the answer ended with the finish reason {named!r}"


def test_after_content_such_a_reason_interrupts_the_stream(
    make: Make, alpha: Model
) -> None:
    alpha.then(Raw((event({"content": "half"}), event({}, "abort")), APART))
    with (
        make("alpha").stream(PING) as stream,
        pytest.raises(StreamInterruptedError, match="the finish reason 'abort'") as caught,
    ):
        list(stream)
    assert caught.value.reply.text == "half"


FILTERS = ["content_filter", "sensitive", "SAFETY", "content_filter: PROHIBITED_CONTENT"]


@pytest.mark.parametrize("reason", FILTERS)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_withheld_by_a_filter_is_a_refusal(
    make: Make, alpha: Model, reason: str, *, stream: bool
) -> None:
    answer = streamed(ROLE, event({}, reason), USAGE)
    alpha.then(answer if stream else completion({"content": ""}, reason, COUNTED))
    mux = make("alpha")
    with pytest.raises(RequestRejectedError, match="a content filter withheld") as caught:
        asked(mux, stream=stream)
    assert outcomes(caught.value) == [("alpha", "content filtered")]
    assert not mux.status().models[0].is_disabled


@pytest.mark.parametrize("reason", FILTERS)
def test_a_filtered_answer_with_content_is_an_answer(
    make: Make, alpha: Model, reason: str
) -> None:
    alpha.then(streamed(event({"content": "I "}), event({}, reason)))
    reply = asked(make("alpha"), stream=True)
    assert (reply.text, reply.finish_reason) == ("I ", "content_filter")


def test_a_pool_whose_answers_are_all_empty_reports_it(
    make: Make, alpha: Model, beta: Model
) -> None:
    for model in (alpha, beta):
        model.then(*3 * [completion({"content": ""})])
    with pytest.raises(PoolExhaustedError, match="the answer is empty"):
        make(*POOL, max_wait_ms=0).complete(PING)


# -- A local server that is killed (W15 of tests/backends/test_upstreams.py) --------------------

LLAMA_STREAM = (
    b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\nX-Accel-Buffering: no\r\n\r\n"
)


def killed_after(*events: bytes) -> Delivery:
    """Send events in chunks of HTTP, and no last chunk: the connection is closed."""
    chunks = (b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    return Delivery((LLAMA_STREAM + b"".join(chunks),))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "end",
    [ConnectionClosed(), ConnectionReset(), killed_after(), killed_after(b":\n\n", ROLE)],
    ids=["closed", "reset", "no event", "no content"],
)
def test_a_server_killed_before_any_content_is_replaced(
    make: Make, alpha: Model, beta: Model, end: Any, *, stream: bool
) -> None:
    alpha.then(end)
    reply = asked(make(*POOL), stream=stream)
    assert outcomes(reply) == [("alpha", "error"), ("beta", "succeeded")]


def test_a_server_killed_between_two_calls_is_replaced() -> None:
    """The kept connection is closed, and a new one is refused."""
    local = StandInServer([Model("alpha")])
    local.start()
    with StandInServer([Model("beta")]) as cloud, pool_of(local.url, cloud.url) as mux:
        assert mux.complete(PING).model == "alpha"
        local.stop()
        reply = mux.complete(PING)
    assert outcomes(reply) == [("alpha", "error"), ("beta", "succeeded")]


def test_a_whole_answer_of_a_local_server_is_assembled_from_a_stream() -> None:
    """Only a stream that has begun stops when its caller leaves."""
    with StandInServer([local := Model("alpha")]) as server:
        answers = []
        for name in ("one", "llamacpp"):
            with pool_of(server.url, server.url, name=name) as mux:
                answers.append(mux.complete(PING))
    assert [request.body.get("stream", False) for request in local.requests] == [
        False,
        True,
    ]
    plain, assembled = answers
    assert (assembled.text, assembled.finish_reason) == (plain.text, plain.finish_reason)
    assert assembled.usage == plain.usage


def test_a_server_killed_after_content_interrupts_the_stream(
    make: Make, alpha: Model
) -> None:
    alpha.then(killed_after(ROLE, event({"content": "half"})))
    with (
        make("alpha").stream(PING) as stream,
        pytest.raises(StreamInterruptedError) as caught,
    ):
        list(stream)
    assert caught.value.reply.text == "half"


def chunk(content: str = "", finish: str | None = None, index: int = 0) -> Chunk:
    delta = {"content": content} if content else {}
    return Chunk({"choices": [{"index": index, "delta": delta, "finish_reason": finish}]})


USAGE_CHUNK = Chunk({"choices": [], "usage": COUNTED})
ENDS: list[tuple[str, list[Chunk], list[Chunk]]] = [
    (
        "one",
        [chunk("a"), chunk("", "stop"), USAGE_CHUNK],
        [chunk("a"), chunk("", "stop"), USAGE_CHUNK],
    ),
    ("with the text", [chunk("a", "stop"), USAGE_CHUNK], [chunk("a", "stop"), USAGE_CHUNK]),
    (
        "after every chunk",
        [
            chunk("a"),
            chunk("", "stop"),
            USAGE_CHUNK,
            chunk("b", "stop"),
            chunk("c", "stop"),
        ],
        [chunk("a"), chunk("b"), USAGE_CHUNK, chunk("c", "stop")],
    ),
    (
        "none after the last content",
        [chunk("a"), chunk("b", "stop"), USAGE_CHUNK, chunk("c")],
        [chunk("a"), chunk("b"), chunk("c"), chunk("", "stop"), USAGE_CHUNK],
    ),
    (
        "two at the end",
        [chunk("a"), chunk("", "tool_calls"), chunk("", "stop")],
        [chunk("a"), chunk("", "stop")],
    ),
    (
        "one for each choice",
        [
            chunk("a", "stop"),
            chunk("b", "stop", 1),
            chunk("c", None, 1),
            chunk("", "stop", 1),
        ],
        [
            chunk("b", None, 1),
            chunk("c", None, 1),
            chunk("a", "stop"),
            chunk("", "stop", 1),
        ],
    ),
]


@pytest.mark.parametrize(("case", "sent", "seen"), ENDS)
def test_each_choice_has_one_finish_reason_after_all_of_its_content(
    case: str, sent: list[Chunk], seen: list[Chunk]
) -> None:
    last = LastFinish()
    passed = [out for piece in sent for out in last.pass_on(piece)]
    passed += last.end()
    assert [piece.raw for piece in passed] == [piece.raw for piece in seen]
