"""Ctrl-C at any point: no slot is lost, nothing stays locked, and the next call works."""

from __future__ import annotations

import dis
import gc
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from importlib import import_module
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from muxcore import PoolExhaustedError
from muxcore.shell.call.cancellation import Cancellation
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.standin import Model, server_error
from tests.waiting import PATIENCE, wait_until

Make = Callable[..., Multiplexer]

PING = [{"role": "user", "content": "ping"}]
FALLBACK = {"model": "beta", "is_fallback": True}

WATCHED = {
    import_module(f"muxcore.shell.{name}").__file__
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
}
MOST_POINTS = 20_000
"""More points than a call has in any version of Python: only an endless call gets there."""

# An exception in a `__del__` is ignored.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@cache
def jumps_back(code: CodeType) -> frozenset[int]:
    """The offsets of its jumps backwards."""
    return frozenset(
        instruction.offset
        for instruction in dis.get_instructions(code)
        if instruction.opname.startswith("JUMP_BACKWARD")
    )


monitoring: Any = getattr(sys, "monitoring", None)
"""What `sys` has since Python 3.12."""


class Interrupting:
    """Raises KeyboardInterrupt at the n-th point where CPython looks for signals.

    Those are the beginning of a Python function, a jump backwards, and the return of a
    function in C, such as that of a lock.
    """

    def __init__(self) -> None:
        self.tool = 0
        self.left = 0
        self.raised = False
        self.interrupted: set[str] = set()
        """The packages in which it raised."""
        self.place = ""
        """Where it raised, for the report of a failure."""

    def start(self, code: CodeType, offset: int) -> None:
        if code.co_filename in WATCHED and jumps_back(code):
            # Not the event for jumps: an exception raised there skips `finally`.
            monitoring.set_local_events(self.tool, code, monitoring.events.INSTRUCTION)
        self.code(code, offset)

    def code(self, code: CodeType, _offset: int, *_: Any) -> None:
        if (
            self.left
            and code.co_filename in WATCHED
            and threading.current_thread() is threading.main_thread()
        ):
            self.left -= 1
            if not self.left:
                self.raised = True
                self.interrupted.add(Path(code.co_filename).parent.name)
                self.place = "".join(traceback.format_stack(sys._getframe(1), 4))
                raise KeyboardInterrupt

    def instruction(self, code: CodeType, offset: int) -> None:
        if offset in jumps_back(code):
            self.code(code, offset)

    @contextmanager
    def at(self, point: int) -> Generator[None]:
        self.left, self.raised = point, False
        try:
            yield
        finally:
            self.left = 0


@pytest.fixture
def interrupting() -> Generator[Interrupting]:
    if sys.version_info < (3, 12):
        pytest.skip("these points need sys.monitoring, of Python 3.12")
    interrupting = Interrupting()
    events = monitoring.events
    callbacks: dict[int, Any] = {
        events.CALL: lambda *_: None,
        events.C_RETURN: interrupting.code,
        events.PY_START: interrupting.start,
        events.PY_RESUME: interrupting.code,
        events.INSTRUCTION: interrupting.instruction,
    }
    tool = next(number for number in (4, 3) if monitoring.get_tool(number) is None)
    monitoring.use_tool_id(tool, "interrupting")
    try:
        for event, callback in callbacks.items():
            monitoring.register_callback(tool, event, callback)
        monitoring.set_events(tool, events.CALL | events.PY_START | events.PY_RESUME)
        interrupting.tool = tool
        yield interrupting
    finally:
        monitoring.set_events(tool, 0)
        for event in callbacks:
            monitoring.register_callback(tool, event, None)
        monitoring.free_tool_id(tool)


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
    numbers = [line.number for line in inner.journal.lines()]
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
