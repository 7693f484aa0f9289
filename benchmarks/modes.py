"""Compare the modes in a simulation: `python benchmarks/modes.py`.

It prints the tables of `docs/modes.md`. The simulation (`mode_world`) runs on virtual time,
with simulated servers that have prompt caches, token limits and outages. It is seeded, so it
prints the same figures on every machine. `--scale 0.1` is a quick look.
"""

from __future__ import annotations

import argparse
import random  # noqa: TID251 - seeded
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from functools import partial
from itertools import pairwise

from attrs import evolve, frozen
from mode_world import (
    CACHE_LASTS,
    MINUTE,
    START,
    Agent,
    Finished,
    Request,
    Server,
    World,
    recorded_outages,
)

from muxcore.core.protocol import CallServed
from muxcore.core.records import Call, Candidate, Endpoint, Policy, PoolState, Sticky, Tally
from muxcore.core.strategy import Strategy
from muxcore_strategies.failover import Failover
from muxcore_strategies.load_balance import LoadBalance
from muxcore_strategies.lowest_cost import LowestCost
from muxcore_strategies.lowest_latency import LowestLatency

HOUR = timedelta(hours=1)

# --- 1. load_balance: deviation from the exact share ---------------------------------------------------------


def table_of_shares(scale: float) -> list[list[str]]:
    rows = [
        ["models", "trials", "picks", "never changes", "some are busy", "some are disabled"]
    ]
    for size in (2, 4, 8, 16, 64):
        trials = max(2, round(scale * 60))
        rows.append(
            [
                str(size),
                str(trials),
                str(trials * PICKS),
                *(f"{float(deviation(size, trials, away)):.4f}" for away in AWAY),
            ]
        )
    return rows


PICKS = 400
AWAY = ("", "busy", "disabled")


def deviation(size: int, trials: int, away: str) -> Fraction:
    """Return the largest difference between a model's turns and its exact share.

    While models leave and return, the exact share is divided among those that are present.
    A model that was disabled starts again at zero, and so does its share here.
    """
    worst = Fraction(0)
    for trial in range(trials):
        dice = random.Random(f"{size} {trial}")
        weights = [dice.randint(1, 100) for _ in range(size)]
        worst = max(worst, _deviation(weights, away, dice))
    return worst


def _deviation(weights: Sequence[int], away: str, dice: random.Random) -> Fraction:
    mode = LoadBalance()
    pool = [Candidate(Endpoint(str(i), weight=w)) for i, w in enumerate(weights)]
    absent: set[int] = set()
    lags = [Fraction(0)] * len(pool)
    memory: object = None
    worst = Fraction(0)
    for _ in range(PICKS):
        if away and dice.random() < 0.1:
            place = dice.randrange(len(pool))
            if place in absent:
                absent.remove(place)
            elif len(absent) < len(pool) - 1:
                absent.add(place)
                if away == "disabled":
                    failed = pool[place].tally.failed + 1
                    pool[place] = evolve(pool[place], tally=Tally(failed=failed))
                    lags[place] = Fraction(0)
        shown = [place for place in range(len(pool)) if place not in absent]
        total = sum(weights[place] for place in shown)
        picked, memory = mode.pick([pool[p] for p in shown], memory, Call(), START)
        for place in shown:
            lags[place] += Fraction(weights[place], total)
        lags[int(picked.alias)] -= 1
        worst = max(worst, *(abs(lags[place]) for place in shown))
    return worst


# --- 2. stickiness -------------------------------------------------------------------------


@frozen
class AgentTotals:
    """Totals of some agents with one mode and one value of `sticky`."""

    cached: float
    switches: int
    faults: int
    limits: int
    on_first: int
    calls: int
    lost: int

    @property
    def switches_per_fault(self) -> float:
        return self.switches / max(1, self.faults)


FIRST, SECOND, THIRD = Endpoint("first"), Endpoint("second"), Endpoint("third")
LIMIT = 50_000
LARGEST_PROMPT = 42_000


