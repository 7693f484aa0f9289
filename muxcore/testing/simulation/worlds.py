"""What happens in a world, as plain records, made from a seed before anything runs.

All times are whole microseconds since the world began, on the monotonic clock.
"""

from __future__ import annotations

import random  # noqa: TID251 - made from a seed, and nowhere else
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from attrs import evolve, frozen

from muxcore.core.allowance import Allowance, AllowanceKind
from muxcore.core.outcomes import Fault, Kind, Limit, Refusal
from muxcore.core.records import Call, Candidate, Endpoint, Policy, Sticky
from muxcore.core.strategy import Strategy
from muxcore_strategies.failover import Failover
from muxcore_strategies.load_balance import LoadBalance
from muxcore_strategies.lowest_cost import LowestCost
from muxcore_strategies.lowest_latency import LowestLatency

SECOND = 1_000_000
HOUR = 3600 * SECOND
UNTIL_ITS_END = -1
"""A hint that is the rest of the period in whole seconds, as a correct server gives it."""
CALLS = 100
"""The number of calls in one world."""
ANNOUNCING = (3, 8, 9)
"""The last digits of the seeds of worlds whose models announce limits."""
PLAIN, DEFAULTS = Call(), Policy()


class Course(StrEnum):
    """How an answer continues after its first content."""

    WHOLE = "whole"
    CUT = "cut off"
    UNFINISHED = "ends without a finish_reason"
    ERROR = "an error event"
    SILENT = "falls silent"


@frozen
class Manner:
    """How a model answers: after `delay` with a refusal (`kind`) or its first content."""

    kind: Kind | None = None
    delay: int = SECOND // 2
    hint: int | None = None
    course: Course = Course.WHOLE
    lasts: int = SECOND // 2
    """The time from the first content to the end."""


@frozen
class Period:
    """From `start` until `end`, a model answers in this manner."""

    start: int
    end: int
    manner: Manner


