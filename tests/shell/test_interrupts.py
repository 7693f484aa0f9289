"""Ctrl-C at any point: no slot is lost, nothing stays locked, and the next call works."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from muxcore import PoolExhaustedError
from muxcore.shell.call.cancellation import Cancellation
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.standin import Model, server_error
from tests.interrupting import MOST_POINTS, Interrupting
from tests.interrupting import interrupting as interrupting_in
from tests.waiting import PATIENCE, wait_until

Make = Callable[..., Multiplexer]

PING = [{"role": "user", "content": "ping"}]
FALLBACK = {"model": "beta", "is_fallback": True}

WATCHED = [
    f"muxcore.shell.{name}"
    for name in (
        "call.attempts",
        "call.arguments",
        "call.cancellation",
        "call.decoding",
        "call.loop",
        "call.member",
        "call.multiplexer",
        "call.runner",
        "call.stream",
        "http.cancel_scope",
        "http.connections",
        "http.fast_path",
        "http.transport",
        "pool.parker",
        "pool.pool",
        "pool.waiter",
    )
]

# An exception in a `__del__` is ignored.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def interrupting() -> Generator[Interrupting]:
    with interrupting_in(*WATCHED) as made:
        yield made


def expect_well(multiplexer: Multiplexer) -> None:
    """No slot is held or lost."""
    if any(candidate.health.in_flight for candidate in multiplexer.state.candidates):
        # A stream may be in a cycle with the traceback of its interrupt.
        gc.collect()
        multiplexer.reset()
    state = multiplexer.state
    for candidate in state.candidates:
        assert candidate.health.in_flight == 0
    assert sum(candidate.tally.ended for candidate in state.candidates) == state.attempts
    inner = multiplexer._runtime.pool
    assert not inner._guard.locked()
    assert inner._line == ()
    # The next change delivers what an interrupt left undelivered: here the end of a call.
    multiplexer.reset()
    assert inner._undelivered is None
    # Of the last changes alone: all entries, without their texts, take longer than a call.
    numbers = [
        number + place
        for number, _, entries, _ in inner.journal._kept()[-50:]
        for place in range(len(entries))
    ]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert multiplexer.complete(PING, timeout=PATIENCE).text.startswith("pong")


def complete(multiplexer: Multiplexer) -> None:
    multiplexer.complete(PING, cancellation=Cancellation())


def stream(multiplexer: Multiplexer) -> None:
    with multiplexer.stream(PING) as stream:
        for _ in stream:
            pass


def leave(multiplexer: Multiplexer) -> None:
    with multiplexer.stream(PING) as stream:
        next(stream)


def time_out(multiplexer: Multiplexer) -> None:
    with suppress(PoolExhaustedError):
        multiplexer.complete(PING, timeout=0)


def forget(multiplexer: Multiplexer) -> None:
    stream = multiplexer.stream(PING).__enter__()
    next(stream)
    del stream


@pytest.mark.parametrize("act", [complete, stream, leave, time_out])
def test_an_interrupt_at_any_point_of_a_call_loses_nothing(
    make: Make,
    alpha: Model,
    interrupting: Interrupting,
    act: Callable[[Multiplexer], None],
) -> None:
    made = make({"model": "alpha", "max_concurrent": 1}, FALLBACK)
    act(made)
    for point in range(1, MOST_POINTS):
        # Failing over, so that a call goes through every kind of step.
        alpha.then(server_error())
        with suppress(KeyboardInterrupt), interrupting.at(point):
            act(made)
        raised = interrupting.raised
        alpha._queue.clear()
        try:
            expect_well(made)
        except BaseException:
            print(interrupting.place)
            raise
        if not raised:
            assert interrupting.interrupted >= {"call", "http", "pool"}
            return
    raise AssertionError("the call never came to its end")


def test_an_interrupt_while_the_collector_ends_a_stream_loses_nothing(
    make: Make, interrupting: Interrupting, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A reference to the exception keeps the stream alive.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    made = make({"model": "alpha", "max_concurrent": 1})
    forget(made)
    for point in range(1, MOST_POINTS):
        stream = made.stream(PING).__enter__()
        next(stream)
        with suppress(KeyboardInterrupt), interrupting.at(point):
            del stream
        # The next change completes the interrupted one.
        made.reset()
        expect_well(made)
        if not interrupting.raised:
            assert interrupting.interrupted >= {"call", "pool"}
            return
    raise AssertionError("the stream never came to its end")


class Interrupt(threading.Thread):
    """Interrupts this process as soon as a condition holds."""

    def __init__(self, condition: Callable[[], object]) -> None:
        super().__init__()
        self._condition = condition

    def run(self) -> None:
        wait_until(self._condition)
        # To that thread: a signal to this one would not end its sleep.
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)


@pytest.mark.skipif(os.name == "nt", reason="there, a signal does not end a wait")
def test_an_interrupt_ends_a_wait_and_a_silence(make: Make, alpha: Model) -> None:
    made = make({"model": "alpha", "max_concurrent": 1})
    alpha.hold()
    # In silence.
    interrupt = Interrupt(lambda: alpha.in_flight)
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        made.complete(PING)
    interrupt.join()
    alpha.wait_for(lambda model: model.in_flight == 0)

    # In the line, behind another.
    other = threading.Thread(target=made.complete, args=(PING,))
    other.start()
    alpha.wait_for(lambda model: model.in_flight == 1)
    interrupt = Interrupt(lambda: made._runtime.pool._line)
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        made.complete(PING)
    interrupt.join()
    assert made._runtime.pool._line == ()
    alpha.release()
    other.join()
    expect_well(made)


AT_ODD_MOMENTS = """
import signal
import time
from muxcore import Multiplexer
from muxcore.standin import Model, StandInServer

