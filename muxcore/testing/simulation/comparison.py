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
"""Between two last resorts at one model after errors, and the time of an answer."""
LIMITED = 61 * SECOND
"""A limit without a hint lasts for as long as the config says."""
SOUND_MODES = ("failover", "load_balance", "lowest_cost", "lowest_latency")


@frozen
class Comparison:
    """How many calls the pool served, and each member alone; and what was worse.

    Members that come and go are asked at moments, and a pool asks at others than a pool of
    one does. So what is worse is a call that was not served though a member was well for
    longer than any pause between two last resorts, or than its last limit lasts. `missed` are
    the calls that a member alone happened to serve and the pool did not, most of them with both
    repeats made that rule 7 allows to one call.
    """

    together: int
    alone: tuple[int, ...]
    worse: tuple[str, ...]
    missed: int


def compared(seed: int) -> Comparison:
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
        for number, (one, other) in enumerate(zip(together, alone, strict=True)):
            if one in ANSWERED or other not in ANSWERED:
                continue
            missed.add(number)
            if _is_well(model, world.arrivals[number].at):
                alias = model.endpoint.alias
                worse.append(f"rule 11: call {number}: {one}; served by {alias} alone")
    served = sum(ending in ANSWERED for ending in together)
    return Comparison(served, tuple(counts), tuple(worse), len(missed))


def _is_well(model: SimulatedModel, since: int) -> bool:
    """Whether it answers from then on, for longer than the pool leaves it alone."""
    until = since + LONGEST_PAUSE
    return all(
        period.start >= until or period.end <= since - _outlives(period.manner)
        for period in model.periods
    )


def _outlives(manner: Manner) -> int:
    """Return for how long a fault may keep a model disabled that is well again."""
    vague = manner.kind is Limit.RATE and manner.hint is None
    return LIMITED if vague else 0


def _world(seed: int) -> World:
    dice = random.Random(seed)  # noqa: S311 - it is to be the same every time
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
    """Return times, short and long, in which a model is down or limited."""
    periods, moment = [], 0
    for _ in range(dice.randint(0, 6)):
        start = moment + dice.randint(1, 60) * SECOND
        moment = start + dice.choice([1, 6, 60, 400]) * SECOND // 2
        kind = dice.choice(KINDS)
        hint = dice.choice([None, 3 * SECOND])
        periods.append(Period(start, moment, Manner(kind, SECOND // 100, hint)))
    return tuple(periods)
