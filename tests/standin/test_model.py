"""The queue, the recorded requests, and the conditions that a test can wait for."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest
import requests

from muxcore.standin import (
    Answer,
    Behaviour,
    Ending,
    Model,
    Received,
    Silence,
    StandInServer,
    StatusAnswer,
)

Ask = Callable[..., requests.Response]
Dial = Callable[..., AbstractContextManager[socket.socket]]


def text(response: requests.Response) -> object:
    return response.json()["choices"][0]["message"]["content"]


def test_the_queue_first_then_the_default(ask: Ask) -> None:
    model = Model("alpha", Answer(text="default"))
    model.then(
        Answer(text="one"), lambda received: Answer(text=f"number {received.number}")
    )
    with StandInServer([model]) as server:
        assert [text(ask(server)) for _ in range(3)] == ["one", "number 1", "default"]
        model.default = Answer(text="another")
        assert text(ask(server)) == "another"


def test_a_behaviour_may_depend_on_the_request(ask: Ask) -> None:
    def echo(received: Received) -> Behaviour:
        return Answer(text=received.body["messages"][0]["content"])

    with StandInServer([Model("alpha", echo)]) as server:
        assert text(ask(server)) == "ping"


def test_each_request_is_recorded(ask: Ask, session: requests.Session) -> None:
    session.headers["Authorization"] = "Bearer secret-key"
    model = Model("alpha")
    with StandInServer([model]) as server:
        text(ask(server, temperature=0.5))
        text(ask(server))

        first, second = model.requests
        assert (first.method, first.path) == ("POST", "/v1/chat/completions")
        assert first.headers["authorization"] == "Bearer secret-key"
        assert first.body["temperature"] == 0.5
        assert (first.number, second.number) == (0, 1)
        assert first.arrived <= second.arrived
        assert first.ending is Ending.SERVED
        assert "secret-key" not in repr(model.requests)


def test_held_requests_are_counted_and_answered_after_the_release(ask: Ask) -> None:
    model = Model("alpha")
    model.then(Answer(text="a"), Answer(text="b"))
    model.hold()
    with StandInServer([model]) as server, ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(ask, server), pool.submit(ask, server)]
        model.wait_for(lambda m: m.in_flight == 2)
        assert [each.ending for each in model.requests] == [None, None]
        model.release()

        assert sorted(str(text(call.result())) for call in calls) == ["a", "b"]
        assert model.in_flight == 0
        assert model.max_in_flight == 2
        assert text(ask(server)) == "pong from alpha"


def test_one_client_after_another_never_counts_as_two(ask: Ask) -> None:
    model = Model("alpha", Answer(pieces=1))
    with StandInServer([model]) as server:
        for number in range(50):
            with ask(server, stream=bool(number % 2)) as response:
                # Like a client that stops reading at the last word, before the end.
                next(line for line in response.iter_lines() if b"stop" in line)

    assert model.max_in_flight == 1


def test_a_wait_that_times_out_describes_the_model() -> None:
    with pytest.raises(
        TimeoutError, match=r"waited 0.01 s for the stand-in 'p/alpha', with 0"
    ):
        Model("alpha", provider="p").wait_for(lambda m: m.in_flight == 1, timeout=0.01)


@pytest.mark.parametrize("resets", [False, True])
def test_a_client_that_leaves_is_noticed_in_silence(
    dial: Dial, capfd: pytest.CaptureFixture[str], resets: bool
) -> None:
    model = Model("alpha", Silence())
    with StandInServer([model]) as server:
        with dial(server) as client:
            model.wait_for(lambda m: m.in_flight == 1)
            if resets:
                client.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
        model.wait_for(lambda m: m.in_flight == 0)

        assert model.requests[0].ending is Ending.LEFT
    assert capfd.readouterr() == ("", "")


def test_a_client_that_leaves_is_noticed_while_held(dial: Dial) -> None:
    model = Model("alpha")
    model.hold()
    with StandInServer([model]) as server:
        with dial(server):
            model.wait_for(lambda m: m.in_flight == 1)
        model.wait_for(lambda m: m.in_flight == 0)

    assert model.requests[0].ending is Ending.LEFT


def test_a_client_that_leaves_is_noticed_by_sending(dial: Dial) -> None:
    model = Model("alpha", Answer(text="x" * 20_000_000))
    with StandInServer([model]) as server:
        with dial(server) as client:
            client.recv(1)
        model.wait_for(lambda m: m.requests[0].ending is Ending.LEFT)

    assert model.in_flight == 0


def test_an_exception_in_a_script_ends_its_thread(
    dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[str] = []

    def note(args: threading.ExceptHookArgs) -> None:
        raised.append(str(args.exc_value))

    monkeypatch.setattr(threading, "excepthook", note)

    def mistake(_: Received) -> Behaviour:
        raise LookupError("my mistake")

    model = Model("alpha", mistake)
    with StandInServer([model]) as server, dial(server) as client:
        assert client.recv(1) == b""

    assert model.requests[0].ending is Ending.FAILED
    assert raised == ["my mistake"]


def test_two_providers_may_have_a_model_of_the_same_name(ask: Ask) -> None:
    models = [
        Model("alpha"),
        Model("alpha", provider="one"),
        Model("alpha", provider="two"),
    ]
    with StandInServer(models) as server:
        assert server.url_of("one") == f"http://127.0.0.1:{server.port}/one/v1"
        assert [text(ask(server, provider=name)) for name in ("", "one", "two")] == [
            "pong from alpha",
            "pong from one/alpha",
            "pong from two/alpha",
        ]


def test_a_release_ends_only_the_present_silence(dial: Dial) -> None:
    model = Model("alpha", Silence())
    with StandInServer([model]) as server, dial(server) as first:
        model.wait_for(lambda m: m.in_flight == 1)
        model.release()
        assert first.recv(1) == b""
        with dial(server):
            model.wait_for(lambda m: len(m.requests) == 2)
            assert model.in_flight == 1


def test_a_status_can_be_queued_before_the_answer(ask: Ask) -> None:
    model = Model("alpha")
    model.then(StatusAnswer(500))
    with StandInServer([model]) as server:
        assert [ask(server).status_code for _ in range(2)] == [500, 200]
