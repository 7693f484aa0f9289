"""The end of a server, and leases, which may be its reason."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from muxcore.gateway import Gateway
from muxcore.gateway.http import server as module
from muxcore.standin import Silence, Stall
from tests.gateway.conftest import (
    TOKEN,
    Served,
    chat,
    dialled,
    head,
    read_all,
    read_until,
)
from tests.waiting import PATIENCE, wait_until

Serve = Callable[..., Served]


def test_draining_finishes_running_requests_and_accepts_none(serve: Serve) -> None:
    served = serve()
    served.large.then(Stall(1))
    drained: list[bool] = []
    with (
        dialled(served.gateway) as idle,
        dialled(served.gateway, chat(served.gateway, stream=True)) as client,
    ):
        read_until(client, b"data: ")
        draining = threading.Thread(
            target=lambda: drained.append(served.gateway.drain(5)), name="draining"
        )
        draining.start()
        # One that is idle is closed at once.
        assert idle.recv(10) == b""
        with pytest.raises(OSError, match=r".*"), dialled(served.gateway):
            pass
        assert not drained
        served.large.release()
        rest = read_all(client)
        draining.join()
    assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert drained == [True]


def test_a_response_while_draining_closes_the_connection(serve: Serve) -> None:
    served = serve()
    served.large.hold()
    data = chat(served.gateway)
    with dialled(served.gateway, data[:-1]) as client:
        wait_until(lambda: bool(served.gateway._busy))
        assert served.gateway.drain(0) is False
        client.sendall(data[-1:])
        served.large.wait_for(lambda model: model.in_flight == 1)
        served.large.release()
        assert b"\r\nConnection: close\r\n" in read_all(client)


def test_a_request_that_does_not_end_is_cut(serve: Serve) -> None:
    served = serve()
    served.large.default = Silence()
    with dialled(served.gateway, chat(served.gateway)) as client:
        served.large.wait_for(lambda model: model.in_flight == 1)
        assert served.gateway.drain(0.01) is False
        served.gateway.stop()
        assert client.recv(10) == b""
    assert served.in_flight() == 0
    assert not [t for t in threading.enumerate() if t.name.startswith("vibe-mux client")]


def test_closing_the_pool_ends_its_calls_with_an_error(serve: Serve) -> None:
    served = serve()
    served.large.default = Silence()
    with dialled(served.gateway, chat(served.gateway)) as client:
        served.large.wait_for(lambda model: model.in_flight == 1)
        served.pool.close()
        assert client.recv(20).startswith(b"HTTP/1.1 503")


def test_stop_can_be_called_twice(serve: Serve) -> None:
    served = serve()
    with Gateway(served.pool, TOKEN) as gateway:
        port = gateway.port
        assert gateway.drain(1)
    # Nothing is left in the way of the next one.
    with Gateway(served.pool, TOKEN, port=port) as gateway:
        assert gateway.port == port


def test_no_connection_is_accepted_while_draining(serve: Serve) -> None:
    served = serve()
    assert served.gateway.drain(0)
    assert served.gateway._accept() is False


def test_a_lease_lasts_as_long_as_its_connection(serve: Serve) -> None:
    unleased = threading.Event()
    served = serve(on_unleased=unleased.set)
    lease = head(served.gateway, "GET /lease HTTP/1.1")
    with dialled(served.gateway, lease) as first:
        read_until(first, b"held\n")
        with dialled(served.gateway, lease) as second:
            read_until(second, b"held\n")
            assert served.gateway.leases == 2
            second.sendall(b"whatever")
        wait_until(lambda: served.gateway.leases == 1)
        assert not unleased.is_set()
    assert unleased.wait(PATIENCE)
    assert served.gateway.leases == 0


def test_a_lease_that_is_taken_late_keeps_the_server(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_REQUEST_SECONDS", PATIENCE)
    unleased = threading.Event()
    served = serve(on_unleased=unleased.set)
    lease = head(served.gateway, "GET /lease HTTP/1.1")
    with dialled(served.gateway, lease[:-1]) as first:
        wait_until(lambda: bool(served.gateway._busy))
        with dialled(served.gateway, lease) as second:
            read_until(second, b"held\n")
        wait_until(lambda: served.gateway.leases == 0)
        first.sendall(lease[-1:])
        read_until(first, b"held\n")
        wait_until(lambda: len(served.gateway._connections) == 1)
        assert not unleased.is_set()
    assert unleased.wait(PATIENCE)


def test_a_client_without_a_request_does_not_keep_the_server(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_REQUEST_SECONDS", 0.0)
    unleased = threading.Event()
    served = serve(on_unleased=unleased.set)
    with dialled(served.gateway, b""):
        with dialled(served.gateway, head(served.gateway, "GET /lease HTTP/1.1")) as lease:
            read_until(lease, b"held\n")
        assert unleased.wait(PATIENCE)


def test_draining_does_not_wait_for_a_lease(serve: Serve) -> None:
    served = serve()
    with dialled(served.gateway, head(served.gateway, "GET /lease HTTP/1.1")) as client:
        read_until(client, b"held\n")
        assert served.gateway.drain(5) is True
        read_until(client, b"draining\n")
        served.gateway.stop()
        assert read_all(client) == b""


def test_no_lease_is_given_while_draining(serve: Serve) -> None:
    served = serve()
    data = head(served.gateway, "GET /lease HTTP/1.1")
    with dialled(served.gateway, data[:-1]) as client:
        wait_until(lambda: bool(served.gateway._busy))
        assert served.gateway.drain(0) is False
        client.sendall(data[-1:])
        assert client.recv(10) == b""
    assert served.gateway.leases == 0


def test_a_lease_reports_the_calls_of_its_label_and_its_own_end(serve: Serve) -> None:
    served = serve()
    gateway = served.gateway
    with dialled(gateway, head(gateway, "GET /lease?label=mine HTTP/1.1")) as client:
        read_until(client, b"held\n")
        assert served.ask("/run/other/pool/v1/chat/completions").status_code == 200
        assert served.ask("/run/mine/pool/v1/chat/completions").status_code == 200
        # The caller has its answer a little before the call is counted as ended.
        reported = read_until(client, b"ended\n")
        client.shutdown(socket.SHUT_WR)
        lines = [line.strip() for line in (reported + read_all(client)).split(b"\n")]
    assert [line for line in lines if line.isalpha()] == [b"began", b"ended", b"released"]
