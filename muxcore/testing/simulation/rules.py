"""The rules of the design, checked after every step by code that shares none with the core's.

`RuleChecker` observes the simulated pool: it sees each change, and the decisions which come
with it, before any call does. It replays what happened with `update` alone and compares
(rule 13), so it also knows the exact state in which each choice was made.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from attrs import evolve

from muxcore.core.entries import Configured, Entry
from muxcore.core.outcomes import (
    Cancelled,
    Fault,
    Refusal,
    Rejected,
    Reset,
    Started,
    Succeeded,
)
from muxcore.core.protocol import Slot
from muxcore.core.records import (
    Call,
    Candidate,
    Cooldown,
    Exhausted,
    PickReason,
    PoolState,
    Wait,
)
from muxcore.core.updating import update
from muxcore.shell.pool.pool import Change
from muxcore.shell.pool.waiter import Waiter
from muxcore.testing.simulation.labels import PICKED_FOR, WAITS_FOR
from muxcore.testing.simulation.observation import (
    Caller,
    Cause,
    ObservedStrategy,
    demand,
)

NEVER, SECOND = timedelta(), timedelta(seconds=1)
BEFORE = datetime.min.replace(tzinfo=UTC)
PATIENT = frozenset({"rate limited", "budget in use", "error"})
"""The causes after which a last resort makes sense; all others are permanent."""


class RuleChecker:
    """Checks every change of a pool's state against the rules."""

    def __init__(
        self,
        state: PoolState,
        mode: ObservedStrategy,
        tell: Callable[[str, str], None],
    ) -> None:
        self.mode = mode
        self.step = Cause("", BEFORE, BEFORE)
        self.callers: dict[Waiter, Caller] = {}
        self.is_over = False
        self._tell = tell
        self._replayed = state
        self._latest = BEFORE

    def begin(self, step: Cause) -> None:
        """Learn what the pool is about to be asked."""
        self.step = step
        self.mode.memories.clear()

    def check(self, before: PoolState, change: Change) -> None:
        """Observe one change of the pool."""
        if not self.is_over:
            # Once a rule is broken, nothing that follows means anything.
            self.is_over = True
            self._check(before, change)
            self.is_over = False
        self.mode.memories.clear()

    def _check(self, before: PoolState, change: Change) -> None:
        state = change.state
        self._entries_make_the_change(before, change)
        if state is before and change.entries and not change.decisions:
            # The end of a call which holds nothing: nobody has chosen anew.
            return
        # A wait that is over may count as later than the clock.
        wall = self.step.wall if self.step.name == "wake" else change.now
        self.step = step = evolve(self.step, now=change.now, wall=wall)
        outcome = step.outcome or _released(before, state)
        if outcome is not None:
            self._replay(outcome, step.now)
            if not isinstance(outcome, Configured):
                self._rules_4_and_6(before, self._replayed, outcome, step.now)
        for waiter, decision in change.decisions:
            caller = self.callers[waiter]
            match decision:
                case Slot():
                    self._granted(caller, decision)
                case Wait() | Exhausted():
                    self._tell(
                        f"{caller.number} told {_describe_decision(decision)}",
                        f"{caller.number} {_label(decision)}",
                    )
                    self._not_granted(caller, decision)
                case _:
                    self._tell(
                        f"{caller.number} told {decision}", f"{caller.number} raises"
                    )
        demand(self._replayed == state, 13, "the replayed state is another")
        if change.line:
            self._nobody_is_forgotten(self.callers[change.line[0]])
        self._rules_2_and_12(before, state)

    def _entries_make_the_change(self, before: PoolState, change: Change) -> None:
        """Rule 13: the entries alone rebuild the state, and their `now` is in order."""
        folded = before
        for entry in change.entries:
            folded = update(folded, entry, change.now)
        demand(folded == change.state, 13, "the entries make another state")
        if change.entries:
            back = self._latest - change.now
            demand(not NEVER < back < SECOND, 13, f"the journal runs back by {back}")
            self._latest = change.now

    def _replay(self, outcome: Entry, now: datetime) -> None:
        self._replayed = update(self._replayed, outcome, now)

    # -- Rules 4, 6, 2, 12 ------------------------------------------------------------------

    def _rules_4_and_6(
        self, before: PoolState, after: PoolState, outcome: Entry, now: datetime
    ) -> None:
        for old, new in zip(before.candidates, after.candidates, strict=True):
            if old is new:
                continue
            alias = old.endpoint.alias
            for was, after_it in (
                (old.health.limited, new.health.limited),
                (old.health.broken, new.health.broken),
            ):
                if was is after_it or was == after_it:
                    continue
                demand(
                    not isinstance(outcome, Rejected | Cancelled | Started),
                    6,
                    f"{type(outcome).__name__} changed when {alias} may be used",
                )
                self._rule_4(was, after_it, outcome, now)

    def _rule_4(
        self, was: Cooldown | None, after: Cooldown | None, outcome: Entry, now: datetime
    ) -> None:
        # One that the clock has ended may be followed by any other.
        if was is None or not _is_active(was, now):
            return
        if after is None:
            later = isinstance(outcome, Succeeded) and outcome.attempt > was.newest
            demand(later or isinstance(outcome, Reset), 4, "a spell was lifted")
        else:
            demand(after.until >= was.until, 4, "the end of a spell moved earlier")
            demand(after.newest >= was.newest, 4, "a spell forgot an attempt")

    def _rules_2_and_12(self, before: PoolState, state: PoolState) -> None:
        total = 0
        for old, candidate in zip(before.candidates, state.candidates, strict=True):
            in_flight = len(candidate.health.under_way)
            total += candidate.tally.ended + in_flight
            if candidate is not old:
                cap = candidate.endpoint.max_concurrent
                demand(
                    cap is None or in_flight <= cap, 2, f"{in_flight} in flight of {cap}"
                )
        demand(state.attempts == total, 12, f"{state.attempts} attempts, {total} counted")

    # -- Rules 3, 5, 6, 7, for each choice ----------------------------------------------------

    def _granted(self, caller: Caller, slot: Slot) -> None:
        now, state, call = self.step.now, self._replayed, self._call(caller)
        alias = slot.endpoint.alias
        self._tell(
            f"{caller.number} gets {alias} #{slot.attempt}: {slot.reason}",
            f"{caller.number} gets {alias} #{slot.attempt} {PICKED_FOR[slot.reason]}",
        )
        standings = self._standings(state, call, now)
        self._rule_3(slot, state, call, standings)
        after_refusal = slot.reason in {PickReason.AFTER_REFUSAL, PickReason.PASSED_OVER}
        if after_refusal:
            refusers = {*call.refused, *call.outgrown, *_passed_over(state, call, now)}
            demand(refusers, 6, "picked after a refusal which never was")
        elif slot.endpoint.is_fallback and slot.reason is not PickReason.STICKY:
            self._rule_5(state, call, standings, now)
        self._rule_6(caller, slot, state, call, standings)
        caller.slots.append(slot)
        most = len(state.candidates) + 2
        demand(len(caller.slots) <= most, 7, f"more than {most} attempts")
        demand(caller.repeats <= 2, 7, "more than two repeats")  # noqa: PLR2004 - the rule's number
        memory = state.memory
        if after_refusal or slot.reason in {PickReason.MODE, PickReason.FALLBACK}:
            memory = self.mode.memory_of(alias)
        self._replay(Started(alias, memory), now)
        demand(self._replayed.attempts == slot.attempt, 13, "a wrong number")

    def _not_granted(self, caller: Caller, decision: Wait | Exhausted) -> None:
        now, call = self.step.now, self._call(caller)
        standings = self._standings(self._replayed, call, now)
        if isinstance(decision, Exhausted):
            demand("open" not in standings.values(), 11, "given up beside an open model")
            demand(
                decision.retry_at is None or decision.retry_at >= now, 1, "retry_at is past"
            )
            return
        primaries = [
            standing
            for candidate, standing in zip(
                self._replayed.candidates, standings.values(), strict=True
            )
            if not candidate.endpoint.is_fallback
        ]
        if _is_choosy(self._replayed, call, now):
            demand(
                "open" not in standings.values() or "busy" in standings.values(),
                6,
                "a call waits beside an open model, and none is busy",
            )
        else:
            demand("open" not in primaries, 5, "a call waits beside an open primary")
            demand(
                "open" not in standings.values() or "busy" in primaries,
                5,
                "a call waits beside an open fallback, and no primary is busy",
            )
        demand(now < decision.until, 1, "a wait without a length")
        left = self._replayed.policy.max_wait - call.waited
        demand(decision.until - now <= left, 1, "a wait beyond the call's patience")

    def _nobody_is_forgotten(self, first: Caller) -> None:
        """Check that the first of the line would have been served, if anybody could be."""
        call = self._call(first)
        if _is_choosy(self._replayed, call, self.step.now):
            return
        standings = self._standings(self._replayed, call, self.step.now)
        for candidate in self._replayed.candidates:
            endpoint = candidate.endpoint
            if standings[endpoint.alias] == "open":
                demand(
                    endpoint.is_fallback, 1, f"a call waits while {endpoint.alias} is open"
                )

    def _call(self, caller: Caller) -> Call:
        """Return the call as it stands now: how long it has waited, and what is left."""
        call, moment, waited = caller.asked, self.moment(), NEVER
        if self.step.caller is not caller or self.step.name != "choose":
            waiting = caller.waiter.waiting
            call, waited = waiting.call, waiting.duration(moment)
        left = caller.deadline / 1_000_000 - moment
        if call.deadline is not None:
            left = min(left, (call.deadline - self.step.wall).total_seconds())
        deadline = self.step.now + timedelta(seconds=left)
        return evolve(call, waited=call.waited + waited, deadline=deadline)

    moment: Callable[[], float]
    """The clock that only runs forward, set by the simulation."""

    def _standings(self, state: PoolState, call: Call, now: datetime) -> dict[str, str]:
        """Say where each endpoint stands, without asking the core."""
        fitting = {
            c.endpoint.alias: _window(c) for c in state.candidates if _suits(c, call)
        }
        needed = call.prompt_tokens or 0
        windows = list(fitting.values())
        if needed and windows and all(w is not None and w < needed for w in windows):
            needed = max(window or 0 for window in windows)
        standings = {}
        for candidate in state.candidates:
            endpoint, health = candidate.endpoint, candidate.health
            window, cap = _window(candidate), endpoint.max_concurrent
            unsuited = endpoint.alias not in fitting
            if unsuited or (window is not None and window < needed):
                standing = "unfit"
            elif endpoint.alias in call.tried:
                standing = "tried"
            elif any(_is_active(cooldown, now) for cooldown in health.cooldowns):
                standing = "disabled"
            elif _is_probed(candidate, now):
                standing = "probed"
            elif cap is not None and len(health.under_way) >= cap:
                standing = "busy"
            else:
                standing = "open"
            standings[endpoint.alias] = standing
        return standings

    def _rule_3(
        self, slot: Slot, state: PoolState, call: Call, standings: dict[str, str]
    ) -> None:
        now, alias = self.step.now, slot.endpoint.alias
        standing = standings[alias]
        if slot.reason is not PickReason.LAST_RESORT:
            demand(standing == "open", 3, f"{alias} is {standing} and was picked")
            return
        candidate = state[alias]
        demand("open" not in standings.values(), 3, "a last resort beside an open model")
        demand(standing in {"disabled", "tried"}, 3, f"a last resort that is {standing}")
        demand(not _is_probed(candidate, now), 3, f"a second probe of {alias}")
        demand(alias not in call.excluded, 3, f"{alias} had refused this call for good")
        for cooldown in candidate.health.cooldowns:
            if _is_active(cooldown, now):
                cause = str(cooldown.cause)
                demand(cause in PATIENT, 3, f"a last resort after {cause!r}")
                demand(
                    now >= cooldown.failed_at + _pause(cooldown),
                    3,
                    "a last resort too soon",
                )

    def _rule_5(
        self, state: PoolState, call: Call, standings: dict[str, str], now: datetime
    ) -> None:
        primaries = [
            standings[c.endpoint.alias]
            for c in state.candidates
            if not c.endpoint.is_fallback
        ]
        demand("open" not in primaries, 5, "a fallback beside an open primary")
        if "busy" in primaries:
            patience = state.policy.max_wait - call.waited
            if call.deadline is not None:
                patience = min(patience, (call.deadline - now - call.waited) / 2)
            demand(patience <= NEVER, 5, "a fallback beside a busy primary, too soon")

    def _rule_6(
        self,
        caller: Caller,
        slot: Slot,
        state: PoolState,
        call: Call,
        standings: dict[str, str],
    ) -> None:
        """At most two second opinions, another server's first; larger windows if too long."""
        servers: list[str] = []
        for before, outcome in zip(caller.slots, caller.outcomes, strict=True):
            if not isinstance(outcome, Rejected) or before.reason is PickReason.PASSED_OVER:
                continue
            alias = before.endpoint.alias
            demand(alias != slot.endpoint.alias, 6, f"{alias} is asked again for a refusal")
            if outcome.kind is Refusal.TOO_LONG:
                known, window = _window(state[alias]), _window(state[slot.endpoint.alias])
                larger = known is None or window is None or window > known
                demand(larger, 6, "not a larger model, after a prompt too long")
            else:
                servers.append(before.endpoint.provider)
        if not servers:
            return
        demand(len(servers) <= 2, 6, "more than two second opinions")  # noqa: PLR2004 - the rule's number
        demand(slot.reason is not PickReason.LAST_RESORT, 6, "a last resort as an opinion")
        if slot.reason is PickReason.AFTER_REFUSAL and slot.endpoint.provider in servers:
            passed = _passed_over(state, call, self.step.now)
            others = [
                c.endpoint.alias
                for c in state.candidates
                if standings[c.endpoint.alias] == "open"
                and c.endpoint.provider not in servers
                and c.endpoint.alias not in passed
            ]
            demand(slot.endpoint.alias in passed or not others, 6, f"not {others} first")