def run_agents(
    pool: Sequence[Endpoint],
    mode: Strategy,
    sticky: Sticky,
    sessions: int,
    turns: int = 40,
    keeps: timedelta = CACHE_LASTS,
) -> AgentTotals:
    """Run agents, each with a pool of its own, under the same faults."""
    totals: Counter[str] = Counter()
    for session in range(sessions):
        servers = {
            endpoint.alias: Server(
                lambda _, dice: dice.lognormvariate(0, 0.4),
                random.Random(f"{session} {endpoint.alias}"),
                LIMIT,
                recorded_outages(f"{session} {endpoint.alias}", 6 * HOUR),
                flaws=0.01,
                keeps=keeps,
            )
            for endpoint in pool
        }
        world = World(PoolState.of(*pool, policy=Policy(sticky=sticky)), mode, servers)
        dice = random.Random(f"agent {session}")
        agent = Agent(world, f"session {session}", dice, turns, LARGEST_PROMPT)
        agent.begin()
        world.run()
        for candidate in world.state.candidates:
            tally = candidate.tally
            totals["in"] += tally.tokens_in
            totals["cached"] += tally.tokens_cached
            totals["limits"] += tally.rate_limited
            totals["faults"] += tally.rate_limited + tally.failed
        served = agent.served_by
        totals["switches"] += sum(a != b for a, b in pairwise(served))
        totals["first"] += served.count(pool[0].alias)
        totals["calls"] += len(served)
        totals["lost"] += agent.lost
    return AgentTotals(
        totals["cached"] / totals["in"],
        totals["switches"],
        totals["faults"],
        totals["limits"],
        totals["first"],
        totals["calls"],
        totals["lost"],
    )


def table_of_stickiness(scale: float) -> list[list[str]]:
    """Compare with a prompt cache as long as most providers', and with a short one."""
    sessions = max(2, round(scale * 12))
    pool = [FIRST, SECOND, THIRD]
    runs = []
    for keeps in (5 * MINUTE, MINUTE):
        alone = run_agents([FIRST], Failover(), Sticky.TURN, sessions, keeps=keeps)
        minutes = f"{keeps // MINUTE} min"
        runs.append((minutes, "the first alone", "", alone, alone))
        for name, mode in (("failover", Failover()), ("load_balance", LoadBalance())):
            for sticky in Sticky:
                run = run_agents(pool, mode, sticky, sessions, keeps=keeps)
                runs.append((minutes, name, sticky.value, run, alone))
    return [
        [
            "cache kept",
            "mode",
            "sticky",
            "cached tokens",
            "of a single model's",
            "switches per fault",
            "rate limits met",
            "on the first",
            "calls",
            "lost",
        ],
        *(
            [
                minutes,
                name,
                sticky,
                f"{run.cached:.1%}",
                f"{run.cached / alone.cached:.1%}",
                f"{run.switches_per_fault:.2f}",
                str(run.limits),
                f"{run.on_first / run.calls:.0%}",
                str(run.calls),
                str(run.lost),
            ]
            for minutes, name, sticky, run, alone in runs
        ),
    ]


# --- 3. latency ----------------------------------------------------------------------------


def steady(_: datetime, dice: random.Random) -> float:
    return 0.5 * dice.lognormvariate(0, 0.3)


def slow(_: datetime, dice: random.Random) -> float:
    return 2.0 * dice.lognormvariate(0, 0.3)


def sometimes_slow(now: datetime, dice: random.Random) -> float:
    """The fastest model, except for one minute in six."""
    bad = (now - START) % (6 * MINUTE) < MINUTE
    return (6.0 if bad else 0.35) * dice.lognormvariate(0, 0.3)


PACES = {"steady": steady, "slow": slow, "now and then slow": sometimes_slow}


@frozen
class Latencies:
    firsts: tuple[float, ...]
    """Seconds to the first content of each call, ascending."""
    by_model: Counter[str]

    def percentile(self, share: float) -> float:
        return self.firsts[min(int(share * len(self.firsts)), len(self.firsts) - 1)]


