"""Driving one call: what `core.calling.conduct` asks for is done, and what happened is sent.

The whole of a call's logic is in that generator; this is the loop around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from attrs import evolve

from muxcore.core.outcomes import Responding, Succeeded
from muxcore.core.protocol import Attempt, CallEnding, CallEvent, Choose, Sleep, call_steps
from muxcore.core.records import Call
from muxcore.shell.call.attempts import Attempted
from muxcore.shell.pool.pool import Pool, Waiter


def run_call(
    pool: Pool, waiter: Waiter, call: Call, attempt: Callable[[Attempt], Attempted]
) -> tuple[CallEnding, list[Attempted]]:
    """Go through the call; return how it ended, and what came of each attempt.

    Whatever is raised on the way, the call keeps no slot and no place in the line. Only a
    stream that is responding keeps its slot, in `ticket`: it is the stream's to settle.
    """
    attempts: list[Attempted] = []
    steps = call_steps(call)
    responding = False
    try:
        step = next(steps)
        while True:
            event: CallEvent
            match step:
                case Choose():
                    event = pool.choose(step.call, waiter)
                case Sleep():
                    event = pool.pause(step, waiter)
                case Attempt():
                    attempted = attempt(step)
                    attempts.append(attempted)
                    event = attempted.outcome
                    responding = isinstance(event, Responding)
                    if isinstance(event, Succeeded) and call.conversation is not None:
                        event = evolve(event, conversation=call.conversation)
                    pool.record(event)
                    if not responding:
                        waiter.slot = None
                case _ as never:
                    assert_never(never)
            step = steps.send(event)
    except StopIteration as stop:
        return stop.value, attempts
    finally:
        if not responding:
            pool.settle(waiter)
