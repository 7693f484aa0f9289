"""The protocol of one call: a generator that yields steps and is sent their results.

Pure: `call_steps` decides what a call does next (choose, wait, attempt, end), and a driver
carries out each step: `shell.call.loop`, over HTTP or in the simulator. `choose` and
`choose_all` apply a choice to the state of a pool.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import datetime, timedelta
from typing import TypeAlias, assert_never, overload

from attrs import evolve, field, frozen

from muxcore.core.allowance import Demand
from muxcore.core.outcomes import (
    TRANSIENT_KINDS,
    AttemptOutcome,
    Cancelled,
    Failed,
    PickReason,
    RateLimited,
    Refusal,
    Refuted,
    Rejected,
    Responding,
    Started,
    Succeeded,
)
from muxcore.core.records import Call, Endpoint, Exhausted, Picked, PoolState, Wait
from muxcore.core.selection import select
from muxcore.core.strategy import Strategy
from muxcore.core.updating import update
from muxcore.errors import StrategyError

MOST_SECOND_OPINIONS = 2
"""The most other models that are asked after a refusal (rule 6)."""


@frozen
class Slot:
    """An endpoint was chosen, and its attempt has begun under this number.

    `memory` is the mode's memory from then on; `demand` is what the attempt is expected to take
    of announced limits.
    """

    endpoint: Endpoint
    attempt: int
    reason: PickReason
    memory: object = field(default=None, repr=False, eq=False)
    demand: Demand | None = field(default=None, repr=False, eq=False)


@frozen
class Choose:
    """Step: choose an endpoint for `call` (see `choose`). Send the choice."""

    call: Call


@frozen
class Sleep:
    """Step: wait, in the order of arrival, until `wait.until` at the latest. Send a `Slept`."""

    call: Call
    wait: Wait


@frozen
class Attempt:
    """Step: make this attempt and fold its outcome in. Send that outcome.

    For a stream, send `Responding` at its first content: from then on the caller reads it.
    """

    call: Call
    slot: Slot


@frozen
class Record:
    """Step: fold this outcome of an earlier attempt in. Send None."""

    outcome: Refuted


@frozen
class Slept:
    """A wait of this length is over, with this choice."""

    waited: timedelta
    choice: Slot | Wait | Exhausted


@frozen
class EndedAttempt:
    """One attempt of a call and its outcome."""

    slot: Slot
    outcome: AttemptOutcome


@frozen
class CallServed:
    """The call is served: the last attempt of `trail` answered, or is answering."""

    trail: tuple[EndedAttempt, ...]


@frozen
class CallRejected:
    """The call ends because its request was refused: `refusal` is the first of `trail`.

    At `retry_at` a model that is disabled or busy now may take the request; None if none may.
    """

    trail: tuple[EndedAttempt, ...]
    refusal: Rejected
    retry_at: datetime | None = None


@frozen
class CallExhausted:
    """The call ends because no model could serve it in time."""

    trail: tuple[EndedAttempt, ...]
    exhausted: Exhausted


@frozen
class CallCancelled:
    """The call ends because its caller left or its own time was over."""

    trail: tuple[EndedAttempt, ...]
    cancelled: Cancelled


CallStep: TypeAlias = Choose | Sleep | Attempt | Record
CallEvent: TypeAlias = Slot | Wait | Exhausted | Slept | AttemptOutcome | None
CallEnding: TypeAlias = CallServed | CallRejected | CallExhausted | CallCancelled


def choose(
    state: PoolState, mode: Strategy, now: datetime, call: Call
) -> tuple[PoolState, Slot | Wait | Exhausted]:
    """Select and, if an endpoint was picked, begin the attempt: one change of the state."""
    choice = select(state, mode, now, call)
    if not isinstance(choice, Picked):
        return state, choice
    alias, memory, demand = choice.endpoint.alias, choice.memory, choice.demand
    state = update(state, Started(alias, memory, demand=demand), now)
    return state, Slot(choice.endpoint, state.attempts, choice.reason, memory, demand)


def choose_all(
    state: PoolState, mode: Strategy, now: datetime, line: Sequence[Call]
) -> tuple[PoolState, tuple[Slot | Wait | Exhausted | StrategyError, ...]]:
    """Choose again for each waiting call, in the order of arrival.

    The pool does this after every change of its state, so that no new call overtakes a waiting
    one. A mode that raises ends only the call that it chose for.
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


