"""Routing, keep-alive, bad requests, and a stop that leaves nothing open."""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import pytest
import requests

from muxcore.standin import (
    Answer,
    Ending,
    Model,
    Silence,
    StandInServer,
    dead_port,
)
from tests.waiting import PATIENCE

Ask = Callable[..., requests.Response]
Dial = Callable[..., AbstractContextManager[socket.socket]]

REQUEST = (
    b'POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 18\r\n\r\n{"model": "alpha"}'
)


def own_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if "stand-in" in each.name]


def exchange(server: StandInServer, data: bytes, *, and_leave: bool = True) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        client.sendall(data)
        if and_leave:
            client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_models_are_listed_by_provider(session: requests.Session) -> None:
    models = [Model("alpha"), Model("beta"), Model("gamma", provider="one")]
    with StandInServer(models) as server:
        listed = session.get(f"{server.url}/models?all=1", timeout=PATIENCE).json()
        ones = session.get(f"{server.url_of('one')}/models", timeout=PATIENCE).json()

        assert listed["object"] == "list"
        assert [each["id"] for each in listed["data"]] == ["alpha", "beta"]
        assert [each["id"] for each in ones["data"]] == ["gamma"]
        assert [each.path for each in server.other_requests] == [
            "/v1/models",
            "/one/v1/models",
        ]


def test_an_unknown_model_is_not_found(ask: Ask) -> None:
    with StandInServer([Model("alpha", provider="one")]) as server:
        response = ask(server)

        assert response.status_code == 404
        assert response.json()["error"] == {
            "message": "The model `alpha` does not exist or you do not have access to it.",
            "type": "invalid_request_error",
            "param": None,
            "code": "model_not_found",
        }
        assert server.other_requests[0].body["model"] == "alpha"


@pytest.mark.parametrize(
    ("method", "path", "data", "status"),
    [
        ("GET", "/v2", b"", 404),
        ("GET", "/v1/chat/completions", b"", 404),
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b'{"model": []}', 400),
    ],
)
def test_an_unknown_request_is_refused(
    session: requests.Session, method: str, path: str, data: bytes, status: int
) -> None:
    with StandInServer([Model("alpha")]) as server:
        url = f"http://127.0.0.1:{server.port}{path}"
        response = session.request(method, url, data=data, timeout=PATIENCE)

        assert response.status_code == status
        assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "data",
    [
        b"what?\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: many\r\n\r\n",
        b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
    ],
)
def test_bytes_that_are_not_http_are_refused(data: bytes) -> None:
    with StandInServer() as server:
        answer = exchange(server, data, and_leave=False)

        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"connection: close\r\n" in answer
        assert server.other_requests[0].ending is Ending.SERVED


def test_a_client_that_leaves_in_the_middle_of_its_request() -> None:
    model = Model("alpha")
    with StandInServer([model]) as server:
        assert exchange(server, REQUEST[:-1]) == b""

    assert model.requests == ()
    assert server.other_requests == ()


def test_a_client_that_resets_an_idle_connection(dial: Dial) -> None:
    with StandInServer([Model("alpha")]) as server:
        with dial(server) as client:
            client.recv(65536)
            [thread] = (each for each in own_threads() if "connection" in each.name)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_the_token_is_required(ask: Ask, session: requests.Session) -> None:
    model = Model("alpha")
    with StandInServer([model], token="right") as server:
        missing = ask(server)
        session.headers["Authorization"] = "Bearer wrong"
        wrong = ask(server)
        model.then(Answer(text="queued"))
        session.headers["Authorization"] = "Bearer right"
        right = ask(server)

        assert [each.status_code for each in (missing, wrong, right)] == [401, 401, 200]
        assert missing.json()["error"]["code"] == "invalid_api_key"
        assert b"queued" in right.content
        assert len(model.requests) == 3


