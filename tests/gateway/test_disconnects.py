"""A client that leaves: its slot is free and the upstream call closed within half a second."""

from __future__ import annotations

import selectors
import socket
import struct
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from muxcore.gateway.http.selector import (
    DisconnectMonitor,
    SelectorThread,
    monitoring_disconnect,
)
from muxcore.standin import (
    Answer,
    Drip,
    Dripping,
    Ending,
    HeadersOnly,
    Silence,
    Stall,
    server_error,
)
from muxcore.standin.script import Behaviour
from tests.gateway.conftest import (
    Served,
    chat,
    dialled,
    events,
    read_until,
)
from tests.waiting import wait_until

Serve = Callable[..., Served]
SILENCES: dict[str, Behaviour] = {
    "no answer": Silence(),
    "headers only": HeadersOnly(),
    "dripping headers": Drip(Dripping.HEADERS, timedelta(milliseconds=20)),
    "dripping comments": Drip(Dripping.BODY, timedelta(milliseconds=20)),
    "in the middle": Stall(2),
    "slowly": Answer("word " * 1000, pieces=1000, delay=timedelta(milliseconds=20)),
}


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("leave", [socket.socket.close, _reset], ids=["close", "reset"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("silence", SILENCES.values(), ids=SILENCES)
def test_a_client_that_leaves_during_any_silence_frees_the_slot(
    serve: Serve, silence: Behaviour, stream: bool, leave: Callable[[socket.socket], Any]
) -> None:
    served = serve()
    served.large.then(silence)
    with dialled(served.gateway, chat(served.gateway, stream=stream)) as client:
        served.large.wait_for(lambda model: model.in_flight == 1)
        if stream and isinstance(silence, Stall | Answer):
            read_until(client, b"data: ")
        leave(client)
        wait_until(lambda: served.in_flight() == 0)
        served.large.wait_for(lambda model: model.in_flight == 0)
    assert served.large.requests[0].ending is Ending.LEFT
    # No model's fault: it is not disabled, and no other model was called.
    (status, _) = served.pool.multiplexer.status().models
    assert (status.cancelled_count, status.is_disabled) == (1, False)
    assert not served.small.requests


def test_a_client_that_leaves_while_waiting_for_a_slot(serve: Serve) -> None:
    served = serve("large", section={"caps": {"large": 1}})
    served.large.hold()
    with dialled(served.gateway, chat(served.gateway)):
        served.large.wait_for(lambda model: model.in_flight == 1)
        with dialled(served.gateway, chat(served.gateway)) as waiting:
            pool = served.pool.multiplexer._runtime.pool
            wait_until(lambda: len(pool._line) == 1)
            waiting.close()
            wait_until(lambda: not pool._line)
    wait_until(lambda: served.in_flight() == 0)
    assert len(served.large.requests) == 1
    served.large.release()


def test_a_client_that_leaves_while_waiting_for_a_cooldown(serve: Serve) -> None:
    served = serve("large", section={"max_wait_ms": 30_000})
    served.large.default = server_error()
    with dialled(served.gateway, chat(served.gateway)) as client:
        pool = served.pool.multiplexer._runtime.pool
        wait_until(lambda: len(pool._line) == 1)
        client.close()
        wait_until(lambda: not pool._line)


def test_a_half_closed_connection_counts_as_left(serve: Serve) -> None:
    """A half-closed connection looks like that of a client that has left."""
    served = serve()
    served.large.then(Silence())
    with dialled(served.gateway, chat(served.gateway)) as client:
        served.large.wait_for(lambda model: model.in_flight == 1)
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: served.in_flight() == 0)


def test_a_client_that_does_not_read_is_given_up(serve: Serve) -> None:
    from muxcore.gateway.http.connection import ClientTimeouts

    served = serve(timeouts=ClientTimeouts(send=0.2))
    served.large.then(Answer("x" * 60_000_000, pieces=600))
    with dialled(served.gateway) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(chat(served.gateway, stream=True))
        served.large.wait_for(lambda model: bool(model.requests))
        wait_until(lambda: served.in_flight() == 0 and not served.large.in_flight)


def test_a_client_that_stays_is_served_in_full_and_may_leave_afterwards(
    serve: Serve,
) -> None:
    served = serve()
    for _ in range(20):
        assert len(events(served.ask(stream=True))) > 2
    served.session.close()
    wait_until(lambda: not served.gateway._connections)
    (status, _) = served.pool.multiplexer.status().models
    assert (status.success_count, status.cancelled_count) == (20, 0)


def test_status_answers_beside_100_open_streams(serve: Serve) -> None:
    served = serve("large")
    served.large.default = Stall(1)
    opened = []
    for _ in range(100):
        dialling = dialled(served.gateway, chat(served.gateway, stream=True))
        opened.append((dialling, dialling.__enter__()))
    try:
        served.large.wait_for(lambda model: model.in_flight == 100)
        for _, client in opened:
            read_until(client, b"data: ")
        assert served.in_flight() == 100
        served.get("/status")
        assert served.get("/status?format=json").json()["models_available"] == 1
    finally:
        for dialling, _ in opened:
            dialling.__exit__(None, None, None)
    wait_until(lambda: served.in_flight() == 0)


def test_a_disconnect_after_the_response_is_ignored() -> None:
    ours, theirs = socket.socketpair()
    left: list[bool] = []
    with ours:
        monitor = DisconnectMonitor(ours, lambda: left.append(True))
        monitor.stop()
        theirs.close()
        assert monitor.check() is False
    assert not left


def test_a_callback_may_raise_and_the_thread_survives(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise RuntimeError("odd")

    selector = SelectorThread("test")
    selector.start()
    left: list[bool] = []
    try:
        ours, theirs = socket.socketpair()
        with ours, monitoring_disconnect(selector, ours, fail):
            theirs.close()
            wait_until(lambda: "odd" in capsys.readouterr().err)
        # One that was closed before its turn came.
        selector.watch(ours, lambda: True)
        selector.unwatch(ours)
        ours, theirs = socket.socketpair()
        with ours, monitoring_disconnect(selector, ours, lambda: left.append(True)):
            theirs.close()
            wait_until(lambda: bool(left))
    finally:
        selector.stop()


def test_the_thread_survives_an_error_of_select(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = [OSError(10038, "not a socket")]

    class Failing(selectors.SelectSelector):
        def select(self, timeout: float | None = None) -> Any:
            if failures:
                raise failures.pop()
            return super().select(timeout)

    monkeypatch.setattr(selectors, "DefaultSelector", Failing)
    selector = SelectorThread("test")
    selector.start()
    left: list[bool] = []
    try:
        ours, theirs = socket.socketpair()
        with ours, monitoring_disconnect(selector, ours, lambda: left.append(True)):
            theirs.close()
            wait_until(lambda: bool(left))
    finally:
        selector.stop()
    assert not failures