@frozen
class SimulatedModel:
    """A model of the world. `usual` is its manner outside of all periods.

    With `refuses_tools`, it refuses every call with tools; with `takes_nonsense`, it answers
    bad requests too.
    """

    endpoint: Endpoint
    usual: Manner = Manner()
    periods: tuple[Period, ...] = ()
    refuses_tools: bool = False
    takes_nonsense: bool = False
    announces: tuple[AllowanceKind, ...] = ()
    """The limits of its headers. What is left of them and until when has no reason, but it is the
    same for the same attempt: the rules hold whatever a provider says."""

    def refuses(self, arrival: Arrival) -> bool:
        return (
            (self.refuses_tools and arrival.tools)
            or (arrival.is_bad and not self.takes_nonsense)
            or self.endpoint.alias in arrival.refused_by
        )

    def allowances(self, attempt: int, now: datetime) -> tuple[Allowance, ...]:
        """Return what the answer to an attempt says at `now`."""
        found = []
        for kind in self.announces:
            dice = random.Random(f"{self.endpoint.alias} {kind} {attempt}")  # noqa: S311 - the same every time
            limit = 3 if kind is AllowanceKind.REQUESTS else 10_000
            resets_in = dice.choice([None, 1, 8, 40, 4000])
            resets_at = None if resets_in is None else now + timedelta(seconds=resets_in)
            remaining = dice.choice([0, limit // 3, limit])
            found.append(Allowance(kind, remaining, limit, resets_at))
        return tuple(found)

    def manner(self, moment: int) -> Manner:
        for period in self.periods:
            if period.start <= moment < period.end:
                manner = period.manner
                if manner.hint == UNTIL_ITS_END:
                    seconds = -((moment - period.end) // SECOND)
                    return evolve(manner, hint=seconds * SECOND)
                return manner
        return self.usual


class Leaving(StrEnum):
    """How a caller gives up."""

    CLOSES = "closes the stream"
    DROPS = "drops the stream"
    INTERRUPTS = "is interrupted"
    CANCELS = "cancels from another thread"


@frozen
class Arrival:
    """A call that arrives at `at` and may take `patience`. Its caller leaves after `leaves`.

    All models refuse a call that `is_bad`, except those that take nonsense. The models in
    `refused_by` refuse a call which others take.
    """

    at: int
    call: Call = PLAIN
    stream: bool = False
    tools: bool = False
    patience: int = 60 * SECOND
    leaves: int | None = None
    leaving: Leaving = Leaving.INTERRUPTS
    is_bad: bool = False
    refused_by: frozenset[str] = frozenset()


@frozen
class ClockSet:
    """The wall clock is set by this much, while no time passes."""

    at: int
    by: int


@frozen
class ModelReset:
    """The user re-enables one model, or all."""

    at: int
    alias: str | None = None


@frozen
class ConfigChanged:
    """The config is reloaded: other weights and limits, the same models."""

    at: int
    weights: tuple[int, ...]
    policy: Policy


@frozen
class PoolClosed:
    """The multiplexer is closed."""

    at: int


Happening: TypeAlias = ClockSet | ModelReset | ConfigChanged | PoolClosed


@frozen
class World:
    """Everything that a run depends on. `seed` decides only the order in which threads run."""

    seed: int
    models: tuple[SimulatedModel, ...]
    mode: str = "failover"
    policy: Policy = DEFAULTS
    arrivals: tuple[Arrival, ...] = ()
    happenings: tuple[Happening, ...] = ()
    attempt_limit: int = 300 * SECOND
    silence_limit: int = 120 * SECOND


# -- Modes as a third party might write them ------------------------------------------------

Picked: TypeAlias = tuple[Endpoint, object]


@frozen
class LeastBusy:
    """The least busy model, as in the documentation."""

    def pick(
        self,
        candidates: Sequence[Candidate],
        memory: object,
        call: Call,  # noqa: ARG002 - the protocol's
        now: datetime,  # noqa: ARG002
    ) -> Picked:
        return min(candidates, key=lambda c: c.health.in_flight).endpoint, memory


@frozen
class Scattered:
    """Any model, by a pseudo-random number in its memory."""

    def pick(
        self,
        candidates: Sequence[Candidate],
        memory: object,
        call: Call,  # noqa: ARG002 - the protocol's
        now: datetime,  # noqa: ARG002
    ) -> Picked:
        number = memory if isinstance(memory, int) else 7
        number = (number * 1_103_515_245 + 12_345) % 2**31
        return candidates[(number >> 8) % len(candidates)].endpoint, number


@frozen
class Unsound:
    """A broken mode: sometimes it raises, or picks an endpoint that it was not shown."""

    def pick(
        self,
        candidates: Sequence[Candidate],
        memory: object,
        call: Call,  # noqa: ARG002 - the protocol's
        now: datetime,
    ) -> Picked:
        number = now.microsecond % 11
        if number == 1:
            raise RuntimeError("this mode is broken")
        if number == 2:  # noqa: PLR2004 - any other number would do
            return Endpoint("stranger"), memory
        return candidates[number % len(candidates)].endpoint, memory


MODES: dict[str, Callable[[], Strategy]] = {
    "failover": Failover,
    "load_balance": LoadBalance,
    "lowest_cost": LowestCost,
    "lowest_latency": LowestLatency,
    "least_busy": LeastBusy,
    "scattered": Scattered,
    "unsound": Unsound,
}

# -- Worlds from a seed ---------------------------------------------------------------------

REFUSALS: tuple[Kind, ...] = (*Limit, *Fault, *Refusal)


def world_of(seed: int, calls: int = CALLS) -> World:
    """Make the world of this seed."""
    dice = random.Random(seed)  # noqa: S311 - the same every time
    calm = dice.random() < 0.1  # noqa: PLR2004 - one in ten
    models = tuple(_model(dice, number, calm=calm) for number in range(dice.randint(1, 5)))
    if seed % 10 in ANNOUNCING:
        models = tuple(_announcing(model, seed) for model in models)
    arrivals = _arrivals(dice, calls, calm=calm)
    span = arrivals[-1].at + 60 * SECOND if arrivals else SECOND
    return World(
        seed,
        models,
        dice.choice([*MODES, "failover", "load_balance"]),
        _policy(dice),
        arrivals,
        () if calm else _happenings(dice, len(models), span),
        attempt_limit=dice.choice([5, 300, 300]) * SECOND,
        silence_limit=dice.choice([3, 120]) * SECOND,
    )


def _policy(dice: random.Random) -> Policy:
    return Policy(
        rate_limit_disable_duration=timedelta(seconds=dice.choice([1, 10, 60])),
        persistent_error_disable_duration=timedelta(seconds=dice.choice([1, 15])),
        max_wait=timedelta(seconds=dice.choice([0, 5, 30, 30])),
        sticky=dice.choice(list(Sticky)),
    )


def _model(dice: random.Random, number: int, *, calm: bool) -> SimulatedModel:
    endpoint = Endpoint(
        f"m{number}",
        weight=dice.randint(1, 9),
        max_concurrent=None if calm else dice.choice([None, None, 1, 2, 3]),
        is_fallback=number > 0 and not calm and dice.random() < 0.3,  # noqa: PLR2004
        context_window=None if calm else dice.choice([None, None, 1000, 4000]),
        input_price=dice.choice([0.0, 0.4, 2.0]),
        output_price=dice.choice([0.0, 2.0, 6.0]),
        provider=dice.choice(["near", "far"]),
    )
    usual = Manner(
        delay=dice.choice([1, 2, 10, 60]) * SECOND // 10,
        lasts=dice.choice([1, 10, 60]) * SECOND // 10,
    )
    return SimulatedModel(
        endpoint,
        usual,
        () if calm else _periods(dice),
        refuses_tools=dice.random() < 0.2,  # noqa: PLR2004
        takes_nonsense=dice.random() < 0.2,  # noqa: PLR2004
    )


def _announcing(model: SimulatedModel, seed: int) -> SimulatedModel:
    # By dice of their own: the worlds are otherwise as those without limits.
    dice = random.Random(f"{seed} {model.endpoint.alias}")  # noqa: S311 - the same every time
    kinds = tuple(kind for kind in AllowanceKind if dice.random() < 0.3)  # noqa: PLR2004
    return evolve(model, announces=kinds)


def _periods(dice: random.Random) -> tuple[Period, ...]:
    periods, moment = [], 0
    for _ in range(dice.randint(0, 8)):
        start = moment + dice.randrange(60 * SECOND)
        moment = start + dice.choice([1, 5, 20, 100]) * SECOND
        periods.append(Period(start, moment, _manner(dice)))
    return tuple(periods)


def _manner(dice: random.Random) -> Manner:
    delay = dice.choice([SECOND // 20, SECOND, 10 * SECOND])
    if dice.random() < 0.25:  # noqa: PLR2004 - one in four fails after its first content
        course = dice.choice(list(Course))
        return Manner(None, delay, None, course, dice.choice([1, 30]) * SECOND)
    hint = dice.choice([None, None, 1, 5, 90])
    hint = None if hint is None else hint * SECOND
    return Manner(dice.choice(REFUSALS), delay, hint)


def _arrivals(dice: random.Random, calls: int, *, calm: bool) -> tuple[Arrival, ...]:
    arrivals, moment = [], 0
    for _ in range(calls):
        moment += dice.choice([0, 10_000, SECOND // 2, 2 * SECOND, 8 * SECOND])
        arrival = Arrival(moment, stream=dice.random() < 0.4, tools=dice.random() < 0.3)  # noqa: PLR2004
        if not calm:
            arrival = evolve(
                arrival,
                call=Call(
                    conversation=dice.choice([None, "one", "two", "three"]),
                    new_turn=dice.random() < 0.3,  # noqa: PLR2004
                    prompt_tokens=dice.choice([None, 500, 2000, 9000]),
                ),
                patience=dice.choice([1, 20, 120, 240]) * SECOND // 2,
                leaves=dice.choice([None, None, None, None, 0, 300_000, 3 * SECOND]),
                leaving=dice.choice(list(Leaving)),
                is_bad=dice.random() < 0.1,  # noqa: PLR2004
            )
        arrivals.append(arrival)
    return tuple(arrivals)


def _happenings(dice: random.Random, models: int, span: int) -> tuple[Happening, ...]:
    happenings: list[Happening] = []
    for _ in range(dice.choice([0, 0, 1, 3])):
        at = dice.randrange(span)
        jump = dice.choice([-HOUR, -20 * SECOND, -SECOND, 5 * SECOND, HOUR, 12 * HOUR])
        happenings.append(ClockSet(at, jump))
    for _ in range(dice.choice([0, 0, 1])):
        alias = dice.choice([None, "m0", "m1"])
        happenings.append(ModelReset(dice.randrange(span), alias))
    for _ in range(dice.choice([0, 0, 0, 1])):
        weights = tuple(dice.randint(1, 9) for _ in range(models))
        happenings.append(ConfigChanged(dice.randrange(span), weights, _policy(dice)))
    if dice.random() < 0.05:  # noqa: PLR2004 - one in twenty
        happenings.append(PoolClosed(dice.randrange(span)))
    return tuple(happenings)
