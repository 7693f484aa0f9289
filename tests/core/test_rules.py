"""The rules of DESIGN.md §10 over any sequence of outcomes and clock steps.

The numbers in the names are those of the rules. 8 and 9 concern the shell; 1 and 11 are checked by
whole calls, in test_protocol and tests/simulation; 10 in test_strategies too.
"""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from attrs import evolve
from cattrs import Converter
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from muxcore.core.outcomes import (
    Cancelled,
    End,
    Failed,
    Fault,
    Limit,
    Outcome,
    PickReason,
    RateLimited,
    Refusal,
    Refuted,
    Rejected,
    Reset,
    Responding,
    Started,
    Succeeded,
)
from muxcore.core.protocol import Slot, choose
from muxcore.core.records import (
    Call,
    Candidate,
    Cooldown,
    Endpoint,
    Exhausted,
    Policy,
    PoolState,
    Sticky,
    Wait,
)
from muxcore.core.selection import Standing, explain, select
from muxcore.core.updating import MOST_PINS, update
from muxcore_strategies.failover import Failover
from muxcore_strategies.load_balance import LoadBalance

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
POOL = (
    Endpoint("a", weight=3, max_concurrent=2, context_window=2000),
    Endpoint("b", weight=1, provider="other"),
    Endpoint("c", weight=2, context_window=8000),
    Endpoint("f", is_fallback=True, max_concurrent=1),
)
SECONDS = st.sampled_from([0, 0.5, 1, 2, 3, 4, 15, 30, 60, 90, 300, 900, 4000])
HINTS = st.none() | SECONDS.map(lambda s: timedelta(seconds=s))
KINDS = st.sampled_from(["succeeded", "limited", "failed", "rejected", "cancelled"])
CALLS = st.builds(
    Call,
    only=st.none() | st.sampled_from("ab"),
    conversation=st.none() | st.sampled_from(["one", "two"]),
    new_turn=st.booleans(),
    prompt_tokens=st.none() | st.sampled_from([1000, 5000, 9000]),
    tried=st.lists(st.sampled_from("abcf"), max_size=5).map(tuple),
    excluded=st.sets(st.sampled_from("abcf"), max_size=2).map(tuple),
    waited=st.sampled_from([0, 10, 30]).map(lambda s: timedelta(seconds=s)),
    larger_than=st.none() | st.just(3000),
    refused=st.lists(st.sampled_from("abcf"), max_size=2, unique=True).map(tuple),
)


def cooldowns(candidate: Candidate) -> tuple[Cooldown | None, Cooldown | None]:
    return candidate.health.limited, candidate.health.broken


def replayed(state: PoolState, journal: list[tuple[datetime, Outcome]]) -> PoolState:
    for now, outcome in journal:
        state = update(state, outcome, now)
    return state


