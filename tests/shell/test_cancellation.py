"""Ending calls from outside: cancelled, closed, collected."""

from __future__ import annotations

import gc
import socket
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import pytest

from muxcore import MultiplexerError
from muxcore.core.outcomes import CancelReason
from muxcore.errors import CallCancelledError, ClosedError
from muxcore.shell.call.cancellation import Cancellation
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.shell.http import transport
from muxcore.shell.http.cancel_scope import CancelScope, Deadlines, StopReason
from muxcore.standin import (
    Behaviour,
    Drip,
    Dripping,
    HeadersOnly,
    Model,
    Silence,
    Stall,
    server_error,
)
from tests.waiting import PATIENCE, wait_until

Make = Callable[..., Multiplexer]
Start = Callable[..., Future[Any]]

PING = [{"role": "user", "content": "ping"}]
FALLBACK = {"model": "beta", "is_fallback": True}


def expect_nothing_changed(multiplexer: Multiplexer, cancelled: int) -> None:
    for model in multiplexer.status().models:
        assert (model.in_flight, model.is_disabled, model.fail_count) == (0, False, 0)
    counted = sum(model.cancelled_count for model in multiplexer.status().models)
    assert counted == cancelled


def read_all(multiplexer: Multiplexer, **options: Any) -> str:
    with multiplexer.stream(PING, **options) as stream:
        return "".join(chunk.text for chunk in stream)


STAGES: dict[str, Behaviour] = {
    "silent": Silence(),
    "in the headers": Drip(Dripping.HEADERS, timedelta(milliseconds=50)),
    "after the headers": HeadersOnly(),
    "before the content": Stall(0),
    "in the content": Stall(1),
}


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("stage", STAGES)
def test_a_call_can_be_cancelled_at_every_step(
    make: Make, start: Start, alpha: Model, stage: str, *, streams: bool
) -> None:
    alpha.default = STAGES[stage]
    multiplexer = make("alpha", FALLBACK)
    cancellation = Cancellation()
    ask = multiplexer.complete if not streams else lambda _, **o: read_all(multiplexer, **o)
    call = start(ask, PING, cancellation=cancellation)
    alpha.wait_for(lambda model: model.in_flight == 1)
    assert not cancellation.cancelled
    cancellation.cancel()
    cancellation.cancel()
    assert cancellation.cancelled
    error = call.exception(PATIENCE)
    assert type(error) is CallCancelledError
    assert str(error) == "cancelled"
    expect_nothing_changed(multiplexer, cancelled=1)
    alpha.wait_for(lambda model: model.in_flight == 0)


def test_a_call_cancelled_before_it_began_makes_no_attempt(
    make: Make, alpha: Model
) -> None:
    multiplexer = make("alpha")
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(MultiplexerError, match=r"^cancelled$"):
        multiplexer.complete(PING, cancellation=cancellation)
    assert not alpha.requests
    expect_nothing_changed(multiplexer, cancelled=0)


