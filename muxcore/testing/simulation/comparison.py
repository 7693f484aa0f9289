"""Rule 11: a pool never does worse than a pool of any one of its members."""

from __future__ import annotations

import random  # noqa: TID251 - made from a seed, and nowhere else

from attrs import evolve, frozen

from muxcore.core.outcomes import Fault, Kind, Limit
from muxcore.core.records import Endpoint
from muxcore.testing.simulation.labels import SERVED, STREAMED
from muxcore.testing.simulation.world_run import run
from muxcore.testing.simulation.worlds import (
    SECOND,
    Arrival,
    Manner,
    Period,
    SimulatedModel,
    World,
)

CALLS = 25
SPAN = 300
KINDS: tuple[Kind, ...] = (Limit.RATE, Fault.TRANSIENT)
ANSWERED = frozenset({SERVED, STREAMED})
LONGEST_PAUSE = 13 * SECOND
"""The longest pause between two last resorts after errors, and the time of an answer."""
LIMITED = 61 * SECOND
"""A limit without a hint disables a model for the time of the config, one minute."""
SOUND_MODES = ("failover", "load_balance", "lowest_cost", "lowest_latency")


@frozen
class Comparison:
    """How many calls the pool served, and each member alone; and where the pool was worse.

    A pool tries a member with short outages at other moments than a pool of that member alone
    does. So `worse` lists a call which the pool did not serve only if a member was up for longer
    than any pause between two last resorts, or than its last limit disables it. `missed` counts
    the calls that a member alone happened to serve and the pool did not; most of them had
    used both repeats that rule 7 allows.
    """

    together: int
    alone: tuple[int, ...]
    worse: tuple[str, ...]
    missed: int


def compare(seed: int) -> Comparison:
    """Run a pool, and each of its models alone, through the same faults."""
    world = _world(seed)
    together = run(world).endings
    worse: list[str] = []
    counts: list[int] = []
    missed: set[int] = set()
    for model in world.models:
        member = evolve(model, endpoint=evolve(model.endpoint, is_fallback=False))
        alone = run(evolve(world, models=(member,))).endings
        counts.append(sum(ending in ANSWERED for ending in alone))
        for number, (ending, ending_alone) in enumerate(zip(together, alone, strict=True)):
            if ending in ANSWERED or ending_alone not in ANSWERED:
                continue
            missed.add(number)
            if _is_up(model, world.arrivals[number].at):
                alias = model.endpoint.alias
                worse.append(f"rule 11: call {number}: {ending}; served by {alias} alone")
    served = sum(ending in ANSWERED for ending in together)
    return Comparison(served, tuple(counts), tuple(worse), len(missed))


def _is_up(model: SimulatedModel, since: int) -> bool:
    """Whether it answers from then on, for longer than the pool keeps it disabled."""
    until = since + LONGEST_PAUSE
    return all(
        period.start >= until or period.end <= since - _disabled_after(period.manner)
        for period in model.periods
    )


def _disabled_after(manner: Manner) -> int:
    """Return how long a fault may keep a model disabled after it has recovered."""
    without_hint = manner.kind is Limit.RATE and manner.hint is None
    return LIMITED if without_hint else 0


def _world(seed: int) -> World:
    dice = random.Random(seed)  # noqa: S311 - the same every time
    models = tuple(
        SimulatedModel(
            Endpoint(f"m{number}", is_fallback=number > 0 and dice.random() < 0.3),  # noqa: PLR2004
            periods=_outages(dice),
        )
        for number in range(dice.randint(2, 5))
    )
    moments = sorted(dice.randrange(SPAN * SECOND) for _ in range(CALLS))
    arrivals = tuple(Arrival(moment, patience=120 * SECOND) for moment in moments)
    return World(seed, models, dice.choice(SOUND_MODES), arrivals=arrivals)


def _outages(dice: random.Random) -> tuple[Period, ...]:
    """Return periods, short and long, in which a model is down or limited."""
    periods, moment = [], 0
    for _ in range(dice.randint(0, 6)):
        start = moment + dice.randint(1, 60) * SECOND
        moment = start + dice.choice([1, 6, 60, 400]) * SECOND // 2
        kind = dice.choice(KINDS)
        hint = dice.choice([None, 3 * SECOND])
        periods.append(Period(start, moment, Manner(kind, SECOND // 100, hint)))
    return tuple(periods)