def _passed_over(state: PoolState, call: Call, now: datetime) -> tuple[str, ...]:
    """Return which models have refused in this turn what another model took."""
    if call.new_turn:
        return ()
    return next(
        (
            pin.refusers
            for pin in state.pins
            if pin.conversation == call.conversation
            and pin.at <= now < pin.at + timedelta(minutes=5)
        ),
        (),
    )


def _is_choosy(state: PoolState, call: Call, now: datetime) -> bool:
    """Whether the call prefers some models to others, because of refusals."""
    return bool(call.refused or call.outgrown or _passed_over(state, call, now))


def _window(candidate: Candidate) -> int | None:
    windows = (candidate.endpoint.context_window, candidate.learnt_window)
    return min((window for window in windows if window is not None), default=None)


def _released(before: PoolState, state: PoolState) -> Cancelled | None:
    """Find the attempt that was taken back without an outcome being told, if one was."""
    for old, new in zip(before.candidates, state.candidates, strict=True):
        if old is not new:
            for attempt in old.health.under_way:
                if attempt not in new.health.under_way:
                    return Cancelled(old.endpoint.alias, attempt)
    return None


def _suits(candidate: Candidate, call: Call) -> bool:
    if call.only not in {None, candidate.endpoint.alias}:
        return False
    if call.larger_than is None:
        return True
    window = _window(candidate)
    larger = window is None or window > call.larger_than
    return larger and candidate.endpoint.alias not in call.outgrown


