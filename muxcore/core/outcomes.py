"""What can happen to an attempt: a closed union of records.

Every change of a pool's state is one of these, folded in by `updating.update`. An attempt
begins with `Started`, may say `Responding` once, and ends exactly once, with `Succeeded`,
`RateLimited`, `Failed`, `Rejected` or `Cancelled`. `Reset` is the user's own.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import TypeAlias

from attrs import frozen


class Limit(StrEnum):
    """Why a model says "not now": its rate or its quota. The values are shown to users."""

    RATE = "rate limited"
    QUOTA = "quota spent"
    BUDGET = "budget in use"
    """A limit whose own hint is exact (a 402 with Retry-After): neither longer nor shorter."""


class Fault(StrEnum):
    """Why a model could not serve. The values are shown to users."""

    TRANSIENT = "error"
    PERSISTENT = "persistent error"
    AUTH = "key refused"
    NOT_FOUND = "model not found"
    UNPAID = "payment required"
    """An account that cannot pay: counted as a failure, rested like a spent quota."""


class Refusal(StrEnum):
    """Why a request was refused although the model is well. The values are shown to users."""

    REQUEST = "request refused"
    TOO_LONG = "prompt too long"
    TEMPLATE = "chat template refused it"
    FILTERED = "content filtered"


class CancelReason(StrEnum):
    """Why an attempt was cancelled. The values are shown to users."""

    LEFT = "the caller left"
    CALL_TIME = "the call's time is over"
    CLOSED = "closed"
    FORKED = "it belongs to the process that this one was forked from"


Kind: TypeAlias = Limit | Fault | Refusal

TRANSIENT_KINDS = frozenset({Limit.RATE, Limit.BUDGET, Fault.TRANSIENT})
"""What may be over in seconds. To try again soon after anything else is pointless."""


@frozen
class Started:
    """An attempt begins; `update` numbers it: `state.attempts` is its number from then on.

    `memory` is what the strategy returned with its pick; it is committed here.
    """

    alias: str
    memory: object = None


@frozen
class Responding:
    """The first content has arrived, `after` the attempt began."""

    alias: str
    attempt: int
    after: timedelta | None = None


@frozen
class Succeeded:
    """The whole answer has arrived.

    `after` is the time to the first content, where no `Responding` has told it; `tokens_in`
    counts the cached ones too; `conversation` is the one whose turn this model now holds.
    """

    alias: str
    attempt: int
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    after: timedelta | None = None
    conversation: str | None = None


@frozen
class RateLimited:
    """The model is well but wants to be left alone; `hint` is how long the server said."""

    alias: str
    attempt: int
    kind: Limit = Limit.RATE
    hint: timedelta | None = None
    message: str = ""


@frozen
class Failed:
    """The model could not serve; another may."""

    alias: str
    attempt: int
    kind: Fault = Fault.TRANSIENT
    hint: timedelta | None = None
    message: str = ""


@frozen
class Rejected:
    """The request is at fault: this changes nobody's availability.

    `window` is the size in tokens that the answer named as this model's, where it named one.
    """

    alias: str
    attempt: int
    kind: Refusal = Refusal.REQUEST
    window: int | None = None
    message: str = ""


@frozen
class Cancelled:
    """The caller gave up; this changes no model's availability."""

    alias: str
    attempt: int
    reason: CancelReason = CancelReason.LEFT


@frozen
class Reset:
    """The user re-enables one model, or all (`alias` None)."""

    alias: str | None = None


End: TypeAlias = Succeeded | RateLimited | Failed | Rejected | Cancelled
Outcome: TypeAlias = Started | Responding | End | Reset
