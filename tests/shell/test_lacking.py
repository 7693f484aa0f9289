"""A lack of descriptors, threads or a complete import is no failure of a model."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from muxcore import MultiplexerError
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.standin import Model, StandInServer
from tests.processes import PYTHONPATH
from tests.waiting import PATIENCE

Make = Callable[..., Multiplexer]
PING = [{"role": "user", "content": "ping"}]
LACKING = "this machine has no more files, memory or threads to give"

posix = pytest.mark.skipif(os.name == "nt", reason="limits and forks are POSIX's")


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def ask_for_a_whole_answer(multiplexer: Multiplexer) -> None:
    multiplexer.complete(PING)


def ask_for_a_stream(multiplexer: Multiplexer) -> None:
    with multiplexer.stream(PING) as stream:
        list(stream)


def expect_untouched(multiplexer: Multiplexer) -> None:
    for model in multiplexer.status().models:
        assert (model.in_flight, model.fail_count, model.is_disabled) == (0, 0, False)


@posix
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_without_descriptors_is_an_error_and_disables_no_model(
    make: Make, alpha: Model, stream: bool
) -> None:
    # All is imported by now.
    ask_for_a_whole_answer(make("beta"))
    ask_for_a_stream(make("beta"))
    multiplexer = make("alpha", "beta")
    ask = ask_for_a_stream if stream else ask_for_a_whole_answer
    with no_more_descriptors(), pytest.raises(MultiplexerError, match=LACKING):
        ask(multiplexer)
    assert not alpha.requests
    expect_untouched(multiplexer)
    assert multiplexer.complete(PING).model == "alpha"


def test_a_call_without_a_thread_for_its_limits_is_an_error(
    make: Make, alpha: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    multiplexer = make("alpha", "beta")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(MultiplexerError, match=LACKING):
            multiplexer.complete(PING)
    expect_untouched(multiplexer)
    assert multiplexer.complete(PING).model == "alpha"


MADE = """
import os, signal, sys, threading
from muxcore import Multiplexer, MultiplexerError
multiplexer = Multiplexer.from_config({{
    "active_model": "alpha",
    "providers": [{{"name": "p", "api_base": {url!r}, "backend": "generic"}}],
    "models": [{{"name": "model-a", "provider": "p", "alias": "alpha"}}],
    "multiplexer": {{"enabled": True, "pool": [{{"model": "alpha"}}], "mode": "failover"}},
}}, env={{}})
PING = [{{"role": "user", "content": "ping"}}]
assert "requests" not in sys.modules
"""

WITHOUT_DESCRIPTORS = """
import resource
before = resource.getrlimit(resource.RLIMIT_NOFILE)
free = os.open(os.devnull, os.O_RDONLY)
os.close(free)
for spare in range(12):
    # Half way through, whatever the number is.
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + spare, before[1]))
    try:
        multiplexer.complete(PING)
    except MultiplexerError as error:
        assert "disabled" not in str(error), error
resource.setrlimit(resource.RLIMIT_NOFILE, before)
assert multiplexer.complete(PING).text == "pong from model-a"
assert multiplexer.status().models[0].fail_count == 0
import urllib3.connection
assert urllib3.connection.ssl is not None
"""

FORKED = """
from importlib.abc import MetaPathFinder
importing, forked = threading.Event(), threading.Event()
class Slow(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "urllib3":
            importing.set()
            # The fork comes now, or waits for this.
            forked.wait(0.5)
sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=multiplexer.complete, args=(PING,))
thread.start()
importing.wait()
child = os.fork()
if not child:
    signal.alarm(20)
    assert multiplexer.complete(PING).text == "pong from model-a"
    os._exit(0)
forked.set()
thread.join()
_, status = os.waitpid(child, 0)
assert status == 0, status
"""


@posix
@pytest.mark.parametrize(
    "script", [WITHOUT_DESCRIPTORS, FORKED], ids=["descriptors", "fork"]
)
def test_the_very_first_call_survives(server: StandInServer, script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MADE.format(url=server.url) + script],
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
