"""Calls through a SOCKS proxy, where PySocks is installed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from muxcore import Multiplexer
from muxcore.standin import Model, Stall, StandInServer

pytest.importorskip("socks")
PING = [{"role": "user", "content": "ping"}]


class SocksServer:
    """A proxy of SOCKS 5 without a password, for names alone, which all lead to one port."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.asked: list[str] = []
        self._threads: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            # Closing alone does not wake a thread that accepts.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                serving = threading.Thread(target=self._serve, args=(client,), daemon=True)
                serving.start()
                self._threads.append(serving)

    def _serve(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as reader:
            reader.read(reader.read(2)[1])
            client.sendall(b"\x05\x00")
            length = reader.read(5)[4]
            name, _ = reader.read(length).decode(), reader.read(2)
            self.asked.append(name)
            with socket.create_connection(("127.0.0.1", self._port)) as server:
                client.sendall(b"\x05\x00\x00\x01" + b"\x00" * 6)
                back = threading.Thread(target=_copy, args=(server, client))
                back.start()
                _copy(client, server)
                back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def model() -> Model:
    return Model("large-model")


@pytest.fixture
def proxy(model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[SocksServer]:
    with StandInServer([model]) as server:
        made = SocksServer(int(server.url.split(":")[2].split("/")[0]))
        for name in ("NO_PROXY", "no_proxy", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTP_PROXY", f"socks5h://127.0.0.1:{made.port}")
        yield made
        made.close()


@pytest.fixture
def multiplexer(proxy: SocksServer) -> Iterator[Multiplexer]:
    """One whose only way is the proxy, and which is closed before it."""
    assert proxy.port
    config = {
        "active_model": "large",
        "providers": [
            {"name": "p", "api_base": "http://models.example/v1", "backend": "generic"}
        ],
        "models": [{"name": "large-model", "provider": "p", "alias": "large"}],
    }
    with Multiplexer.from_config(config, env={}) as made:
        yield made


def test_calls_are_served_and_share_a_connection(
    proxy: SocksServer, multiplexer: Multiplexer
) -> None:
    for _ in range(2):
        assert multiplexer.complete(PING).model == "large"
    with multiplexer.stream(PING) as stream:
        assert "".join(chunk.text for chunk in stream) == "pong from large-model"
    assert proxy.asked == ["models.example"]


def test_a_call_can_be_cut_while_the_model_is_silent(
    model: Model, multiplexer: Multiplexer
) -> None:
    model.then(Stall(1))
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            multiplexer.complete(PING)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            caught.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    model.wait_for(lambda each: each.in_flight == 1)
    multiplexer.close()
    asking.join()
    model.release()
    assert len(caught) == 1
