"""`select`: choose the endpoint of the next attempt, or how long to wait, or why none can serve.

Pure: it reads a state, a call and a time, and changes nothing (`protocol.choose` begins the
attempt). `explain` returns the same judgement of each endpoint. In order:

1. An endpoint is *open* unless this call has tried it, or it is disabled, on probation with
   its probe under way, spent, at `max_concurrent`, or unfit for the request. It is *spent*
   while too little is left of a limit that it announces.
2. One turn, one model: a conversation stays on its pinned endpoint while that is open, or
   spent for a short time only.
3. After a refusal, models of another server come first, then other models of the same one. A
   prompt that was too long goes to windows known to be larger, then to those of unknown size.
   Models with a refuted refusal in this turn come last.
4. Primaries before fallbacks. A busy primary has not failed: the call waits for it, for a time.
5. The mode's strategy picks among the open endpoints of that tier, and sees no others.
6. If none is open: wait for the first that opens, within the call's patience. After that a
   spent one is tried: an announced limit never refuses a call.
7. Last resort (Envoy's panic threshold): none is open, but one that is disabled or was tried may
   be attempted. A last resort never gives a second opinion.

Rules 2, 3, 5, 6, 7 and 11 of docs/design.md are kept here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from attrs import evolve, frozen

from muxcore.core.allowance import CACHE_LASTS
from muxcore.core.outcomes import PickReason
from muxcore.core.records import (
    Call,
    Candidate,
    Choice,
    Exhausted,
    Picked,
    Pin,
    PoolState,
    Sticky,
    Wait,
    WaitReason,
    expect_aware,
)
from muxcore.core.strategy import Strategy
from muxcore.errors import InvalidArgumentError, StrategyError

FRESH = Call()
MOST_REPEATS = 2
"""Attempts of one call on endpoints which it has tried already (rule 7)."""
SHORT_WAIT = timedelta(seconds=2)
"""How long a turn waits for its own model if that is spent: about what a cold prompt costs.

With 5 seconds, agents in benchmarks/limits.py finished up to 5 % fewer calls."""


class Standing(StrEnum):
    """Where an endpoint stands for one call. Only an open one is picked."""

    OPEN = "open"
    BUSY = "at max_concurrent"
    PROBED = "on probation, its probe is under way"
    DISABLED = "disabled"
    SPENT = "too little is left of a limit that it announces"
    TRIED = "tried in this call"
    UNFIT = "unfit for this request"


OPEN = Standing.OPEN
"""A global is looked up faster than an enum member, and this once for each endpoint."""


@frozen
class Verdict:
    """The standing of one endpoint for a call.

    `until` is the end of its cooldown, or when a spent endpoint has room again.
    """

    alias: str
    standing: Standing
    until: datetime | None = None
    cause: str = ""


def select(state: PoolState, mode: Strategy, now: datetime, call: Call = FRESH) -> Choice:
    """Choose an endpoint for `call` at `now`, an aware datetime.

    Raise `StrategyError` when the mode raises or picks an endpoint that it was not shown, and
    `InvalidArgumentError` for a naive `now` or a mode that is a name or a class.
    """
    _expect_usable(mode, now)
    window = _window_needed(state, call)
    if call.conversation is not None:
        pin = _pin(state, call, now)
        if pin is not None:
            if _stays(state.policy.sticky, call):
                stay = _stay(state, pin, call, window, now)
                if stay is not None:
                    return stay
            # The mode decides again, and may weigh the warm cache that it would leave.
            passed_over = () if call.new_turn else pin.refusers
            call = call.pinned(pin, passed_over)
    if call.refused or call.larger_than is not None or call.passed_over:
        return _select_after_refusal(state, mode, call, window, now)
    primaries, fallbacks, primary_busy = _open(state.candidates, call, window, now)
    if primaries:
        return _picked(state, mode, primaries, PickReason.MODE, call, now)
    patience = _patience(state, call, now, for_primary=True)
    waiting_for_primary = primary_busy and patience > timedelta()
    if fallbacks and waiting_for_primary:
        until = _primary_opens(state.candidates, call, window, now, now + patience)
        return Wait(until, WaitReason.BUSY)
    if fallbacks:
        return _picked(state, mode, fallbacks, PickReason.FALLBACK, call, now)
    if waiting_for_primary:
        limits = _Limits(now + patience, now + patience)
    else:
        limits = _limits(state, call, now)
    return _none_open(state, call, window, now, limits, primaries_only=waiting_for_primary)


def _stay(
    state: PoolState, pin: Pin, call: Call, window: int, now: datetime
) -> Picked | Wait | None:
    """Return the pin's endpoint, a short wait for it, or None if the mode is to decide."""
    pinned = state.find(pin.alias)
    if pinned is None:
        return None
    if pinned.headroom is not None:
        call = call.pinned(pin, ())
    standing = _standing(pinned, call, window, now)
    if standing is OPEN:
        reason, demand = PickReason.STICKY, pinned.demand(call, now)
        return Picked(pinned.endpoint, reason, state.memory, demand)
    if standing is Standing.SPENT and not pinned.occupied(now):
        until = pinned.has_room_at(call, now)
        patience = _patience(state, call, now, for_primary=True)
        if until - now <= min(SHORT_WAIT, patience):
            return Wait(until, WaitReason.SPENT)
    return None


