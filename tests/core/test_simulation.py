"""Thousands of calls over made-up faults, on a clock that exists only here.

Each step checks rules 1 to 7 and 12; whole runs are compared for rules 11 and 13. One seed
makes one run, and every failure names its seed.
"""

from __future__ import annotations

import heapq
import random  # noqa: TID251 - made from a seed, and nowhere else
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
from attrs import define, evolve, field, frozen

from muxcore.core.outcomes import (
    Cancelled,
    End,
    Failed,
    Fault,
    Limit,
    Outcome,
    RateLimited,
    Refusal,
    Rejected,
    Responding,
    Succeeded,
)
from muxcore.core.protocol import (
    Attempt,
    CallCancelled,
    CallEnding,
    CallExhausted,
    CallRejected,
    CallServed,
    CallStep,
    Choose,
    Sleep,
    Slept,
    Slot,
    call_steps,
    choose,
    choose_all,
)
from muxcore.core.records import (
    Call,
    Endpoint,
    Exhausted,
    PickReason,
    Policy,
    PoolState,
    Sticky,
    Wait,
)
from muxcore.core.selection import Standing, explain
from muxcore.core.strategy import Strategy
from muxcore.core.updating import update
from muxcore_strategies.failover import Failover
from muxcore_strategies.load_balance import LoadBalance

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@frozen
class Period:
    """From `start` until `end`, a model answers with this outcome after this latency."""

    start: float
    end: float
    outcome: str
    latency: float = 0.1
    hint: float | None = None


@frozen
class Model:
    endpoint: Endpoint
    faults: tuple[Period, ...] = ()
    latency: float = 0.5

    def answer(self, now: datetime) -> Period:
        moment = (now - NOON).total_seconds()
        for period in self.faults:
            if period.start <= moment < period.end:
                return period
        return Period(0, 0, "fine", self.latency)


@frozen
class Arrival:
    at: float
    call: Call
    stream: bool = False
    patience: float = 60.0
    leaves_after: float | None = None


def outcome_of(period: Period, alias: str, attempt: int, arrival: Arrival) -> End:
    hint = None if period.hint is None else seconds(period.hint)
    kind = period.outcome
    if kind == "fine":
        return Succeeded(alias, attempt, conversation=arrival.call.conversation)
    if kind in set(Limit):
        return RateLimited(alias, attempt, Limit(kind), hint)
    if kind in set(Refusal):
        return Rejected(alias, attempt, Refusal(kind))
    return Failed(alias, attempt, Fault(kind), hint)


@define(eq=False)
class Running:
    """One call under way."""

    arrival: Arrival
    steps: Generator[CallStep, Any, CallEnding]
    deadline: datetime
    attempt: Slot | None = None
    waiting: Wait | None = None
    since: datetime = NOON
    call: Call = field(factory=Call)
    ending: CallEnding | None = None

    def seen(self, now: datetime) -> Call:
        return evolve(self.call, waited=self.call.waited + (now - self.since))


