"""What ends a wait, without a server, whose threads would decide the order."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from threading import Thread

import pytest

from muxcore.standin.connection import ClientConnection, ClientGoneError, StoppedError
from muxcore.standin.gate import Gate


@pytest.fixture
def client() -> Iterator[socket.socket]:
    with socket.socket() as client:
        yield client


@pytest.fixture
def connection(client: socket.socket) -> Iterator[ClientConnection]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client.connect(listener.getsockname())
        connection = ClientConnection(listener.accept()[0], 0)
    yield connection
    connection.close()


def test_a_wait_ends_with_its_time(connection: ClientConnection) -> None:
    connection.wait(0.001)


def test_a_wait_ends_with_its_time_under_a_frozen_clock(
    connection: ClientConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muxcore.standin.connection.monotonic", lambda: 7.0)
    connection.wait(0.001)


def test_a_wait_of_no_time_returns_at_once(connection: ClientConnection) -> None:
    connection.wait(0)


def test_a_wait_ends_with_its_gate(connection: ClientConnection) -> None:
    gate = Gate()
    # Opened by another thread while the wait is on, or before: both end it.
    opener = Thread(target=gate.open)
    opener.start()
    connection.wait(gate=gate)
    opener.join()


def test_a_ring_without_an_open_gate_ends_no_wait(connection: ClientConnection) -> None:
    connection.ring()
    connection.wait(0.001)


def test_more_rings_than_fit_do_not_block(connection: ClientConnection) -> None:
    for _ in range(10_000):
        connection.ring()
    connection.wait(0.001)


def test_an_early_request_ends_no_wait(
    client: socket.socket, connection: ClientConnection
) -> None:
    client.sendall(b"early")
    connection.wait(0.01)
    assert connection.reader.read(5) == b"early"


def test_a_client_that_leaves_ends_a_wait(
    client: socket.socket, connection: ClientConnection
) -> None:
    client.close()
    with pytest.raises(ClientGoneError):
        connection.wait()


def test_stopping_ends_a_wait_and_a_send(connection: ClientConnection) -> None:
    connection.stop()
    with pytest.raises(StoppedError):
        connection.wait()
    with pytest.raises(StoppedError):
        connection.send(b"late")


def test_a_closed_connection_can_be_rung_and_stopped(connection: ClientConnection) -> None:
    connection.close()
    connection.ring()
    connection.stop()
    connection.reset_on_close()
