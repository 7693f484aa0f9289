"""`select`: who is attempted next, or how long to wait, or why nobody can be.

In order:

1. An endpoint is *open* unless it was tried in this call, is disabled, is on probation with
   its probe under way, is at `max_concurrent`, or is known to be unfit for the request.
2. One turn, one model: a conversation stays where it is pinned, if that endpoint is open.
3. Primaries before fallbacks. A busy primary has not failed: it is waited for, for a time.
4. The mode's strategy picks among the open endpoints of that tier, and sees no others.
5. Nobody open: wait for the first that will be, within the call's patience.
6. Last resort: nobody is open, but one may be tried again all the same.

Rules 2, 3, 5, 6 and 7 of DESIGN.md are kept here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from attrs import frozen

from muxcore.core.records import (
    Call,
    Candidate,
    Choice,
    Endpoint,
    Exhausted,
    Picked,
    PoolState,
    Reason,
    Sticky,
    Wait,
    Why,
)
from muxcore.core.strategy import Strategy
from muxcore.errors import StrategyError

FRESH = Call()
MORE_ATTEMPTS_THAN_ENDPOINTS = 2
MOST_REPEATS = 2
PIN_LASTS = timedelta(minutes=5)
"""Providers keep a prompt cache for about as long; a pin beyond it would keep nothing."""


class Standing(StrEnum):
    """Where an endpoint stands for one call. Only an open one is picked."""

    OPEN = "open"
    BUSY = "at max_concurrent"
    PROBED = "on probation, its probe is under way"
    DISABLED = "disabled"
    TRIED = "tried in this call"
    UNFIT = "unfit for this request"


@frozen
class Passed:
    """Why an endpoint was not picked: `explain` gives one for each.

    `until` is the end of its disabling, if it is disabled.
    """

    alias: str
    standing: Standing
    until: datetime | None = None
    cause: str = ""


def select(
    state: PoolState, mode: Strategy, now: datetime, call: Call = FRESH
) -> Choice:
    """Choose for `call` at `now`.

    Raise `StrategyError` when the mode raises or picks an endpoint that it was not shown.
    """
    window = _window_needed(state, call)
    primaries: list[Candidate] = []
    fallbacks: list[Candidate] = []
    waiting_for_primary = False
    for candidate in state.candidates:
        standing = _standing(candidate, call, window, now)
        if standing is Standing.OPEN:
            (fallbacks if candidate.endpoint.is_fallback else primaries).append(candidate)
        elif standing is Standing.BUSY and not candidate.endpoint.is_fallback:
            waiting_for_primary = True

    if call.conversation is not None:
        for candidate in (*primaries, *fallbacks):
            if _is_pinned(state, candidate.endpoint.alias, call, now):
                return Picked(candidate.endpoint, Why.STICKY, state.memory)
    if primaries:
        return _picked(state, mode, primaries, Why.MODE, call, now)
    waiting_for_primary &= _patience(state, call, now) > timedelta()
    if fallbacks and not waiting_for_primary:
        return _picked(state, mode, fallbacks, Why.FALLBACK, call, now)
    return _nobody_open(state, call, window, now, fallbacks_spared=waiting_for_primary)


def explain(
    state: PoolState, now: datetime, call: Call = FRESH
) -> tuple[Passed, ...]:
    """Return where each endpoint stands for `call`, in pool order."""
    window = _window_needed(state, call)
    passed = []
    for candidate in state.candidates:
        standing = _standing(candidate, call, window, now)
        spell = candidate.health.disabling(now)
        if spell is None:
            passed.append(Passed(candidate.endpoint.alias, standing))
        else:
            alias = candidate.endpoint.alias
            passed.append(Passed(alias, standing, spell.until, spell.cause))
    return tuple(passed)


def _standing(
    candidate: Candidate, call: Call, window: int, now: datetime
) -> Standing:
    endpoint, health = candidate.endpoint, candidate.health
    if not _fits(endpoint, call, window):
        return Standing.UNFIT
    if endpoint.alias in call.tried:
        return Standing.TRIED
    if health.limited is not None or health.broken is not None:
        if health.disabling(now) is not None:
            return Standing.DISABLED
        if health.probed:
            return Standing.PROBED
    cap = endpoint.max_concurrent
    if cap is not None and len(health.under_way) >= cap:
        return Standing.BUSY
    return Standing.OPEN


def _fits(endpoint: Endpoint, call: Call, window: int) -> bool:
    if call.only is not None and endpoint.alias != call.only:
        return False
    if endpoint.dialect in call.refused_dialects:
        return False
    own = endpoint.context_window
    if call.larger_than is not None and (own is None or own <= call.larger_than):
        return False
    return own is None or own >= window


def _window_needed(state: PoolState, call: Call) -> int:
    """Return the smallest window that will do: when all are too small, the largest does."""
    if call.prompt_tokens is None:
        return 0
    windows = [
        candidate.endpoint.context_window
        for candidate in state.candidates
        if call.only in {None, candidate.endpoint.alias}
    ]
    known = [window for window in windows if window is not None]
    if len(known) < len(windows):
        return call.prompt_tokens
    return min(call.prompt_tokens, max(known, default=0))


def _is_pinned(state: PoolState, alias: str, call: Call, now: datetime) -> bool:
    sticky = state.policy.sticky
    if sticky is Sticky.CALL or (sticky is Sticky.TURN and call.new_turn):
        return False
    return any(
        pin.conversation == call.conversation
        and pin.alias == alias
        and pin.at <= now < pin.at + PIN_LASTS
        for pin in state.pins
    )


def _picked(
    state: PoolState,
    mode: Strategy,
    tier: Sequence[Candidate],
    why: Why,
    call: Call,
    now: datetime,
) -> Picked:
    """Ask the strategy, and hold it to its promise."""
    shown = tuple(tier)
    try:
        endpoint, memory = mode.pick(shown, state.memory, call, now)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise StrategyError(f"the mode {_name(mode)} raised {reason}") from error
    if not any(endpoint is candidate.endpoint for candidate in shown) and not any(
        endpoint == candidate.endpoint for candidate in shown
    ):
        text = f"the mode {_name(mode)} picked {endpoint!r}, which it was not shown"
        raise StrategyError(text)
    return Picked(endpoint, why, memory)


def _name(mode: Strategy) -> str:
    return f"{type(mode).__module__}.{type(mode).__qualname__}"


def _patience(state: PoolState, call: Call, now: datetime) -> timedelta:
    """Return for how much longer a busy primary is waited for before a fallback is used.

    At most `max_wait`, and at most half of the time that was left when the waiting began.
    """
    patience = state.policy.max_wait
    if call.deadline is not None:
        patience = min(patience, (call.deadline - now + call.waited) / 2)
    return patience - call.waited


def _nobody_open(
    state: PoolState,
    call: Call,
    window: int,
    now: datetime,
    *,
    fallbacks_spared: bool,
) -> Choice:
    """Take a last resort, wait for what opens first, or give up."""
    fitting = [c for c in state.candidates if _fits(c.endpoint, call, window)]
    if not fitting:
        return Exhausted(None, Reason.UNFIT)
    retry_at = min((c.health.opens_at(now) for c in fitting if not _occupied(c)), default=None)
    if call.deadline is not None and now >= call.deadline:
        return Exhausted(retry_at, Reason.DEADLINE)
    reachable = [
        candidate
        for candidate in fitting
        if _may_be_tried(candidate, state, call)
        and not (fallbacks_spared and candidate.endpoint.is_fallback)
    ]
    if not reachable:
        return Exhausted(retry_at, Reason.TRIED)

    idle = [candidate for candidate in reachable if not _occupied(candidate)]
    due = [candidate for candidate in idle if candidate.health.opens_at(now) <= now]
    if due:
        first = min(due, key=lambda c: (c.endpoint.is_fallback, _since_due(c, now)))
        return Picked(first.endpoint, Why.LAST_RESORT, state.memory)

    patience = _patience(state, call, now) if fallbacks_spared else state.policy.max_wait - call.waited
    limit = now + patience
    if call.deadline is not None:
        limit = min(limit, call.deadline)
    opening = min((candidate.health.opens_at(now) for candidate in idle), default=None)
    if len(idle) < len(reachable):
        # A slot may be given back at any moment, so this waits even past `opening`.
        reason, until = Reason.BUSY, limit if opening is None else min(opening, limit)
    else:
        reason, until = Reason.DISABLED, opening
    if until is None or until > limit or limit <= now:
        return Exhausted(retry_at, reason)
    return Wait(until, reason)


def _may_be_tried(candidate: Candidate, state: PoolState, call: Call) -> bool:
    """Whether this call may still attempt it, now or later."""
    alias = candidate.endpoint.alias
    if alias not in call.tried:
        return True
    barred = state.policy.direct or alias in call.barred
    return not barred and call.repeats < MOST_REPEATS


def _occupied(candidate: Candidate) -> bool:
    """Whether an attempt under way stands in the way: its probe, or as many as its cap."""
    cap = candidate.endpoint.max_concurrent
    health = candidate.health
    return health.probed or (cap is not None and health.in_flight >= cap)


def _since_due(candidate: Candidate, now: datetime) -> datetime:
    """Order last resorts: the one whose time came first goes first."""
    spells = [spell.opens_at for spell in candidate.health.spells if spell.active(now)]
    return max(spells, default=now)
