"""Model against code: the availability of models, written a second time.

The model is written from the documents, with seconds and dictionaries. Hypothesis makes the
outcomes and sets the clock; after each step both must agree about every endpoint.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

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
from muxcore.core.records import Endpoint, Policy, PoolState, Wait
from muxcore.core.selection import Standing, explain, select
from muxcore.core.updating import update
from muxcore_strategies.failover import Failover

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALIASES = ("a", "b")
ALIAS = st.sampled_from(ALIASES)
PERMANENT = {
    "quota spent",
    "payment required",
    "persistent error",
    "key refused",
    "model not found",
}
QUARTER = 900.0


def length(
    cause: str, hint: float | None, failures: int, rate: float, error: float
) -> float:
    """Return for how many seconds this disables: the table of cooldowns."""
    asked = min(hint, 3600.0) if hint and hint > 0 else 0.0
    match cause:
        case "budget in use":
            return asked or rate
        case "rate limited":
            return max(rate, asked)
        case "quota spent" | "payment required":
            return max(rate, QUARTER, asked)
        case "error":
            return max(error, asked)
        case _:
            return max(error, min(error * 2.0 ** (failures - 1), 300.0), asked)


class Model:
    """What is known of one endpoint, after the documents."""

    def __init__(self) -> None:
        self.running: list[int] = []
        self.cooldowns: dict[str, dict[str, Any]] = {}
        self.counts = dict.fromkeys(
            ("succeeded", "rate_limited", "failed", "rejected", "cancelled"), 0
        )

    def fail(
        self,
        cause: str,
        hint: float | None,
        now: float,
        attempt: int,
        newest: int,
        rate: float,
        error: float,
    ) -> None:
        limits = {"rate limited", "quota spent", "budget in use", "payment required"}
        kind = "limited" if cause in limits else "broken"
        old, permanent = self.cooldowns.get(kind), cause in PERMANENT
        failures = 1
        if old and old["permanent"] == permanent:
            # Only a later attempt is another failure: parallel ones are one.
            failures = old["failures"] + (1 if attempt > old["newest"] else 0)
        until = now + length(cause, hint, failures, rate, error)
        lasting = old is not None and old["since"] <= now < old["until"]
        cooldown = {
            "since": now,
            "until": until,
            "permanent": permanent,
            "failures": failures,
            "newest": newest,
            "proven": False,
        }
        if lasting and old is not None:
            cooldown["since"], cooldown["until"] = old["since"], max(old["until"], until)
            if old["permanent"] and not permanent:
                # A permanent cause stays while its cooldown lasts.
                cooldown["permanent"], cooldown["failures"] = True, old["failures"]
        self.cooldowns[kind] = cooldown

    def respond(self, attempt: int) -> None:
        for cooldown in self.cooldowns.values():
            if attempt > cooldown["newest"]:
                cooldown["proven"] = True

    def succeed(self, attempt: int) -> None:
        kept = {k: s for k, s in self.cooldowns.items() if attempt <= s["newest"]}
        self.cooldowns = kept

    def standing(self, now: float) -> Standing:
        cooldowns = self.cooldowns.values()
        if any(s["since"] <= now < s["until"] for s in cooldowns):
            return Standing.DISABLED
        for cooldown in cooldowns:
            if not cooldown["proven"] and any(n > cooldown["newest"] for n in self.running):
                return Standing.PROBED
        return Standing.OPEN


class Comparison(RuleBasedStateMachine):
    @initialize(
        rate=st.sampled_from([1.0, 60.0, 2000.0]), error=st.sampled_from([1.0, 15.0])
    )
    def begin(self, rate: float, error: float) -> None:
        self.rate, self.error, self.now, self.number = rate, error, 0.0, 0
        policy = Policy(timedelta(seconds=rate), timedelta(seconds=error))
        self.state = PoolState.of(*(Endpoint(alias) for alias in ALIASES), policy=policy)
        self.models = {alias: Model() for alias in ALIASES}

    def record(self, outcome: Outcome) -> None:
        self.state = update(self.state, outcome, NOON + timedelta(seconds=self.now))

    @rule(alias=ALIAS)
    def start(self, alias: str) -> None:
        self.number += 1
        self.models[alias].running.append(self.number)
        self.record(Started(alias))

    @rule(alias=ALIAS, which=st.integers(0, 5))
    def respond(self, alias: str, which: int) -> None:
        running = self.models[alias].running
        if running:
            attempt = running[which % len(running)]
            self.models[alias].respond(attempt)
            self.record(Responding(alias, attempt))

    @rule(
        alias=ALIAS,
        which=st.integers(0, 5),
        kind=st.sampled_from(["succeeded", "rejected", "cancelled", *Limit, *Fault]),
        hint=st.sampled_from([None, -5.0, 0.0, 3.0, 100.0, 1800.0, 90_000.0]),
    )
    def end(self, alias: str, which: int, kind: str, hint: float | None) -> None:
        model = self.models[alias]
        if not model.running:
            return
        attempt = model.running.pop(which % len(model.running))
        wish = None if hint is None else timedelta(seconds=hint)
        match kind:
            case "succeeded":
                model.succeed(attempt)
                model.counts["succeeded"] += 1
                self.record(Succeeded(alias, attempt))
            case "rejected":
                model.counts["rejected"] += 1
                self.record(Rejected(alias, attempt))
            case "cancelled":
                model.counts["cancelled"] += 1
                self.record(Cancelled(alias, attempt))
            case _:
                model.fail(
                    kind, hint, self.now, attempt, self.number, self.rate, self.error
                )
                if isinstance(kind, Limit):
                    model.counts["rate_limited"] += 1
                    self.record(RateLimited(alias, attempt, kind, wish))
                else:
                    model.counts["failed"] += 1
                    self.record(Failed(alias, attempt, Fault(kind), wish))

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 15.0, 60.0, 301.0, 1000.0, -3.0, -400.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(alias=st.none() | ALIAS)
    def reset(self, alias: str | None) -> None:
        for name, model in self.models.items():
            if alias in {None, name}:
                model.cooldowns = {}
        self.record(Reset(alias))

    @invariant()
    def both_agree(self) -> None:
        now = NOON + timedelta(seconds=self.now)
        standings = {passed.alias: passed.standing for passed in explain(self.state, now)}
        for alias, model in self.models.items():
            assert standings[alias] is model.standing(self.now)
            candidate = self.state[alias]
            assert list(candidate.health.under_way) == sorted(model.running)
            tally = candidate.tally
            assert {name: getattr(tally, name) for name in model.counts} == model.counts
            ends = {
                kind: getattr(candidate.health, kind).until
                for kind in ("limited", "broken")
                if getattr(candidate.health, kind) is not None
            }
            expected = {
                kind: NOON + timedelta(seconds=cooldown["until"])
                for kind, cooldown in model.cooldowns.items()
            }
            assert ends == expected


TestComparison = Comparison.TestCase
TestComparison.settings = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=80,
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
)


def test_a_last_resort_is_due_after_1_2_seven_times_4_and_then_every_12_seconds() -> None:
    state, now, pauses = PoolState.of(Endpoint("a")), NOON, []
    for _ in range(12):
        state = update(state, Started("a"), now)
        state = update(state, Failed("a", state.attempts), now)
        due = state["a"].health.opens_at(now)
        pauses.append((due - now).total_seconds())
        now = due
    assert pauses == [1, 2, *[4] * 7, 12, 12, 12]


def test_a_wait_ends_with_the_cooldown_when_its_probe_has_responded() -> None:
    """Found by the simulator with seed 5639: no other event came before the end of the wait."""
    state = PoolState.of(Endpoint("a"))
    state = update(state, Started("a"), NOON)
    state = update(state, Failed("a", 1), NOON)
    state = update(state, Started("a"), NOON + timedelta(seconds=1))
    state = update(state, Responding("a", 2), NOON + timedelta(seconds=2))
    state = update(state, Started("a"), NOON + timedelta(seconds=3))
    wait = select(state, Failover(), NOON + timedelta(seconds=4))
    assert isinstance(wait, Wait)
    assert wait.until == NOON + timedelta(seconds=15)