def test_a_connection_is_kept_alive(ask: Ask) -> None:
    model = Model("alpha")
    with StandInServer([model]) as server:
        for stream in (False, True, False):
            assert ask(server, stream=stream).content
        assert ask(server, "unknown").content

        assert {each.connection for each in model.requests + server.other_requests} == {0}


def test_a_client_may_ask_to_close(ask: Ask, session: requests.Session) -> None:
    session.headers["Connection"] = "close"
    model = Model("alpha")
    with StandInServer([model]) as server:
        assert ask(server).content
        response = ask(server)

        assert response.headers["connection"] == "close"
        assert [each.connection for each in model.requests] == [0, 1]


def test_the_next_request_may_come_early(dial: Dial) -> None:
    model = Model("alpha")
    model.hold()
    with StandInServer([model]) as server, dial(server) as client:
        model.wait_for(lambda m: m.in_flight == 1)
        client.sendall(REQUEST)
        # The second request waits behind the first, and is read after its answer.
        model.release()
        client.shutdown(socket.SHUT_WR)
        answers = b"".join(iter(lambda: client.recv(65536), b""))

    assert answers.count(b"HTTP/1.1 200 OK") == 2


def test_two_models_of_one_name_are_an_error() -> None:
    with pytest.raises(ValueError, match="there is a stand-in 'one/alpha' already"):
        StandInServer([Model("alpha", provider="one"), Model("alpha", provider="one")])


def test_a_model_can_be_added_later(ask: Ask) -> None:
    with StandInServer() as server:
        server.add(Model("alpha"))

        assert ask(server).status_code == 200


def test_stopping_ends_everything(dial: Dial) -> None:
    held, silent, stuck = Model("held"), Model("silent", Silence()), Model("stuck")
    stuck.default = Answer(text="x" * 20_000_000)
    held.hold()
    with (
        StandInServer([held, silent, stuck, Model("quick")]) as server,
        dial(server, model="held") as first,
        dial(server, model="silent") as second,
        dial(server, model="stuck") as third,
        dial(server, model="quick") as idle,
    ):
        idle.recv(65536)
        held.wait_for(lambda m: m.in_flight == 1)
        silent.wait_for(lambda m: m.in_flight == 1)
        third.recv(1)
        assert "stand-ins" in [each.name for each in own_threads()]
        server.stop()

        assert own_threads() == []
        assert [each.recv(1) for each in (first, second)] == [b"", b""]
        assert idle.recv(1) == b""
    assert [each.requests[0].ending for each in (held, silent, stuck)] == [
        Ending.STOPPED
    ] * 3


def test_a_server_that_never_started_can_be_stopped() -> None:
    server = StandInServer()
    server.stop()
    server.stop()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def test_a_server_can_come_back_at_its_port(ask: Ask) -> None:
    with StandInServer([Model("alpha")]) as first:
        assert ask(first).ok
    with StandInServer([Model("alpha")], port=first.port) as second:
        assert second.url == first.url
        assert ask(second).ok


def test_a_server_outlives_a_lack_of_descriptors(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, lacking = socket.socket.accept, [OSError(errno.EMFILE, "too many open files")]

    def accept_later(listener: socket.socket) -> tuple[socket.socket, object]:
        if lacking:
            raise lacking.pop()
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", accept_later)
    with StandInServer([Model("served")]) as server:
        assert ask(server, "served").ok
    assert not lacking


def test_a_dead_port_refuses(session: requests.Session) -> None:
    with (
        dead_port() as url,
        pytest.raises(requests.exceptions.ConnectionError, match="refused"),
    ):
        session.get(f"{url}/models", timeout=PATIENCE)


def test_many_at_once(ask: Ask, dial: Dial) -> None:
    model = Model("alpha", Silence())
    with StandInServer([model]) as server:
        with ExitStack() as clients:
            for _ in range(30):
                clients.enter_context(dial(server))
            model.wait_for(lambda m: m.in_flight == 30)
        model.wait_for(lambda m: m.in_flight == 0)

    assert model.max_in_flight == 30