def explain(state: PoolState, now: datetime, call: Call = FRESH) -> tuple[Verdict, ...]:
    """Return the standing of each endpoint for `call`, in pool order."""
    window = _window_needed(state, call)
    if call.conversation is not None and any(
        c.headroom is not None for c in state.candidates
    ):
        call = evolve(call, pin=_pin(state, call, now))
    verdicts = []
    for candidate in state.candidates:
        alias, standing = candidate.endpoint.alias, _standing(candidate, call, window, now)
        if standing is OPEN:
            verdicts.append(Verdict(alias, standing))
        elif standing is Standing.SPENT:
            verdicts.append(Verdict(alias, standing, candidate.has_room_at(call, now)))
        elif cooldown := candidate.health.active_cooldown(now):
            verdicts.append(Verdict(alias, standing, cooldown.until, cooldown.cause))
        else:
            verdicts.append(Verdict(alias, standing))
    return tuple(verdicts)


def _expect_usable(mode: Strategy, now: datetime) -> None:
    if isinstance(mode, (str, type)):
        shown = repr(mode) if isinstance(mode, str) else f"the class {mode.__name__}"
        raise InvalidArgumentError(
            f"mode is {shown}, expected a strategy, such as Failover() of"
            " muxcore_strategies.failover"
        )
    expect_aware(now)


def _select_after_refusal(
    state: PoolState, mode: Strategy, call: Call, window: int, now: datetime
) -> Choice:
    """Choose from the most preferred group with an endpoint that is open or worth a wait."""
    preferences = {c.endpoint.alias: _preference(c, state, call) for c in state.candidates}
    patience = _patience(state, call, now, for_primary=True)
    for preference in sorted(set(preferences.values())):
        group = [c for c in state.candidates if preferences[c.endpoint.alias] == preference]
        reason = PickReason.PASSED_OVER if preference[0] else PickReason.AFTER_REFUSAL
        primaries, fallbacks, primary_busy = _open(group, call, window, now)
        if primaries:
            return _picked(state, mode, primaries, reason, call, now)
        busy = primary_busy or (
            not fallbacks
            and any(_standing(c, call, window, now) is Standing.BUSY for c in group)
        )
        if busy and patience > timedelta():
            until = _primary_opens(group, call, window, now, now + patience)
            return Wait(until, WaitReason.BUSY)
        if fallbacks:
            return _picked(state, mode, fallbacks, reason, call, now)
    if call.refused and any(c.headroom is not None for c in state.candidates):
        # An announced limit never denies a second opinion.
        candidates = tuple(evolve(c, headroom=None) for c in state.candidates)
        state = evolve(state, candidates=candidates)
        return _select_after_refusal(state, mode, call, window, now)
    if call.refused:
        return Exhausted(_opinion_at(state, call, window, now), WaitReason.TRIED)
    limits = _limits(state, call, now)
    return _none_open(state, call, window, now, limits, primaries_only=False)


def _opinion_at(
    state: PoolState, call: Call, window: int, now: datetime
) -> datetime | None:
    """Return when another model may give a second opinion, or None if none can."""
    if state.policy.direct:
        return None
    moments = []
    for candidate in state.candidates:
        alias, cooldown = candidate.endpoint.alias, candidate.health.active_cooldown(now)
        has_refused = alias in call.refused or alias in call.outgrown
        if has_refused or not _fits(candidate, call, window):
            continue
        if cooldown is None:
            moments.append(now)
        elif not cooldown.permanent:
            moments.append(cooldown.until)
    return min(moments, default=None)


def _preference(candidate: Candidate, state: PoolState, call: Call) -> tuple[bool, ...]:
    """Return a sort key after a refusal: the smallest is the most likely to take the request."""
    servers = {
        refuser.endpoint.server
        for alias in call.refused
        if (refuser := state.find(alias)) is not None
    }
    return (
        candidate.endpoint.alias in call.passed_over,
        candidate.endpoint.server in servers,
        call.larger_than is not None and candidate.context_window is None,
    )