def call_steps(call: Call) -> Generator[CallStep, CallEvent, CallEnding]:
    """Yield the steps of one call, from its first choice to its one end (rule 1)."""
    trail: tuple[EndedAttempt, ...] = ()
    refusals: tuple[Rejected, ...] = ()
    while True:
        call, choice = yield from _choice(call)
        if isinstance(choice, Exhausted):
            return _ended(trail, refusals, choice)

        outcome = yield Attempt(call, choice)
        if not isinstance(outcome, AttemptOutcome):
            raise _unexpected(outcome)
        trail = (*trail, EndedAttempt(choice, outcome))
        match outcome:
            case Responding() | Succeeded():
                yield from _refute(refusals, outcome.alias, call)
                return CallServed(trail)
            case Cancelled():
                return CallCancelled(trail, outcome)
            case Rejected() if choice.reason is PickReason.PASSED_OVER:
                # Another model took in this turn what this one refuses: that is no opinion.
                call = _without(call, outcome.alias)
            case Rejected():
                refusals = (*refusals, outcome)
                call = _after_refusal(call, choice.endpoint, outcome)
                if len(call.refused) > MOST_SECOND_OPINIONS:
                    return CallRejected(trail, refusals[0])
            case RateLimited() | Failed():
                call = _after_failure(call, outcome)
            case _ as never:
                assert_never(never)


@overload
def credited(outcome: Succeeded, call: Call) -> Succeeded: ...
@overload
def credited(outcome: AttemptOutcome, call: Call) -> AttemptOutcome: ...
def credited(outcome: AttemptOutcome, call: Call) -> AttemptOutcome:
    """Return the outcome; a success gets the call's conversation, turn and refusers.

    A success that names a conversation is returned as it is.
    """
    name = call.conversation
    if name is None or not isinstance(outcome, Succeeded) or outcome.conversation:
        return outcome
    return outcome.of_conversation(name, call.refusers, new_turn=call.new_turn)


def _ended(
    trail: tuple[EndedAttempt, ...], refusals: Sequence[Rejected], choice: Exhausted
) -> CallRejected | CallExhausted:
    if refusals:
        return CallRejected(trail, refusals[0], choice.retry_at)
    return CallExhausted(trail, choice)


def _choice(
    call: Call,
) -> Generator[CallStep, CallEvent, tuple[Call, Slot | Exhausted]]:
    """Choose, and wait as often as needed; return the call with the time that it has waited."""
    choice = yield Choose(call)
    while isinstance(choice, Wait):
        slept = yield Sleep(call, choice)
        if not isinstance(slept, Slept):
            raise _unexpected(slept)
        call = evolve(call, waited=call.waited + slept.waited)
        choice = slept.choice
    if not isinstance(choice, Slot | Exhausted):
        raise _unexpected(choice)
    return call, choice


def _unexpected(event: object) -> TypeError:
    return TypeError(
        f"the driver of a call sent {event!r}, which does not fit the last step"
    )


def _refute(
    refusals: Sequence[Rejected], by: str, call: Call
) -> Generator[CallStep, CallEvent, None]:
    """Record that the model `by` took the request which others refused."""
    for refusal in refusals:
        alias, attempt, kind = refusal.alias, refusal.attempt, refusal.kind
        yield Record(Refuted(alias, attempt, kind, by, call.conversation))


def _after_failure(call: Call, outcome: RateLimited | Failed) -> Call:
    """Return the call after a failure: that model is excluded, or tried again only late."""
    if outcome.kind not in TRANSIENT_KINDS:
        return _without(call, outcome.alias)
    return evolve(call, tried=(*call.tried, outcome.alias))


def _without(call: Call, alias: str) -> Call:
    """Return the call with this model excluded."""
    return evolve(call, tried=(*call.tried, alias), excluded=(*call.excluded, alias))


def _after_refusal(call: Call, endpoint: Endpoint, refusal: Rejected) -> Call:
    """Return the call as it goes to another model (rule 6)."""
    alias = endpoint.alias
    call = _without(call, alias)
    if refusal.kind is not Refusal.TOO_LONG:
        return evolve(call, refused=(*call.refused, alias))
    too_small = refusal.window or endpoint.context_window or call.prompt_tokens or 0
    return evolve(
        call,
        outgrown=(*call.outgrown, alias),
        larger_than=max(too_small, call.larger_than or 0),
    )
