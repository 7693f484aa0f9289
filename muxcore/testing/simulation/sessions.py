"""Whole sessions of vibe under recorded-style faults: bare, and through the pool.

Vibe's own retries are modelled as its 3.0.2 makes them: for 300 s, about 18 requests, each
after 0.5 s times 1.5 for each one before it and up to a second of jitter, 30 s at the most;
or after what `Retry-After` says. The pool is the real one, behind what the gateway tells.
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
"""For how long vibe repeats a failed call."""
LONGEST_DELAY = 30 * SECOND
LATER = SECOND
"""So much later than bare vibe on its best model may a session finish."""
STORM_FACTOR = 2
"""No provider may see more than so many times what bare vibe would send it."""
WEAK = 0.2
"""The share of turns in which a model meets something that it cannot take."""
USUAL = Manner(delay=600_000, lasts=3 * SECOND)


@frozen
class Script:
    """One session: the faults of its models, and the pauses between its calls."""

    seed: int
    models: tuple[SimulatedModel, ...]
    pauses: tuple[int, ...]
    new_turns: tuple[bool, ...]
    refused_by: tuple[frozenset[str], ...] = (frozenset(),) * CALLS
    """Which models refuse each call, although another takes it."""

    def jitter(self, call: int, retry: int) -> int:
        # The same with and without the pool, however many retries there were before.
        dice = random.Random(f"{self.seed} {call} {retry}")  # noqa: S311
        return dice.randrange(SECOND)


@frozen
class Session:
    """How a session went: when it was finished (None: it was not), and what was sent.

    `lost` went into answers that broke off after their first content, which is the caller's
    already: no pool can take such an answer over.
    """

    finished: int | None
    requests: Counter[str]
    lost: int = 0


@frozen
class SessionResult:
    """One script, through the pool and bare on each of its models.

    Nobody knows the best model before the end: here it is the one that was.
    """

    seed: int
    pool: Session
    bare: tuple[Session, ...]
    blackout: bool = False
    """Whether there was a moment at which every model was down."""

    @property
    def best(self) -> int | None:
        """When bare vibe was finished on its best model."""
        ends = [one.finished for one in self.bare if one.finished is not None]
        return min(ends, default=None)

    @property
    def late(self) -> int:
        """How much later the pool was than bare vibe on its best model."""
        best, finished = self.best, self.pool.finished
        return 0 if best is None or finished is None else finished - best


def script_of(seed: int, *, refusals: bool = False) -> Script:
    """Make the script of this seed. With `refusals`, models refuse what others take."""
    dice = random.Random(f"session {seed}")  # noqa: S311 - the same every time
    models = tuple(
        SimulatedModel(Endpoint(f"m{number}"), USUAL, _recorded(dice))
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
    """Return which models refuse each call: in a turn always the same, and never all."""
    refused_by: list[frozenset[str]] = []
    for new_turn in new_turns:
        if new_turn:
            taker = dice.randrange(MODELS)
            refusing = {
                f"m{number}"
                for number in range(MODELS)
                if number != taker and dice.random() < WEAK
            }
        refused_by.append(frozenset(refusing))
    return tuple(refused_by)


def _recorded(dice: random.Random) -> tuple[Period, ...]:
    """Return faults as they are met in practice: short limits, hiccups, a rare long outage."""
    periods, moment = [], dice.randrange(120 * SECOND)
    while moment < 3600 * SECOND:
        lasts, manner = _fault(dice)
        periods.append(Period(moment, moment + lasts, manner))
        moment += lasts + int(dice.expovariate(1 / 200) * SECOND)
    return tuple(periods)


def _fault(dice: random.Random) -> tuple[int, Manner]:
    quick = dice.randrange(20_000, 80_000)
    which = dice.random()
    if which < 0.35:  # noqa: PLR2004 - the shares of what is met
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
    """What vibe's client remembers of one call that it repeats."""

    script: Script
    call: int
    began: int
    retries: int = 0

    def next(self, now: int, retry_after: int | None) -> int | None:
        """Return when it asks again; None when it has given up."""
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
    """Go through the session on this one model, without the pool."""
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
            at = retries.next(now, retry_after)
            if at is None:
                return Session(None, requests)
            now = at
    return Session(now, requests)


# -- Through the pool -------------------------------------------------------------------------


def pooled(script: Script, mode: str = "failover") -> Session:
    """Go through the session with vibe in front of the pool."""
    vibe = _Vibe(script)
    world = World(script.seed, script.models, mode)
    vibe.simulation = Simulation(world, ended=vibe.hear)
    vibe.ask(script.pauses[0])
    vibe.simulation.run()
    return Session(vibe.finished, vibe.simulation.requests, vibe.lost)


class _Vibe:
    """One session in front of the pool: it asks, and asks again."""

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

    def ask(self, at: int) -> None:
        call = Call(conversation=self._session, new_turn=self._script.new_turns[self._call])
        refused_by = self._script.refused_by[self._call]
        arrival = Arrival(
            at, call, stream=True, patience=1200 * SECOND, refused_by=refused_by
        )
        self.simulation.expect(arrival)

    def hear(self, ended: EndedCall) -> None:
        if ended.is_served:
            self._call += 1
            if self._call == self._calls:
                self.finished = ended.at
                return
            at = ended.at + self._script.pauses[self._call]
            self._retries = Retries(self._script, self._call, at)
            self.ask(at)
            return
        if ended.how == REJECTED and ended.retry_after is None:
            return
        again = self._retries.next(ended.at, ended.retry_after)
        if again is not None:
            if ended.how == INTERRUPTED:
                self.lost += again - ended.arrival.at
            self.ask(again)


def session_results(seeds: Iterable[int], *, refusals: bool = False) -> list[SessionResult]:
    """Go through the sessions of these seeds."""
    results = []
    for seed in seeds:
        script = script_of(seed, refusals=refusals)
        alone = tuple(bare(script, model) for model in script.models)
        through = pooled(script)
        blackout = _has_blackout(script, through.finished or BUDGET)
        results.append(SessionResult(seed, through, alone, blackout))
    return results


def _has_blackout(script: Script, until: int) -> bool:
    """Whether all models were down at some moment; it begins where a period does."""
    starts = [p.start for m in script.models for p in m.periods if p.start < until]
    return any(
        all(model.manner(start) is not model.usual for model in script.models)
        for start in starts
    )


# -- Storms -----------------------------------------------------------------------------------


@frozen
class Storm:
    """What the providers saw while all of them were down, with and without the pool."""

    callers: int
    kind: Kind
    hint: int | None
    models: int
    bare: int
    """What bare vibe sent, each caller to the one model that it has."""
    each: tuple[int, ...]
    """What each provider saw from the pool."""

    @property
    def is_within(self) -> bool:
        return max(self.each) <= STORM_FACTOR * self.bare


def storm(
    callers: int, models: int, kind: Kind = Fault.TRANSIENT, hint: int | None = None
) -> Storm:
    """Let every model be down for good while some vibes call, each until it gives up."""
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

    def heard(ended: EndedCall) -> None:
        vibes[str(ended.arrival.call.conversation)].hear(ended)

    simulation = Simulation(World(0, down), ended=heard)
    for n, vibe in enumerate(vibes.values()):
        vibe.simulation = simulation
        vibe.ask(n * 10_000)
    simulation.run()
    each = tuple(simulation.requests[model.endpoint.alias] for model in down)
    return Storm(callers, kind, hint, models, alone, each)


def storms() -> list[Storm]:
    """Let one vibe, eight and thirty-two call pools that are down in every way."""
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
