"""`/mux`, a fire drill, and vibe's terminal interface, with real vibes."""

from __future__ import annotations

import codecs
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from muxcore.shell import clock
from muxcore.standin import rate_limited
from tests.endtoend.conftest import FAULTS, VERSIONS, Desk
from tests.endtoend.screen import COLUMNS, ROWS, Screen

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="there is no pty on Windows"),
]
SECONDS = 60.0

in_a_terminal = pytest.mark.skipif(
    os.environ.get("VIBE_MUX_END_TO_END") not in {"all", "terminal"},
    reason="set VIBE_MUX_END_TO_END=terminal: what it reads is drawn at another's pace",
)


@pytest.mark.parametrize("version", VERSIONS)
def test_mux_is_answered_while_every_model_is_down(
    desks: Callable[..., Desk], version: str
) -> None:
    down = FAULTS["500"]
    mine = desks(version, "500", down)
    asked = mine.pooled("-p", "/mux")
    assert asked.code == 0
    assert "Multiplexer Status" in asked.said
    assert "2/2 models available" in asked.said
    assert not mine.large.requests
    assert not mine.small.requests
    assert asked.remarks.splitlines()[-1] == "vibe-mux: no model was called"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_fire_drill_is_seen_from_the_users_own_config(
    desks: Callable[..., Desk], version: str
) -> None:
    mine = desks(version)
    drilled = mine.pooled("-p", "say pong", options=("--break", "large=429@1"))
    assert (drilled.code, drilled.said) == (0, "pong 1 from small-model")
    assert "fire drill: large=429@1" in drilled.remarks
    assert "1 interruption avoided" in drilled.remarks
    assert not mine.large.requests


class Terminal:
    """A terminal with a program in it."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self._pid = pid
        self._descriptor = descriptor
        self._is_open = True
        self._screen = Screen()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def text(self) -> str:
        return self._screen.text

    def expect(self, words: str) -> None:
        """Wait until these are shown."""
        assert self._shows(words, SECONDS), f"no {words!r} in:\n{self.text}"

    def write(self, text: str) -> None:
        with suppress(OSError):
            os.write(self._descriptor, text.encode())

    def end(self) -> int:
        """Leave vibe as people do, read to the end, and return the exit status."""
        for _ in range(5):
            # The first may stop something instead; the next is asked for.
            self.write("\x03")
            if self._shows("again to ", 3.0):
                break
        self.write("\x03")
        ends = clock.elapsed() + SECONDS
        while self._is_open:
            assert clock.elapsed() < ends, f"it does not end:\n{self.text}"
            self._read()
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        os.close(self._descriptor)
        if self._pid:
            os.kill(self._pid, signal.SIGTERM)
            os.waitpid(self._pid, 0)

    def _shows(self, words: str, seconds: float) -> bool:
        ends = clock.elapsed() + seconds
        while words not in self.text and self._is_open and clock.elapsed() < ends:
            self._read()
        return words in self.text

    def _read(self) -> None:
        if not select.select([self._descriptor], [], [], 1.0)[0]:
            return
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:
            # Linux raises this once no process has the other side open.
            data = b""
        self._is_open = bool(data)
        if b"\x1b[6n" in data:
            self.write("\x1b[1;1R")
        if b"\x1b[c" in data:
            self.write("\x1b[?62c")
        self._screen.feed(self._decoder.decode(data))


@contextmanager
def terminal(mine: Desk, *command: str) -> Iterator[Terminal]:
    import fcntl
    import pty
    import struct
    import termios

    pid, descriptor = pty.fork()
    if pid == 0:  # pragma: no cover - the child becomes the program
        os.chdir(mine.work)
        os.execvpe(command[0], command, mine.env)  # noqa: S606 - no shell is wanted
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    opened = Terminal(pid, descriptor)
    try:
        yield opened
    finally:
        opened.close()


@in_a_terminal
@pytest.mark.parametrize("version", VERSIONS)
def test_the_terminal_interface_goes_through_the_pool(
    desks: Callable[..., Desk], version: str
) -> None:
    mine = desks(version, "429")
    before = mine.config.read_bytes()
    command = mine.mux("run", "--", str(mine.vibe), *mine.trusting)
    with terminal(mine, *command) as shown:
        shown.expect("0/200k tokens" if not version.startswith("1.") else "0% of 200k")
        shown.write("say pong")
        shown.expect("say pong")
        shown.write("\r")
        shown.expect("pong 1 from small-model")
        shown.write("/mux")
        # Those before 3 offer no skills; they send it as it is written.
        is_offered = version.startswith("3.")
        shown.expect("Show the status of the multiplexer" if is_offered else "mux")
        shown.write("\r")
        shown.expect("1/2 models available")
        assert shown.end() == 0
        assert "1 interruption avoided" in shown.text
    assert mine.config.read_bytes() == before


@in_a_terminal
def test_a_wait_is_shown_as_a_wait(desks: Callable[..., Desk]) -> None:
    from datetime import timedelta

    mine = desks(VERSIONS[0], "", rate_limited(timedelta(seconds=8)))
    mine.large.then(rate_limited(timedelta(seconds=8)))
    command = mine.mux("run", "--", str(mine.vibe), *mine.trusting)
    with terminal(mine, *command) as shown:
        shown.expect("0/200k tokens")
        shown.write("say pong")
        shown.expect("say pong")
        shown.write("\r")
        shown.expect("Retrying")
        shown.expect("pong 1 from large-model")
        assert shown.end() == 0