class Rules(RuleBasedStateMachine):
    running = Bundle("running")

    @initialize(
        mode=st.sampled_from([Failover(), LoadBalance()]),
        sticky=st.sampled_from(list(Sticky)),
        max_wait=st.sampled_from([0, 30]),
    )
    def begin(self, mode: Failover | LoadBalance, sticky: Sticky, max_wait: float) -> None:
        self.mode, self.now = mode, NOON
        policy = Policy(sticky=sticky, max_wait=timedelta(seconds=max_wait))
        self.first = self.state = PoolState.of(*POOL, policy=policy)
        self.journal: list[tuple[datetime, Outcome]] = []

    def record(self, outcome: Outcome) -> None:
        """Fold an outcome in, and compare before with after."""
        before, now = self.state, self.now
        self.journal.append((now, outcome))
        self.state = update(before, outcome, now)
        self.rule_4(before, outcome)
        if isinstance(outcome, Rejected | Cancelled):
            self.rule_6(before)

    def rule_4(self, before: PoolState, outcome: Outcome) -> None:
        """The end of a cooldown never moves earlier, except by a success or a reset."""
        for old, new in zip(before.candidates, self.state.candidates, strict=True):
            for was, is_now in zip(cooldowns(old), cooldowns(new), strict=True):
                if was is None or (is_now is not None and is_now.until >= was.until):
                    continue
                if isinstance(outcome, Succeeded):
                    assert is_now is None
                    assert outcome.alias == old.endpoint.alias
                    assert outcome.attempt > was.newest
                elif not isinstance(outcome, Reset):
                    # Only a cooldown that is over may be followed by a shorter one.
                    assert not was.active(self.now)
                    assert is_now is not None

    def rule_6(self, before: PoolState) -> None:
        """A fault of the request changes no endpoint's availability."""
        for old, new in zip(before.candidates, self.state.candidates, strict=True):
            assert cooldowns(old) == cooldowns(new)

    @rule(target=running, call=CALLS)
    def choose(self, call: Call) -> tuple[str, int]:
        before, now = self.state, self.now
        choice = select(before, self.mode, now, call)
        assert choice == select(before, self.mode, now, call)
        state, slot = choose(before, self.mode, now, call)
        if isinstance(slot, Wait):
            assert state is before
            assert now < slot.until
            assert slot.until <= now + before.policy.max_wait - call.waited
            return ("nobody", 0)
        if isinstance(slot, Exhausted):
            assert slot.retry_at is None or slot.retry_at >= now
            return ("nobody", 0)
        standings = {p.alias: p.standing for p in explain(before, now, call)}
        self.rule_3_and_7(before, slot, call, standings)
        self.rule_5(slot, call, standings)
        assert not isinstance(choice, Wait | Exhausted)
        self.record(Started(slot.endpoint.alias, choice.memory))
        assert self.state == state
        return (slot.endpoint.alias, slot.attempt)

    def rule_3_and_7(
        self,
        before: PoolState,
        slot: Slot,
        call: Call,
        standings: dict[str, Standing],
    ) -> None:
        """A disabled or tried endpoint is attempted only as a last resort."""
        alias = slot.endpoint.alias
        health = before[alias].health
        if slot.reason is not PickReason.LAST_RESORT:
            assert standings[alias] is Standing.OPEN
            assert health.active_cooldown(self.now) is None
            assert not health.probed(self.now)
            assert alias not in call.tried
            if slot.reason in {PickReason.AFTER_REFUSAL, PickReason.PASSED_OVER}:
                self.rule_6_another_server_first(before, slot, call, standings)
            elif slot.reason is not PickReason.STICKY and self.mode == Failover():
                tier = [e for e in POOL if e.is_fallback == slot.endpoint.is_fallback]
                openings = [e for e in tier if standings[e.alias] is Standing.OPEN]
                assert slot.endpoint is openings[0]
            return
        assert not call.refused, "a last resort is no second opinion"
        assert Standing.OPEN not in standings.values()
        assert standings[alias] in {Standing.DISABLED, Standing.TRIED}
        assert health.opens_at(self.now) <= self.now
        assert not any(s.permanent and s.active(self.now) for s in health.cooldowns)
        assert not health.probed(self.now)
        if alias in call.tried:
            assert alias not in call.excluded
            assert call.repeats < 2

    def rule_6_another_server_first(
        self,
        before: PoolState,
        slot: Slot,
        call: Call,
        standings: dict[str, Standing],
    ) -> None:
        """An open model of another server comes before one of a server which has refused."""
        servers = {before[alias].endpoint.provider for alias in call.refused}
        if slot.endpoint.provider not in servers:
            return
        passed_over = {
            alias
            for pin in before.pins
            if pin.conversation == call.conversation and not call.new_turn
            for alias in pin.refusers
        }
        assert slot.endpoint.alias in passed_over or all(
            standings[e.alias] is not Standing.OPEN or e.alias in passed_over
            for e in POOL
            if e.provider not in servers
        )

    def rule_5(self, slot: Slot, call: Call, standings: dict[str, Standing]) -> None:
        """A fallback is used only while no primary is open, or busy for a short time."""
        elsewhere = {
            PickReason.STICKY,
            PickReason.AFTER_REFUSAL,
            PickReason.PASSED_OVER,
        }
        if not slot.endpoint.is_fallback or slot.reason in elsewhere:
            return
        assert slot.reason in {PickReason.FALLBACK, PickReason.LAST_RESORT}
        primaries = {standings[e.alias] for e in POOL if not e.is_fallback}
        assert Standing.OPEN not in primaries
        if call.waited < self.state.policy.max_wait:
            assert Standing.BUSY not in primaries

    @rule(attempt=running, after=st.none() | st.just(timedelta(seconds=1)))
    def respond(self, attempt: tuple[str, int], after: timedelta | None) -> None:
        self.record(Responding(*attempt, after))

    @rule(
        attempt=consumes(running),
        end=KINDS,
        limit=st.sampled_from(list(Limit)),
        fault=st.sampled_from(list(Fault)),
        refusal=st.sampled_from(list(Refusal)),
        hint=HINTS,
        conversation=st.none() | st.sampled_from(["one", "two"]),
        refusers=st.lists(st.sampled_from("abcf"), max_size=2, unique=True).map(tuple),
        twice=st.booleans(),
    )
    def end(
        self,
        attempt: tuple[str, int],
        end: str,
        limit: Limit,
        fault: Fault,
        refusal: Refusal,
        hint: timedelta | None,
        conversation: str | None,
        refusers: tuple[str, ...],
        twice: bool,
    ) -> None:
        ends: dict[str, End] = {
            "succeeded": Succeeded(
                *attempt, 100, 50, 10, conversation=conversation, refusers=refusers
            ),
            "limited": RateLimited(*attempt, limit, hint),
            "failed": Failed(*attempt, fault, hint),
            "rejected": Rejected(*attempt, refusal),
            "cancelled": Cancelled(*attempt),
        }
        self.record(ends[end])
        if twice:
            once = self.state
            self.record(ends[end])
            assert self.state is once

    @precondition(lambda self: self.state.attempts > 0)
    @rule(
        alias=st.sampled_from("abcf"),
        ago=st.integers(0, 3),
        refusal=st.sampled_from(list(Refusal)),
        conversation=st.none() | st.sampled_from(["one", "two"]),
    )
    def refute(
        self, alias: str, ago: int, refusal: Refusal, conversation: str | None
    ) -> None:
        """Rule 6: one refutation alone disables no endpoint."""
        before = self.state
        attempt = before.attempts - ago
        self.record(Refuted(alias, attempt, refusal, "another", conversation))
        if cooldowns(before[alias]) != cooldowns(self.state[alias]):
            row = self.state[alias].refutations
            assert len(row) == 3
            assert len({one.conversation for one in row}) > 1
            assert all(one.attempt > before[alias].tally.newest_success for one in row)

    @rule(seconds=SECONDS, back=st.integers(0, 4))
    def step_the_clock(self, seconds: float, back: int) -> None:
        step = timedelta(seconds=seconds)
        self.now += -step if back == 0 else step

    @precondition(lambda self: self.state.attempts > 3)
    @rule(alias=st.none() | st.sampled_from([*"abcf", "stranger"]))
    def reset(self, alias: str | None) -> None:
        self.record(Reset(alias))
        enabled = [c for c in self.state.candidates if alias in {None, c.endpoint.alias}]
        assert all(c.health.active_cooldown(self.now) is None for c in enabled)

    @invariant()
    def rule_2_in_flight_stays_within_the_cap(self) -> None:
        for candidate in self.state.candidates:
            health, cap = candidate.health, candidate.endpoint.max_concurrent
            assert health.in_flight >= 0
            assert cap is None or health.in_flight <= cap
            assert list(health.under_way) == sorted(set(health.under_way))

    @invariant()
    def rule_12_every_attempt_is_counted_once(self) -> None:
        counted = sum(c.tally.ended + c.health.in_flight for c in self.state.candidates)
        assert self.state.attempts == counted

    @invariant()
    def rule_10_what_is_owed_stays_small(self) -> None:
        if isinstance(self.state.memory, dict):
            memory = self.state.memory
            for lag in memory["lags"].values():
                assert abs(Fraction(lag, memory["denominator"])) < 3

    @invariant()
    def pins_are_bounded(self) -> None:
        conversations = [pin.conversation for pin in self.state.pins]
        assert len(set(conversations)) == len(conversations) <= MOST_PINS

    def teardown(self) -> None:
        """Rule 13: the same sequence gives the same state, byte for byte."""
        if not hasattr(self, "state"):
            return
        again = replayed(self.first, self.journal)
        assert again == self.state
        assert repr(again) == repr(self.state)
        # All attempts end, so none is left in flight (rule 2).
        for candidate in self.state.candidates:
            for number in candidate.health.under_way:
                self.record(Cancelled(candidate.endpoint.alias, number))
        assert all(c.health.in_flight == 0 for c in self.state.candidates)


