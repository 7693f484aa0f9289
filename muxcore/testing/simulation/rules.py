"""The rules of the design, checked after every step by code that shares nothing with the core.

`RuleChecker` observes the simulated pool: it sees each change, with the decisions that come
with it, before any call does. It replays the outcomes with `update` alone and compares the
states (rule 13), so it also knows the exact state in which each choice was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from attrs import evolve

from muxcore.core.entries import Configured, Entry
from muxcore.core.outcomes import (
    Cancelled,
    Fault,
    PickReason,
    Refusal,
    Rejected,
    Reset,
    Started,
    Succeeded,
)
from muxcore.core.protocol import Slot
from muxcore.core.records import (
    Call,
    Cooldown,
    Exhausted,
    PoolState,
    Sticky,
    Wait,
    WaitReason,
)
from muxcore.core.updating import update
from muxcore.shell.pool.pool import Change
from muxcore.shell.pool.waiter import Waiter
from muxcore.testing.simulation.labels import PICKED_FOR, label_of_decision
from muxcore.testing.simulation.observation import (
    Caller,
    Cause,
    ObservedStrategy,
    demand,
    is_active,
    is_probed,
    standings_of,
    window_of,
)

NEVER, SECOND = timedelta(), timedelta(seconds=1)
BEFORE = datetime.min.replace(tzinfo=UTC)
TRANSIENT_CAUSES = frozenset({"rate limited", "budget in use", "error"})
"""The causes after which a last resort is allowed; all others are permanent."""


class RuleChecker:
    """Checks every change of a pool's state against the rules."""

    def __init__(
        self,
        state: PoolState,
        mode: ObservedStrategy,
        report: Callable[[str, str], None],
    ) -> None:
        self.mode = mode
        self.step = Cause("", BEFORE, BEFORE)
        self.callers: dict[Waiter, Caller] = {}
        self.is_over = False
        self._report = report
        self._replayed = state
        self._latest = BEFORE

    def begin(self, step: Cause) -> None:
        """Set the cause of the next change."""
        self.step = step
        self.mode.memories.clear()

    def check(self, before: PoolState, change: Change) -> None:
        """Check one change of the pool."""
        if not self.is_over:
            # After the first broken rule, the checks that follow mean nothing.
            self.is_over = True
            self._check(before, change)
            self.is_over = False
        self.mode.memories.clear()

    def _check(self, before: PoolState, change: Change) -> None:
        state = change.state
        self._entries_make_the_change(before, change)
        if state is before and change.entries and not change.decisions:
            # The end of a call that holds no slot: no other call chooses because of it.
            return
        # A wait that is over may choose as of a later moment than the clock.
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
                    self._report(
                        f"{caller.number} {_describe_decision(decision)}",
                        f"{caller.number} {label_of_decision(decision)}",
                    )
                    self._not_granted(caller, decision)
                case _:
                    self._report(
                        f"{caller.number} raises {decision}", f"{caller.number} raises"
                    )
        demand(self._replayed == state, 13, "the replayed state differs")
        if change.line:
            self._first_waiter_is_served(self.callers[change.line[0]])
        self._rules_2_and_12(before, state)

    def _entries_make_the_change(self, before: PoolState, change: Change) -> None:
        """Rule 13: the entries alone rebuild the state, and their `now` is in order."""
        folded = before
        for entry in change.entries:
            folded = update(folded, entry, change.now)
        demand(folded == change.state, 13, "the entries lead to another state")
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
            for was, became in (
                (old.health.limited, new.health.limited),
                (old.health.broken, new.health.broken),
            ):
                if was is became or was == became:
                    continue
                demand(
                    not isinstance(outcome, Rejected | Cancelled | Started),
                    6,
                    f"{type(outcome).__name__} changed a cooldown of {alias}",
                )
                self._rule_4(was, became, outcome, now)

    def _rule_4(
        self, was: Cooldown | None, after: Cooldown | None, outcome: Entry, now: datetime
    ) -> None:
        # Any cooldown may follow one that is over.
        if was is None or not is_active(was, now):
            return
        if after is None:
            later = isinstance(outcome, Succeeded) and outcome.attempt > was.newest
            demand(later or isinstance(outcome, Reset), 4, "a cooldown was lifted")
        else:
            demand(after.until >= was.until, 4, "the end of a cooldown moved earlier")
            demand(after.newest >= was.newest, 4, "a cooldown forgot an attempt")

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
        self._report(
            f"{caller.number} gets {alias} #{slot.attempt}: {slot.reason}",
            f"{caller.number} gets {alias} #{slot.attempt} {PICKED_FOR[slot.reason]}",
        )
        standings = standings_of(state, call, now)
        self._rule_3(slot, state, call, standings)
        after_refusal = slot.reason in {PickReason.AFTER_REFUSAL, PickReason.PASSED_OVER}
        if after_refusal:
            refusers = {*call.refused, *call.outgrown, *_passed_over(state, call, now)}
            demand(refusers, 6, "picked after a refusal, and no model had refused")
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
        self._replay(Started(alias, memory, demand=slot.demand), now)
        demand(
            self._replayed.attempts == slot.attempt, 13, "the attempt has another number"
        )

    def _not_granted(self, caller: Caller, decision: Wait | Exhausted) -> None:
        now, call = self.step.now, self._call(caller)
        standings = standings_of(self._replayed, call, now)
        if isinstance(decision, Exhausted):
            # An announced limit refuses nobody.
            demand(
                not {"open", "open or spent"} & set(standings.values()),
                11,
                "a call gives up beside an open model",
            )
            demand(
                decision.retry_at is None or decision.retry_at >= now,
                1,
                "retry_at is in the past",
            )
            return
        primaries = [
            standing
            for candidate, standing in zip(
                self._replayed.candidates, standings.values(), strict=True
            )
            if not candidate.endpoint.is_fallback
        ]
        if decision.reason is WaitReason.SPENT and _waits_for_its_own(
            self._replayed, call, standings
        ):
            short = decision.until - now <= 2 * SECOND
            demand(
                short or "open" not in primaries, 5, "a call waits long for its own model"
            )
        elif _has_preferences(self._replayed, call, now):
            demand(
                "open" not in standings.values() or _is_any_busy(standings.values()),
                6,
                "a call waits beside an open model, and none is busy",
            )
        else:
            demand("open" not in primaries, 5, "a call waits beside an open primary")
            demand(
                "open" not in standings.values() or _is_any_busy(primaries),
                5,
                "a call waits beside an open fallback, and no primary is busy",
            )
        demand(now < decision.until, 1, "the end of a wait is not in the future")
        left = self._replayed.policy.max_wait - call.waited
        demand(decision.until - now <= left, 1, "a wait is longer than max_wait")

    def _first_waiter_is_served(self, first: Caller) -> None:
        """Check that no endpoint is open for the first waiter of the line."""
        call = self._call(first)
        if _has_preferences(self._replayed, call, self.step.now):
            return
        standings = standings_of(self._replayed, call, self.step.now)
        if _waits_for_its_own(self._replayed, call, standings):
            return
        for candidate in self._replayed.candidates:
            endpoint = candidate.endpoint
            if standings[endpoint.alias] == "open":
                demand(
                    endpoint.is_fallback, 1, f"a call waits while {endpoint.alias} is open"
                )

    def _call(self, caller: Caller) -> Call:
        """Return the call with the time that it has waited by now, and its deadline."""
        call, moment, waited = caller.call, self.moment(), NEVER
        if self.step.caller is not caller or self.step.name != "choose":
            waiting = caller.waiter.waiting
            call, waited = waiting.call, waiting.duration(moment)
        left = caller.deadline / 1_000_000 - moment
        if call.deadline is not None:
            left = min(left, (call.deadline - self.step.wall).total_seconds())
        deadline = self.step.now + timedelta(seconds=left)
        return evolve(call, waited=call.waited + waited, deadline=deadline)

    moment: Callable[[], float]
    """The monotonic clock, set by the simulation."""

    def _rule_3(
        self, slot: Slot, state: PoolState, call: Call, standings: dict[str, str]
    ) -> None:
        now, alias = self.step.now, slot.endpoint.alias
        standing = standings[alias]
        if slot.reason is not PickReason.LAST_RESORT:
            is_open = standing in {"open", "open or spent"}
            demand(is_open, 3, f"{alias} is {standing} and was picked")
            if slot.reason is PickReason.SPENT:
                demand(standing != "open", 3, f"{alias} is not spent")
                demand("open" not in standings.values(), 3, "a spent model beside an open")
            return
        candidate = state[alias]
        demand("open" not in standings.values(), 3, "a last resort beside an open model")
        demand(
            standing in {"disabled", "tried"},
            3,
            f"a last resort at {alias}, which is {standing}",
        )
        demand(not is_probed(candidate, now), 3, f"a second probe of {alias}")
        demand(
            alias not in call.excluded, 3, f"a last resort at {alias}, which is excluded"
        )
        for cooldown in candidate.health.cooldowns:
            if is_active(cooldown, now):
                cause = str(cooldown.cause)
                demand(cause in TRANSIENT_CAUSES, 3, f"a last resort after {cause!r}")
                demand(
                    now >= cooldown.failed_at + _pause(cooldown),
                    3,
                    "a last resort is too early",
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
            demand(patience <= NEVER, 5, "a fallback beside a busy primary, too early")

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
            demand(
                alias != slot.endpoint.alias, 6, f"{alias} is asked again after its refusal"
            )
            if outcome.kind is Refusal.TOO_LONG:
                known, window = (
                    window_of(state[alias]),
                    window_of(state[slot.endpoint.alias]),
                )
                larger = known is None or window is None or window > known
                demand(
                    larger, 6, "a model that is not larger, after a prompt that is too long"
                )
            else:
                servers.append(before.endpoint.provider)
        if not servers:
            return
        demand(len(servers) <= 2, 6, "more than two second opinions")  # noqa: PLR2004 - the rule's number
        demand(
            slot.reason is not PickReason.LAST_RESORT,
            6,
            "a last resort as a second opinion",
        )
        if slot.reason is PickReason.AFTER_REFUSAL and slot.endpoint.provider in servers:
            passed = _passed_over(state, call, self.step.now)
            others = [
                c.endpoint.alias
                for c in state.candidates
                if standings[c.endpoint.alias] == "open"
                and c.endpoint.provider not in servers
                and c.endpoint.alias not in passed
            ]
            demand(
                slot.endpoint.alias in passed or not others,
                6,
                f"{others} should come first",
            )


def _passed_over(state: PoolState, call: Call, now: datetime) -> tuple[str, ...]:
    """Return the models whose refusals in this turn are refuted."""
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


def _waits_for_its_own(state: PoolState, call: Call, standings: dict[str, str]) -> bool:
    """Whether the call may wait for the model of its conversation, which may be spent.

    Others may have taken its slots since the wait began.
    """
    sticky = state.policy.sticky
    if sticky is Sticky.CALL or (sticky is Sticky.TURN and call.new_turn):
        return False
    return any(
        pin.conversation == call.conversation
        and standings.get(pin.alias) in {"open or spent", "busy or spent"}
        for pin in state.pins
    )


def _is_any_busy(standings: Iterable[str]) -> bool:
    return not {"busy", "busy or spent"}.isdisjoint(standings)


def _has_preferences(state: PoolState, call: Call, now: datetime) -> bool:
    """Whether refusals make the call prefer some models to others."""
    return bool(call.refused or call.outgrown or _passed_over(state, call, now))


def _released(before: PoolState, state: PoolState) -> Cancelled | None:
    """Return the attempt that was released without an outcome, if there is one."""
    for old, new in zip(before.candidates, state.candidates, strict=True):
        if old is not new:
            for attempt in old.health.under_way:
                if attempt not in new.health.under_way:
                    return Cancelled(old.endpoint.alias, attempt)
    return None


def _pause(cooldown: Cooldown) -> timedelta:
    """Return how long after a failure no last resort is allowed there."""
    if isinstance(cooldown.cause, Fault):
        seconds = 12 if cooldown.failures > 9 else min(2 ** (cooldown.failures - 1), 4)  # noqa: PLR2004
        return max(timedelta(seconds=seconds), cooldown.hint or NEVER)
    return cooldown.hint or timedelta(seconds=2 ** min(cooldown.failures, 13))


def _describe_decision(decision: Wait | Exhausted) -> str:
    if isinstance(decision, Wait):
        return f"waits until {decision.until:%H:%M:%S.%f}: {decision.reason}"
    return f"gives up: {decision.reason}"
