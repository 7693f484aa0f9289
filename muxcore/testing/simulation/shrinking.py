"""Find the smallest world that still breaks the same rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from attrs import evolve, frozen

from muxcore.core.records import Call, Policy
from muxcore.testing.simulation.timeline import BrokenWorldError
from muxcore.testing.simulation.world_run import run
from muxcore.testing.simulation.worlds import Arrival, Manner, SimulatedModel, World

T = TypeVar("T")
MOST_RUNS = 3000


@frozen
class Smallest:
    """A world that breaks a rule, and the error with its trace."""

    world: World
    error: BrokenWorldError


def shrink(world: World) -> Smallest | None:
    """Return the smallest world found that breaks the same rule, or None if none is broken."""
    error = _broken(world)
    if error is None:
        return None
    rule, runs, found = error.rule, 0, True
    while found:
        found = False
        for smaller in _smaller(world):
            runs += 1
            if runs > MOST_RUNS:
                break
            another = _broken(smaller)
            if another is not None and another.rule == rule:
                world, error, found = smaller, another, True
                break
    return Smallest(world, error)


def _broken(world: World) -> BrokenWorldError | None:
    try:
        run(world, keep=True)
    except BrokenWorldError as error:
        return error
    return None


def _smaller(world: World) -> Iterator[World]:
    """Yield smaller worlds, the much smaller ones first."""
    for arrivals in _without(world.arrivals):
        yield evolve(world, arrivals=arrivals)
    for happenings in _without(world.happenings):
        yield evolve(world, happenings=happenings)
    if len(world.models) > 1:
        for models in _without(world.models, largest=1):
            yield evolve(world, models=models)
    yield from _simplified(world)
    if world.policy != Policy():
        yield evolve(world, policy=Policy())
    if world.mode != "failover":
        yield evolve(world, mode="failover")


def _simplified(world: World) -> Iterator[World]:
    """Yield worlds with as many parts, one of them simpler."""
    for position, model in enumerate(world.models):
        for simpler in _simpler_models(model):
            yield evolve(world, models=_with(world.models, position, simpler))
    for position, arrival in enumerate(world.arrivals):
        for plain in _simpler(arrival, _PLAIN_ARRIVAL):
            yield evolve(world, arrivals=_with(world.arrivals, position, plain))


_PLAIN_ARRIVAL: tuple[Callable[[Arrival], Arrival], ...] = (
    lambda arrival: evolve(arrival, stream=False),
    lambda arrival: evolve(arrival, tools=False),
    lambda arrival: evolve(arrival, leaves=None),
    lambda arrival: evolve(arrival, call=Call()),
)


def _simpler_models(model: SimulatedModel) -> Iterator[SimulatedModel]:
    for periods in _without(model.periods):
        yield evolve(model, periods=periods)
    endpoint = model.endpoint
    plainer = (
        evolve(endpoint, context_window=None),
        evolve(endpoint, max_concurrent=None),
        evolve(endpoint, is_fallback=False),
        evolve(endpoint, weight=1),
    )
    for plain in plainer:
        if plain != endpoint:
            yield evolve(model, endpoint=plain)
    for announces in _without(model.announces):
        yield evolve(model, announces=announces)
    if model.usual != Manner():
        yield evolve(model, usual=Manner())


def _simpler(item: T, changes: Sequence[Callable[[T], T]]) -> Iterator[T]:
    for change in changes:
        simpler = change(item)
        if simpler != item:
            yield simpler


def _without(items: tuple[T, ...], largest: int | None = None) -> Iterator[tuple[T, ...]]:
    """Yield the items without one half, one quarter, and so on, down to a single item."""
    size = largest or len(items)
    while size:
        for start in range(0, len(items), size):
            yield items[:start] + items[start + size :]
        size //= 2


def _with(items: tuple[T, ...], position: int, item: T) -> tuple[T, ...]:
    return (*items[:position], item, *items[position + 1 :])