def _is_active(cooldown: Cooldown, now: datetime) -> bool:
    return cooldown.since <= now < cooldown.until


def _is_probed(candidate: Candidate, now: datetime) -> bool:
    under_way = candidate.health.under_way
    return bool(under_way) and any(
        under_way[-1] > cooldown.newest
        and (not cooldown.proven or _is_active(cooldown, now))
        for cooldown in candidate.health.cooldowns
    )


def _pause(cooldown: Cooldown) -> timedelta:
    """Say how long after a failure nobody may be sent there: the schedule of §3."""
    if isinstance(cooldown.cause, Fault):
        seconds = 12 if cooldown.failures > 9 else min(2 ** (cooldown.failures - 1), 4)  # noqa: PLR2004
        return max(timedelta(seconds=seconds), cooldown.hint or NEVER)
    return cooldown.hint or timedelta(seconds=2 ** min(cooldown.failures, 13))


def _describe_decision(decision: Wait | Exhausted) -> str:
    if isinstance(decision, Wait):
        return f"to wait until {decision.until:%H:%M:%S.%f}: {decision.reason}"
    return f"that it is over: {decision.reason}"


def _label(decision: Wait | Exhausted) -> str:
    if isinstance(decision, Wait):
        return f"waits until {decision.until.isoformat()} {WAITS_FOR[decision.reason]}"
    return f"exhausted {WAITS_FOR[decision.reason]}"
