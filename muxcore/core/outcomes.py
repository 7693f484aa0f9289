"""Outcomes: what can happen to an attempt, as a closed union of records.

`updating.update` folds them into a pool's state; `entries` has what else it folds. An attempt
begins with `Started`, reports `Responding` at most once, and ends exactly once: with
`Succeeded`, `RateLimited`, `Failed`, `Rejected` or `Cancelled`. `Refuted` comes later than a
`Rejected`, when another model takes the request. `Reset` is the user's.

Where an outcome has `allowances`, they are what the answer's headers announce.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import TypeAlias

from attrs import frozen

from muxcore.core.allowance import Allowance, Demand


class Limit(StrEnum):
    """Why a model says "not now": its rate or its quota. The values are shown to users."""

    RATE = "rate limited"
    QUOTA = "quota spent"
    BUDGET = "budget in use"
    """A 402 with Retry-After: disabled for exactly that long."""


class Fault(StrEnum):
    """Why a model could not serve. The values are shown to users."""

    TRANSIENT = "error"
    PERSISTENT = "persistent error"
    AUTH = "key refused"
    NOT_FOUND = "model not found"
    UNPAID = "payment required"
    """An account that cannot pay: counted as failed, disabled for as long as a spent quota."""


class Refusal(StrEnum):
    """Why a healthy model refused a request. The values are shown to users.

    Nobody can tell from one refusal whether the request or the model is at fault, so another
    model is asked (see `protocol`).
    """

    REQUEST = "request refused"
    TOO_LONG = "prompt too long"
    TEMPLATE = "chat template refused it"
    FILTERED = "content filtered"


class CancelReason(StrEnum):
    """Why an attempt was cancelled. The values are shown to users."""

    LEFT = "the caller left"
    CALL_TIME = "the call's time is over"
    CLOSED = "closed"
    LACKING = "this machine has no more files, memory or threads to give"
    FORKED = "it belongs to the process that this one was forked from"


class PickReason(StrEnum):
    """Why an endpoint was picked."""

    MODE = "the mode's choice"
    FALLBACK = "no primary can serve"
    STICKY = "this turn is there"
    LAST_RESORT = "nobody else can serve"
    AFTER_REFUSAL = "another model refused it"
    PASSED_OVER = "nobody else can serve, though it refused in this turn"
    SPENT = "nobody else can serve, though its announced limit may be too small"


Kind: TypeAlias = Limit | Fault | Refusal

TRANSIENT_KINDS = frozenset({Limit.RATE, Limit.BUDGET, Fault.TRANSIENT})
"""What may be over in seconds. After any other kind, another try soon is pointless."""


@frozen
class Started:
    """An attempt begins. `update` gives it the next number, `state.attempts` afterwards.

    `memory` is what the strategy returned with its pick; `update` commits it. `demand` is what
    the attempt is expected to take of the limits that the endpoint announces. `call`, the
    number of the call in the journal, and `reason` explain it; the state depends on neither.
    """

    alias: str
    memory: object = None
    call: int | None = None
    demand: Demand | None = None
    reason: PickReason | None = None


@frozen
class Responding:
    """The first content has arrived, `after` the attempt began."""

    alias: str
    attempt: int
    after: timedelta | None = None
    allowances: tuple[Allowance, ...] = ()


@frozen
class Succeeded:
    """The whole answer has arrived.

    `after` is the time to the first content, unless `Responding` has reported it. `tokens_in`
    includes the cached tokens. `conversation` is the one whose turn is now on this model;
    `new_turn` says that the turn began with this call, and `refusers` are the models which
    refused the same call before.
    """

    alias: str
    attempt: int
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    after: timedelta | None = None
    conversation: str | None = None
    new_turn: bool = False
    refusers: tuple[str, ...] = ()
    allowances: tuple[Allowance, ...] = ()

    def of_conversation(
        self, conversation: str, refusers: tuple[str, ...], *, new_turn: bool
    ) -> Succeeded:
        """Return it as the success of a call of this conversation."""
        # Written out: a quarter of the time of `evolve`, and nearly every call comes here.
        return Succeeded(
            self.alias,
            self.attempt,
            self.tokens_in,
            self.tokens_cached,
            self.tokens_out,
            self.after,
            conversation,
            new_turn,
            refusers,
            self.allowances,
        )


@frozen
class RateLimited:
    """The model asks to be left alone; `hint` is for how long, if its server said so."""

    alias: str
    attempt: int
    kind: Limit = Limit.RATE
    hint: timedelta | None = None
    message: str = ""
    allowances: tuple[Allowance, ...] = ()


@frozen
class Failed:
    """The model could not serve; another may."""

    alias: str
    attempt: int
    kind: Fault = Fault.TRANSIENT
    hint: timedelta | None = None
    message: str = ""
    allowances: tuple[Allowance, ...] = ()


@frozen
class Rejected:
    """The model refused the request. At once, this changes no endpoint's availability.

    `window` is the model's context window in tokens, if the answer named it.
    """

    alias: str
    attempt: int
    kind: Refusal = Refusal.REQUEST
    window: int | None = None
    message: str = ""
    allowances: tuple[Allowance, ...] = ()


@frozen
class Cancelled:
    """The caller gave up; this changes no model's availability."""

    alias: str
    attempt: int
    reason: CancelReason = CancelReason.LEFT


@frozen
class Refuted:
    """The model `by` took the request which this attempt refused.

    So the refusal was the model's own weakness. `update` counts it against the model.
    """

    alias: str
    attempt: int
    kind: Refusal
    by: str
    conversation: str | None = None


@frozen
class Reset:
    """The user re-enables one model, or all of them (`alias` is None)."""

    alias: str | None = None


End: TypeAlias = Succeeded | RateLimited | Failed | Rejected | Cancelled
AttemptOutcome: TypeAlias = Responding | End
"""What an attempt comes to. A stream responds first, and ends later."""
Outcome: TypeAlias = Started | AttemptOutcome | Refuted | Reset
