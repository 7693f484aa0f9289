"""`update`: fold what happened into the state. What is learnt, and nothing else.

The rules it keeps (see docs/design.md; tests cite the numbers):

- Attempts are numbered by `Started`, and order is told by these numbers alone. A failure
  disables its endpoint and remembers the newest number of that moment; only a success with a
  greater one clears it, and only failures with a greater one count as consecutive.
- A spell's end never moves earlier, except by that success or a `Reset` (rule 4).
- A fault of the request and a caller who left change nobody's availability (rule 6).
- Each attempt ends once: a second end, or one of a stranger, changes nothing (rule 12).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import assert_never

from attrs import evolve

from muxcore.core.outcomes import (
    Cancelled,
    Failed,
    Fault,
    Limit,
    Outcome,
    RateLimited,
    Rejected,
    Reset,
    Responding,
    Started,
    Succeeded,
)
from muxcore.core.records import Candidate, Cooldown, Health, Pin, Policy, PoolState, Tally

LONGEST_HINT = timedelta(hours=1)
QUOTA_DURATION = timedelta(minutes=15)
LONGEST_ESCALATION = timedelta(minutes=5)
MOST_PINS = 256
AVERAGE_OVER = 8
"""The newest time to first content counts one part in this many."""


def update(state: PoolState, outcome: Outcome, now: datetime) -> PoolState:
    """Return the state after `outcome`, which became known at `now`."""
    match outcome:
        case Started():
            return _started(state, outcome)
        case Succeeded():
            return _succeeded(state, outcome, now)
        case Responding():
            return _responding(state, outcome, now)
        case RateLimited() | Failed():
            return _failed(state, outcome, now)
        case Rejected() | Cancelled():
            return _released(state, outcome)
        case Reset():
            return _reset(state, outcome)
        case _ as never:
            assert_never(never)


def cooldown_length(
    policy: Policy, outcome: RateLimited | Failed, failures: int
) -> timedelta:
    """Return for how long this disables, as the `failures`-th of its kind in a row."""
    rate = policy.rate_limit_disable_duration
    error = policy.persistent_error_disable_duration
    hint = _hint(outcome) or timedelta()
    match outcome.kind:
        case Limit.BUDGET:
            return hint or rate
        case Limit.RATE:
            return max(rate, hint)
        case Limit.QUOTA | Fault.UNPAID:
            return max(rate, QUOTA_DURATION, hint)
        case Fault.TRANSIENT:
            return max(error, hint)
        case Fault.PERSISTENT | Fault.AUTH | Fault.NOT_FOUND:
            # Doubled so often, the smallest cooldown is beyond the limit already.
            times = 1 << min(failures - 1, 20)
            return max(error, min(error * times, LONGEST_ESCALATION), hint)
        case _ as never:
            assert_never(never)


def _started(state: PoolState, outcome: Started) -> PoolState:
    position = _position(state, outcome.alias)
    if position is None:
        return state
    candidate = state.candidates[position]
    health = candidate.health
    number = state.attempts + 1
    return PoolState(
        _replaced(
            state.candidates,
            position,
            Candidate(
                candidate.endpoint,
                Health(health.limited, health.broken, (*health.under_way, number)),
                candidate.tally,
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
            limited=_proven(health.limited, outcome.attempt),
            broken=_proven(health.broken, outcome.attempt),
        )
    average, at, latest = _first_content(tally, outcome.after, now)
    tally = evolve(
        tally, first_content=average, first_content_at=at, latest_first_content=latest
    )
    return _with(state, position, Candidate(candidate.endpoint, health, tally))


def _succeeded(state: PoolState, outcome: Succeeded, now: datetime) -> PoolState:
    position = _position(state, outcome.alias, outcome.attempt)
    if position is None:
        return state
    candidate = state.candidates[position]
    health, tally = candidate.health, candidate.tally
    candidate = Candidate(
        candidate.endpoint,
        Health(
            _cleared(health.limited, outcome.attempt),
            _cleared(health.broken, outcome.attempt),
            _without(health.under_way, outcome.attempt),
        ),
        Tally(
            tally.succeeded + 1,
            tally.rate_limited,
            tally.failed,
            tally.rejected,
            tally.cancelled,
            tally.tokens_in + outcome.tokens_in,
            tally.tokens_cached + outcome.tokens_cached,
            tally.tokens_out + outcome.tokens_out,
            *_first_content(tally, outcome.after, now),
        ),
    )
    pins = state.pins
    if outcome.conversation is not None:
        size = outcome.tokens_in + outcome.tokens_out
        pins = _pinned(pins, Pin(outcome.conversation, outcome.alias, now, size))
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
            tally = _counted(tally, rate_limited=1)
        case Failed():
            tally = _counted(tally, failed=1)
        case _ as never:
            assert_never(never)
    limited, broken = health.limited, health.broken
    if not state.policy.direct:
        # A spent quota and an account that cannot pay are one spell, however they are told.
        if isinstance(outcome.kind, Limit) or outcome.kind is Fault.UNPAID:
            limited = _disabled(limited, outcome, state, now)
        else:
            broken = _disabled(broken, outcome, state, now)
    under_way = _without(health.under_way, outcome.attempt)
    health = Health(limited, broken, under_way)
    return _with(state, position, Candidate(candidate.endpoint, health, tally))


def _released(state: PoolState, outcome: Rejected | Cancelled) -> PoolState:
    position = _position(state, outcome.alias, outcome.attempt)
    if position is None:
        return state
    candidate = state.candidates[position]
    health, tally = candidate.health, candidate.tally
    match outcome:
        case Rejected():
            tally = _counted(tally, rejected=1)
        case Cancelled():
            tally = _counted(tally, cancelled=1)
        case _ as never:
            assert_never(never)
    under_way = _without(health.under_way, outcome.attempt)
    health = evolve(health, under_way=under_way)
    return _with(state, position, Candidate(candidate.endpoint, health, tally))


def _reset(state: PoolState, outcome: Reset) -> PoolState:
    candidates = tuple(
        evolve(candidate, health=Health(under_way=candidate.health.under_way))
        if outcome.alias in {None, candidate.endpoint.alias}
        else candidate
        for candidate in state.candidates
    )
    return evolve(state, candidates=candidates)


def _disabled(
    cooldown: Cooldown | None,
    outcome: RateLimited | Failed,
    state: PoolState,
    now: datetime,
) -> Cooldown:
    """Return the spell that this failure begins, or lengthens."""
    fresh = Cooldown(
        since=now,
        until=now + cooldown_length(state.policy, outcome, 1),
        cause=outcome.kind,
        newest=state.attempts,
        failures=1,
        failed_at=now,
        hint=_hint(outcome),
    )
    if cooldown is None:
        return fresh
    failures = 1
    if cooldown.permanent == fresh.permanent:
        failures = cooldown.failures + (outcome.attempt > cooldown.newest)
    until = now + cooldown_length(state.policy, outcome, failures)
    if not cooldown.active(now):
        return evolve(fresh, failures=failures, until=until)
    if cooldown.permanent and not fresh.permanent:
        # The graver cause stays while it lasts: "try again soon" says nothing of a bad key.
        until = max(cooldown.until, until)
        return evolve(cooldown, until=until, newest=state.attempts, proven=False)
    until = max(cooldown.until, until)
    return evolve(fresh, failures=failures, since=cooldown.since, until=until)


def _hint(outcome: RateLimited | Failed) -> timedelta | None:
    """Return how long the server said, if that makes sense, and at most an hour of it."""
    hint = outcome.hint
    return None if hint is None or hint <= timedelta() else min(hint, LONGEST_HINT)


def _proven(cooldown: Cooldown | None, attempt: int) -> Cooldown | None:
    """End the probation after a spell: an attempt from after the failure has responded."""
    if cooldown is None or attempt <= cooldown.newest:
        return cooldown
    return evolve(cooldown, proven=True)


def _cleared(cooldown: Cooldown | None, attempt: int) -> Cooldown | None:
    return None if cooldown is None or attempt > cooldown.newest else cooldown


def _without(under_way: tuple[int, ...], attempt: int) -> tuple[int, ...]:
    if len(under_way) == 1:
        return ()
    position = under_way.index(attempt)
    return under_way[:position] + under_way[position + 1 :]


def _counted(
    tally: Tally,
    *,
    rate_limited: int = 0,
    failed: int = 0,
    rejected: int = 0,
    cancelled: int = 0,
) -> Tally:
    # Written out: a quarter of the time of `evolve`.
    return Tally(
        tally.succeeded,
        tally.rate_limited + rate_limited,
        tally.failed + failed,
        tally.rejected + rejected,
        tally.cancelled + cancelled,
        tally.tokens_in,
        tally.tokens_cached,
        tally.tokens_out,
        tally.first_content,
        tally.first_content_at,
        tally.latest_first_content,
    )


def _first_content(
    tally: Tally, after: timedelta | None, now: datetime
) -> tuple[timedelta | None, datetime | None, timedelta | None]:
    """Return these times of the tally: on average, when it was told, and the newest."""
    average = tally.first_content
    if after is None:
        return average, tally.first_content_at, tally.latest_first_content
    moved = after if average is None else average + (after - average) / AVERAGE_OVER
    return moved, now, after


def _pinned(pins: tuple[Pin, ...], pin: Pin) -> tuple[Pin, ...]:
    others = tuple(p for p in pins if p.conversation != pin.conversation)
    return (*others[-(MOST_PINS - 1) :], pin)


def _position(state: PoolState, alias: str, attempt: int | None = None) -> int | None:
    """Find the endpoint, if the pool has it (and this attempt of it is under way)."""
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
