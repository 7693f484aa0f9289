"""Ctrl-C at any point of a call that needs a slot of a board: nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from muxcore import Multiplexer
from muxcore.board.file import FileBoard
from muxcore.core.sharing.facts import WindowLearnt
from muxcore.shell import clock
from tests.interrupting import MOST_POINTS, interrupting
from tests.waiting import PATIENCE, wait_until

PING = [{"role": "user", "content": "ping"}]
CALLING = (
    "muxcore.board.link",
    "muxcore.board.thread",
    "muxcore.journal.recent",
    "muxcore.shell.sharing",
)
"""What a call runs for its board, in its own thread."""

# An exception in a `__del__` is ignored.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_an_interrupt_at_any_point_loses_no_slot_and_leaves_no_transaction_open(
    make: Callable[..., Multiplexer], state_file: Path
) -> None:
    multiplexer = make({"model": "alpha", "max_concurrent": 1}, max_wait_ms=60_000)
    multiplexer.complete(PING)
    other = FileBoard(now=clock.now, environment={}, path=state_file)
    with interrupting(*CALLING) as interrupts:
        for point in range(1, MOST_POINTS):
            with suppress(KeyboardInterrupt), interrupts.at(point):
                multiplexer.complete(PING, timeout=PATIENCE)
            assert multiplexer.complete(PING, timeout=PATIENCE).model == "alpha"
            if not interrupts.raised:
                break
    assert interrupts.interrupted == {"board", "journal", "shell"}
    assert not multiplexer.status().notices
    multiplexer.reset()
    wait_until(lambda: other.database.read("SELECT count(*) FROM leases") == [(0,)])
    other.publish("here", WindowLearnt(1))
    multiplexer.close()
    numbers = [number for (number,) in other.database.read("SELECT number FROM lines")]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    other.close()
