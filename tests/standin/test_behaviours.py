"""Each behaviour, as an HTTP client or a bare socket sees it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest
import requests

from muxcore.chat import Usage
from muxcore.standin import (
    Answer,
    Behaviour,
    Break,
    ConnectionClosed,
    ConnectionReset,
    Cut,
    Delayed,
    Delivery,
    Drip,
    Dripping,
    Ending,
    EndWithoutFinish,
    ErrorEvent,
    Framing,
    Gate,
    Hang,
    HeadersOnly,
    Model,
    Raw,
    Silence,
    Stall,
    StandInServer,
    StatusAnswer,
    ToolCall,
    rate_limited,
    refusal,
    server_error,
)
from tests.waiting import PATIENCE

A_MOMENT = timedelta(milliseconds=5)
CALLS = (ToolCall("read", '{"path": "a"}'), ToolCall("list", "", "given"))

Ask = Callable[..., requests.Response]
Dial = Callable[..., AbstractContextManager[socket.socket]]


def events(response: requests.Response) -> list[Any]:
    return [
        json.loads(block.removeprefix("data: "))
        for block in response.content.decode().split("\n\n")
        if block.startswith("data: {")
    ]


def deltas(response: requests.Response) -> list[Any]:
    return [event["choices"][0]["delta"] for event in events(response) if event["choices"]]


def words(response: requests.Response) -> list[str]:
    return [delta["content"] for delta in deltas(response) if delta.get("content")]


def received(client: socket.socket) -> bytes:
    """All bytes until the end."""
    return b"".join(iter(lambda: client.recv(65536), b""))


def until(client: socket.socket, mark: bytes) -> bytes:
    """All bytes until this mark has come."""
    data = b""
    while mark not in data:
        data += client.recv(65536)
    return data


def only_ending(model: Model) -> Ending | None:
    model.wait_for(lambda m: m.in_flight == 0)
    return model.requests[0].ending


def test_a_whole_answer_has_the_shape_of_openai(ask: Ask) -> None:
    with StandInServer([Model("alpha")]) as server:
        response = ask(server)

        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        assert int(response.headers["content-length"]) == len(response.content)
        assert response.json() == {
            "id": "chatcmpl-alpha-0",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": "alpha",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "pong from alpha"},
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 4,
                "total_tokens": 14,
                "prompt_tokens_details": {"cached_tokens": 0},
            },
        }


def test_a_stream_has_the_shape_of_openai(ask: Ask) -> None:
    with StandInServer([Model("alpha", Answer(pieces=2))]) as server:
        response = ask(server, stream=True)

        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["transfer-encoding"] == "chunked"
        assert deltas(response) == [
            {"role": "assistant", "content": ""},
            {"content": "pong fro"},
            {"content": "m alpha"},
            {},
        ]
        assert [each["choices"][0]["finish_reason"] for each in events(response)] == [
            None,
            None,
            None,
            "stop",
        ]
        assert response.content.endswith(b"\n\ndata: [DONE]\n\n")


@pytest.mark.parametrize(
    ("options", "has_usage"),
    [({"include_usage": True}, True), ({"include_usage": False}, False), (None, False)],
)
def test_a_stream_has_usage_if_the_request_asks_for_it(
    ask: Ask, options: object, has_usage: bool
) -> None:
    usage = Usage(prompt_tokens=10, completion_tokens=2, cached_tokens=7)
    with StandInServer([Model("alpha", Answer(usage=usage))]) as server:
        last = events(ask(server, stream=True, stream_options=options))[-1]

    assert ("usage" in last) is has_usage
    if has_usage:
        assert last["choices"] == []
        assert last["usage"] == {
            "prompt_tokens": 10,
            "completion_tokens": 2,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 7},
        }


def test_reasoning_and_tool_calls(ask: Ask) -> None:
    answer = Answer(
        reasoning="hmm", reasoning_field="reasoning", tool_calls=CALLS, pieces=2
    )
    with StandInServer([Model("alpha", answer)]) as server:
        [choice] = ask(server).json()["choices"]
        streamed = deltas(ask(server, stream=True))

    assert choice == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None,
            "reasoning": "hmm",
            "tool_calls": [
                {
                    "id": "call00000",
                    "type": "function",
                    "function": {"name": "read", "arguments": '{"path": "a"}'},
                },
                {
                    "id": "given",
                    "type": "function",
                    "function": {"name": "list", "arguments": ""},
                },
            ],
        },
        "finish_reason": "tool_calls",
    }
    assert streamed[1:] == [
        {"reasoning": "hm"},
        {"reasoning": "m"},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call00000",
                    "type": "function",
                    "function": {"name": "read", "arguments": '{"path"'},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": ': "a"}'}}]},
        {
            "tool_calls": [
                {
                    "index": 1,
                    "id": "given",
                    "type": "function",
                    "function": {"name": "list", "arguments": ""},
                }
            ]
        },
        {},
    ]


def test_text_is_sent_as_utf_8(ask: Ask) -> None:
    with StandInServer(
        [Model("alpha", Answer(text="é", finish_reason="length"))]
    ) as server:
        response = ask(server)

        assert "é".encode() in response.content
        assert response.json()["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_pieces_arrive_one_by_one(ask: Ask, stream: bool) -> None:
    answer = Answer(pieces=2, delay=A_MOMENT)
    with StandInServer([Model("alpha", answer)]) as server:
        response = ask(server, stream=stream)

        assert b"pong" in response.content


@pytest.mark.parametrize("stream", [False, True])
def test_a_stream_can_end_with_the_connection(ask: Ask, stream: bool) -> None:
    with StandInServer([Model("alpha", framing=Framing.CLOSE)]) as server:
        response = ask(server, stream=stream)

        assert "transfer-encoding" not in response.headers
        assert ("content-length" in response.headers) is not stream
        assert (response.headers.get("connection") == "close") is stream
        assert b"pong" in response.content


def test_an_http_1_0_client_gets_no_chunked_body(dial: Dial) -> None:
    with (
        StandInServer([Model("alpha")]) as server,
        dial(server, "HTTP/1.0", stream=True) as client,
    ):
        answer = received(client)

    assert b"chunked" not in answer
    assert answer.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("body", "wire"),
    [
        ({"error": "é"}, '{"error": "é"}'.encode()),
        ([1, None], b"[1, null]"),
        ("<html>", b"<html>"),
        (b"\xff", b"\xff"),
    ],
)
def test_any_status_with_any_body(ask: Ask, body: object, wire: bytes) -> None:
    behaviour = StatusAnswer(529, body, {"Content-Type": "text/odd", "X-Own": "1"})
    with StandInServer([Model("alpha", behaviour)]) as server:
        response = ask(server)

        assert (response.status_code, response.reason) == (529, "Unknown")
        assert response.content == wire
        assert response.headers["content-type"] == "text/odd"
        assert response.headers["x-own"] == "1"


@pytest.mark.parametrize(
    ("behaviour", "status", "kind", "retry_after"),
    [
        (rate_limited(), 429, "rate_limit_error", None),
        (rate_limited(timedelta(seconds=7)), 429, "rate_limit_error", "7"),
        (rate_limited(timedelta(milliseconds=1500)), 429, "rate_limit_error", "1.5"),
        (server_error(), 503, "server_error", None),
        (refusal(400, "no"), 400, "invalid_request_error", None),
    ],
)
def test_the_usual_refusals(
    ask: Ask, behaviour: Behaviour, status: int, kind: str, retry_after: str | None
) -> None:
    with StandInServer([Model("alpha", behaviour)]) as server:
        response = ask(server)

        assert response.status_code == status
        assert response.json()["error"]["type"] == kind
        assert response.headers.get("retry-after") == retry_after


def test_closed_without_a_byte(dial: Dial) -> None:
    model = Model("alpha", ConnectionClosed())
    with StandInServer([model]) as server, dial(server) as client:
        assert received(client) == b""
        # The request has left the count before the client reads the end.
        assert model.in_flight == 0
        assert only_ending(model) is Ending.BROKEN


def test_reset_without_a_byte(dial: Dial) -> None:
    model = Model("alpha", ConnectionReset())
    with (
        StandInServer([model]) as server,
        dial(server) as client,
        pytest.raises(ConnectionResetError),
    ):
        received(client)
    assert only_ending(model) is Ending.BROKEN


def test_silence_until_the_release(dial: Dial) -> None:
    model = Model("alpha", Silence())
    with StandInServer([model]) as server, dial(server) as client:
        model.wait_for(lambda m: m.in_flight == 1)
        client.settimeout(0.02)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(PATIENCE)
        model.release()

        assert received(client) == b""
    assert only_ending(model) is Ending.BROKEN


@pytest.mark.parametrize(
    ("stream", "content_type"),
    [(False, b"application/json"), (True, b"text/event-stream")],
)
def test_headers_and_then_silence(dial: Dial, stream: bool, content_type: bytes) -> None:
    model = Model("alpha", HeadersOnly())
    with StandInServer([model]) as server, dial(server, stream=stream) as client:
        head = client.recv(65536)
        model.release()

        assert head.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: " + content_type)
        assert head.endswith(b"\r\n\r\n")
        assert received(client) == b""


def test_headers_drip_and_then_the_answer_comes(ask: Ask) -> None:
    behaviour = Drip(Dripping.HEADERS, A_MOMENT, count=2)
    with StandInServer([Model("alpha", behaviour)]) as server:
        response = ask(server)

        assert response.headers["x-drip"] == "0, 1"
        assert response.json()["choices"][0]["message"]["content"] == "pong from alpha"


@pytest.mark.parametrize(
    ("stream", "drops"), [(False, b"  {"), (True, b": keep-alive\n\n" * 2 + b"data: {")]
)
def test_a_body_drips_comments_or_blanks(ask: Ask, stream: bool, drops: bytes) -> None:
    behaviour = Drip(Dripping.BODY, A_MOMENT, count=2)
    with StandInServer([Model("alpha", behaviour)]) as server:
        response = ask(server, stream=stream)

        assert response.content.startswith(drops)
        assert b"pong" in response.content


def test_a_drip_continues_until_the_release(dial: Dial) -> None:
    model = Model("alpha", Drip(Dripping.HEADERS, A_MOMENT))
    with StandInServer([model]) as server, dial(server, stream=True) as client:
        head = until(client, b"x-drip: 3")
        model.release()

        assert b"\r\n\r\n" not in head
        assert b'{"content": "from "}' in until(client, b"data: [DONE]")


def test_a_raw_body_in_these_pieces(ask: Ask, session: requests.Session) -> None:
    pieces = (b"data: \xc3", b"", b"\xa9\n\n")
    headers = {"Content-Type": "text/odd"}
    model = Model("alpha")
    model.then(Raw(pieces, A_MOMENT, 201, headers), Raw(()))
    with StandInServer([model]) as server:
        first, second = ask(server, stream=True), ask(server)

        assert first.status_code == 201
        assert first.headers["content-type"] == "text/odd"
        assert first.content == b"".join(pieces)
        assert second.content == b""


def test_bytes_that_are_not_http(dial: Dial) -> None:
    behaviour = Delivery((b"HTTP/9 ", b"what?"), A_MOMENT)
    with StandInServer([Model("alpha", behaviour)]) as server, dial(server) as client:
        assert received(client) == b"HTTP/9 what?"


@pytest.mark.parametrize("after", [0, 1, 99])
def test_a_cut_stream_has_no_end(dial: Dial, after: int) -> None:
    model = Model("alpha", Cut(after))
    with StandInServer([model]) as server, dial(server, stream=True) as client:
        answer = received(client)

    assert answer.count(b"data: ") == 1 + min(after, 3)
    assert b'finish_reason": "stop' not in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert only_ending(model) is Ending.BROKEN


def test_a_cut_answer_is_shorter_than_its_content_length(ask: Ask) -> None:
    behaviour = Cut(1, answer=Answer(pieces=1))
    with (
        StandInServer([Model("alpha", behaviour)]) as server,
        pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"),
    ):
        _ = ask(server).content


def test_a_stream_can_break_with_a_reset(dial: Dial) -> None:
    model = Model("alpha", Cut(1, Break.RESET))
    with (
        StandInServer([model]) as server,
        dial(server, stream=True) as client,
        pytest.raises(ConnectionResetError),
    ):
        received(client)


@pytest.mark.parametrize(
    ("stream", "first"), [(False, b'{"id": "chatcmpl'), (True, b'{"content": "a"}')]
)
def test_a_stalled_answer_continues_after_the_release(
    dial: Dial, stream: bool, first: bytes
) -> None:
    model = Model("alpha", Stall(1, Answer(text="abc")))
    with StandInServer([model]) as server, dial(server, stream=stream) as client:
        before = until(client, first)
        assert model.in_flight == 1
        model.release()
        until(client, b"stop")

        assert b"stop" not in before
        assert only_ending(model) is Ending.SERVED


def test_an_error_event_in_a_stream(ask: Ask) -> None:
    behaviour = ErrorEvent({"code": 502, "message": "gone"}, after=1)
    with StandInServer([Model("alpha", behaviour)]) as server:
        streamed, whole = ask(server, stream=True), ask(server)

        assert streamed.status_code == whole.status_code == 200
        assert streamed.content.count(b"data: ") == 3
        assert streamed.content.endswith(
            b'data: {"error": {"code": 502, "message": "gone"}}\n\n'
        )
        assert whole.json() == {"error": {"code": 502, "message": "gone"}}


@pytest.mark.parametrize(
    ("says_done", "end"), [(False, b'"finish_reason": null}]}\n\n'), (True, b"[DONE]\n\n")]
)
def test_an_end_without_a_finish_reason(ask: Ask, says_done: bool, end: bytes) -> None:
    with StandInServer([Model("alpha", EndWithoutFinish(says_done))]) as server:
        streamed, whole = ask(server, stream=True), ask(server)

        assert "".join(words(streamed)) == "pong from alpha"
        assert streamed.content.endswith(end)
        assert whole.json()["choices"][0]["finish_reason"] is None


def test_hanging_until_a_gate_opens(dial: Dial) -> None:
    gate = Gate()
    model = Model("alpha", Hang(gate, StatusAnswer(204, b"")))
    with StandInServer([model]) as server, dial(server) as client:
        model.wait_for(lambda m: m.in_flight == 1)
        gate.open()

        assert client.recv(65536).startswith(b"HTTP/1.1 204 No Content\r\n")
        assert gate.is_open


def test_an_open_gate_delays_no_request(ask: Ask) -> None:
    gate = Gate()
    gate.open()
    with StandInServer([Model("alpha", Hang(gate))]) as server:
        assert ask(server).status_code == 200


def test_a_delayed_answer(ask: Ask) -> None:
    with StandInServer([Model("alpha", Delayed(A_MOMENT))]) as server:
        assert ask(server).elapsed >= A_MOMENT
