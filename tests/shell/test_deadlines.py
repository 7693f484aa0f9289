"""Every call ends by its deadline, however slow its server is (rule 1)."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic  # noqa: TID251 - how long it took is what is tested
from typing import Any

import pytest
from attrs import evolve

from muxcore import PoolExhaustedError, StreamInterruptedError
from muxcore.shell.call import attempts
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.standin import (
    Answer,
    Behaviour,
    Delayed,
    Delivery,
    Drip,
    Dripping,
    HeadersOnly,
    Model,
    Silence,
    Stall,
)
from tests.waiting import PATIENCE

Make = Callable[..., Multiplexer]
Start = Callable[..., Future[Any]]

PING = [{"role": "user", "content": "ping"}]
FALLBACK = {"model": "beta", "is_fallback": True}
OFTEN = timedelta(milliseconds=7)
LIMIT = 0.15
GRACE = 0.1
TRIES = 20

SLOW: dict[str, Behaviour] = {
    "silence": Silence(),
    "headers, then silence": HeadersOnly(),
    "dripping headers": Drip(Dripping.HEADERS, timedelta(milliseconds=30)),
    "a dripping body": Drip(Dripping.BODY, OFTEN),
    "a slow answer": Delayed(timedelta(seconds=5)),
    "an answer in slow pieces": Answer("x" * 400, pieces=400, delay=OFTEN),
    "endless interim answers": Delivery(
        (b"HTTP/1.1 100 Continue\r\n\r\n",) * 500, timedelta(milliseconds=5)
    ),
    "a dripping status line": Delivery((b"H", *[b"T"] * 400), OFTEN),
}
SLOW_STREAMS = {
    name: behaviour
    for name, behaviour in SLOW.items()
    if name != "an answer in slow pieces"
}


def hurry(multiplexer: Multiplexer, **limits: float) -> None:
    """Shorten the limits of alpha alone: on a busy machine, beta may take its time."""
    member = multiplexer._runtime.members["alpha"]
    member.limits = evolve(member.limits, **limits)


def in_time(run: Callable[[], None], limit: float = LIMIT) -> None:
    """Expect an end in time, at least once: a busy machine may be late."""
    took: list[float] = []
    while len(took) < TRIES:
        began = monotonic()
        try:
            run()
        except AssertionError:
            # A late call may have another ending than the expected one.
            if monotonic() - began <= limit + GRACE:
                raise
        took.append(monotonic() - began)
        assert took[-1] > limit * 0.95
        if took[-1] <= limit + GRACE:
            return
    raise AssertionError(f"took {took}, with a limit of {limit} s")


@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
@pytest.mark.parametrize("slow", SLOW)
def test_a_call_ends_by_its_deadline(
    make: Make, alpha: Model, slow: str, *, kept: bool
) -> None:
    multiplexer = make("alpha", FALLBACK)
    if kept:
        multiplexer.complete(PING)
        multiplexer.complete(PING)
    well = len(alpha.requests)
    alpha.default = SLOW[slow]

    def call() -> None:
        with pytest.raises(PoolExhaustedError) as caught:
            multiplexer.complete(PING, timeout=LIMIT)
        assert str(caught.value) == (
            "no model could serve the call: the call's time is over"
            " (its deadline, call_timeout_ms or timeout)\n"
            "  alpha: cancelled: the call's time is over"
        )

    in_time(call)
    model = multiplexer.status().models[0]
    assert not model.is_disabled
    assert (model.fail_count, model.in_flight) == (0, 0)
    # The server may not notice a request that was cut early.
    assert model.cancelled_count >= len(alpha.requests) - well
    # The connection is closed, so the server notices.
    alpha.release()
    alpha.wait_for(lambda model: model.in_flight == 0)


@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
@pytest.mark.parametrize("slow", SLOW_STREAMS)
def test_a_stream_begins_by_the_deadline(
    make: Make, alpha: Model, slow: str, *, kept: bool
) -> None:
    multiplexer = make("alpha", FALLBACK)
    if kept:
        multiplexer.complete(PING)
        multiplexer.complete(PING)
    alpha.default = SLOW[slow]

    def call() -> None:
        stream = multiplexer.stream(PING, timeout=LIMIT)
        with pytest.raises(PoolExhaustedError, match="deadline"), stream:
            pass

    in_time(call)
    assert not multiplexer.status().models[0].is_disabled


@pytest.mark.parametrize(
    "slow", [Stall(1), Answer("x" * 400, pieces=400, delay=OFTEN)], ids=["silent", "slow"]
)
def test_a_stream_ends_by_the_deadline(make: Make, alpha: Model, slow: Behaviour) -> None:
    alpha.default = slow
    multiplexer = make("alpha", FALLBACK)

    def call() -> None:
        with (
            pytest.raises(
                StreamInterruptedError, match="the call's time is over"
            ) as caught,
            multiplexer.stream(PING, timeout=LIMIT) as stream,
        ):
            list(stream)
        assert caught.value.reply.text

    in_time(call)
    assert not multiplexer.status().models[0].is_disabled
    assert multiplexer.status().models[0].cancelled_count == len(alpha.requests)


@pytest.mark.parametrize("slow", SLOW)
def test_an_attempt_ends_by_its_limit_and_the_next_model_serves(
    make: Make, alpha: Model, slow: str
) -> None:
    alpha.default = SLOW[slow]
    multiplexer = make("alpha", FALLBACK)
    hurry(multiplexer, attempt=LIMIT)

    def call() -> None:
        multiplexer.reset()
        reply = multiplexer.complete(PING)
        assert [attempt.outcome for attempt in reply.attempts] == ["error", "succeeded"]
        assert reply.attempts[0].message == "the time for one attempt is over"

    in_time(call)
    assert multiplexer.status().models[0].is_disabled


def test_the_limit_of_an_attempt_ends_with_the_first_content(
    make: Make, alpha: Model
) -> None:
    alpha.then(Stall(1))
    multiplexer = make("alpha", attempt_timeout_ms=1000)
    began = monotonic()
    with multiplexer.stream(PING) as stream:
        next(stream)
        threading.Timer(1.2, alpha.release).start()
        list(stream)
    assert stream.reply.text == "pong from model-a"
    assert monotonic() - began > 1.1


def test_a_server_that_has_sent_a_comment_may_not_be_silent_for_long(
    make: Make, alpha: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local model may read its prompt for ten minutes in silence; a frozen one is dead."""
    monkeypatch.setattr(attempts, "HEARTBEAT_SILENCE", 0.2)
    alpha.then(Drip(Dripping.BODY, timedelta(hours=1)))
    with make("alpha", "beta").stream(PING) as stream:
        list(stream)
    assert stream.reply.model == "beta"
    assert stream.reply.attempts[0].message == "it was silent for too long"


