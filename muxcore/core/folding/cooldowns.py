"""Cooldowns: how long they last, what lengthens them, what ends them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import assert_never

from attrs import evolve

from muxcore.core.outcomes import Failed, Fault, Limit, RateLimited
from muxcore.core.records import Cooldown, Policy, PoolState

LONGEST_HINT = timedelta(hours=1)
QUOTA_DURATION = timedelta(minutes=15)
LONGEST_ESCALATION = timedelta(minutes=5)


def cooldown_length(
    policy: Policy, outcome: RateLimited | Failed, failures: int
) -> timedelta:
    """Return for how long this failure disables, as the `failures`-th of its kind in a row."""
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


def lengthened(
    cooldown: Cooldown | None,
    outcome: RateLimited | Failed,
    state: PoolState,
    now: datetime,
) -> Cooldown:
    """Return the cooldown which this failure begins or lengthens."""
    fresh = Cooldown(
        since=now,
        until=now + cooldown_length(state.policy, outcome, 1),
        cause=outcome.kind,
        newest=state.attempts,
        failures=1,
        failed_at=now,
        hint=_hint(outcome),
        fact=0 if cooldown is None else cooldown.fact,
        unnumbered=outcome.attempt,
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
        # The permanent cause stays while it lasts: "try again soon" does not mend a bad key.
        until = max(cooldown.until, until)
        return evolve(
            cooldown,
            until=until,
            newest=state.attempts,
            proven=False,
            unnumbered=outcome.attempt,
        )
    until = max(cooldown.until, until)
    return evolve(fresh, failures=failures, since=cooldown.since, until=until)


def _hint(outcome: RateLimited | Failed) -> timedelta | None:
    """Return for how long the server asked, if that makes sense; an hour at most."""
    hint = outcome.hint
    return None if hint is None or hint <= timedelta() else min(hint, LONGEST_HINT)


def proven(cooldown: Cooldown | None, attempt: int) -> Cooldown | None:
    """End the probation after a cooldown, if this attempt began after the failure."""
    if cooldown is None or attempt <= cooldown.newest:
        return cooldown
    return evolve(cooldown, proven=True)


def cleared(cooldown: Cooldown | None, attempt: int) -> Cooldown | None:
    return None if cooldown is None or attempt > cooldown.newest else cooldown