@define
class Simulation:
    models: dict[str, Model]
    mode: Strategy
    state: PoolState
    now: datetime = NOON
    events: list[tuple[datetime, int, Callable[[], None]]] = field(factory=list)
    order: count[int] = field(factory=count)
    line: list[Running] = field(factory=list)
    calls: list[Running] = field(factory=list)
    attempts: int = 0

    @classmethod
    def of(
        cls, models: list[Model], mode: Strategy, policy: Policy, arrivals: list[Arrival]
    ) -> Simulation:
        state = PoolState.of(*(model.endpoint for model in models), policy=policy)
        made = cls({model.endpoint.alias: model for model in models}, mode, state)
        for arrival in arrivals:
            made.later(NOON + seconds(arrival.at), partial(made.arrive, arrival))
        return made

    def later(self, moment: datetime, action: Callable[[], None]) -> None:
        heapq.heappush(self.events, (moment, next(self.order), action))

    def run(self) -> Simulation:
        while self.events:
            moment, _, action = heapq.heappop(self.events)
            assert moment >= self.now
            self.now = moment
            action()
            self.check_counts()
        assert not self.line
        # Rule 1: each call ended; rule 2: all is quiet.
        assert all(running.ending is not None for running in self.calls)
        assert all(c.health.in_flight == 0 for c in self.state.candidates)
        return self

    # -- What happens ---------------------------------------------------------------------

    def arrive(self, arrival: Arrival) -> None:
        deadline = self.now + seconds(arrival.patience)
        call = evolve(arrival.call, deadline=deadline)
        running = Running(arrival, call_steps(call), deadline)
        self.calls.append(running)
        self.go_on(running, None)

    def go_on(self, running: Running, event: object) -> None:
        """Send an event, and do what the call asks for next."""
        try:
            step = running.steps.send(event)
        except StopIteration as stop:
            self.end(running, stop.value)
            return
        match step:
            case Choose(call):
                self.serve_line()
                before = self.state
                self.state, choice = choose(before, self.mode, self.now, call)
                self.check_choice(before, choice, call)
                self.go_on(running, choice)
            case Sleep(call, wait):
                running.call, running.since, running.waiting = call, self.now, wait
                self.line.append(running)
                self.later(wait.until, lambda: self.wait_is_over(running, wait))
            case Attempt(_, slot):
                self.begin(running, slot)

    def begin(self, running: Running, slot: Slot) -> None:
        self.attempts += 1
        running.attempt = slot
        arrival, alias = running.arrival, slot.endpoint.alias
        period = self.models[alias].answer(self.now)
        outcome = outcome_of(period, alias, slot.attempt, arrival)
        over = self.now + seconds(period.latency)
        cut = running.deadline
        if arrival.leaves_after is not None:
            cut = min(cut, NOON + seconds(arrival.at + arrival.leaves_after))
        if over > cut:
            outcome, over = Cancelled(alias, slot.attempt), max(cut, self.now)
        elif arrival.stream and isinstance(outcome, Succeeded):
            first = self.now + seconds(period.latency / 4)
            self.later(first, lambda: self.hear(running, Responding(alias, slot.attempt)))
        self.later(over, lambda: self.hear(running, outcome))

    def hear(self, running: Running, outcome: Responding | End) -> None:
        """Fold an outcome in, serve the line, and tell the call unless it is over."""
        self.tell(outcome)
        self.serve_line()
        if not isinstance(outcome, Responding):
            running.attempt = None
        if running.ending is None:
            self.go_on(running, outcome)

    def wait_is_over(self, running: Running, wait: Wait) -> None:
        if running in self.line and running.waiting is wait:
            self.serve_line(late=running)

    def serve_line(self, late: Running | None = None) -> None:
        """Let the waiting calls choose anew, first come first served."""
        line = list(self.line)
        calls = [running.seen(self.now) for running in line]
        before = self.state
        self.state, choices = choose_all(before, self.mode, self.now, calls)
        told = []
        for running, call, choice in zip(line, calls, choices, strict=True):
            assert not isinstance(choice, Exception)
            # Each choice was made in the state that the ones before it left.
            before, _ = self.check_choice(before, choice, call)
            if isinstance(choice, Wait) and running is not late:
                assert running.waiting is not None
                if choice.until >= running.waiting.until:
                    continue
            self.line.remove(running)
            told.append((running, Slept(self.now - running.since, choice)))
        for running, woken in told:
            self.go_on(running, woken)

    def end(self, running: Running, ending: CallEnding) -> None:
        assert running.ending is None, "a call ended twice"
        running.ending = ending
        # Rule 1: by its deadline. Rule 7: at most pool size + 2 attempts.
        assert self.now <= running.deadline
        assert len(ending.trail) <= len(self.models) + 2
        match ending:
            case CallServed(trail):
                assert isinstance(trail[-1].outcome, Responding | Succeeded)
            case CallRejected(trail, refusal):
                assert refusal in [tried.outcome for tried in trail]
            case CallCancelled(trail, cancelled):
                assert trail[-1].outcome is cancelled
            case CallExhausted(_, exhausted):
                assert exhausted.retry_at is None or exhausted.retry_at >= self.now

    def tell(self, outcome: Outcome) -> None:
        before = self.state
        self.state = update(before, outcome, self.now)
        assert self.state is not before, "an outcome was lost"
        for old, new in zip(before.candidates, self.state.candidates, strict=True):
            pairs = (
                (old.health.limited, new.health.limited),
                (old.health.broken, new.health.broken),
            )
            for was, is_now in pairs:
                if isinstance(outcome, Rejected | Cancelled):
                    assert was == is_now, "rule 6"
                if was is not None and (is_now is None or is_now.until < was.until):
                    assert isinstance(outcome, Succeeded), "rule 4"
                    assert outcome.attempt > was.newest, "rule 4"

    # -- What must hold -------------------------------------------------------------------

    def check_counts(self) -> None:
        total = 0
        for candidate in self.state.candidates:
            health, cap = candidate.health, candidate.endpoint.max_concurrent
            assert 0 <= health.in_flight <= (cap or health.in_flight), "rule 2"
            total += candidate.tally.ended + health.in_flight
        assert self.state.attempts == total, "rule 12"
        assert self.state.attempts == self.attempts, "rule 12"

    def check_choice(
        self, before: PoolState, choice: Slot | Wait | Exhausted, call: Call
    ) -> tuple[PoolState, None]:
        """Check a choice against the state that it was made in; return the one after it."""
        if isinstance(choice, Wait):
            assert self.now < choice.until, "a wait must come to an end"
            return before, None
        standings = {p.alias: p.standing for p in explain(before, self.now, call)}
        if isinstance(choice, Exhausted):
            assert Standing.OPEN not in standings.values(), "an open one was not tried"
            return before, None
        alias = choice.endpoint.alias
        candidate = before[alias]
        if choice.reason is PickReason.LAST_RESORT:
            assert Standing.OPEN not in standings.values(), "rule 3"
            assert candidate.health.opens_at(self.now) <= self.now, "rule 3"
            assert not candidate.health.probed(self.now), "rule 3"
        else:
            assert standings[alias] is Standing.OPEN, "rule 3"
        if choice.endpoint.is_fallback and choice.reason is not PickReason.STICKY:
            primaries = {
                standings[c.endpoint.alias]
                for c in before.candidates
                if not c.endpoint.is_fallback
            }
            assert Standing.OPEN not in primaries, "rule 5"
            assert call.deadline is not None
            left = (call.deadline - self.now - call.waited) / 2
            if min(before.policy.max_wait - call.waited, left) > timedelta():
                assert Standing.BUSY not in primaries, "rule 5"
        # Whatever the mode remembers does not matter to what is checked here.
        started = [
            evolve(
                c,
                health=evolve(c.health, under_way=(*c.health.under_way, choice.attempt)),
            )
            if c.endpoint.alias == alias
            else c
            for c in before.candidates
        ]
        return evolve(before, candidates=tuple(started), attempts=choice.attempt), None


