"""Whole sessions of vibe under realistic faults: bare, and through the pool.

The retries are those of vibe 3.0.2: for 300 s, about 18 requests, each after `0.5 * 1.5**n`
seconds plus up to a second of jitter, at most 30 s; or after `Retry-After`. The pool is the real
one, with the gateway's `Retry-After`.
"""

from __future__ import annotations

import random  # noqa: TID251 - made from a seed, and nowhere else
from collections import Counter
from collections.abc import Iterable

from attrs import define, frozen

from muxcore.core.outcomes import Fault, Kind, Limit
from muxcore.core.records import Call, Endpoint
from muxcore.testing.simulation.labels import INTERRUPTED, REJECTED
from muxcore.testing.simulation.timeline import EndedCall
from muxcore.testing.simulation.world_run import Simulation
from muxcore.testing.simulation.worlds import (
    SECOND,
    UNTIL_ITS_END,
    Arrival,
    Course,
    Manner,
    Period,
    SimulatedModel,
    World,
)

CALLS = 50
MODELS = 3
BUDGET = 300 * SECOND
"""How long vibe repeats a failed call."""
LONGEST_DELAY = 30 * SECOND
LATER = SECOND
"""How much later than bare vibe on its best model a session may finish."""
STORM_FACTOR = 2
"""No provider may receive more than this many times what bare vibe would send it."""
WEAK = 0.2
"""The share of turns which a model refuses."""
USUAL = Manner(delay=600_000, lasts=3 * SECOND)


@frozen
class Script:
    """One session: the faults of its models, and the pauses between its calls."""

    seed: int
    models: tuple[SimulatedModel, ...]
    pauses: tuple[int, ...]
    new_turns: tuple[bool, ...]
    refused_by: tuple[frozenset[str], ...] = (frozenset(),) * CALLS
    """The models that refuse each call, although another takes it."""

    def jitter(self, call: int, retry: int) -> int:
        # The same with and without the pool, and independent of earlier retries.
        dice = random.Random(f"{self.seed} {call} {retry}")  # noqa: S311
        return dice.randrange(SECOND)


@frozen
class Session:
    """When a session finished (None: it did not), and how many requests it sent.

    `lost` is the time of answers that were cut after their first content. The caller already
    has that content, so no pool can repeat such an answer elsewhere.
    """

    finished: int | None
    requests: Counter[str]
    lost: int = 0


@frozen
class SessionResult:
    """One script, through the pool and bare on each of its models.

    The best model is known only afterwards: the one on which bare vibe finished first.
    """

    seed: int
    pool: Session
    bare: tuple[Session, ...]
    blackout: bool = False
    """Whether every model was down at some moment."""

    @property
    def best(self) -> int | None:
        """When bare vibe finished on its best model."""
        ends = [one.finished for one in self.bare if one.finished is not None]
        return min(ends, default=None)

    @property
    def late(self) -> int:
        """How much later the pool finished than bare vibe on its best model."""
        best, finished = self.best, self.pool.finished
        return 0 if best is None or finished is None else finished - best


def script_of(seed: int, *, refusals: bool = False) -> Script:
    """Make the script of this seed. With `refusals`, models refuse calls that others take."""
    dice = random.Random(f"session {seed}")  # noqa: S311 - the same every time
    models = tuple(
        SimulatedModel(Endpoint(f"m{number}"), USUAL, recorded_faults(dice))
        for number in range(MODELS)
    )
    new_turns = tuple(n == 0 or dice.random() < 0.12 for n in range(CALLS))  # noqa: PLR2004
    pauses = tuple(
        dice.randrange(5, 60) * SECOND if new else dice.randrange(200_000, 3 * SECOND)
        for new in new_turns
    )
    refused_by = _weaknesses(dice, new_turns) if refusals else (frozenset(),) * CALLS
    return Script(seed, models, pauses, new_turns, refused_by)


