"""Fixed labels for what happens in a world. The hash of a run is made of these.

Classes, enumerations and messages may be renamed; a label never is, so the hash of a world
says whether the same things still happen in it.
"""

from __future__ import annotations

from typing import assert_never

from muxcore.core.calling import Abandoned, Ending, GaveUp, Refused, Served
from muxcore.core.outcomes import (
    Cancelled,
    End,
    Failed,
    Fault,
    Kind,
    Limit,
    RateLimited,
    Refusal,
    Rejected,
    Responding,
    Succeeded,
)
from muxcore.core.records import Reason, Why
from muxcore.testing.simulation.worlds import (
    ClockSet,
    Closed,
    ConfigChanged,
    Happening,
    Leaving,
    ModelReset,
)

SERVED = "served"
STREAMED = "streamed"
INTERRUPTED = "interrupted in its answer"
GAVE_UP = "gave up"
ABANDONED = "abandoned"

PICKED_FOR = {
    Why.MODE: "mode",
    Why.FALLBACK: "fallback",
    Why.STICKY: "sticky",
    Why.LAST_RESORT: "last resort",
}
WAITS_FOR = {
    Reason.BUSY: "busy",
    Reason.DISABLED: "disabled",
    Reason.TRIED: "tried",
    Reason.UNFIT: "unfit",
    Reason.DEADLINE: "deadline",
}
KINDS: dict[Kind, str] = {
    Limit.RATE: "rate",
    Limit.QUOTA: "quota",
    Limit.BUDGET: "budget",
    Fault.TRANSIENT: "transient",
    Fault.PERSISTENT: "persistent",
    Fault.AUTH: "auth",
    Fault.NOT_FOUND: "not found",
    Fault.UNPAID: "unpaid",
    Refusal.REQUEST: "request",
    Refusal.TOO_LONG: "too long",
    Refusal.TEMPLATE: "template",
    Refusal.FILTERED: "filtered",
}
LEAVES_BY = {
    Leaving.CLOSES: "closes",
    Leaving.DROPS: "drops",
    Leaving.INTERRUPTS: "interrupts",
    Leaving.CANCELS: "cancels",
}


def label_of_outcome(outcome: Responding | End) -> str:
    match outcome:
        case Responding():
            return "responding"
        case Succeeded():
            return "succeeded"
        case RateLimited() | Failed() | Rejected():
            return KINDS[outcome.kind]
        case Cancelled():
            return "cancelled"
        case _ as never:
            assert_never(never)


def label_of_ending(ending: Ending) -> str:
    match ending:
        case Served():
            return SERVED
        case Refused():
            return "rejected"
        case GaveUp(exhausted=exhausted):
            return f"{GAVE_UP}: {WAITS_FOR[exhausted.reason]}"
        case Abandoned():
            return ABANDONED
        case _ as never:
            assert_never(never)


def label_of_happening(happening: Happening) -> str:
    match happening:
        case ClockSet(by=by):
            return f"clock set by {by}"
        case ModelReset(alias=alias):
            return f"reset {alias}"
        case ConfigChanged(weights=weights):
            return f"config changed to weights {weights}"
        case Closed():
            return "closed"
        case _ as never:
            assert_never(never)