# -- Runs made from a seed ----------------------------------------------------------------

FAULTS = [*Limit, *Fault, *Refusal]


def random_models(dice: random.Random) -> list[Model]:
    models = []
    for number in range(dice.randint(1, 5)):
        endpoint = Endpoint(
            f"model-{number}",
            weight=dice.randint(1, 9),
            max_concurrent=dice.choice([None, None, 1, 2, 3]),
            is_fallback=number > 0 and dice.random() < 0.3,
            context_window=dice.choice([None, None, 1000, 4000]),
            dialect=dice.choice(["generic", "mistral"]),
        )
        models.append(Model(endpoint, random_faults(dice), dice.choice([0.2, 1.0, 6.0])))
    return models


def random_faults(dice: random.Random) -> tuple[Period, ...]:
    periods, moment = [], 0.0
    for _ in range(dice.randint(0, 8)):
        start = moment + dice.uniform(0, 60)
        moment = start + dice.choice([1, 5, 20, 100])
        hint = dice.choice([None, None, 1.0, 5.0, 90.0])
        latency = dice.choice([0.05, 1.0, 10.0])
        periods.append(Period(start, moment, dice.choice(FAULTS), latency, hint))
    return tuple(periods)


def random_arrivals(dice: random.Random, number: int) -> list[Arrival]:
    arrivals, moment = [], 0.0
    for _ in range(number):
        moment += dice.choice([0.0, 0.01, 0.5, 2.0, 8.0])
        call = Call(
            conversation=dice.choice([None, "one", "two", "three"]),
            new_turn=dice.random() < 0.3,
            prompt_tokens=dice.choice([None, 500, 2000, 9000]),
        )
        arrivals.append(
            Arrival(
                moment,
                call,
                stream=dice.random() < 0.4,
                patience=dice.choice([0.5, 10.0, 60.0, 120.0]),
                leaves_after=dice.choice([None, None, None, 3.0]),
            )
        )
    return arrivals


def random_run(seed: int, number: int = 100) -> Simulation:
    dice = random.Random(seed)
    policy = Policy(
        rate_limit_disable_duration=seconds(dice.choice([1, 10, 60])),
        persistent_error_disable_duration=seconds(dice.choice([1, 15])),
        max_wait=seconds(dice.choice([0, 5, 30])),
        sticky=dice.choice(list(Sticky)),
    )
    modes: list[Strategy] = [Failover(), LoadBalance()]
    mode = dice.choice(modes)
    models = random_models(dice)
    return Simulation.of(models, mode, policy, random_arrivals(dice, number))


