"""The shell's driver of a call's loop: it sleeps in this thread and makes the attempts."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from muxcore.core.protocol import Attempt, CallEnding
from muxcore.core.records import Call
from muxcore.shell.call.attempts import Attempted
from muxcore.shell.call.loop import GiveWay, call_loop
from muxcore.shell.pool.pool import Nap, Pool
from muxcore.shell.pool.waiter import Waiter


def run_call(
    pool: Pool, waiter: Waiter, call: Call, attempt: Callable[[Attempt], Attempted]
) -> tuple[CallEnding, list[Attempted]]:
    """Go through the call; return how it ended, and what came of each attempt."""
    attempts: list[Attempted] = []
    loop = call_loop(pool, waiter, call)
    try:
        need = next(loop)
        while True:
            match need:
                case Nap():
                    need = loop.send(waiter.park(need.seconds))
                case Attempt():
                    attempted = attempt(need)
                    attempts.append(attempted)
                    need = loop.send(attempted.outcome)
                case GiveWay():
                    need = next(loop)
                case _ as never:
                    assert_never(never)
    except StopIteration as stop:
        return stop.value, attempts
    finally:
        loop.close()
