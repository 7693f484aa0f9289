"""The figures of a journal, beside those of the same requests under another config."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from statistics import fmean, stdev

from attrs import field, frozen

from muxcore.core.entries import CallResult
from muxcore.core.outcomes import Failed, RateLimited, Succeeded
from muxcore.core.records import PoolState
from muxcore.core.strategy import Strategy
from muxcore.explaining.stories import stories
from muxcore.journal.recent import Journal
from muxcore.whatif.estimates import Estimator
from muxcore.whatif.recorded import RequestRecord, record_of
from muxcore.whatif.rehearsal import Answering, Rehearsal

MOST_ESTIMATED = 0.5
"""If more than this part of the attempts is estimated, the figures mean nothing."""
REHEARSALS = 7
PRECISION = 0.2
"""A figure may be wrong by this part of itself."""
DEVIATIONS = 2.5
"""This many standard deviations of the rehearsals must be within that."""
FEW_REQUESTS, SHORTEST_WAIT = 0.02, 0.1
"""For each request, counts and seconds may also be wrong by this much."""
WAITED, CACHED, COST = "seconds waited", "tokens cached", "cost"


@frozen
class Figures:
    """What so many requests came to. `served` counts answers by alias; `cost` is in dollars."""

    requests: int = 0
    unserved: int = 0
    waited: timedelta = timedelta()
    limits: int = 0
    failures: int = 0
    served: Mapping[str, int] = field(factory=dict)
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    cost: float = 0.0

    def named(self) -> dict[str, float]:
        """Return the figures that are compared, by their names."""
        return {
            "requests not served": self.unserved,
            WAITED: self.waited.total_seconds(),
            "limits met": self.limits,
            "failures met": self.failures,
            **{f"answers of {alias}": count for alias, count in self.served.items()},
            CACHED: self.tokens_cached,
            COST: self.cost,
        }

    def plus(self, other: Figures) -> Figures:
        return Figures(
            self.requests + other.requests,
            self.unserved + other.unserved,
            self.waited + other.waited,
            self.limits + other.limits,
            self.failures + other.failures,
            Counter(self.served) + Counter(other.served),
            self.tokens_in + other.tokens_in,
            self.tokens_cached + other.tokens_cached,
            self.tokens_out + other.tokens_out,
            self.cost + other.cost,
        )


@frozen
class ConfigComparison:
    """Recorded figures beside those of several rehearsals, which differ in what is not known.

    `estimated` is the share of estimated attempts.
    """

    recorded: Figures
    rehearsed: tuple[Figures, ...]
    estimated: float

    @property
    def is_conclusive(self) -> bool:
        """Whether enough is known for the figures to mean something."""
        return self.estimated <= MOST_ESTIMATED

    def values(self) -> Mapping[str, float | None]:
        """Return each rehearsed figure by its name; None where it cannot be told."""
        every = [figures.named() for figures in self.rehearsed]
        names = dict.fromkeys(name for named in every for name in named)
        requests = self.recorded.requests
        return {
            name: value(name, [named.get(name, 0.0) for named in every], requests)
            if self.is_conclusive
            else None
            for name in names
        }


def value(name: str, found: Sequence[float], requests: int) -> float | None:
    """Return the mean of two or more values, None where they are too far apart."""
    mean = fmean(found)
    widest = max(PRECISION * abs(mean), slack(name, requests))
    return mean if DEVIATIONS * stdev(found) <= widest else None


def slack(name: str, requests: int) -> float:
    """Return the difference that does not matter among so many requests."""
    if name in {COST, CACHED}:
        return 0.0
    return (SHORTEST_WAIT if name == WAITED else FEW_REQUESTS) * requests


def compare(
    journals: Iterable[Journal], state: PoolState, strategy: Strategy, mode: str = ""
) -> ConfigComparison:
    """Rehearse the requests of these journals with another pool, which begins in `state`.

    Each journal is rehearsed by itself, so what their processes tell each other is left out.
    """
    recorded, rehearsed = Figures(), [Figures()] * REHEARSALS
    attempts = estimated = 0
    for journal in journals:
        record = record_of(journal)
        if not record.requests:
            continue
        recorded = recorded.plus(figures_of(journal, record))
        for number in range(REHEARSALS):
            estimator = Estimator(record, (number + 0.5) / REHEARSALS)
            rehearsal = rehearse(record, state, strategy, estimator, mode)
            rehearsed[number] = rehearsed[number].plus(rehearsed_figures(record, rehearsal))
            attempts += rehearsal.sums.attempts
            estimated += rehearsal.sums.estimated
    return ConfigComparison(
        recorded, tuple(rehearsed), estimated / attempts if attempts else 0.0
    )


def rehearse(
    record: RequestRecord,
    state: PoolState,
    strategy: Strategy,
    answering: Answering,
    mode: str = "",
) -> Rehearsal:
    """Run the requests through a pool whose models answer like this."""
    rehearsal = Rehearsal(record, state, strategy, answering, mode)
    rehearsal.run()
    return rehearsal


def rehearsed_figures(record: RequestRecord, rehearsal: Rehearsal) -> Figures:
    """Return the figures of a rehearsal."""
    candidates, sums = rehearsal.pool.state.candidates, rehearsal.sums
    tallies = [candidate.tally for candidate in candidates]
    return Figures(
        len(record.requests),
        sums.unserved,
        sums.waited,
        sum(tally.rate_limited for tally in tallies),
        sum(tally.failed for tally in tallies),
        {c.endpoint.alias: c.tally.succeeded for c in candidates if c.tally.succeeded},
        sum(tally.tokens_in for tally in tallies),
        sum(tally.tokens_cached for tally in tallies),
        sum(tally.tokens_out for tally in tallies),
        sum(candidate.cost for candidate in candidates),
    )


def figures_of(journal: Journal, record: RequestRecord) -> Figures:
    """Return the figures that a journal has itself."""
    seen = record.observations
    served = [one.outcome for one in seen if isinstance(one.outcome, Succeeded)]
    return Figures(
        len(record.requests),
        sum(one.calls[-1].result is not CallResult.SERVED for one in record.requests),
        sum((story.waited for story in stories(journal)), timedelta()),
        sum(isinstance(one.outcome, RateLimited) for one in seen),
        sum(isinstance(one.outcome, Failed) for one in seen),
        Counter(outcome.alias for outcome in served),
        sum(outcome.tokens_in for outcome in served),
        sum(outcome.tokens_cached for outcome in served),
        sum(outcome.tokens_out for outcome in served),
        sum(one.cost for one in seen),
    )