@pytest.mark.parametrize("streams", [False, True])
def test_a_silence_ends_by_its_limit(make: Make, alpha: Model, *, streams: bool) -> None:
    alpha.default = HeadersOnly()
    multiplexer = make("alpha", FALLBACK)
    hurry(multiplexer, read=LIMIT)

    def call() -> None:
        multiplexer.reset()
        if streams:
            with multiplexer.stream(PING) as stream:
                list(stream)
            reply = stream.reply
        else:
            reply = multiplexer.complete(PING)
        assert reply.attempts[0].message == "it was silent for too long"
        assert reply.model == "beta"

    in_time(call)


def test_one_deadline_limits_all_attempts_together(
    make: Make, alpha: Model, beta: Model
) -> None:
    alpha.default = beta.default = Silence()
    multiplexer = make("alpha", "beta")
    hurry(multiplexer, read=LIMIT)

    def call() -> None:
        multiplexer.reset()
        with pytest.raises(PoolExhaustedError) as caught:
            multiplexer.complete(PING, timeout=4 * LIMIT)
        assert [attempt.outcome for attempt in caught.value.attempts] == [
            "error",
            "cancelled",
        ]

    in_time(call, 4 * LIMIT)


def test_a_deadline_holds_while_waiting_for_a_slot(
    make: Make, start: Start, alpha: Model
) -> None:
    multiplexer = make({"model": "alpha", "max_concurrent": 1})
    alpha.hold()
    first = start(multiplexer.complete, PING)
    alpha.wait_for(lambda model: model.in_flight == 1)

    def call() -> None:
        with pytest.raises(PoolExhaustedError) as caught:
            multiplexer.complete(PING, timeout=LIMIT)
        assert "the call's time is over" in str(caught.value)

    in_time(call)
    alpha.release()
    assert first.result().model == "alpha"
    assert len(alpha.requests) == 1


def test_a_shorter_timeout_wins_and_a_longer_one_does_not(make: Make, alpha: Model) -> None:
    alpha.default = Silence()
    multiplexer = make("alpha", call_timeout_ms=round(LIMIT * 1000))

    def call() -> None:
        with pytest.raises(PoolExhaustedError):
            multiplexer.complete(PING, timeout=600)

    in_time(call)


