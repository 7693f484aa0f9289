"""An observer that counts, and the text of its counts for Prometheus.

The text form is forty lines; the library for it keeps its counts in one place for the whole
process, and would be installed with every pool.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate

from attrs import define, field, frozen

from muxcore.core.entries import Asked, Ended, Entry
from muxcore.core.outcomes import (
    Cancelled,
    Failed,
    RateLimited,
    Rejected,
    Responding,
    Succeeded,
)
from muxcore.core.records import PoolState

CALL_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
FIRST_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

Labels = tuple[tuple[str, str], ...]


@define
class Histogram:
    """How many durations were at most as long as each bound, in seconds."""

    bounds: Sequence[float]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


@frozen
class Family:
    """The samples of one metric, with what Prometheus shows about it."""

    name: str
    kind: str
    about: str
    samples: Sequence[tuple[str, Labels, float]]


class Metrics:
    """Counts calls, attempts, tokens and durations since it was made.

    Labels are aliases of the pool, and the names of outcomes: all have few values.
    """

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._tokens: Counter[tuple[str, str]] = Counter()
        self._cost: dict[str, float] = {}
        self._began: dict[int, datetime] = {}
        self._durations = Histogram(CALL_SECONDS)
        self._first_contents: dict[str, Histogram] = {}

    def observe(self, now: datetime, entry: Entry, _: PoolState, after: PoolState) -> None:
        match entry:
            case Asked():
                self._began[entry.number] = now
            case Ended():
                self._calls[entry.result.value] += 1
                if began := self._began.pop(entry.number, None):
                    self._durations.add((now - began).total_seconds())
            case Responding():
                self._first(entry.alias, entry.after)
            case Succeeded():
                self._attempts[entry.alias, "answered"] += 1
                self._spend(entry, after)
                self._first(entry.alias, entry.after)
            case RateLimited() | Failed() | Rejected():
                self._attempts[entry.alias, entry.kind.name.lower()] += 1
            case Cancelled():
                self._attempts[entry.alias, "cancelled"] += 1
            case _:
                pass

    def close(self) -> None:
        """There is nothing to end."""

    def text(self, state: PoolState, now: datetime) -> str:
        """Return all metrics in Prometheus' text form, those of the present state too."""
        return "".join(map(_written, [*self._counts(), *_gauges(state, now)]))

    def _first(self, alias: str, after: timedelta | None) -> None:
        if after is not None:
            histogram = self._first_contents.setdefault(alias, Histogram(FIRST_SECONDS))
            histogram.add(after.total_seconds())

    def _spend(self, entry: Succeeded, state: PoolState) -> None:
        alias = entry.alias
        read, cached, written = entry.tokens_in, entry.tokens_cached, entry.tokens_out
        for kind, count in (("input", read), ("cached", cached), ("output", written)):
            self._tokens[alias, kind] += count
        if (candidate := state.find(alias)) is not None:
            cost = candidate.endpoint.cost_of(read, cached, written)
            self._cost[alias] = self._cost.get(alias, 0.0) + cost

    def _counts(self) -> Iterator[Family]:
        yield _counter("calls", "Calls that have ended.", ("result",), self._calls)
        yield Family(
            "vibe_mux_call_duration_seconds",
            "histogram",
            "The time from a call to its end.",
            tuple(_of_histogram(self._durations)),
        )
        names = ("model", "outcome")
        yield _counter("attempts", "Attempts that have ended.", names, self._attempts)
        yield Family(
            "vibe_mux_first_content_seconds",
            "histogram",
            "The time from an attempt to the first content of its answer.",
            tuple(
                sample
                for alias, histogram in self._first_contents.items()
                for sample in _of_histogram(histogram, (("model", alias),))
            ),
        )
        about = "Tokens that providers reported; cached ones are among the input."
        yield _counter("tokens", about, ("model", "kind"), self._tokens)
        about = "The cost by the prices in the config."
        yield _counter("cost_dollars", about, ("model",), self._cost)


def _gauges(state: PoolState, now: datetime) -> Iterator[Family]:
    health = {one.endpoint.alias: one.health for one in state.candidates}
    under_way = {alias: float(one.in_flight) for alias, one in health.items()}
    yield _gauge("in_flight", "Attempts under way.", under_way)
    left = {alias: one.active_cooldown(now) for alias, one in health.items()}
    seconds = {
        alias: 0.0 if cooldown is None else (cooldown.until - now).total_seconds()
        for alias, cooldown in left.items()
    }
    yield _gauge(
        "disabled_seconds", "For how long the model is still disabled; else 0.", seconds
    )


def _gauge(name: str, about: str, values: Mapping[str, float]) -> Family:
    samples = [("", (("model", alias),), value) for alias, value in values.items()]
    return Family(f"vibe_mux_{name}", "gauge", about, samples)


def _counter(
    name: str,
    about: str,
    labels: tuple[str, ...],
    counts: Mapping[str, float] | Mapping[tuple[str, str], float],
) -> Family:
    samples = [
        (
            "",
            tuple(zip(labels, (key,) if isinstance(key, str) else key, strict=True)),
            count,
        )
        for key, count in tuple(counts.items())
    ]
    return Family(f"vibe_mux_{name}_total", "counter", about, samples)


def _of_histogram(
    histogram: Histogram, labels: Labels = ()
) -> Iterator[tuple[str, Labels, float]]:
    totals = list(accumulate(histogram.counts))
    for bound, count in zip((*histogram.bounds, "+Inf"), totals, strict=True):
        yield "_bucket", (*labels, ("le", str(bound))), count
    yield "_count", labels, totals[-1]
    yield "_sum", labels, histogram.total


def _written(family: Family) -> str:
    lines = [f"# HELP {family.name} {family.about}", f"# TYPE {family.name} {family.kind}"]
    for suffix, labels, value in family.samples:
        pairs = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
        shown = f"{{{pairs}}}" if pairs else ""
        lines.append(f"{family.name}{suffix}{shown} {value:g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
