"""The pool at one moment, as the page shows it. Pure."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from muxcore.core.records import Call, Candidate, PoolState
from muxcore.core.selection import Standing, Verdict, explain
from muxcore.core.status import Status

SHORTEST = Call(prompt_tokens=1)
"""The call that the standings are for: it takes something of each limit, so one with nothing
left is spent."""


class ShownStanding(StrEnum):
    """Where a model stands for a call that begins now."""

    OPEN = "open"
    BUSY = "busy"
    PROBATION = "on probation"
    SPENT = "spent"
    DISABLED = "disabled"


_SHOWN = {
    Standing.BUSY: ShownStanding.BUSY,
    Standing.PROBED: ShownStanding.PROBATION,
    Standing.SPENT: ShownStanding.SPENT,
    Standing.DISABLED: ShownStanding.DISABLED,
}


def shown_standing(verdict: Verdict, candidate: Candidate) -> ShownStanding:
    """Return the standing to show, of an endpoint and its verdict."""
    if verdict.standing is Standing.OPEN and candidate.health.unproven:
        return ShownStanding.PROBATION
    return _SHOWN.get(verdict.standing, ShownStanding.OPEN)


def pool_view(status: Status, state: PoolState, at: datetime) -> dict[str, Any]:
    """Return the status of the pool as JSON, with each model's standing at `at`."""
    written = status.to_json()
    counted = written.pop("per_model")
    models = [
        {
            "alias": verdict.alias,
            **counted[verdict.alias],
            "standing": shown_standing(verdict, candidate),
            "until": None if verdict.until is None else verdict.until.isoformat(),
        }
        for verdict, candidate in zip(
            explain(state, at, SHORTEST), state.candidates, strict=True
        )
        # A config that was read between the status and the state brings another pool.
        if verdict.alias in counted
    ]
    return {**written, "at": at.isoformat(), "models": models}