def _weaknesses(
    dice: random.Random, new_turns: tuple[bool, ...]
) -> tuple[frozenset[str], ...]:
    """Return the models that refuse each call: the same for a whole turn, and never all."""
    refused_by: list[frozenset[str]] = []
    for new_turn in new_turns:
        if new_turn:
            willing = dice.randrange(MODELS)
            refusing = {
                f"m{number}"
                for number in range(MODELS)
                if number != willing and dice.random() < WEAK
            }
        refused_by.append(frozenset(refusing))
    return tuple(refused_by)


def recorded_faults(dice: random.Random, hours: int = 1) -> tuple[Period, ...]:
    """Return realistic faults: short limits, single errors, a rare long outage."""
    periods, moment = [], dice.randrange(120 * SECOND)
    while moment < hours * 3600 * SECOND:
        lasts, manner = _fault(dice)
        periods.append(Period(moment, moment + lasts, manner))
        moment += lasts + int(dice.expovariate(1 / 200) * SECOND)
    return tuple(periods)


def _fault(dice: random.Random) -> tuple[int, Manner]:
    quick = dice.randrange(20_000, 80_000)
    which = dice.random()
    if which < 0.35:  # noqa: PLR2004 - the shares of the faults
        lasts = dice.choice([2, 5, 10, 20, 30, 60]) * SECOND
        return lasts, Manner(Limit.RATE, quick, UNTIL_ITS_END)
    if which < 0.55:  # noqa: PLR2004
        return dice.choice([5, 20, 60]) * SECOND, Manner(Limit.RATE, quick)
    if which < 0.75:  # noqa: PLR2004
        return dice.choice([1, 3, 10]) * SECOND, Manner(Fault.TRANSIENT, quick)
    if which < 0.9:  # noqa: PLR2004
        cut = Manner(None, 600_000, None, Course.CUT, dice.randrange(100_000, SECOND))
        return dice.choice([1, 5]) * SECOND, cut
    lasts = dice.choice([10, 30, 60, 120, 240, 400]) * SECOND
    return lasts, Manner(Fault.TRANSIENT, 5_000)


@define
class Retries:
    """The retries of one call by vibe's client."""

    script: Script
    call: int
    began: int
    retries: int = 0

    def next(self, now: int, retry_after: int | None) -> int | None:
        """Return when the client retries, or None when it gives up."""
        if retry_after is None:
            backoff = int(0.5 * SECOND * 1.5 ** min(self.retries, 16))
            wait = min(backoff + self.script.jitter(self.call, self.retries), LONGEST_DELAY)
        else:
            wait = retry_after * SECOND
        self.retries += 1
        if now - self.began + wait > BUDGET:
            return None
        return now + min(wait, LONGEST_DELAY)


# -- Without the pool -----------------------------------------------------------------------