PING = [{"role": "user", "content": "ping"}]

def complete():
    multiplexer.complete(PING)

def stream():
    with multiplexer.stream(PING) as stream:
        list(stream)

def leave():
    with multiplexer.stream(PING) as stream:
        next(stream)

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
with StandInServer([Model("m")]) as server:
    config = {
        "providers": [{"name": "p", "api_base": server.url}],
        "models": [{"name": "m", "provider": "p", "alias": "a"}],
        "multiplexer": {
            "enabled": True,
            "mode": "failover",
            "pool": [{"model": "a", "max_concurrent": 1}],
        },
    }
    with Multiplexer.from_config(config, env={}) as multiplexer:
        acts = (complete, stream, leave)
        took = {}
        for act in acts * 2:
            began = time.perf_counter()
            act()
            took[act] = time.perf_counter() - began
        count = number = 0
        while count < 200:
            act = acts[number % 3]
            # At each of sixty moments of what it takes on this machine.
            moment = took[act] * (number % 60 + 1) / 60
            number += 1
            try:
                signal.setitimer(signal.ITIMER_REAL, moment)
                act()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                count += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        model = multiplexer.status().models[0]
        complete()
        print(model.in_flight, model.is_disabled)
"""


@pytest.mark.skipif(os.name == "nt", reason="there are no such timers")
def test_signals_at_any_moment_lose_nothing() -> None:
    # In its own process: a signal may interrupt the measurement of coverage too.
    done = subprocess.run(
        [sys.executable, "-c", AT_ODD_MOMENTS],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout == "0 False\n", done.stderr


def test_an_interrupt_holds_no_key(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("alpha", key="sk-canary-7f3a91c2d4e6")

    def interrupted(self: Any, data: Any) -> None:
        raise KeyboardInterrupt from ValueError(data)

    monkeypatch.setattr("http.client.HTTPConnection.send", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        made.complete(PING)
    error: BaseException = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_filename != __file__:
            assert "sk-canary" not in repr(frame.f_locals)
        trace = trace.tb_next
    monkeypatch.undo()
    assert made.complete(PING, timeout=timedelta(seconds=5).total_seconds())