TestRules = Rules.TestCase
TestRules.settings = settings.get_profile("core")


def a_story() -> list[tuple[datetime, Outcome]]:
    """Return a sequence with every outcome in it."""
    outcomes: list[Outcome] = [
        Started("a", {"lags": {"a": 1}, "none": None}),
        Started("b"),
        Started("b"),
        Responding("a", 1, timedelta(milliseconds=1234)),
        Succeeded("a", 1, 100, 50, 10, conversation="one"),
        RateLimited("b", 2, Limit.QUOTA, timedelta(seconds=7), "no more"),
        Failed("b", 3, Fault.AUTH, None, "who?"),
        Started("c"),
        Failed("c", 4, Fault.TRANSIENT, timedelta(seconds=2.5)),
        Started("f"),
        Rejected("f", 5, Refusal.TOO_LONG, 4096),
        Started("a", {"lags": {"a": 2}}),
        Cancelled("a", 6),
        Reset("c"),
        Started("b"),
        Responding("b", 7),
        Started("c"),
    ]
    return [(NOON + timedelta(seconds=1.5 * n), o) for n, o in enumerate(outcomes)]


def test_rule_13_the_same_sequence_gives_the_same_bytes(converter: Converter) -> None:
    states = [replayed(PoolState.of(*POOL), a_story()) for _ in range(2)]
    assert states[0] == states[1]
    texts = [json.dumps(converter.unstructure(state)) for state in states]
    assert texts[0] == texts[1]


def test_rule_13_a_state_survives_json(converter: Converter) -> None:
    story = a_story()
    for number in range(len(story) + 1):
        state = replayed(PoolState.of(*POOL), story[:number])
        text = json.dumps(converter.unstructure(state))
        back = converter.structure(json.loads(text), PoolState)
        assert back == state
        assert json.dumps(converter.unstructure(back)) == text
        assert replayed(back, story[number:]) == replayed(state, story[number:])


def test_rule_13_a_state_survives_pickling() -> None:
    state = replayed(PoolState.of(*POOL), a_story())
    assert pickle.loads(pickle.dumps(state)) == state  # noqa: S301 - made a line above


def test_rule_13_a_state_is_a_value() -> None:
    state = PoolState.of(*POOL)
    assert hash(state) == hash(PoolState.of(*POOL))
    assert evolve(state, attempts=1) != state
    for record in (state, state.candidates[0], state.candidates[0].health, state.policy):
        with pytest.raises(AttributeError):
            setattr(record, "endpoint", None)  # noqa: B010 - a checker sees through the plain form
        assert not hasattr(record, "__dict__")
