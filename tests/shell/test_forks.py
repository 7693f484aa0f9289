"""A forked child has its own pool, and does not disturb its parent's."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest

from muxcore import MultiplexerError
from muxcore.shell.call import multiplexer as module
from muxcore.shell.call.cancellation import Cancellation
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.standin import Model, Stall, server_error
from tests.waiting import PATIENCE, wait_until

Make = Callable[..., Multiplexer]
Start = Callable[..., Future[Any]]

PING = [{"role": "user", "content": "ping"}]

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def in_a_child(act: Callable[[], None]) -> None:
    """Run a function in a forked child, and fail if it fails there."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # The warning about locks of other threads: the test shows that they do no harm.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            act()
        except BaseException:  # noqa: BLE001 - sent to the parent
            os.write(writing, traceback.format_exc().encode()[-4000:] or b"?")
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        error = pipe.read().decode()
    os.waitpid(child, 0)
    assert not error, error


def in_flight(multiplexer: Multiplexer) -> int:
    return sum(model.in_flight for model in multiplexer.status().models)


@forks
def test_a_child_uses_its_own_connections(make: Make, alpha: Model) -> None:
    multiplexer = make("alpha")
    multiplexer.complete(PING)

    def act() -> None:
        assert multiplexer.complete(PING, timeout=PATIENCE).model == "alpha"
        multiplexer.close()

    in_a_child(act)
    # The parent's connection is unchanged and still in use.
    assert multiplexer.complete(PING).model == "alpha"
    first, of_child, second = [request.connection for request in alpha.requests]
    assert first == second != of_child
    assert multiplexer.status().models[0].success_count == 2


@forks
def test_a_child_has_no_calls_of_its_parent_under_way(
    make: Make, start: Start, alpha: Model
) -> None:
    multiplexer = make({"model": "alpha", "max_concurrent": 1})
    cancellation = Cancellation()
    alpha.hold()
    running = start(multiplexer.complete, PING, cancellation=cancellation)
    alpha.wait_for(lambda model: model.in_flight == 1)
    waiting = start(multiplexer.complete, PING)
    wait_until(lambda: multiplexer._runtime.pool._line)

    def act() -> None:
        assert in_flight(multiplexer) == 0
        assert multiplexer.status().models[0].cancelled_count == 1
        assert multiplexer.state["alpha"].tally.ended == multiplexer.state.attempts
        # Shutting the socket would end the parent's call.
        cancellation.cancel()
        multiplexer.close()

    in_a_child(act)
    assert in_flight(multiplexer) == 1
    alpha.release()
    assert running.result(PATIENCE).model == "alpha"
    assert waiting.result(PATIENCE).model == "alpha"
    assert len(alpha.requests) == 2


@forks
def test_a_child_is_not_locked_out_by_a_lock_of_its_parent(make: Make) -> None:
    multiplexer = make("alpha")
    multiplexer.complete(PING)
    with (
        multiplexer._runtime.pool._guard,
        multiplexer._runtime.deadlines._starting,
        multiplexer._runtime.members["alpha"]._lock,
    ):
        in_a_child(lambda: expect_served(multiplexer))
    expect_served(multiplexer)


def expect_served(multiplexer: Multiplexer) -> None:
    assert multiplexer.complete(PING, timeout=PATIENCE).model == "alpha"


@forks
def test_a_stream_of_the_parent_cannot_be_used_in_the_child(
    make: Make, alpha: Model
) -> None:
    alpha.then(Stall(1))
    multiplexer = make({"model": "alpha", "max_concurrent": 1})
    with multiplexer.stream(PING) as stream:
        word = next(chunk.text for chunk in stream if chunk.text)

        def act() -> None:
            with pytest.raises(MultiplexerError, match="forked"):
                list(stream)
            assert multiplexer.status().models[0].cancelled_count == 1
            expect_served(multiplexer)

        in_a_child(act)
        alpha.release()
        text = word + "".join(chunk.text for chunk in stream)
    assert text == "pong from model-a"
    assert multiplexer.status().models[0].success_count == 1


@forks
def test_the_child_knows_the_state_of_the_parent(make: Make, alpha: Model) -> None:
    multiplexer = make("alpha", {"model": "beta", "is_fallback": True})
    alpha.then(server_error())
    assert multiplexer.complete(PING).model == "beta"

    def act() -> None:
        assert multiplexer.status().models[0].is_disabled
        assert multiplexer.complete(PING, timeout=PATIENCE).model == "beta"

    in_a_child(act)


def test_after_a_fork_no_call_is_under_way(make: Make, start: Start, alpha: Model) -> None:
    # In one process, so that the effects can be checked.
    multiplexer = make({"model": "alpha", "max_concurrent": 1})
    alpha.hold()
    running = start(multiplexer.complete, PING)
    alpha.wait_for(lambda model: model.in_flight == 1)
    former, its_bell = (
        multiplexer._runtime.deadlines._thread,
        multiplexer._runtime.deadlines._parker,
    )
    assert former is not None
    module._after_fork()
    assert in_flight(multiplexer) == 0
    alpha.release()
    # The call that was under way raises an error that names the fork.
    running.exception(PATIENCE)
    expect_served(multiplexer)
    assert former is not multiplexer._runtime.deadlines._thread
    multiplexer.close()
    # Without a real fork, it is still there.
    its_bell.unpark()
    former.join()


def test_a_call_of_the_parent_raises_in_the_child(make: Make, alpha: Model) -> None:
    multiplexer = make("alpha")
    with forked_meanwhile(multiplexer), pytest.raises(MultiplexerError) as caught:
        multiplexer.complete(PING)
    assert str(caught.value) == (
        "the call cannot continue: it belongs to the process that this one was forked from"
    )


@contextmanager
def forked_meanwhile(multiplexer: Multiplexer) -> Generator[None]:
    deadlines = multiplexer._runtime.deadlines
    add = deadlines.add

    def forked(scope: Any) -> None:
        add(scope)
        scope.after_fork()

    deadlines.add = forked  # type: ignore[method-assign]
    try:
        yield
    finally:
        deadlines.add = add  # type: ignore[method-assign]


@forks
def test_multiprocessing_by_fork_works() -> None:
    # Forked while a thread of the pool runs, as a data loader does.
    script = """
import multiprocessing, sys, warnings
warnings.simplefilter("ignore")
from muxcore import Multiplexer
from muxcore.standin import Model, StandInServer

def ask(number):
    text = multiplexer.complete([{"role": "user", "content": str(number)}], timeout=60).text
    return text

with StandInServer([Model("m")]) as server:
    config = {
        "providers": [{"name": "p", "api_base": server.url}],
        "models": [{"name": "m", "provider": "p", "alias": "a"}],
        "active_model": "a",
        "multiplexer": {"enabled": True},
    }
    with Multiplexer.from_config(config, env={}) as multiplexer:
        ask(0)
        with multiprocessing.get_context("fork").Pool(2) as processes:
            print(processes.map(ask, range(6)) == ["pong from m"] * 6)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.stdout.strip(), done.stderr) == ("True", "")