def bare(script: Script, model: SimulatedModel) -> Session:
    """Run the session on this one model, without the pool."""
    requests: Counter[str] = Counter()
    now = 0
    for call in range(CALLS):
        now += script.pauses[call]
        retries = Retries(script, call, now)
        while True:
            requests[model.endpoint.alias] += 1
            manner = model.manner(now)
            now += manner.delay
            if manner.kind is None and model.endpoint.alias in script.refused_by[call]:
                # Vibe does not repeat a 400.
                return Session(None, requests)
            if manner.kind is None:
                now += manner.lasts
                if manner.course is Course.WHOLE:
                    break
            retry_after = None if manner.hint is None else -(-manner.hint // SECOND)
            again = retries.next(now, retry_after)
            if again is None:
                return Session(None, requests)
            now = again
    return Session(now, requests)


# -- Through the pool -------------------------------------------------------------------------


def pooled(script: Script, mode: str = "failover") -> Session:
    """Run the session with vibe in front of the pool."""
    vibe = _Vibe(script)
    world = World(script.seed, script.models, mode)
    vibe.simulation = Simulation(world, ended=vibe.on_end)
    vibe.send(script.pauses[0])
    vibe.simulation.run()
    return Session(vibe.finished, vibe.simulation.requests, vibe.lost)


class _Vibe:
    """The client of one session in front of the pool: it sends calls and retries them."""

    simulation: Simulation

    def __init__(
        self, script: Script, session: str = "session", calls: int = CALLS
    ) -> None:
        self.finished: int | None = None
        self.lost = 0
        self._script = script
        self._session = session
        self._calls = calls
        self._call = 0
        self._retries = Retries(script, 0, script.pauses[0])

    def send(self, at: int) -> None:
        call = Call(conversation=self._session, new_turn=self._script.new_turns[self._call])
        refused_by = self._script.refused_by[self._call]
        arrival = Arrival(
            at, call, stream=True, patience=1200 * SECOND, refused_by=refused_by
        )
        self.simulation.schedule(arrival)

    def on_end(self, ended: EndedCall) -> None:
        if ended.is_served:
            self._call += 1
            if self._call == self._calls:
                self.finished = ended.at
                return
            at = ended.at + self._script.pauses[self._call]
            self._retries = Retries(self._script, self._call, at)
            self.send(at)
            return
        if ended.how == REJECTED and ended.retry_after is None:
            return
        again = self._retries.next(ended.at, ended.retry_after)
        if again is not None:
            if ended.how == INTERRUPTED:
                self.lost += again - ended.arrival.at
            self.send(again)


def session_results(seeds: Iterable[int], *, refusals: bool = False) -> list[SessionResult]:
    """Run the sessions of these seeds."""
    results = []
    for seed in seeds:
        script = script_of(seed, refusals=refusals)
        alone = tuple(bare(script, model) for model in script.models)
        through = pooled(script)
        blackout = _has_blackout(script, through.finished or BUDGET)
        results.append(SessionResult(seed, through, alone, blackout))
    return results


def _has_blackout(script: Script, until: int) -> bool:
    """Whether all models were down at some moment; such a time begins with a period."""
    starts = [p.start for m in script.models for p in m.periods if p.start < until]
    return any(
        all(model.manner(start) is not model.usual for model in script.models)
        for start in starts
    )


# -- Storms -----------------------------------------------------------------------------------


@frozen
class Storm:
    """The requests to providers that were all down, with and without the pool."""

    callers: int
    kind: Kind
    hint: int | None
    models: int
    bare: int
    """The requests of bare vibe, each caller to its one model."""
    each: tuple[int, ...]
    """The requests of the pool to each provider."""

    @property
    def is_within(self) -> bool:
        return max(self.each) <= STORM_FACTOR * self.bare


def storm(
    callers: int, models: int, kind: Kind = Fault.TRANSIENT, hint: int | None = None
) -> Storm:
    """Let some vibes call until they give up, while every model is down."""
    manner = Manner(kind, 50_000, hint)
    down = tuple(SimulatedModel(Endpoint(f"m{n}"), manner) for n in range(models))
    scripts = [Script(n, down, (n * 10_000,), (True,)) for n in range(callers)]
    alone = 0
    for script in scripts:
        retries, now = Retries(script, 0, 0), 0
        while True:
            alone += 1
            again = retries.next(
                now + manner.delay, None if hint is None else -(-hint // SECOND)
            )
            if again is None:
                break
            now = again
    vibes = {
        f"caller {n}": _Vibe(script, f"caller {n}", 1) for n, script in enumerate(scripts)
    }

    def on_end(ended: EndedCall) -> None:
        vibes[str(ended.arrival.call.conversation)].on_end(ended)

    simulation = Simulation(World(0, down), ended=on_end)
    for n, vibe in enumerate(vibes.values()):
        vibe.simulation = simulation
        vibe.send(n * 10_000)
    simulation.run()
    each = tuple(simulation.requests[model.endpoint.alias] for model in down)
    return Storm(callers, kind, hint, models, alone, each)


def storms() -> list[Storm]:
    """Run storms of 1, 8 and 32 vibes, for pools of 1 and 3 models and several faults."""
    ways: list[tuple[Kind, int | None]] = [
        (Fault.TRANSIENT, None),
        (Limit.RATE, None),
        (Limit.RATE, 5 * SECOND),
        (Limit.RATE, 60 * SECOND),
    ]
    return [
        storm(callers, models, kind, hint)
        for callers in (1, 8, 32)
        for models in (1, 3)
        for kind, hint in ways
    ]
