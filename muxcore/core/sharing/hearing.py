"""Folding a fact that was heard into the state, by the rules of own outcomes.

- A fact which disables never shortens a cooldown (rule 4).
- A success which others had clears only what it had heard of: facts are numbered, and an own
  failure gets its number when the process hears its own fact. Until then nothing heard
  clears it.
- Attempts under way when a fact arrives are no evidence against it, as after an own failure.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import assert_never

from attrs import evolve

from muxcore.core.entries import Heard
from muxcore.core.migration import forgiven
from muxcore.core.outcomes import Fault, Limit
from muxcore.core.records import Candidate, Cooldown, PoolState
from muxcore.core.sharing.facts import (
    LeasesChanged,
    PlaceDisabled,
    PlaceRecovered,
    PlaceReset,
    RefusalRefuted,
    WindowLearnt,
)

LONGEST_HEARD = timedelta(hours=1)
"""No cooldown that this version publishes is longer."""


def hear(candidate: Candidate, heard: Heard, state: PoolState, now: datetime) -> Candidate:
    """Return the candidate after this fact about its place."""
    match heard.fact:
        case PlaceDisabled() as fact:
            return _hear_disabled(candidate, heard, fact, state, now)
        case _ if heard.attempt:
            # An own fact comes back: its outcome is folded in already.
            return candidate
        case PlaceRecovered(heard_of=heard_of):
            return _hear_recovered(candidate, heard_of)
        case WindowLearnt(window=window):
            return evolve(candidate, learnt_window=window) if window > 0 else candidate
        case PlaceReset():
            return forgiven(candidate)
        case RefusalRefuted() | LeasesChanged():
            raise TypeError("this fact is folded in elsewhere")
        case _ as never:
            assert_never(never)


def _hear_disabled(
    candidate: Candidate,
    heard: Heard,
    fact: PlaceDisabled,
    state: PoolState,
    now: datetime,
) -> Candidate:
    health = candidate.health
    if heard.attempt:
        health = evolve(
            health,
            limited=_numbered(health.limited, heard),
            broken=_numbered(health.broken, heard),
        )
    elif state.policy.direct or fact.remaining <= timedelta():
        return candidate
    elif isinstance(fact.cause, Limit) or fact.cause is Fault.UNPAID:
        limited = _disabled(health.limited, heard, fact, state, now)
        health = evolve(health, limited=limited)
    else:
        broken = _disabled(health.broken, heard, fact, state, now)
        health = evolve(health, broken=broken)
    return evolve(candidate, health=health)


def _numbered(cooldown: Cooldown | None, heard: Heard) -> Cooldown | None:
    """Return an own cooldown whose failure has got its number on the board."""
    if cooldown is None or cooldown.unnumbered != heard.attempt:
        return cooldown
    return evolve(cooldown, unnumbered=0, fact=max(cooldown.fact, heard.number))


def _disabled(
    cooldown: Cooldown | None,
    heard: Heard,
    fact: PlaceDisabled,
    state: PoolState,
    now: datetime,
) -> Cooldown:
    """Return the cooldown which this fact begins or lengthens."""
    fresh = Cooldown(
        since=now,
        until=now + min(fact.remaining, LONGEST_HEARD),
        cause=fact.cause,
        newest=state.attempts,
        failures=max(1, fact.failures),
        failed_at=now,
        hint=fact.hint,
        fact=heard.number,
    )
    if cooldown is None:
        return fresh
    # An own failure in it stays without a number until the process hears its own fact.
    fresh = evolve(
        fresh, fact=max(cooldown.fact, heard.number), unnumbered=cooldown.unnumbered
    )
    if not cooldown.active(now):
        return fresh
    until = max(cooldown.until, fresh.until)
    if cooldown.permanent and not fresh.permanent:
        # As for own failures: the permanent cause stays while it lasts.
        return evolve(
            cooldown,
            until=until,
            newest=fresh.newest,
            proven=False,
            fact=fresh.fact,
        )
    failures = fresh.failures
    if cooldown.permanent == fresh.permanent:
        failures = max(failures, cooldown.failures)
    return evolve(fresh, since=cooldown.since, until=until, failures=failures)


def _hear_recovered(candidate: Candidate, heard_of: int) -> Candidate:
    health = candidate.health
    limited = _cleared(health.limited, heard_of)
    broken = _cleared(health.broken, heard_of)
    if limited is health.limited and broken is health.broken:
        return candidate
    return evolve(candidate, health=evolve(health, limited=limited, broken=broken))


def _cleared(cooldown: Cooldown | None, heard_of: int) -> Cooldown | None:
    if cooldown is None or cooldown.unnumbered or not 0 < cooldown.fact <= heard_of:
        return cooldown
    return None
