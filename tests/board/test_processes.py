"""Real processes on one state file: shares, caps, limits, and kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from muxcore import Multiplexer
from muxcore.board.file import FileBoard
from muxcore.plugins.board import BoardBusyError, SlotLease
from muxcore.shell import clock
from muxcore.standin import Model, rate_limited
from muxcore.standin.script import Delayed
from tests.processes import PYTHONPATH
from tests.waiting import wait_until

Config: TypeAlias = Callable[..., dict[str, Any]]
PING = [{"role": "user", "content": "ping"}]
PROCESSES = 8

CALLS = """
import json, sys
from collections import Counter
from muxcore import Multiplexer
config, calls = json.loads(sys.argv[1]), int(sys.argv[2])
with Multiplexer.from_config(config, env={}) as multiplexer:
    print("ready", flush=True)
    sys.stdin.readline()
    served = Counter(
        multiplexer.complete([{"role": "user", "content": "ping"}], timeout=300).model
        for _ in range(calls)
    )
    print(json.dumps(served), flush=True)
"""

OBEYS = """
import json, sys, time
from muxcore import Multiplexer
with Multiplexer.from_config(json.loads(sys.argv[1]), env={}) as multiplexer:
    multiplexer.complete([{"role": "user", "content": "ping"}])
    print("ready", flush=True)
    while multiplexer.state["alpha"].health.limited is None:
        time.sleep(0.001)
    print(repr(time.monotonic()), flush=True)
    sys.stdin.readline()
"""

HOLDS = """
import os, sys
from pathlib import Path
from muxcore.board.file import FileBoard
from muxcore.plugins.board import BoardBusyError
from muxcore.shell import clock
from muxcore.core.sharing.facts import WindowLearnt
path = Path(sys.argv[1])
for line in sys.stdin:
    # The imports are paid once.
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    board = FileBoard(now=clock.now, environment={}, path=path)
    lease = board.take("slots", 1)
    while not lease.granted:
        lease = board.take("slots", 1, lease.ticket)
    os.write(1, b"%d\\n" % os.getpid())
    while True:
        try:
            board.publish("here", WindowLearnt(1))
        except BoardBusyError:
            pass
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": PYTHONPATH},
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.fixture
def run(config: Config) -> Iterator[Callable[..., list[dict[str, int]]]]:
    """Run calls in eight processes at once; return what each was served by."""
    processes: list[subprocess.Popen[str]] = []

    def run(calls: int, *pool: dict[str, Any], **section: Any) -> list[dict[str, int]]:
        made = json.dumps(config(*pool, max_wait_ms=300_000, **section))
        processes.extend(start(CALLS, made, str(calls)) for _ in range(PROCESSES))
        assert {line_of(process) for process in processes} == {"ready\n"}
        for process in processes:
            go(process)
        return [json.loads(line_of(process)) for process in processes]

    yield run
    for process in processes:
        process.communicate()


@pytest.mark.slow
def test_rule_10_each_process_keeps_its_shares_exactly(
    run: Callable[..., list[dict[str, int]]],
) -> None:
    pool = ({"model": "alpha", "weight": 2}, {"model": "beta"})
    served = run(30, *pool, mode="load_balance")
    assert served == [{"alpha": 20, "beta": 10}] * PROCESSES


@pytest.mark.slow
def test_rule_2_a_cap_of_three_holds_at_the_upstream(
    run: Callable[..., list[dict[str, int]]], alpha: Model
) -> None:
    alpha.default = Delayed(timedelta(milliseconds=5))
    served = run(20, {"model": "alpha", "max_concurrent": 3})
    assert served == [{"alpha": 20}] * PROCESSES
    assert alpha.max_in_flight == 3


@pytest.mark.slow
def test_a_limit_that_one_meets_is_known_to_all(config: Config, alpha: Model) -> None:
    made = config()
    others = [start(OBEYS, json.dumps(made)) for _ in range(PROCESSES - 1)]
    assert {line_of(process) for process in others} == {"ready\n"}
    with Multiplexer.from_config(made, env={}) as multiplexer:
        multiplexer.complete(PING)
        alpha.then(rate_limited(timedelta(seconds=90)))
        multiplexer.complete(PING)
        assert all(float(line_of(process)) for process in others)
    for process in others:
        process.communicate("\n")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_no_kill_loses_a_slot_or_a_waiter_or_damages_the_file(state_file: Path) -> None:
    """`VIBE_MUX_KILLS` sets how many processes are killed."""
    board = FileBoard(now=clock.now, environment={}, path=state_file)
    process = start(HOLDS, str(state_file))
    longest = 0.0
    for _ in range(int(os.environ.get("VIBE_MUX_KILLS", "50"))):
        go(process)
        holder = int(line_of(process))
        waiting = [_taken(board), _taken(board)]
        assert not any(lease.granted for lease in waiting)
        os.kill(holder, signal.SIGKILL)
        for lease in waiting:
            longest = max(longest, wait_until(partial(_granted, board, lease)))
            board.give_back(lease)
    process.communicate()
    print(f"longest wait after a death: {longest * 1000:.0f} ms")
    assert board.database.read("PRAGMA integrity_check") == [("ok",)]
    assert board.database.read("SELECT count(*) FROM leases") == [(0,)]
    board.close()
    assert list(state_file.parent.glob("*.holder")) == []


def _taken(board: FileBoard) -> SlotLease:
    leases: list[SlotLease] = []

    def taken() -> bool:
        try:
            leases.append(board.take("slots", 1))
        except BoardBusyError:
            return False
        return True

    wait_until(taken)
    return leases[0]


def _granted(board: FileBoard, lease: SlotLease) -> bool:
    try:
        return board.take(lease.place, 1, lease.ticket).granted
    except BoardBusyError:
        return False