def _open(
    candidates: Sequence[Candidate], call: Call, window: int, now: datetime
) -> tuple[list[Candidate], list[Candidate], bool]:
    """Return the open primaries, the open fallbacks, and whether a primary is only busy."""
    primaries: list[Candidate] = []
    fallbacks: list[Candidate] = []
    primary_busy = False
    # Nearly every call may use any endpoint, and nearly every endpoint is healthy. Checking that
    # here instead of in `_standing` takes a third of the time.
    anywhere = not call.tried and call.only is None and call.larger_than is None
    for candidate in candidates:
        endpoint, health = candidate.endpoint, candidate.health
        if (
            anywhere
            and health.limited is None
            and health.broken is None
            and candidate.headroom is None
            and endpoint.max_concurrent is None
            and (not window or _is_wide(candidate, window))
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
    if not _fits(candidate, call, window):
        return Standing.UNFIT
    if endpoint.alias in call.tried:
        return Standing.TRIED
    if health.limited is not None or health.broken is not None:
        if health.active_cooldown(now) is not None:
            return Standing.DISABLED
        if health.probed(now) or candidate.needs_probe_lease(now):
            return Standing.PROBED
    if candidate.has_room_at(call, now) > now:
        return Standing.SPENT
    return Standing.BUSY if candidate.is_full else Standing.OPEN


def _suits(candidate: Candidate, call: Call) -> bool:
    """Whether it may take the call, apart from the size of the prompt."""
    if call.only is not None and candidate.endpoint.alias != call.only:
        return False
    if call.larger_than is None:
        return True
    own = candidate.context_window
    if candidate.endpoint.alias in call.outgrown:
        return False
    return own is None or own > call.larger_than


def _is_wide(candidate: Candidate, window: int) -> bool:
    own = candidate.context_window
    return own is None or own >= window


def _fits(candidate: Candidate, call: Call, window: int) -> bool:
    return _is_wide(candidate, window) and _suits(candidate, call)


def _window_needed(state: PoolState, call: Call) -> int:
    """Return the smallest window that is accepted. If all are too small, that is the largest."""
    needed = call.prompt_tokens
    if needed is None:
        return 0
    largest = 0
    for candidate in state.candidates:
        own = candidate.context_window
        if (own is None or own > largest) and _suits(candidate, call):
            if own is None or own >= needed:
                return needed
            largest = own
    return largest


def _stays(sticky: Sticky, call: Call) -> bool:
    """Whether this call stays on the endpoint of its conversation."""
    return sticky is Sticky.SESSION or (sticky is Sticky.TURN and not call.new_turn)


def _pin(state: PoolState, call: Call, now: datetime) -> Pin | None:
    """Return the pin of this call's conversation, if its prompt cache may still be warm."""
    # The newest pins come last, and a conversation under way is among them.
    for pin in reversed(state.pins):
        if pin.conversation == call.conversation:
            # Without a warm cache, a pin saves nothing.
            return pin if pin.at <= now < pin.at + CACHE_LASTS else None
    return None


def _picked(
    state: PoolState,
    mode: Strategy,
    tier: Sequence[Candidate],
    why: PickReason,
    call: Call,
    now: datetime,
) -> Picked:
    """Ask the strategy, and check that it picked an endpoint that it was shown."""
    shown = tuple(tier)
    try:
        endpoint, memory = mode.pick(shown, state.memory, call, now)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise StrategyError(f"the mode {_name(mode)} raised {reason}") from error
    for candidate in shown:
        if endpoint is candidate.endpoint:
            return Picked(endpoint, why, memory, candidate.demand(call, now))
    for candidate in shown:
        if endpoint == candidate.endpoint:
            return Picked(endpoint, why, memory, candidate.demand(call, now))
    text = f"the mode {_name(mode)} picked {endpoint!r}, which it was not shown"
    raise StrategyError(text)


def _name(mode: Strategy) -> str:
    return f"{type(mode).__module__}.{type(mode).__qualname__}"


def _patience(
    state: PoolState,
    call: Call,
    now: datetime,
    *,
    for_primary: bool = False,
    for_slot: bool = False,
) -> timedelta:
    """Return how much longer this call may wait.

    All its waits add up to at most the policy's `max_wait`; those for a disabled model to at most
    the call's own `max_wait`, if that is less. Waits for a primary while a fallback could serve
    add up to at most half of the time that was left when the first began.
    """
    if state.policy.direct:
        return timedelta()
    longest = state.policy.max_wait
    if call.max_wait is not None and not (for_primary or for_slot):
        longest = min(longest, call.max_wait)
    patience = longest - call.waited
    if call.deadline is None:
        return patience
    left = call.deadline - now
    return min(patience, (left - call.waited) / 2 if for_primary else left)


def _primary_opens(
    candidates: Sequence[Candidate],
    call: Call,
    window: int,
    now: datetime,
    limit: datetime,
) -> datetime:
    """Return when the first disabled or spent primary opens, `limit` at the latest."""
    moments = [limit]
    for candidate in candidates:
        if candidate.endpoint.is_fallback:
            continue
        standing = _standing(candidate, call, window, now)
        cooldown = candidate.health.active_cooldown(now)
        if standing is Standing.DISABLED and cooldown is not None:
            moments.append(cooldown.until)
        elif standing is Standing.SPENT:
            moments.append(candidate.has_room_at(call, now))
    return min(moments)


@frozen
class _Limits:
    """Until when a call waits: for a disabled model, and for a slot of one that is busy."""

    disabled: datetime
    slot: datetime


def _limits(state: PoolState, call: Call, now: datetime) -> _Limits:
    return _Limits(
        now + _patience(state, call, now), now + _patience(state, call, now, for_slot=True)
    )


def _none_open(
    state: PoolState,
    call: Call,
    window: int,
    now: datetime,
    limits: _Limits,
    *,
    primaries_only: bool,
) -> Choice:
    """Wait within the limits for the first that opens, take a last resort, or give up."""
    spent = _spent(state, call, window, now, primaries_only=primaries_only)
    soon = min(limits.disabled, now + _patience(state, call, now, for_primary=True))
    if spent and spent[0][0] <= soon:
        ends = (c.health.active_cooldown(now) for c in state.candidates)
        return Wait(
            min([spent[0][0], *(end.until for end in ends if end is not None)]),
            WaitReason.SPENT,
        )
    choice = _without_spent(state, call, window, now, limits, primaries_only=primaries_only)
    if not spent or isinstance(choice, Picked):
        return choice
    # An announced limit refuses no call: the first to have room is tried.
    if soon <= now:
        return Picked(spent[0][1].endpoint, PickReason.SPENT, state.memory)
    until = choice.until if isinstance(choice, Wait) else soon
    return Wait(min(until, soon), WaitReason.SPENT)


def _spent(
    state: PoolState, call: Call, window: int, now: datetime, *, primaries_only: bool
) -> list[tuple[datetime, Candidate]]:
    """Return the spent candidates which have a slot, each with the time when it has room."""
    spent = [
        (candidate.has_room_at(call, now), candidate)
        for candidate in state.candidates
        if candidate.headroom is not None
        and _standing(candidate, call, window, now) is Standing.SPENT
        and not candidate.occupied(now)
        and not (primaries_only and candidate.endpoint.is_fallback)
    ]
    return sorted(spent, key=lambda entry: (entry[0], entry[1].endpoint.is_fallback))


def _without_spent(
    state: PoolState,
    call: Call,
    window: int,
    now: datetime,
    limits: _Limits,
    *,
    primaries_only: bool,
) -> Choice:
    """Choose among those that are busy or disabled, or were tried."""
    fitting = [
        (candidate, candidate.health.opens_at(now), candidate.occupied(now))
        for candidate in state.candidates
        if _fits(candidate, call, window)
        and _standing(candidate, call, window, now) is not Standing.SPENT
    ]
    if not fitting:
        return Exhausted(None, WaitReason.UNFIT)
    # When a slot will be given back is not known.
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
        first = min(due, key=lambda c: (c.endpoint.is_fallback, c.health.due_since(now)))
        return Picked(first.endpoint, PickReason.LAST_RESORT, state.memory)

    # A slot may be given back, and a probe may succeed, at any time. But the slot of a model that
    # stays disabled cannot be used.
    busy = [
        c
        for c, at, occupied in reachable
        if occupied and (at <= max(now, limits.disabled) or c.health.probed(now))
    ]
    reason = WaitReason.BUSY if busy else WaitReason.DISABLED
    openings = [
        at for _, at, occupied in reachable if not occupied and at <= limits.disabled
    ]
    for candidate in busy:
        is_slot = candidate.health.active_cooldown(now) is None
        limit = (
            limits.slot if is_slot and not candidate.health.probed(now) else limits.disabled
        )
        if limit > now:
            openings.append(min(limit, candidate.health.frees_itself_at(now) or limit))
    until = min(openings, default=None)
    if until is None:
        return Exhausted(retry_at, reason)
    return Wait(until, reason)


def _may_be_tried(candidate: Candidate, state: PoolState, call: Call) -> bool:
    """Whether this call may still attempt it, now or later."""
    alias = candidate.endpoint.alias
    if alias not in call.tried:
        return True
    excluded = state.policy.direct or alias in call.excluded
    return not excluded and call.repeats < MOST_REPEATS
