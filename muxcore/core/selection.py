"""`select`: who is attempted next, or how long to wait, or why nobody can be.

In order:

1. An endpoint is *open* unless it was tried in this call, is disabled, is on probation with
   its probe under way, is at `max_concurrent`, or is known to be unfit for the request.
2. One turn, one model: a conversation stays where it is pinned, if that endpoint is open.
3. Primaries before fallbacks. A busy primary has not failed: it is waited for, for a time.
4. The mode's strategy picks among the open endpoints of that tier, and sees no others.
5. Nobody open: wait for the first that will be, within the call's patience.
6. Last resort: nobody is open, but one may be tried again all the same.

Rules 2, 3, 5, 6 and 7 of docs/design.md are kept here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from attrs import evolve, frozen

from muxcore.core.records import (
    Call,
    Candidate,
    Choice,
    Endpoint,
    Exhausted,
    Picked,
    PickReason,
    Pin,
    PoolState,
    Sticky,
    Wait,
    WaitReason,
)
from muxcore.core.strategy import Strategy
from muxcore.errors import StrategyError

FRESH = Call()
MOST_REPEATS = 2
"""Attempts of one call on endpoints that it has tried already (rule 7)."""
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


OPEN = Standing.OPEN
"""A global is looked up faster than a member, and this one once for each endpoint."""


@frozen
class Verdict:
    """Why an endpoint was not picked: `explain` gives one for each.

    `until` is the end of its disabling, if it is disabled.
    """

    alias: str
    standing: Standing
    until: datetime | None = None
    cause: str = ""


def select(state: PoolState, mode: Strategy, now: datetime, call: Call = FRESH) -> Choice:
    """Choose for `call` at `now`.

    Raise `StrategyError` when the mode raises or picks an endpoint that it was not shown.
    """
    window = _window_needed(state, call)
    primaries, fallbacks, primary_busy = _open(state, call, window, now)
    if call.conversation is not None:
        pin = _pin(state, call, now)
        if pin is not None:
            if _stays(state.policy.sticky, call):
                for candidate in (*primaries, *fallbacks):
                    if candidate.endpoint.alias == pin.alias:
                        return Picked(candidate.endpoint, PickReason.STICKY, state.memory)
            # The mode decides afresh, and may weigh what it would leave behind.
            call = evolve(call, pin=pin)
    if primaries:
        return _picked(state, mode, primaries, PickReason.MODE, call, now)
    patience = _patience(state, call, now, for_primary=True)
    waiting_for_primary = primary_busy and patience > timedelta()
    if fallbacks and waiting_for_primary:
        return Wait(
            _primary_opens(state, call, window, now, now + patience), WaitReason.BUSY
        )
    if fallbacks:
        return _picked(state, mode, fallbacks, PickReason.FALLBACK, call, now)
    if not waiting_for_primary:
        patience = _patience(state, call, now)
    return _nobody_open(
        state, call, window, now, now + patience, primaries_only=waiting_for_primary
    )


def explain(state: PoolState, now: datetime, call: Call = FRESH) -> tuple[Verdict, ...]:
    """Return where each endpoint stands for `call`, in pool order."""
    window = _window_needed(state, call)
    passed = []
    for candidate in state.candidates:
        standing = _standing(candidate, call, window, now)
        cooldown = candidate.health.active_cooldown(now)
        if cooldown is None:
            passed.append(Verdict(candidate.endpoint.alias, standing))
        else:
            alias = candidate.endpoint.alias
            passed.append(Verdict(alias, standing, cooldown.until, cooldown.cause))
    return tuple(passed)


def _open(
    state: PoolState, call: Call, window: int, now: datetime
) -> tuple[list[Candidate], list[Candidate], bool]:
    """Return the open primaries, the open fallbacks, and whether a primary is only busy."""
    primaries: list[Candidate] = []
    fallbacks: list[Candidate] = []
    primary_busy = False
    # Nearly every call may go anywhere and nearly every endpoint is well. To see that here,
    # and not in `_standing`, takes a third of the time.
    anywhere = not call.tried and _suits_all(call)
    for candidate in state.candidates:
        endpoint, health = candidate.endpoint, candidate.health
        if (
            anywhere
            and health.limited is None
            and health.broken is None
            and endpoint.max_concurrent is None
            and (not window or _is_wide(endpoint, window))
        ):
            standing = OPEN
        else:
            standing = _standing(candidate, call, window, now)
        if standing is OPEN:
            (fallbacks if endpoint.is_fallback else primaries).append(candidate)
        elif standing is Standing.BUSY and not endpoint.is_fallback:
            primary_busy = True
    return primaries, fallbacks, primary_busy


def _standing(candidate: Candidate, call: Call, window: int, now: datetime) -> Standing:
    endpoint, health = candidate.endpoint, candidate.health
    if not _fits(endpoint, call, window):
        return Standing.UNFIT
    if endpoint.alias in call.tried:
        return Standing.TRIED
    if health.limited is not None or health.broken is not None:
        if health.active_cooldown(now) is not None:
            return Standing.DISABLED
        if health.probed(now):
            return Standing.PROBED
    cap = endpoint.max_concurrent
    if cap is not None and len(health.under_way) >= cap:
        return Standing.BUSY
    return Standing.OPEN


def _suits_all(call: Call) -> bool:
    return call.only is None and call.larger_than is None and not call.refused_dialects


def _suits(endpoint: Endpoint, call: Call) -> bool:
    """Whether it may take the call, if the prompt is as short as it may be."""
    if call.only is not None and endpoint.alias != call.only:
        return False
    if endpoint.dialect in call.refused_dialects:
        return False
    own = endpoint.context_window
    return call.larger_than is None or (own is not None and own > call.larger_than)


def _is_wide(endpoint: Endpoint, window: int) -> bool:
    own = endpoint.context_window
    return own is None or own >= window


def _fits(endpoint: Endpoint, call: Call, window: int) -> bool:
    return _is_wide(endpoint, window) and _suits(endpoint, call)


def _window_needed(state: PoolState, call: Call) -> int:
    """Return the smallest window that will do: when all are too small, the largest does."""
    needed = call.prompt_tokens
    if needed is None:
        return 0
    largest = 0
    for candidate in state.candidates:
        own = candidate.endpoint.context_window
        if (own is None or own > largest) and _suits(candidate.endpoint, call):
            if own is None or own >= needed:
                return needed
            largest = own
    return largest


def _stays(sticky: Sticky, call: Call) -> bool:
    """Whether this call belongs where its conversation is."""
    return sticky is Sticky.SESSION or (sticky is Sticky.TURN and not call.new_turn)


def _pin(state: PoolState, call: Call, now: datetime) -> Pin | None:
    """Return where this call's conversation is, as long as that is warm."""
    # The newest come last, and a conversation under way is among them.
    for pin in reversed(state.pins):
        if pin.conversation == call.conversation:
            return pin if pin.at <= now < pin.at + PIN_LASTS else None
    return None


