"""The course of one whole call, as a generator that does nothing itself.

It yields what to do next and is sent what happened; whoever drives it (the shell over HTTP,
the simulator over made-up faults) does the rest. Between two steps it holds only the `Call`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import datetime, timedelta
from typing import TypeAlias, assert_never

from attrs import evolve, frozen

from muxcore.core.outcomes import (
    TRANSIENT_KINDS,
    Cancelled,
    End,
    Failed,
    RateLimited,
    Refusal,
    Rejected,
    Responding,
    Started,
    Succeeded,
)
from muxcore.core.records import (
    Call,
    Endpoint,
    Exhausted,
    Picked,
    PickReason,
    PoolState,
    Wait,
)
from muxcore.core.selection import select
from muxcore.core.strategy import Strategy
from muxcore.core.updating import update
from muxcore.errors import StrategyError


@frozen
class Slot:
    """An endpoint is chosen and its attempt begun, under this number."""

    endpoint: Endpoint
    attempt: int
    reason: PickReason


@frozen
class Choose:
    """Step: choose for `call` in the state (see `choose`); send what was chosen."""

    call: Call


@frozen
class Sleep:
    """Step: wait as `wait` says, first come first served; send a `Woken`."""

    call: Call
    wait: Wait


@frozen
class Attempt:
    """Step: make this attempt and fold its outcome in; send that outcome.

    `Responding` is sent for a stream whose first content has arrived: it is the caller's.
    """

    call: Call
    slot: Slot


@frozen
class Slept:
    """A wait is over after `waited`, and this has been chosen since."""

    waited: timedelta
    choice: Slot | Wait | Exhausted


@frozen
class EndedAttempt:
    """One attempt of a call and how it ended."""

    slot: Slot
    outcome: Responding | End


@frozen
class CallServed:
    """The call ends well: the last of `trail` answered, or is answering."""

    trail: tuple[EndedAttempt, ...]


@frozen
class CallRejected:
    """The call ends for a fault of its own, told by `refusal`."""

    trail: tuple[EndedAttempt, ...]
    refusal: Rejected


@frozen
class CallExhausted:
    """The call ends because no model could serve it in time."""

    trail: tuple[EndedAttempt, ...]
    exhausted: Exhausted


@frozen
class CallCancelled:
    """The call ends because its caller left, or its own time was over."""

    trail: tuple[EndedAttempt, ...]
    cancelled: Cancelled


CallStep: TypeAlias = Choose | Sleep | Attempt
CallEvent: TypeAlias = Slot | Wait | Exhausted | Slept | Responding | End
CallEnding: TypeAlias = CallServed | CallRejected | CallExhausted | CallCancelled


def choose(
    state: PoolState, mode: Strategy, now: datetime, call: Call
) -> tuple[PoolState, Slot | Wait | Exhausted]:
    """Select and, if somebody was picked, begin the attempt: one change of the state."""
    choice = select(state, mode, now, call)
    if not isinstance(choice, Picked):
        return state, choice
    state = update(state, Started(choice.endpoint.alias, choice.memory), now)
    return state, Slot(choice.endpoint, state.attempts, choice.reason)


def call_steps(call: Call) -> Generator[CallStep, CallEvent, CallEnding]:
    """Go through one call, from its first choice to its one end (rule 1)."""
    trail: tuple[EndedAttempt, ...] = ()
    refusal: Rejected | None = None
    while True:
        choice = yield Choose(call)
        while isinstance(choice, Wait):
            woken = yield Sleep(call, choice)
            assert isinstance(woken, Slept)  # noqa: S101 - the driver's side of the protocol
            call = evolve(call, waited=call.waited + woken.waited)
            choice = woken.choice
        if isinstance(choice, Exhausted):
            if refusal is not None:
                return CallRejected(trail, refusal)
            return CallExhausted(trail, choice)
        assert isinstance(choice, Slot)  # noqa: S101

        outcome = yield Attempt(call, choice)
        assert isinstance(outcome, Responding | End)  # noqa: S101
        trail = (*trail, EndedAttempt(choice, outcome))
        match outcome:
            case Responding() | Succeeded():
                return CallServed(trail)
            case Cancelled():
                return CallCancelled(trail, outcome)
            case Rejected():
                larger = _after_refusal(call, choice.endpoint, outcome)
                if larger is None:
                    return CallRejected(trail, outcome)
                call, refusal = larger, outcome
            case RateLimited() | Failed():
                call = _after_failure(call, outcome)
            case _ as never:
                assert_never(never)


def choose_all(
    state: PoolState, mode: Strategy, now: datetime, line: Sequence[Call]
) -> tuple[PoolState, tuple[Slot | Wait | Exhausted | StrategyError, ...]]:
    """Choose anew for each waiting call, in the order of their arrival.

    Done whenever anything changed, so that no newcomer overtakes. A mode that raises ends
    the call that it was asked for, not the others.
    """
    choices: list[Slot | Wait | Exhausted | StrategyError] = []
    for call in line:
        try:
            state, choice = choose(state, mode, now, call)
        except StrategyError as error:
            choices.append(error)
        else:
            choices.append(choice)
    return state, tuple(choices)


def _after_failure(call: Call, outcome: RateLimited | Failed) -> Call:
    """Return the call after a model failed it: not there again, or not soon."""
    excluded = call.excluded
    if outcome.kind not in TRANSIENT_KINDS:
        excluded = (*excluded, outcome.alias)
    return evolve(call, tried=(*call.tried, outcome.alias), excluded=excluded)


def _after_refusal(call: Call, endpoint: Endpoint, refusal: Rejected) -> Call | None:
    """Return the call as another model may take it; None when none would (rule 6)."""
    call = evolve(
        call, tried=(*call.tried, endpoint.alias), excluded=(*call.excluded, endpoint.alias)
    )
    match refusal.kind:
        case Refusal.REQUEST | Refusal.FILTERED:
            return None
        case Refusal.TEMPLATE:
            return evolve(call, refused_dialects=(*call.refused_dialects, endpoint.dialect))
        case Refusal.TOO_LONG:
            known = refusal.window or endpoint.context_window or call.prompt_tokens
            if known is None:
                return None
            return evolve(call, larger_than=max(known, call.larger_than or 0))
        case _ as never:
            assert_never(never)
