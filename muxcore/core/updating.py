"""`update`: fold an entry of the journal into the state. What is learnt, and nothing else.

The rules it keeps (see docs/design.md; tests cite the numbers):

- `Started` numbers the attempts, and only these numbers give them an order. A failure disables
  its endpoint and remembers the newest number of that moment. Only a success with a greater
  number clears it, and only failures with a greater number count as consecutive.
- A cooldown's end never moves earlier, except by that success or a `Reset` (rule 4).
- A refusal and a caller who left change no endpoint's availability (rule 6). Refusals which
  other models refute do: three in a row, of at least two conversations, are a persistent
  error. One caller's nonsense, which some server takes, disables nothing.
- Each attempt ends once: a second end, or one of an unknown attempt, changes nothing (rule 12).
- What other processes met obeys the same rules (`sharing.hearing`).
"""

from __future__ import annotations

from datetime import datetime
from typing import assert_never

from attrs import evolve

from muxcore.core.allowance import NO_TIME, Headroom, announced
from muxcore.core.entries import Asked, Chosen, Configured, Ended, Entry, Heard
from muxcore.core.folding.cooldowns import cleared, lengthened, proven
from muxcore.core.folding.leases import after_start, changed
from muxcore.core.migration import forgiven, migrate
from muxcore.core.outcomes import (
    AttemptOutcome,
    Cancelled,
    Failed,
    Fault,
    Limit,
    RateLimited,
    Refusal,
    Refuted,
    Rejected,
    Reset,
    Responding,
    Started,
    Succeeded,
)
from muxcore.core.records import (
    AnnouncedLimits,
    Candidate,
    Health,
    Pin,
    PoolState,
    Refutation,
    Tally,
    expect_aware,
)
from muxcore.core.sharing.facts import LeasesChanged, RefusalRefuted
from muxcore.core.sharing.hearing import hear

IDLE = Health()
"""Of a healthy endpoint after its only attempt: made once, as nearly every call needs it."""
MOST_PINS = 256
WEAKNESSES = frozenset({Refusal.REQUEST, Refusal.TEMPLATE})
"""Refusals which, once refuted, count against the model. A filter and a length limit do not:
another model's may differ, and both are right."""
REFUTATIONS_TO_DISABLE = 3
"""From at least two conversations, in a row."""


def update(  # noqa: C901, PLR0911 - one for each member of the union
    state: PoolState, outcome: Entry, now: datetime
) -> PoolState:
    """Return the state after `outcome`, which became known at `now`, an aware moment.

    It is an outcome or any other entry of a journal.
    """
    expect_aware(now)
    match outcome:
        case Started():
            return _started(state, outcome, now)
        case Succeeded():
            return _succeeded(state, outcome, now)
        case Responding():
            return _responding(state, outcome, now)
        case RateLimited() | Failed():
            return _failed(state, outcome, now)
        case Rejected() | Cancelled():
            return _released(state, outcome, now)
        case Refuted():
            return _refuted(state, outcome, now)
        case Reset():
            return _reset(state, outcome)
        case Heard():
            return _heard(state, outcome, now)
        case Configured(endpoints, policy, new_keys, same_mode):
            return migrate(state, endpoints, policy, new_keys=new_keys, same_mode=same_mode)
        case Asked() | Chosen() | Ended():
            return state
        case _ as never:
            assert_never(never)


def _started(state: PoolState, outcome: Started, now: datetime) -> PoolState:
    position = _position(state, outcome.alias)
    if position is None:
        return state
    candidate = state.candidates[position]
    health = candidate.health
    number, headroom = state.attempts + 1, candidate.headroom
    if headroom is not None and outcome.demand is not None:
        headroom = headroom.after_start(number, outcome.demand, now)
    return PoolState(
        _replaced(
            state.candidates,
            position,
            Candidate(
                candidate.endpoint,
                Health(health.limited, health.broken, (*health.under_way, number)),
                candidate.tally,
                candidate.learnt_window,
                candidate.refutations,
                headroom,
                after_start(candidate),
            ),
        ),
        state.policy,
        outcome.memory,
        number,
        state.pins,
        state.last_used,
    )


def _responding(state: PoolState, outcome: Responding, now: datetime) -> PoolState:
    position = _position(state, outcome.alias, outcome.attempt)
    if position is None:
        return state
    candidate = state.candidates[position]
    health, tally = candidate.health, candidate.tally
    if health.unproven:
        health = evolve(
            health,
            limited=proven(health.limited, outcome.attempt),
            broken=proven(health.broken, outcome.attempt),
        )
    average, at, latest = tally.first_contents(outcome.after, now)
    tally = evolve(
        tally, first_content=average, first_content_at=at, latest_first_content=latest
    )
    headroom = _headroom(candidate, outcome, state, now)
    return _with(state, position, _evolved(candidate, health, tally, headroom))


