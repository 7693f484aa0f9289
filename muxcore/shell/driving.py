"""Driving one call: what `core.calling.conduct` asks for is done, and what happened is sent.

The whole of a call's logic is in that generator; this is the loop around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from attrs import evolve

from muxcore.core.calling import Attempt, Choose, Ending, Event, Pause, conduct
from muxcore.core.outcomes import Responding, Succeeded
from muxcore.core.records import Call
from muxcore.shell.attempts import Attempted
from muxcore.shell.pool import Pool, Ticket


def drive(
    pool: Pool, ticket: Ticket, call: Call, attempt: Callable[[Attempt], Attempted]
) -> tuple[Ending, list[Attempted]]:
    """Go through the call; return how it ended, and what came of each attempt.

    Whatever is raised on the way, the call keeps no slot and no place in the line. Only a
    stream that is responding keeps its slot, in `ticket`: it is the stream's to settle.
    """
    attempts: list[Attempted] = []
    steps = conduct(call)
    responding = False
    try:
        step = next(steps)
        while True:
            event: Event
            match step:
                case Choose():
                    event = pool.choose(step.call, ticket)
                case Pause():
                    event = pool.pause(step, ticket)
                case Attempt():
                    attempted = attempt(step)
                    attempts.append(attempted)
                    event = attempted.outcome
                    responding = isinstance(event, Responding)
                    if isinstance(event, Succeeded) and call.conversation is not None:
                        event = evolve(event, conversation=call.conversation)
                    pool.record(event)
                    if not responding:
                        ticket.granted = None
                case _ as never:
                    assert_never(never)
            step = steps.send(event)
    except StopIteration as stop:
        return stop.value, attempts
    finally:
        if not responding:
            pool.settle(ticket)