def _picked(
    state: PoolState,
    mode: Strategy,
    tier: Sequence[Candidate],
    why: PickReason,
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
    for candidate in shown:
        if endpoint is candidate.endpoint:
            return Picked(endpoint, why, memory)
    if any(endpoint == candidate.endpoint for candidate in shown):
        return Picked(endpoint, why, memory)
    text = f"the mode {_name(mode)} picked {endpoint!r}, which it was not shown"
    raise StrategyError(text)


def _name(mode: Strategy) -> str:
    return f"{type(mode).__module__}.{type(mode).__qualname__}"


def _patience(
    state: PoolState, call: Call, now: datetime, *, for_primary: bool = False
) -> timedelta:
    """Return for how much longer this call may wait, be it for a busy primary or for anybody.

    At most `max_wait` in all its waits: the policy's, or its own where that is less. For a primary while a fallback could serve, at most
    half of the time that was left when the waiting began.
    """
    if state.policy.direct:
        return timedelta()
    longest = state.policy.max_wait
    if call.max_wait is not None:
        longest = min(longest, call.max_wait)
    patience = longest - call.waited
    if call.deadline is None:
        return patience
    left = call.deadline - now
    return min(patience, (left - call.waited) / 2 if for_primary else left)


def _primary_opens(
    state: PoolState, call: Call, window: int, now: datetime, limit: datetime
) -> datetime:
    """Return when a primary will be open, or else `limit`: a slot may be given back sooner."""
    ends = [
        cooldown.until
        for candidate in state.candidates
        if not candidate.endpoint.is_fallback
        and _standing(candidate, call, window, now) is Standing.DISABLED
        and (cooldown := candidate.health.active_cooldown(now)) is not None
    ]
    return min([limit, *ends])


def _nobody_open(
    state: PoolState,
    call: Call,
    window: int,
    now: datetime,
    limit: datetime,
    *,
    primaries_only: bool,
) -> Choice:
    """Take a last resort, wait until `limit` for what opens first, or give up."""
    fitting = [
        (candidate, candidate.health.opens_at(now), _occupied(candidate, now))
        for candidate in state.candidates
        if _fits(candidate.endpoint, call, window)
    ]
    if not fitting:
        return Exhausted(None, WaitReason.UNFIT)
    # When a slot will be given back, nobody can say.
    moments = [at for _, at, occupied in fitting if at > now or not occupied]
    retry_at = min(moments, default=None)
    if call.deadline is not None and now >= call.deadline:
        return Exhausted(retry_at, WaitReason.DEADLINE)
    reachable = [
        (candidate, at, occupied)
        for candidate, at, occupied in fitting
        if _may_be_tried(candidate, state, call)
        and not (primaries_only and candidate.endpoint.is_fallback)
    ]
    if not reachable:
        return Exhausted(retry_at, WaitReason.TRIED)

    due = [c for c, at, occupied in reachable if at <= now and not occupied]
    if due:
        first = min(due, key=lambda c: (c.endpoint.is_fallback, _due_since(c, now)))
        return Picked(first.endpoint, PickReason.LAST_RESORT, state.memory)

    reason = WaitReason.DISABLED
    openings: list[datetime] = []
    for candidate, at, occupied in reachable:
        if not occupied:
            openings.append(at)
        elif at <= max(now, limit) or candidate.health.probed(now):
            # A slot may be given back, and a probe succeed, at any moment. But a slot of a
            # model that stays disabled helps nobody.
            reason = WaitReason.BUSY
            openings.append(min(limit, _frees_itself(candidate, now) or limit))
    until = min(openings, default=None)
    if until is None or until > limit or limit <= now:
        return Exhausted(retry_at, reason)
    return Wait(until, reason)


def _may_be_tried(candidate: Candidate, state: PoolState, call: Call) -> bool:
    """Whether this call may still attempt it, now or later."""
    alias = candidate.endpoint.alias
    if alias not in call.tried:
        return True
    excluded = state.policy.direct or alias in call.excluded
    return not excluded and call.repeats < MOST_REPEATS


def _occupied(candidate: Candidate, now: datetime) -> bool:
    """Whether an attempt under way stands in the way: its probe, or as many as its cap."""
    cap = candidate.endpoint.max_concurrent
    health = candidate.health
    return health.probed(now) or (cap is not None and health.in_flight >= cap)


def _frees_itself(candidate: Candidate, now: datetime) -> datetime | None:
    """Return when it is open to all whatever its probe does, as that has responded."""
    cooldown = candidate.health.active_cooldown(now)
    return None if cooldown is None or candidate.health.unproven else cooldown.until


def _due_since(candidate: Candidate, now: datetime) -> datetime:
    """Order last resorts: the one whose time came first goes first."""
    cooldowns = [
        cooldown.opens_at for cooldown in candidate.health.cooldowns if cooldown.active(now)
    ]
    return max(cooldowns, default=now)
