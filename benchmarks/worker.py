"""Run one contender in its own process, and report the time that it takes.

Each line of standard input is a JSON object with `do` and its arguments; each answer is a
line, too. CPU is the time of this process (`process_time`), without the server and the other
contenders.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import contenders
import inside

Measured = dict[str, Any]


def calls(state: dict[str, Any], count: int) -> Measured:
    """Make calls one after the other."""
    ask = state["ask"]
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        ask()
    return {
        "cpu": (time.process_time() - cpu) / count,
        "wall": (time.perf_counter() - wall) / count,
    }


def threads(state: dict[str, Any], count: int, threads: int) -> Measured:
    """Make calls in many threads at once."""
    ask = state["ask"]
    ready = threading.Barrier(threads + 1)

    def run() -> None:
        ask()
        ready.wait()
        for _ in range(count):
            ask()

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    ready.wait()
    wall = time.perf_counter()
    for thread in running:
        thread.join()
    return {"per_second": threads * count / (time.perf_counter() - wall)}


ACTIONS: dict[str, Callable[..., Measured]] = {"calls": calls, "threads": threads}


def main() -> None:
    paths, contender, base = json.loads(sys.argv[1])
    sys.path[:0] = paths
    # Libraries may print to standard output, so the answers use a copy of its descriptor.
    answers, sys.stdout = sys.stdout, sys.stderr
    actions = ACTIONS | inside.ACTIONS
    make = contenders.CONTENDERS.get(contender)
    state: dict[str, Any] = {"base": base}
    if make is not None:
        state["ask"] = make(base + "/answer")
        assert len(state["ask"]()) > 100, "not the answer"
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        measured = actions[order.pop("do")](state, **order)
        print(json.dumps(measured), file=answers, flush=True)


if __name__ == "__main__":
    main()