def _succeeded(state: PoolState, outcome: Succeeded, now: datetime) -> PoolState:
    position = _position(state, outcome.alias, outcome.attempt)
    if position is None:
        return state
    candidate = state.candidates[position]
    health, tally = candidate.health, candidate.tally
    average, at, latest = tally.first_contents(outcome.after, now)
    under_way = _without(health.under_way, outcome.attempt)
    if under_way or health.limited or health.broken:
        health = Health(
            cleared(health.limited, outcome.attempt),
            cleared(health.broken, outcome.attempt),
            under_way,
        )
    else:
        health = IDLE
    candidate = Candidate(
        candidate.endpoint,
        health,
        Tally(
            tally.succeeded + 1,
            tally.rate_limited,
            tally.failed,
            tally.rejected,
            tally.cancelled,
            tally.tokens_in + outcome.tokens_in,
            tally.tokens_cached + outcome.tokens_cached,
            tally.tokens_out + outcome.tokens_out,
            average,
            at,
            latest,
            tally.refuted,
            max(tally.newest_success, outcome.attempt),
        ),
        candidate.learnt_window and _window_after(candidate, outcome),
        candidate.refutations and _since(candidate.refutations, outcome.attempt),
        _headroom(candidate, outcome, state, now),
        candidate.leases,
    )
    pins = state.pins
    if outcome.conversation is not None:
        pins = _pinned(pins, outcome.conversation, outcome, now)
    return PoolState(
        _replaced(state.candidates, position, candidate),
        state.policy,
        state.memory,
        state.attempts,
        pins,
        outcome.alias,
    )


def _failed(state: PoolState, outcome: RateLimited | Failed, now: datetime) -> PoolState:
    position = _position(state, outcome.alias, outcome.attempt)
    if position is None:
        return state
    candidate = state.candidates[position]
    health, tally = candidate.health, candidate.tally
    match outcome:
        case RateLimited():
            tally = tally.counted(rate_limited=1)
        case Failed():
            tally = tally.counted(failed=1)
        case _ as never:
            assert_never(never)
    limited, broken = health.limited, health.broken
    if not state.policy.direct:
        # A spent quota and an account that cannot pay are one cooldown, whatever they are called.
        if isinstance(outcome.kind, Limit) or outcome.kind is Fault.UNPAID:
            limited = lengthened(limited, outcome, state, now)
        else:
            broken = lengthened(broken, outcome, state, now)
    under_way = _without(health.under_way, outcome.attempt)
    health = Health(limited, broken, under_way)
    headroom = _headroom(candidate, outcome, state, now)
    return _with(state, position, _evolved(candidate, health, tally, headroom))


def _released(state: PoolState, outcome: Rejected | Cancelled, now: datetime) -> PoolState:
    position = _position(state, outcome.alias, outcome.attempt)
    if position is None:
        return state
    candidate = state.candidates[position]
    health, tally = candidate.health, candidate.tally
    match outcome:
        case Rejected():
            tally = tally.counted(rejected=1)
        case Cancelled():
            tally = tally.counted(cancelled=1)
        case _ as never:
            assert_never(never)
    under_way = _without(health.under_way, outcome.attempt)
    health = evolve(health, under_way=under_way)
    headroom = _headroom(candidate, outcome, state, now)
    candidate = _evolved(candidate, health, tally, headroom)
    if isinstance(outcome, Rejected) and outcome.window is not None and outcome.window > 0:
        candidate = evolve(candidate, learnt_window=outcome.window)
    return _with(state, position, candidate)


def _refuted(state: PoolState, outcome: Refuted, now: datetime) -> PoolState:
    position = _position(state, outcome.alias)
    if position is None or not 0 < outcome.attempt <= state.attempts:
        return state
    candidate = state.candidates[position]
    tally = evolve(candidate.tally, refuted=candidate.tally.refuted + 1)
    candidate = evolve(candidate, tally=tally)
    if outcome.kind in WEAKNESSES and outcome.attempt > tally.newest_success:
        candidate = _with_refutation(candidate, outcome, state, now)
    return _with(state, position, candidate)


def _with_refutation(
    candidate: Candidate, outcome: Refuted, state: PoolState, now: datetime
) -> Candidate:
    """Count it, and disable the endpoint for its weakness if it is one too many."""
    refutation = Refutation(outcome.attempt, outcome.conversation)
    if any(other.attempt == refutation.attempt for other in candidate.refutations):
        return candidate
    known = sorted((*candidate.refutations, refutation), key=lambda one: one.attempt)
    newest = tuple(known[-REFUTATIONS_TO_DISABLE:])
    candidate = evolve(candidate, refutations=newest)
    conversations = {one.conversation for one in newest}
    if (
        len(newest) < REFUTATIONS_TO_DISABLE
        or len(conversations) == 1
        or state.policy.direct
    ):
        return candidate
    weakness = Failed(outcome.alias, outcome.attempt, Fault.PERSISTENT)
    health = candidate.health
    broken = lengthened(health.broken, weakness, state, now)
    return evolve(candidate, health=evolve(health, broken=broken))


def _reset(state: PoolState, outcome: Reset) -> PoolState:
    candidates = tuple(
        forgiven(candidate)
        if outcome.alias in {None, candidate.endpoint.alias}
        else candidate
        for candidate in state.candidates
    )
    return evolve(state, candidates=candidates)