def latencies(mode: Strategy, calls: int, per_second: float) -> Latencies:
    """Send calls at random moments to a steady, a slow and a now and then slow model."""
    dice = random.Random("arrivals")
    servers = {name: Server(pace, random.Random(name)) for name, pace in PACES.items()}
    world = World(PoolState.of(*map(Endpoint, PACES)), mode, servers)
    firsts: list[float] = []
    by_model: Counter[str] = Counter()

    def record(finished: Finished) -> None:
        assert isinstance(finished.ending, CallServed)
        firsts.append(finished.first.total_seconds())
        by_model[finished.ending.trail[-1].slot.endpoint.alias] += 1

    moment = START
    for number in range(calls):
        moment += timedelta(seconds=dice.expovariate(per_second))
        request = Request(str(number), 1000, 100)
        world.at(moment, partial(world.call, Call(), request, record))
    world.run()
    return Latencies(tuple(sorted(firsts)), by_model)


def table_of_latency(scale: float) -> list[list[str]]:
    rows = [["calls a second", "mode", "p50", "p90", "p99", *PACES]]
    for per_second in (0.1, 2.0, 10.0):
        calls = max(400, round(scale * 12_000 * min(1, per_second)))
        for name, mode in (
            ("load_balance", LoadBalance()),
            ("lowest_latency", LowestLatency()),
        ):
            seen = latencies(mode, calls, per_second)
            shares = (seen.by_model[model] / calls for model in PACES)
            rows.append(
                [
                    f"{per_second:g}",
                    name,
                    *(f"{seen.percentile(p):.2f} s" for p in (0.5, 0.9, 0.99)),
                    *(f"{share:.1%}" for share in shares),
                ]
            )
    return rows


# --- 4. cost -------------------------------------------------------------------------------

PRICED = (
    Endpoint("large", input_price=2.0, output_price=8.0, cached_input_price=0.2),
    Endpoint("middle", input_price=0.4, output_price=2.0, cached_input_price=0.04),
    Endpoint("plain", input_price=0.15, output_price=0.6),
)
"""Dollars per million tokens. The last is the cheapest cold, and has no cheaper cache."""


def cost_of(
    pool: Sequence[Endpoint], mode: Strategy, sticky: Sticky, sessions: int, turns: int = 40
) -> tuple[float, Counter[str]]:
    """Return the dollars per 1,000 calls, and the number of calls of each model."""
    spent, calls = 0.0, Counter[str]()
    for session in range(sessions):
        servers = {e.alias: Server(steady, random.Random(e.alias)) for e in pool}
        world = World(PoolState.of(*pool, policy=Policy(sticky=sticky)), mode, servers)
        dice = random.Random(f"agent {session}")
        agent = Agent(world, f"session {session}", dice, turns, 100_000)
        agent.begin()
        world.run()
        spent += sum(candidate.cost for candidate in world.state.candidates)
        calls.update(agent.served_by)
    return 1000 * spent / calls.total(), calls


def table_of_cost(scale: float) -> list[list[str]]:
    sessions = max(2, round(scale * 12))
    rows = [["mode", "sticky", "dollars for 1,000 calls", *(e.alias for e in PRICED)]]

    def add(name: str, pool: Sequence[Endpoint], mode: Strategy, sticky: Sticky) -> None:
        dollars, calls = cost_of(pool, mode, sticky, sessions)
        shares = [f"{calls[e.alias] / calls.total():.0%}" for e in PRICED]
        rows.append([name, sticky.value, f"{dollars:.2f}", *shares])

    for endpoint in PRICED:
        add(f"{endpoint.alias} alone", [endpoint], Failover(), Sticky.TURN)
    for name, mode in (("load_balance", LoadBalance()), ("lowest_cost", LowestCost())):
        for sticky in Sticky:
            add(name, PRICED, mode, sticky)
    return rows


# --- printing ------------------------------------------------------------------------------

TABLES: tuple[tuple[str, Callable[[float], list[list[str]]]], ...] = (
    (
        "load_balance: the largest deviation from the exact share, in turns",
        table_of_shares,
    ),
    (
        "sticky: agents under faults like recorded ones, and a token limit",
        table_of_stickiness,
    ),
    ("lowest_latency: time to the first content", table_of_latency),
    ("lowest_cost: the cost", table_of_cost),
)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Format a table in Markdown."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--scale", type=float, default=1.0, help="share of the full size (1: all)"
    )
    scale = options.parse_args().scale
    for title, table in TABLES:
        print(f"### {title}\n\n{markdown_table(table(scale))}\n", flush=True)


if __name__ == "__main__":
    main()
