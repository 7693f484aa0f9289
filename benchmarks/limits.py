"""Compare heeding announced limits with ignoring them: `python benchmarks/limits.py`.

It prints the table of `docs/modes.md`: agents with sub-agents share a pool of three providers,
each with limits as their documents state them, and with the headers that they send. Real headers
are read by the code that reads them in real calls. The seeds are 0, 1, 2, …; `--seeds` is how many.
Each seed is run with both settings. ± is one standard error of the difference.
"""

from __future__ import annotations

import argparse
import math
import random  # noqa: TID251 - seeded
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from email.utils import format_datetime
from enum import StrEnum
from statistics import stdev

from attrs import astuple, define, evolve, field, frozen
from mode_world import (
    CACHE_LASTS,
    MINUTE,
    START,
    Agent,
    Finished,
    PlayedAnswer,
    Request,
    World,
)
from modes import markdown_table

from muxcore.core.outcomes import RateLimited, Succeeded
from muxcore.core.protocol import Slot
from muxcore.core.records import AnnouncedLimits, Endpoint, Policy, PoolState, Sticky
from muxcore.core.strategy import Strategy
from muxcore_strategies.failover import Failover
from muxcore_strategies.load_balance import LoadBalance
from muxcore_strategies.lowest_cost import LowestCost
from muxcore_strategies.lowest_latency import LowestLatency

HOUR = timedelta(hours=1)
QUICK = timedelta(seconds=0.2)