def _heard(state: PoolState, outcome: Heard, now: datetime) -> PoolState:
    position = _position(state, outcome.alias)
    if position is None:
        return state
    candidate = state.candidates[position]
    fact, newest_success = outcome.fact, candidate.tally.newest_success
    if isinstance(fact, LeasesChanged):
        candidate = changed(candidate, fact)
    elif not isinstance(fact, RefusalRefuted):
        candidate = hear(candidate, outcome, state, now)
    elif (
        not outcome.attempt and fact.kind in WEAKNESSES and state.attempts > newest_success
    ):
        refuted = Refuted(outcome.alias, state.attempts, fact.kind, "", fact.conversation)
        candidate = _with_refutation(candidate, refuted, state, now)
    return _with(state, position, candidate)


def _without(under_way: tuple[int, ...], attempt: int) -> tuple[int, ...]:
    if len(under_way) == 1:
        return ()
    position = under_way.index(attempt)
    return under_way[:position] + under_way[position + 1 :]


def _pinned(
    pins: tuple[Pin, ...], conversation: str, outcome: Succeeded, now: datetime
) -> tuple[Pin, ...]:
    """Pin the conversation to the model which has just served it."""
    former = pins[-1] if pins else None
    if former is not None and former.conversation == conversation:
        others = pins[:-1]
    else:
        former = next((pin for pin in pins if pin.conversation == conversation), None)
        others = tuple(pin for pin in pins if pin is not former)
    refusers = outcome.refusers
    if former is not None and former.refusers and not outcome.new_turn:
        refusers = tuple(dict.fromkeys((*former.refusers, *refusers)))
    # A model which has served after all is no longer passed over.
    if outcome.alias in refusers:
        refusers = tuple(alias for alias in refusers if alias != outcome.alias)
    size = outcome.tokens_in + outcome.tokens_out
    pin = Pin(conversation, outcome.alias, now, size, refusers)
    return (*others[-(MOST_PINS - 1) :], pin)


def _window_after(candidate: Candidate, outcome: Succeeded) -> int | None:
    """Return the learnt window, unless this answer proves that it is larger by now."""
    window = candidate.learnt_window
    return None if window is not None and outcome.tokens_in > window else window


def _since(refutations: tuple[Refutation, ...], attempt: int) -> tuple[Refutation, ...]:
    """Return the refutations of later attempts: a success ends the row."""
    return tuple(one for one in refutations if one.attempt > attempt)


def _headroom(
    candidate: Candidate, outcome: AttemptOutcome, state: PoolState, now: datetime
) -> Headroom | None:
    """Return what is left of the endpoint's limits after this."""
    headroom = candidate.headroom
    allowances = () if isinstance(outcome, Cancelled) else outcome.allowances
    if headroom is None and not allowances:
        return None
    policy, attempt = state.policy, outcome.attempt
    if policy.direct or policy.announced_limits is AnnouncedLimits.IGNORE:
        return None
    if headroom is not None:
        # Before the announcement settles its charge: that says whether there seemed to be room.
        if isinstance(outcome, RateLimited) and outcome.kind is Limit.RATE:
            headroom = headroom.after_limit(attempt)
        elif isinstance(outcome, Succeeded) and headroom.margin:
            headroom = headroom.after_success()
        if not isinstance(outcome, Responding):
            headroom = headroom.after_end(attempt)
    age = outcome.after if isinstance(outcome, Responding) else None
    headroom = announced(headroom, allowances, attempt, now, age or NO_TIME)
    if headroom is not None and isinstance(outcome, Succeeded) and outcome.conversation:
        size = outcome.tokens_in + outcome.tokens_out
        headroom = headroom.after_serving(outcome.conversation, size, now)
    return headroom


def _position(state: PoolState, alias: str, attempt: int | None = None) -> int | None:
    """Return the endpoint's position, if the pool has it and this attempt is under way."""
    for position, candidate in enumerate(state.candidates):
        if candidate.endpoint.alias == alias:
            if attempt is None or attempt in candidate.health.under_way:
                return position
            return None
    return None


def _replaced(
    candidates: tuple[Candidate, ...], position: int, candidate: Candidate
) -> tuple[Candidate, ...]:
    # By way of a list: half the time of joining slices.
    replaced = list(candidates)
    replaced[position] = candidate
    return tuple(replaced)


def _evolved(
    candidate: Candidate, health: Health, tally: Tally, headroom: Headroom | None
) -> Candidate:
    # Written out: a quarter of the time of `evolve`.
    return Candidate(
        candidate.endpoint,
        health,
        tally,
        candidate.learnt_window,
        candidate.refutations,
        headroom,
        candidate.leases,
    )


def _with(state: PoolState, position: int, candidate: Candidate) -> PoolState:
    # Written out, as where attempts begin and succeed: a quarter of the time of `evolve`.
    return PoolState(
        _replaced(state.candidates, position, candidate),
        state.policy,
        state.memory,
        state.attempts,
        state.pins,
        state.last_used,
    )
