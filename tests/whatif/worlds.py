"""Worlds of sessions whose models have periods of faults, run under one config and another.

What the models do is the simulator's; a prompt grows with its session, and is cached where it was.
"""

from __future__ import annotations

import random  # noqa: TID251 - made from a seed, and nowhere else
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from attrs import evolve, frozen

from muxcore.core.allowance import CACHE_LASTS
from muxcore.core.outcomes import Failed, Fault, Limit, RateLimited, Succeeded
from muxcore.core.records import Call, Endpoint, Policy, PoolState, Sticky
from muxcore.core.strategy import Strategy
from muxcore.journal.recent import Journal, JournalLine
from muxcore.testing.simulation.sessions import recorded_faults
from muxcore.testing.simulation.worlds import Course, Manner, SimulatedModel
from muxcore.whatif.estimates import Estimate
from muxcore.whatif.figures import Figures, rehearsed_figures
from muxcore.whatif.recorded import RecordedCall, RecordedRequest, RequestRecord
from muxcore.whatif.rehearsal import Rehearsal
from muxcore_strategies.failover import Failover
from muxcore_strategies.load_balance import LoadBalance

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DEFAULTS = Policy()
MODES: dict[str, Callable[[], Strategy]] = {
    "failover": Failover,
    "load_balance": LoadBalance,
}


@frozen
class Config:
    mode: str
    endpoints: tuple[Endpoint, ...]
    policy: Policy = DEFAULTS

    def state(self) -> PoolState:
        return PoolState.of(*self.endpoints, policy=self.policy)


@frozen
class SessionWorld:
    """The sessions, the models with their faults, the config that was used, and another one."""

    record: RequestRecord
    models: dict[str, SimulatedModel]
    tokens: tuple[tuple[int, int], ...]
    """Of the prompt and of the answer of each request."""
    before: Config
    after: Config
    speeds: dict[str, float]


class TrueAnswers:
    """What the models of a world answer."""

    def __init__(self, world: SessionWorld) -> None:
        self._world = world
        self._visits: dict[tuple[str, str], tuple[datetime, int]] = {}

    def attempt(
        self, endpoint: Endpoint, attempt: int, request: int, now: datetime
    ) -> Estimate:
        alias, world = endpoint.alias, self._world
        moment = (now - NOON) // timedelta(microseconds=1)
        manner = world.models[alias].manner(moment)
        delay = timedelta(microseconds=manner.delay)
        hint = None if manner.hint is None else timedelta(microseconds=manner.hint)
        match manner.kind:
            case Limit() as limit:
                outcome = RateLimited(alias, attempt, limit, hint)
                return Estimate(outcome, delay, None, streamed=False, known=True)
            case Fault() as fault:
                failed = Failed(alias, attempt, fault, hint)
                return Estimate(failed, delay, None, streamed=False, known=True)
        read, written = world.tokens[request]
        first = timedelta(seconds=0.5 * world.speeds[alias])
        took = first + timedelta(seconds=0.02 * written * world.speeds[alias])
        if manner.course is not Course.WHOLE:
            cut = Failed(alias, attempt, Fault.TRANSIENT)
            return Estimate(cut, first * 2, first, streamed=True, known=True)
        conversation = world.record.requests[request].call.conversation or ""
        at, size = self._visits.get((conversation, alias), (NOON, 0))
        cached = min(read, size // 128 * 128) if now - at <= CACHE_LASTS else 0
        self._visits[conversation, alias] = now + took, read
        served = Succeeded(alias, attempt, read, cached, written)
        return Estimate(served, took, first, streamed=True, known=True)


def world_of(seed: int, calls: int = 500) -> SessionWorld:
    """Make the world of this seed: two to four sessions, and a change of the config."""
    dice = random.Random(f"what if {seed}")
    aliases = ("a", "b", "c")
    models = {
        alias: SimulatedModel(
            Endpoint(alias), Manner(None, 0, None), recorded_faults(dice, hours=6)
        )
        for alias in aliases
    }
    prices = [dice.uniform(0.3, 3) for _ in aliases]
    endpoints = tuple(
        Endpoint(
            alias,
            weight=dice.randrange(1, 4),
            input_price=price,
            output_price=4 * price,
            cached_input_price=price / 10,
        )
        for alias, price in zip(aliases, prices, strict=True)
    )
    record, tokens = _sessions(dice, dice.randrange(2, 5), calls)
    speeds = {alias: dice.uniform(0.6, 1.6) for alias in aliases}
    before, after = _configs(dice, endpoints)
    return SessionWorld(record, models, tokens, before, after, speeds)


def _sessions(
    dice: random.Random, sessions: int, calls: int
) -> tuple[RequestRecord, tuple[tuple[int, int], ...]]:
    record, tokens = RequestRecord(), list[tuple[int, int]]()
    last: dict[int, int] = {}
    sizes = dict.fromkeys(range(sessions), 0)
    for number in range(calls):
        session = number % sessions
        new = session not in last or dice.random() < 0.15
        if session not in last or dice.random() < 0.02:
            sizes[session] = dice.randrange(4_000, 12_000)
        sizes[session] = min(sizes[session] + dice.randrange(200, 2_500), 120_000)
        think = dice.uniform(5, 60) if new else dice.uniform(0.2, 3)
        call = Call(
            conversation=f"session {session}",
            new_turn=new,
            deadline=NOON + timedelta(minutes=20),
        )
        began = NOON + timedelta(seconds=5 * session)
        request = RecordedRequest([RecordedCall(began, call)])
        if session in last:
            request.follows, request.think = last[session], timedelta(seconds=think)
        last[session] = number
        record.requests.append(request)
        tokens.append((sizes[session], dice.randrange(40, 400)))
    return record, tuple(tokens)


def _configs(dice: random.Random, endpoints: tuple[Endpoint, ...]) -> tuple[Config, Config]:
    """Return what was used, and a change that a user would think of."""
    failover = Config("failover", endpoints)
    balance = Config("load_balance", endpoints)
    weights = tuple(evolve(one, weight=dice.randrange(1, 6)) for one in endpoints)
    short = Policy(
        rate_limit_disable_duration=timedelta(seconds=dice.choice([10, 20, 30])),
        persistent_error_disable_duration=timedelta(seconds=dice.choice([5, 30])),
    )
    shuffled = tuple(dice.sample(endpoints, len(endpoints)))
    return dice.choice(
        [
            (balance, Config("failover", shuffled)),
            (balance, Config("load_balance", weights)),
            (balance, Config("load_balance", endpoints[:2])),
            (balance, evolve(balance, policy=Policy(sticky=Sticky.CALL))),
            (balance, evolve(balance, policy=Policy(sticky=Sticky.SESSION))),
            (balance, evolve(balance, policy=short)),
            (failover, evolve(failover, policy=short)),
            (failover, evolve(failover, policy=Policy(sticky=Sticky.SESSION))),
            (failover, Config("failover", shuffled)),
            (failover, balance),
        ]
    )


def run(world: SessionWorld, config: Config) -> tuple[Figures, Journal]:
    """Run the world under this config; return the truth, and the journal."""
    strategy = MODES[config.mode]()
    rehearsal = Rehearsal(
        world.record, config.state(), strategy, TrueAnswers(world), config.mode
    )
    base, lines = rehearsal.pool.checkpoint(), list[JournalLine]()
    rehearsal.pool.journal.follow(lines.extend)
    rehearsal.run()
    return rehearsed_figures(world.record, rehearsal), Journal(base, lines)
