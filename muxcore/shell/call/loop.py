"""The loop of one call: the only code that steps through `core.protocol.call_steps`.

A generator that does no I/O and never sleeps. It asks the pool for decisions and yields to its
driver what only that can do: sleep, make an attempt, give way. There are two drivers: `runner`
(threads and HTTP) and the simulator (simulated time).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, assert_never

from attrs import frozen

from muxcore.core.entries import CallResult
from muxcore.core.outcomes import AttemptOutcome, Responding
from muxcore.core.protocol import (
    Attempt,
    CallCancelled,
    CallEnding,
    CallEvent,
    CallExhausted,
    CallRejected,
    CallServed,
    Choose,
    Record,
    Sleep,
    call_steps,
    credited,
)
from muxcore.core.records import Call
from muxcore.errors import StrategyError
from muxcore.shell.pool.pool import Nap, Pool
from muxcore.shell.pool.waiter import Waiter


@frozen
class GiveWay:
    """Other threads may run before the next step. The driver sends None."""


GIVE_WAY = GiveWay()
Need: TypeAlias = Nap | Attempt | GiveWay
"""What the driver must do next: sleep until woken, make this attempt, or give way."""
Done: TypeAlias = bool | AttemptOutcome | None
"""What the driver sends after it: whether it was woken, the outcome, or None."""
Loop: TypeAlias = Generator[Need, Done, CallEnding]

_RESULTS: dict[type, CallResult] = {
    CallServed: CallResult.SERVED,
    CallRejected: CallResult.REJECTED,
    CallExhausted: CallResult.EXHAUSTED,
    CallCancelled: CallResult.CANCELLED,
}


def call_loop(  # noqa: C901 - one for each step
    pool: Pool, waiter: Waiter, call: Call
) -> Loop:
    """Run the call to its end, and return how it ended.

    Even if an error is raised, the call gives back its slot and its place in the line. Only a
    responding stream keeps its slot, in `waiter`; the stream settles it.
    """
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
                    nap = pool.begin_sleep(step, waiter)
                    woken = yield nap
                    event = pool.end_sleep(step, waiter, nap, woken=woken is True)
                case Attempt():
                    outcome = yield step
                    if not isinstance(outcome, AttemptOutcome):
                        raise TypeError(f"the driver sent {outcome!r}, expected an outcome")
                    responding = isinstance(outcome, Responding)
                    event = credited(outcome, step.call)
                    pool.record(event)
                    if not responding:
                        waiter.slot = None
                case Record():
                    pool.record(step.outcome)
                    event = None
                case _ as never:
                    assert_never(never)
            yield GIVE_WAY
            step = steps.send(event)
    except StopIteration as stop:
        ending: CallEnding = stop.value
        waiter.result = _RESULTS[type(ending)]
        return ending
    except StrategyError:
        waiter.result = CallResult.FAILED
        raise
    finally:
        if not responding:
            pool.settle(waiter)