@pytest.mark.parametrize("seed", range(60))
def test_rules_1_to_7_and_12_hold_at_every_step(seed: int) -> None:
    random_run(seed).run()


def test_the_runs_come_to_every_ending_and_every_reason() -> None:
    """Or the rules would hold for want of cases."""
    endings, reasons, waits = set(), set(), 0
    for seed in range(20):
        for running in random_run(seed).run().calls:
            assert running.ending is not None
            endings.add(type(running.ending))
            reasons |= {tried.slot.reason for tried in running.ending.trail}
            waits += running.call.waited > timedelta() or running.waiting is not None
    assert endings == {CallServed, CallRejected, CallExhausted, CallCancelled}
    assert reasons == set(PickReason)
    assert waits > 50


@pytest.mark.parametrize("seed", range(5))
def test_rule_13_one_seed_makes_one_run(seed: int) -> None:
    one, other = random_run(seed).run(), random_run(seed).run()
    assert one.state == other.state
    assert [r.ending for r in one.calls] == [r.ending for r in other.calls]


# -- A pool and its members (rule 11) -------------------------------------------------------


def outages(dice: random.Random) -> tuple[Period, ...]:
    """Return times, short and long, in which a model is down or limited."""
    periods, moment = [], 0.0
    for _ in range(dice.randint(0, 6)):
        start = moment + dice.uniform(1, 60)
        moment = start + dice.choice([0.5, 3, 30, 200])
        outcome = dice.choice([Limit.RATE, Fault.TRANSIENT])
        periods.append(Period(start, moment, outcome, latency=0.01, hint=3))
    return tuple(periods)


def random_pool(seed: int) -> tuple[list[Model], list[Arrival]]:
    dice = random.Random(seed)
    models = [
        Model(
            Endpoint(f"model-{number}", is_fallback=number > 0 and dice.random() < 0.3),
            outages(dice),
        )
        for number in range(dice.randint(2, 4))
    ]
    moments = sorted(dice.uniform(0, 300) for _ in range(25))
    return models, [Arrival(moment, Call(), patience=120.0) for moment in moments]


def endings(
    models: list[Model], mode: Strategy, arrivals: list[Arrival]
) -> list[CallEnding]:
    simulation = Simulation.of(models, mode, Policy(), arrivals).run()
    return [running.ending for running in simulation.calls if running.ending is not None]


MODES = pytest.mark.parametrize("mode", [Failover(), LoadBalance()])


@MODES
@pytest.mark.parametrize("seed", range(20))
def test_rule_11_with_one_member_that_never_fails_every_call_is_served(
    seed: int, mode: Strategy
) -> None:
    dice = random.Random(seed)
    models = [Model(Endpoint(f"model-{n}"), random_faults(dice)) for n in range(3)]
    # Who refuses a request is not failing it, and ends the call (rule 6).
    models = [
        evolve(m, faults=tuple(p for p in m.faults if p.outcome not in set(Refusal)))
        for m in models
    ]
    models.append(Model(Endpoint("steady", is_fallback=dice.random() < 0.5)))
    arrivals = [Arrival(dice.uniform(0, 300), Call(), patience=120.0) for _ in range(25)]
    for ending in endings(models, mode, arrivals):
        assert isinstance(ending, CallServed)


@MODES
@pytest.mark.parametrize("seed", range(40))
def test_rule_11_a_member_that_has_recovered_is_found_within_seconds(
    seed: int, mode: Strategy
) -> None:
    """Four seconds are the longest pause of a last resort after these faults."""
    models, arrivals = random_pool(seed)
    for arrival, ending in zip(arrivals, endings(models, mode, arrivals), strict=True):
        start, end = arrival.at, arrival.at + 6
        if any(all(p.end <= start or p.start >= end for p in m.faults) for m in models):
            assert isinstance(ending, CallServed)


@MODES
@pytest.mark.parametrize("seed", range(40))
def test_rule_11_a_pool_serves_whatever_a_pool_of_one_member_would(
    seed: int, mode: Strategy
) -> None:
    """But for the attempts of rule 7: two repeats are not enough for several blackouts."""
    models, arrivals = random_pool(seed)
    together = endings(models, mode, arrivals)
    for model in models:
        member = evolve(model, endpoint=evolve(model.endpoint, is_fallback=False))
        alone = endings([member], mode, arrivals)
        for in_pool, by_itself in zip(together, alone, strict=True):
            if isinstance(by_itself, CallServed) and isinstance(in_pool, CallExhausted):
                aliases = [tried.slot.endpoint.alias for tried in in_pool.trail]
                assert len(aliases) - len(set(aliases)) == 2