def test_a_later_call_with_an_earlier_limit_wakes_the_deadline_thread(
    make: Make, start: Start, alpha: Model
) -> None:
    alpha.default = Silence()
    multiplexer = make("alpha")
    first = start(multiplexer.complete, PING, timeout=PATIENCE)
    alpha.wait_for(lambda model: model.in_flight == 1)

    def call() -> None:
        with pytest.raises(PoolExhaustedError):
            multiplexer.complete(PING, timeout=LIMIT)

    in_time(call)
    alpha.then(Answer())
    alpha.release()
    first.exception()


@contextmanager
def deaf() -> Generator[str]:
    """Yield a base URL to which no connection succeeds: its backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        callers = []
        for _ in range(4):
            caller = socket.socket()
            caller.setblocking(False)
            caller.connect_ex(address)
            callers.append(caller)
        try:
            yield f"http://127.0.0.1:{address[1]}/v1"
        finally:
            for caller in callers:
                caller.close()


linux = pytest.mark.skipif(
    sys.platform != "linux",
    reason="elsewhere, full queues of callers are emptied otherwise",
)


@linux
def test_connecting_ends_by_its_own_limit(make: Make) -> None:
    with deaf() as url:
        multiplexer = make("alpha", FALLBACK, urls={"alpha": url})
        hurry(multiplexer, connect=LIMIT)

        def call() -> None:
            multiplexer.reset()
            reply = multiplexer.complete(PING)
            assert reply.attempts[0].message == "it could not be connected to in time"
            assert reply.model == "beta"

        in_time(call)


@linux
def test_connecting_ends_by_the_deadline_although_there_are_many_addresses(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with deaf() as url:
        port = int(url.split(":")[2].split("/")[0])
        entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        multiplexer = make("alpha", urls={"alpha": f"http://localhost:{port}/v1"})

        def call() -> None:
            with pytest.raises(PoolExhaustedError, match="deadline"):
                multiplexer.complete(PING, timeout=LIMIT)

        # The stand-in's own end looks its address up, too.
        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", lambda *_, **__: [entry] * 5)
            in_time(call)


def test_the_next_address_is_tried_when_one_is_dead(
    make: Make, alpha: Model, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))
    well = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))
    multiplexer = make("alpha", urls={"alpha": f"http://localhost:{server.port}/v1"})
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *_, **__: [dead, well])
        reply = multiplexer.complete(PING)
    assert [attempt.outcome for attempt in reply.attempts] == ["succeeded"]
    assert len(alpha.requests) == 1


@contextmanager
def slow_reader(pause: float) -> Generator[str]:
    """Yield the base URL of a server that reads nothing for some time, and then answers."""
    body = b'{"choices": [{"message": {"content": "read"}, "finish_reason": "stop"}]}'
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    waiting = threading.Event()

    def serve() -> None:
        peer, _ = server.accept()
        with peer:
            waiting.wait(pause)
            data = peer.recv(65536)
            head, _, rest = data.partition(b"\r\n\r\n")
            left = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            left -= len(rest)
            while left > 0:
                left -= len(peer.recv(1 << 20))
            peer.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        finally:
            thread.join()


def test_sending_a_large_prompt_may_take_longer_than_connecting(make: Make) -> None:
    with slow_reader(0.4) as url:
        multiplexer = make("alpha", urls={"alpha": url}, connect_timeout_ms=100)
        large = [{"role": "user", "content": "x" * 20_000_000}]
        assert multiplexer.complete(large).text == "read"


def test_deadlines_work_after_the_start_of_their_thread_was_prevented(
    make: Make, alpha: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha.default = Silence()
    multiplexer = make("alpha")

    def interrupted(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            multiplexer.complete(PING)
    assert multiplexer.status().models[0].in_flight == 0

    def call() -> None:
        with pytest.raises(PoolExhaustedError):
            multiplexer.complete(PING, timeout=LIMIT)

    in_time(call)


def test_closing_after_an_interrupted_start_works(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    multiplexer = make("alpha")

    def interrupted(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            multiplexer.complete(PING)
    multiplexer.close()


def test_a_timeout_that_is_no_number_is_reported(make: Make) -> None:
    with pytest.raises(ValueError, match=r"timeout is not a number \(nan\)"):
        make("alpha").complete(PING, timeout=float("nan"))