def test_a_call_cancelled_as_its_attempt_begins_sends_nothing(
    make: Make, alpha: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    multiplexer = make("alpha")
    cancellation = Cancellation()
    attach_attempt = Cancellation.attach_attempt

    def cancelled_first(self: Cancellation, scope: CancelScope) -> None:
        self.cancel()
        attach_attempt(self, scope)

    monkeypatch.setattr(Cancellation, "attach_attempt", cancelled_first)
    with pytest.raises(MultiplexerError, match=r"^cancelled$"):
        multiplexer.complete(PING, cancellation=cancellation)
    assert not alpha.requests
    expect_nothing_changed(multiplexer, cancelled=1)


def test_a_waiting_call_can_be_cancelled(make: Make, start: Start, alpha: Model) -> None:
    multiplexer = make({"model": "alpha", "max_concurrent": 1})
    alpha.hold()
    first = start(multiplexer.complete, PING)
    alpha.wait_for(lambda model: model.in_flight == 1)
    cancellation = Cancellation()
    second = start(multiplexer.complete, PING, cancellation=cancellation)
    wait_until(lambda: len(multiplexer._runtime.pool._line) == 1)
    third = start(multiplexer.complete, PING)
    wait_until(lambda: len(multiplexer._runtime.pool._line) == 2)
    cancellation.cancel()
    assert str(second.exception(PATIENCE)) == "cancelled"
    alpha.release()
    assert first.result(PATIENCE).model == "alpha"
    assert third.result(PATIENCE).model == "alpha"
    expect_nothing_changed(multiplexer, cancelled=0)


def test_a_call_between_two_attempts_can_be_cancelled(
    make: Make, start: Start, alpha: Model
) -> None:
    # A pool of one that failed waits for a second before it tries again.
    alpha.default = server_error()
    multiplexer = make("alpha")
    cancellation = Cancellation()
    call = start(multiplexer.complete, PING, cancellation=cancellation)
    wait_until(lambda: len(multiplexer._runtime.pool._line) == 1)
    cancellation.cancel()
    assert str(call.exception(PATIENCE)) == "cancelled"
    assert len(alpha.requests) == 1


def test_cancelling_after_the_end_affects_no_other_call(
    make: Make, start: Start, alpha: Model
) -> None:
    multiplexer = make("alpha")
    cancellation = Cancellation()
    multiplexer.complete(PING, cancellation=cancellation)
    alpha.hold()
    # On the connection of the first call.
    second = start(multiplexer.complete, PING)
    alpha.wait_for(lambda model: model.in_flight == 1)
    assert len({request.connection for request in alpha.requests}) == 1
    cancellation.cancel()
    alpha.release()
    assert second.result(PATIENCE).model == "alpha"
    assert len(alpha.requests) == 2


def test_a_reused_connection_belongs_to_the_new_attempt_only() -> None:
    one, other = socket.socketpair()
    with one, other:
        first, second = CancelScope(9e9, 9e9), CancelScope(9e9, 9e9)
        first.attach(one)
        first.detach_if(other)
        first.detach_if(one)
        second.attach(one)
        first.cancel(CancelReason.LEFT)
        other.send(b"still there")
        assert one.recv(20) == b"still there"
        second.cancel(CancelReason.LEFT)
        assert one.recv(1) == b""


def test_a_cancellation_can_serve_one_call_after_another(make: Make, alpha: Model) -> None:
    multiplexer = make("alpha")
    cancellation = Cancellation()
    for _ in range(2):
        assert multiplexer.complete(PING, cancellation=cancellation).model == "alpha"
    cancellation.cancel()
    with pytest.raises(MultiplexerError, match=r"^cancelled$"):
        multiplexer.complete(PING, cancellation=cancellation)
    assert len(alpha.requests) == 2


# Closing.


@pytest.mark.parametrize("end", ["cancelled", "closed"])
def test_cancelling_ends_a_stream_in_the_middle_of_its_text(
    make: Make, start: Start, alpha: Model, end: str
) -> None:
    alpha.default = Stall(1)
    multiplexer = make("alpha", FALLBACK)
    cancellation = Cancellation()
    begun = threading.Event()

    def read() -> None:
        with multiplexer.stream(PING, cancellation=cancellation) as stream:
            for chunk in stream:
                assert chunk
                begun.set()

    call = start(read)
    assert begun.wait(PATIENCE)
    (cancellation.cancel if end == "cancelled" else multiplexer.close)()
    error = call.exception(PATIENCE)
    assert type(error) is (CallCancelledError if end == "cancelled" else ClosedError)
    assert str(error) == end
    expect_nothing_changed(multiplexer, cancelled=1)


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("stage", STAGES)
def test_closing_cancels_running_calls(
    make: Make, start: Start, alpha: Model, stage: str, *, streams: bool
) -> None:
    alpha.default = STAGES[stage]
    multiplexer = make("alpha", FALLBACK)
    ask = multiplexer.complete if not streams else lambda _: read_all(multiplexer)
    call = start(ask, PING)
    alpha.wait_for(lambda model: model.in_flight == 1)
    multiplexer.close()
    error = call.exception(PATIENCE)
    assert type(error) is ClosedError
    assert str(error) == "closed"
    expect_nothing_changed(multiplexer, cancelled=1)


def test_closing_ends_waits(make: Make, start: Start, alpha: Model) -> None:
    multiplexer = make({"model": "alpha", "max_concurrent": 1})
    alpha.hold()
    calls = [start(multiplexer.complete, PING)]
    alpha.wait_for(lambda model: model.in_flight == 1)
    calls += [start(multiplexer.complete, PING) for _ in range(3)]
    wait_until(lambda: len(multiplexer._runtime.pool._line) == 3)
    multiplexer.close()
    errors = [call.exception(PATIENCE) for call in calls]
    assert [str(error) for error in errors] == ["closed"] * 4
    # One error each: a shared one would mix up the tracebacks of the threads.
    assert len(set(map(id, errors))) == 4
    expect_nothing_changed(multiplexer, cancelled=1)


def test_calls_on_a_closed_multiplexer_are_refused(make: Make, alpha: Model) -> None:
    multiplexer = make("alpha")
    stream = multiplexer.stream(PING)
    multiplexer.close()
    multiplexer.close()
    with pytest.raises(MultiplexerError, match=r"^closed$"):
        multiplexer.complete(PING)
    with pytest.raises(MultiplexerError, match=r"^closed$"), stream:
        pass
    assert not alpha.requests
    # Its status can still be read.
    assert multiplexer.status().models_available == 1


def test_a_call_during_closing_is_refused(
    make: Make, alpha: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Between the first look and the choice, and between the choice and the attempt.
    for place in ("choose", "add"):
        multiplexer = make("alpha")
        owner = (
            multiplexer._runtime.pool
            if place == "choose"
            else multiplexer._runtime.deadlines
        )
        original = getattr(owner, place)

        def closing_first(
            *arguments: Any, _close: Any = multiplexer.close, _then: Any = original
        ) -> Any:
            _close()
            return _then(*arguments)

        monkeypatch.setattr(owner, place, closing_first)
        with pytest.raises(MultiplexerError, match=r"^closed$"):
            multiplexer.complete(PING)
        assert multiplexer.status().models[0].in_flight == 0
    assert not alpha.requests


def test_a_stream_that_was_read_to_its_end_is_not_affected_by_closing(make: Make) -> None:
    multiplexer = make("alpha")
    with multiplexer.stream(PING) as stream:
        list(stream)
        multiplexer.close()
    assert stream.reply.text == "pong from model-a"


def test_no_thread_is_left_after_closing(make: Make) -> None:
    multiplexer = make("alpha")
    multiplexer.complete(PING)
    (thread,) = [t for t in threading.enumerate() if t.name == "vibe-mux limits"]
    assert thread.daemon
    multiplexer.close()
    assert not thread.is_alive()


def test_a_collected_multiplexer_ends_its_thread_and_its_connections(
    server: Any, alpha: Model
) -> None:
    config = {
        "providers": [{"name": "p", "api_base": server.url}],
        "models": [{"name": "model-a", "provider": "p", "alias": "alpha"}],
        "active_model": "alpha",
        "multiplexer": {"enabled": True},
    }
    multiplexer = Multiplexer.from_config(config, env={})
    multiplexer.complete(PING)
    (thread,) = [t for t in threading.enumerate() if t.name == "vibe-mux limits"]
    gone = weakref.ref(multiplexer)
    del multiplexer
    gc.collect()
    assert gone() is None
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_multiplexer_without_a_call_has_no_thread(make: Make) -> None:
    make("alpha").status()
    assert "vibe-mux limits" not in [thread.name for thread in threading.enumerate()]


def test_deadlines_may_be_closed_by_their_own_thread() -> None:
    # The garbage collector may run there.
    deadlines = Deadlines()
    closed = threading.Event()

    class Closing(CancelScope):
        def cancel(self, reason: StopReason) -> None:
            super().cancel(reason)
            deadlines.close()
            closed.set()

    deadlines.add(Closing(0.0, 0.0))
    assert closed.wait(PATIENCE)


def test_closing_ends_both_threads_after_an_interrupted_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deadlines = Deadlines()
    deadlines.add(CancelScope(9e9, 9e9))
    first = deadlines._thread
    with monkeypatch.context() as patch:
        # As after an interrupt just before the thread reported that it runs.
        patch.setattr(threading.Thread, "is_alive", lambda _: False)
        deadlines.add(CancelScope(9e9, 9e9))
    second = deadlines._thread
    assert first is not None
    assert second is not None
    assert first is not second
    # It still cancels, whichever of the threads is woken.
    scope = CancelScope(0.0, 0.0)
    deadlines.add(scope)
    wait_until(lambda: scope.reason is not None)
    deadlines.close()
    first.join(PATIENCE)
    assert not first.is_alive()
    assert not second.is_alive()


def test_a_scope_added_after_closing_is_cancelled_at_once() -> None:
    deadlines = Deadlines()
    deadlines.close()
    scope = CancelScope(9e9, 9e9)
    deadlines.add(scope)
    assert scope.reason is CancelReason.CLOSED
    # A start after closing has no effect.
    deadlines._start()
    assert deadlines._thread is None


def test_a_scope_cancelled_before_it_has_a_socket_shuts_that_down() -> None:
    one, other = socket.socketpair()
    with one, other:
        scope = CancelScope(9e9, 9e9)
        scope.cancel(CancelReason.LEFT)
        scope.cancel(CancelReason.CLOSED)
        scope.attach(one)
        assert scope.reason is CancelReason.LEFT
        assert other.recv(1) == b""
        scope.detach()


def test_nothing_is_sent_for_a_cancelled_attempt(alpha: Model) -> None:
    scope = CancelScope(9e9, 9e9)
    scope.cancel(CancelReason.CLOSED)
    sent = transport.send(None, None, None, (1, 1), scope)  # type: ignore[arg-type]
    assert isinstance(sent, transport.TransportError)
    assert str(sent) == "closed"
