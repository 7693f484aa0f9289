"""Asking a server that runs: the token is sent only to one that has proven itself."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from muxcore.gateway import Server
from muxcore.gateway.client import (
    NotReachableError,
    RefusedByServerError,
    ask,
    ask_json,
    connected,
)
from muxcore.gateway.proof import keys_fingerprint, server_proof
from muxcore.http_framing import head
from muxcore.shell import clock
from tests.gateway.conftest import TOKEN, Served, dialled, read_until
from tests.gateway.conftest import head as request_head


def server(port: int) -> Server:
    return Server("127.0.0.1", port, TOKEN, os.getpid(), "config.toml")


def test_ask_returns_the_response(serve: Callable[..., Served]) -> None:
    running = server(serve().gateway.port)
    assert ask(running, "/status").startswith("## Multiplexer Status")
    assert ask_json(running, "/status?format=json")["mode"] == "failover"
    with pytest.raises(RefusedByServerError, match="answered 404"):
        ask(running, "/none")


def test_a_server_that_does_not_answer_is_an_error() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(NotReachableError, match="no server answers"):
            ask(server(held.getsockname()[1]), "/status")


class Impostor:
    """A listener at the port of a dead server, which records what it receives."""

    def __init__(self, answer: Callable[[str], object]) -> None:
        self.received = b""
        self._answer = answer
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            client, _ = self.listener.accept()
            with client:
                while data := client.recv(65536):
                    self.received += data
                    nonce = parse_qs(urlsplit(data.split(b" ")[1].decode()).query)["nonce"][
                        0
                    ]
                    body = json.dumps(self._answer(nonce)).encode()
                    client.sendall(head(200, {"Content-Length": str(len(body))}) + body)


@pytest.fixture
def impostor() -> Iterator[Callable[[Callable[[str], object]], Impostor]]:
    made = []

    def make(answer: Callable[[str], object]) -> Impostor:
        made.append(Impostor(answer))
        return made[-1]

    yield make
    for each in made:
        each.listener.close()


def test_a_token_is_never_sent_to_a_server_that_does_not_know_it(
    serve: Callable[..., Served],
    impostor: Callable[[Callable[[str], object]], Impostor],
) -> None:
    real = serve().gateway

    def passed_on(nonce: str) -> object:
        """Ask the real server, at its own port, for the answer."""
        request = request_head(real, f"GET /proof?nonce={nonce} HTTP/1.1", Authorization="")
        with dialled(real, request) as client:
            return json.loads(read_until(client, b"}").rpartition(b"\r\n")[2])

    answers: list[Callable[[str], object]] = [
        lambda _: {"proof": ""},
        lambda nonce: {"proof": nonce},
        lambda _: [],
        passed_on,
    ]
    for answer in answers:
        fake = impostor(answer)
        with pytest.raises(NotReachableError, match="is not the server of this config"):
            ask(server(fake.port), "/status")
        assert fake.received.startswith(b"GET /proof?nonce=")
        assert TOKEN.encode() not in fake.received


def test_a_whole_request_has_one_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        began = clock.elapsed()
        with (
            pytest.raises(NotReachableError, match="TimeoutError"),
            connected(server(hanging.getsockname()[1]), 0.2) as channel,
        ):
            channel.prove()
        assert clock.elapsed() - began >= 0.2


def test_a_proof_needs_no_token_and_reveals_none(serve: Callable[..., Served]) -> None:
    gateway = serve().gateway
    with dialled(
        gateway, request_head(gateway, "GET /proof?nonce=n HTTP/1.1", Authorization="")
    ) as client:
        answer = read_until(client, b"}")
    assert server_proof(TOKEN, "127.0.0.1", gateway.port, "n").encode() in answer
    assert TOKEN.encode() not in answer


class Text(str):
    __slots__ = ()

    def reveal(self) -> str:
        return self


def test_equal_keys_have_equal_fingerprints_under_one_token() -> None:
    keys = {"a": Text("one"), "b": Text("two")}
    assert keys_fingerprint("t", keys) == keys_fingerprint(
        "t", dict(reversed(keys.items()))
    )
    swapped = {"a": Text("two"), "b": Text("one")}
    others: list[dict[str, Text]] = [{"a": Text("one")}, swapped, {}]
    fingerprints = {keys_fingerprint("t", each) for each in (keys, *others)}
    assert len(fingerprints) == 4
    assert keys_fingerprint("u", keys) not in fingerprints
    assert "one" not in keys_fingerprint("t", keys)


def test_an_answer_that_never_ends_is_an_error(tmp_path: Path) -> None:
    def flood(listener: socket.socket) -> None:
        with suppress(OSError):
            client, _ = listener.accept()
            with client:
                while True:
                    client.sendall(b"x" * 65536)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=flood, args=(listener,))
        thread.start()
        with pytest.raises(NotReachableError, match="no server answers"):
            ask(server(listener.getsockname()[1]), "/status")
        thread.join()
