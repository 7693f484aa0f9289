"""Fixed labels for what happens in a world. The hash of a run is made of these.

Classes, enumerations and messages may be renamed; a label never is. So the hash of a world
stays the same as long as the same things happen in it.
"""

from __future__ import annotations

from typing import assert_never

from muxcore.core.outcomes import (
    Cancelled,
    End,
    Failed,
    Fault,
    Kind,
    Limit,
    PickReason,
    RateLimited,
    Refusal,
    Rejected,
    Responding,
    Succeeded,
)
from muxcore.core.protocol import (
    CallCancelled,
    CallEnding,
    CallExhausted,
    CallRejected,
    CallServed,
)
from muxcore.core.records import Exhausted, Wait, WaitReason
from muxcore.testing.simulation.worlds import (
    ClockSet,
    ConfigChanged,
    Happening,
    Leaving,
    ModelReset,
    PoolClosed,
)

SERVED = "served"
STREAMED = "streamed"
INTERRUPTED = "interrupted in its answer"
GAVE_UP = "gave up"
REJECTED = "rejected"
ABANDONED = "abandoned"

PICKED_FOR = {
    PickReason.MODE: "mode",
    PickReason.FALLBACK: "fallback",
    PickReason.STICKY: "sticky",
    PickReason.LAST_RESORT: "last resort",
    PickReason.AFTER_REFUSAL: "after a refusal",
    PickReason.PASSED_OVER: "passed over",
    PickReason.SPENT: "spent",
}
WAITS_FOR = {
    WaitReason.BUSY: "busy",
    WaitReason.DISABLED: "disabled",
    WaitReason.TRIED: "tried",
    WaitReason.UNFIT: "unfit",
    WaitReason.DEADLINE: "deadline",
    WaitReason.SPENT: "spent",
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


def label_of_decision(decision: Wait | Exhausted) -> str:
    if isinstance(decision, Wait):
        return f"waits until {decision.until.isoformat()} {WAITS_FOR[decision.reason]}"
    return f"exhausted {WAITS_FOR[decision.reason]}"


def label_of_ending(ending: CallEnding) -> str:
    match ending:
        case CallServed():
            return SERVED
        case CallRejected():
            return REJECTED
        case CallExhausted(exhausted=exhausted):
            return f"{GAVE_UP}: {WAITS_FOR[exhausted.reason]}"
        case CallCancelled():
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
        case PoolClosed():
            return "closed"
        case _ as never:
            assert_never(never)
