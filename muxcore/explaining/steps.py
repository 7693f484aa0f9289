"""The steps of a story, as records: who was asked, what came, what was waited for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TypeAlias

from attrs import field, frozen

from muxcore.core.outcomes import PickReason
from muxcore.core.records import Call, PoolState, WaitReason
from muxcore.core.selection import Standing, explain


@frozen
class PassedOver:
    """A model that was not asked: where it stood for the call, and until when, if it is known.

    `cause` is of a disabled one. `window` is its context window in tokens.
    """

    alias: str
    standing: Standing
    until: datetime | None = None
    cause: str = ""
    is_fallback: bool = False
    window: int | None = None


@frozen
class Alternatives:
    """The models of the pool that were not asked, as a call found them.

    Their standings are computed on iteration: most readers of a story need none.
    """

    state: PoolState = field(repr=False)
    call: Call
    now: datetime
    asked: str | None = None

    def __iter__(self) -> Iterator[PassedOver]:
        verdicts = explain(self.state, self.now, self.call)
        for verdict, candidate in zip(verdicts, self.state.candidates, strict=True):
            if verdict.alias != self.asked:
                yield PassedOver(
                    verdict.alias,
                    verdict.standing,
                    verdict.until,
                    verdict.cause,
                    candidate.endpoint.is_fallback,
                    candidate.context_window,
                )


@frozen
class ModelAsked:
    """A model was asked."""

    at: datetime
    alias: str
    reason: PickReason | None
    alternatives: Alternatives


@frozen
class ModelAnswered:
    """What the model that was asked came to, after `took`. `cost` is in dollars.

    `asked_for` is how long its server asks clients to wait. If this disables the model, then
    until `disabled_until`.
    """

    at: datetime
    alias: str
    outcome: str
    took: timedelta
    first_content: timedelta | None = None
    message: str = ""
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    disabled_until: datetime | None = None
    asked_for: timedelta | None = None


@frozen
class CallWaited:
    """The call began to wait, until `until` at the latest."""

    at: datetime
    until: datetime
    reason: WaitReason
    alternatives: Alternatives


@frozen
class NobodyLeft:
    """No model was left. At `retry_at` one may be tried."""

    at: datetime
    retry_at: datetime | None
    reason: WaitReason
    alternatives: Alternatives


@frozen
class ProvedWrong:
    """The model `by` took the request which this one had refused."""

    at: datetime
    alias: str
    by: str


StoryStep: TypeAlias = ModelAsked | ModelAnswered | CallWaited | NobodyLeft | ProvedWrong