class Counted(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    UNCACHED = "input-tokens"
    ANSWER = "output-tokens"


@define
class Bucket:
    """One limit of a minute. It is refilled continuously, or at once when a minute begins."""

    limit: int
    gradual: bool
    left: float = field(init=False)
    at: datetime = START

    def __attrs_post_init__(self) -> None:
        self.left = self.limit

    def refill(self, now: datetime) -> None:
        if self.gradual:
            self.left += self.limit * ((now - self.at) / MINUTE)
            self.left = min(self.left, self.limit)
        elif (now - START) // MINUTE > (self.at - START) // MINUTE:
            self.left = self.limit
        self.at = now

    def fills_in(self, amount: float) -> timedelta:
        """Return how long it takes until so much is left."""
        if amount <= self.left:
            return timedelta()
        if self.gradual:
            return MINUTE * ((amount - self.left) / self.limit)
        return MINUTE - (self.at - START) % MINUTE


Buckets = Mapping[Counted, Bucket]


def durations(buckets: Buckets, now: datetime) -> dict[str, str]:
    """Return OpenAI's headers: resets are durations."""
    del now
    headers = {}
    for counted, bucket in buckets.items():
        full = bucket.fills_in(bucket.limit) / timedelta(seconds=1)
        headers[f"x-ratelimit-limit-{counted}"] = str(bucket.limit)
        headers[f"x-ratelimit-remaining-{counted}"] = str(int(bucket.left))
        headers[f"x-ratelimit-reset-{counted}"] = f"{full:.3f}s"
    return headers


def moments(buckets: Buckets, now: datetime) -> dict[str, str]:
    """Return Anthropic's headers: resets are moments, tokens are rounded to thousands."""
    headers = {"date": format_datetime(now, usegmt=True)}
    for counted, bucket in buckets.items():
        left = bucket.left
        if counted is not Counted.REQUESTS:
            left = min(round(left / 1000) * 1000, bucket.limit)
        full = now + bucket.fills_in(bucket.limit)
        name = f"anthropic-ratelimit-{counted}"
        headers[f"{name}-limit"] = str(bucket.limit)
        headers[f"{name}-remaining"] = str(int(left))
        headers[f"{name}-reset"] = f"{full:%Y-%m-%dT%H:%M:%SZ}"
    return headers


def no_resets(buckets: Buckets, now: datetime) -> dict[str, str]:
    """Return Mistral's headers: without resets."""
    del now
    names = {Counted.REQUESTS: "req", Counted.TOKENS: "tokens"}
    headers = {}
    for counted, bucket in buckets.items():
        headers[f"x-ratelimit-limit-{names[counted]}-minute"] = str(bucket.limit)
        headers[f"x-ratelimit-remaining-{names[counted]}-minute"] = str(int(bucket.left))
    return headers


@define
class LimitedServer:
    """A provider's model with a prompt cache, and limits which its headers announce."""

    style: str
    buckets: Buckets
    dice: random.Random
    cached: dict[str, tuple[int, datetime]] = field(factory=dict)

    def play(self, slot: Slot, request: Request, now: datetime) -> PlayedAnswer:
        alias, number = slot.endpoint.alias, slot.attempt
        tokens, at = self.cached.get(request.conversation, (0, START))
        warm = min(tokens, request.prompt) if now - at < CACHE_LASTS else 0
        amounts = {
            Counted.REQUESTS: 1,
            Counted.TOKENS: request.prompt + request.answer,
            Counted.UNCACHED: request.prompt - warm,
            Counted.ANSWER: request.answer,
        }
        wait = timedelta()
        for counted, bucket in self.buckets.items():
            bucket.refill(now)
            wait = max(wait, bucket.fills_in(min(amounts[counted], bucket.limit)))
        if wait > timedelta():
            # Mistral's say nothing of when to come back.
            hint = None if self.style == "no resets" else _whole_seconds(wait)
            refused = RateLimited(alias, number, hint=hint)
            return PlayedAnswer(refused, QUICK, QUICK, self._headers(now))
        for counted, bucket in self.buckets.items():
            bucket.left = max(0.0, bucket.left - amounts[counted])
        self.cached[request.conversation] = (request.prompt + request.answer, now)
        pause = self.dice.lognormvariate(0, 0.4) + amounts[Counted.UNCACHED] / 20_000
        first = timedelta(seconds=pause)
        whole = first + timedelta(seconds=request.answer / 100)
        end = Succeeded(alias, number, request.prompt, warm, request.answer)
        end = evolve(end, conversation=request.conversation)
        return PlayedAnswer(end, first, whole, self._headers(now))

    def _headers(self, now: datetime) -> dict[str, str]:
        return STYLES[self.style](self.buckets, now)


STYLES = {"durations": durations, "moments": moments, "no resets": no_resets}


def _whole_seconds(wait: timedelta) -> timedelta:
    return timedelta(seconds=math.ceil(wait / timedelta(seconds=1)))


def servers_of(seed: int) -> dict[str, LimitedServer]:
    """Make three providers, with limits as documented for small accounts in 2026."""
    limits: dict[str, tuple[str, bool, dict[Counted, int]]] = {
        # OpenAI, tier 2 of a large model.
        "durations": (
            "durations",
            True,
            {Counted.REQUESTS: 5000, Counted.TOKENS: 450_000},
        ),
        # Anthropic, tier 1 of a middle model.
        "moments": (
            "moments",
            True,
            {Counted.REQUESTS: 50, Counted.UNCACHED: 30_000, Counted.ANSWER: 8000},
        ),
        # Mistral, the free tier.
        "no resets": (
            "no resets",
            False,
            {Counted.REQUESTS: 60, Counted.TOKENS: 500_000},
        ),
    }
    return {
        alias: LimitedServer(
            style,
            {counted: Bucket(limit, gradual) for counted, limit in sizes.items()},
            random.Random(f"{seed} {alias}"),
        )
        for alias, (style, gradual, sizes) in limits.items()
    }


POOL = (
    Endpoint("durations", input_price=2.0, output_price=8.0, cached_input_price=0.5),
    Endpoint("moments", input_price=3.0, output_price=15.0, cached_input_price=0.3),
    Endpoint("no resets", input_price=0.4, output_price=2.0),
)


@define
class Delegating(Agent):
    """An agent which now and then starts sub-agents in parallel, each with a short prompt."""

    subs: int = 0

    def _finish_call(self, request: Request, finished: Finished) -> None:
        if self.dice.random() < DELEGATES:
            for _ in range(self.dice.randint(2, 5)):
                self.subs += 1
                dice = random.Random(f"{self.name} {self.subs}")
                sub = Agent(self.world, f"{self.name}-{self.subs}", dice, 1, LARGEST)
                sub.prompt = 4000
                sub.begin()
        Agent._finish_call(self, request, finished)  # noqa: SLF001 - a slotted class has no super()


AGENTS = 3
DELEGATES = 0.05
LARGEST = 60_000


@frozen
class Totals:
    """What came of an hour, or of several."""

    limits: int
    served: int
    tokens: int
    cached: int

    @classmethod
    def sum(cls, hours: Sequence[Totals]) -> Totals:
        return cls(*map(sum, zip(*map(astuple, hours), strict=True)))

    @property
    def share(self) -> float:
        """Of the tokens that are cached."""
        return self.cached / self.tokens


def hour(
    pool: Sequence[Endpoint], mode: Strategy, policy: Policy, agents: int, seed: int
) -> Totals:
    """Run agents for an hour."""
    world = World(PoolState.of(*pool, policy=policy), mode, servers_of(seed))
    for number in range(agents):
        dice = random.Random(f"agent {seed} {number}")
        Delegating(world, f"agent {number}", dice, 10_000, LARGEST).begin()
    world.run(START + HOUR)
    tallies = [candidate.tally for candidate in world.state.candidates]
    return Totals(
        sum(tally.rate_limited for tally in tallies),
        sum(tally.succeeded for tally in tallies),
        sum(tally.tokens_in for tally in tallies),
        sum(tally.tokens_cached for tally in tallies),
    )


MODES: tuple[tuple[str, Sequence[Endpoint], Strategy, int], ...] = (
    ("single", POOL[:1], Failover(), 1),
    ("failover", POOL, Failover(), AGENTS),
    ("load_balance", POOL, LoadBalance(), AGENTS),
    ("lowest_cost", POOL, LowestCost(), AGENTS),
    ("lowest_latency", POOL, LowestLatency(), AGENTS),
)


HEADINGS = [
    "mode",
    "sticky",
    "rate limits, ignored",
    "heeded",
    "fewer",
    "calls, ignored",
    "heeded",
    "cached, ignored",
    "heeded",
]


def table(seeds: int, modes: Sequence[str]) -> list[list[str]]:
    rows = [HEADINGS]
    for name, pool, mode, agents in MODES:
        for sticky in Sticky if name in modes else ():
            ignored, heeded = (
                [
                    hour(
                        pool,
                        mode,
                        Policy(sticky=sticky, announced_limits=how),
                        agents,
                        seed,
                    )
                    # As many hours of agents in each row.
                    for seed in range(seeds * AGENTS // agents)
                ]
                for how in (AnnouncedLimits.IGNORE, AnnouncedLimits.HEED)
            )
            rows.append([name, sticky.value, *_compared(ignored, heeded)])
    return rows


def _compared(ignored: Sequence[Totals], heeded: Sequence[Totals]) -> list[str]:
    before, after = Totals.sum(ignored), Totals.sum(heeded)
    pairs = list(zip(ignored, heeded, strict=True))
    calls = after.served / before.served
    calls_error = _error([other.served - calls * one.served for one, other in pairs])
    cached_error = _error([other.share - one.share for one, other in pairs])
    return [
        str(before.limits),
        str(after.limits),
        f"{1 - after.limits / max(before.limits, 1):.0%}",
        str(before.served),
        f"{after.served} ({calls:.1%} ± {calls_error * len(pairs) / before.served:.1%})",
        f"{before.share:.1%}",
        f"{after.share:.1%} ({after.share - before.share:+.1%} ± {cached_error:.1%})",
    ]


def _error(differences: Sequence[float]) -> float:
    """Return the standard error of the mean."""
    return stdev(differences) / math.sqrt(len(differences))


def main() -> None:
    names = [name for name, *_ in MODES]
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, default=10, help="how many seeds, from 0")
    options.add_argument("--modes", nargs="+", choices=names, default=names)
    given = options.parse_args()
    print(markdown_table(table(given.seeds, given.modes)))


if __name__ == "__main__":
    main()
