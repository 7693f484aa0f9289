"""`lowest_latency`: the model that is soonest to its first content, by what was seen lately.

Promise: a model that has become slow is left after its first slow answer, and one that is
well again is found out by the first measure of it that is older than `explore_after_ms`
(five minutes), at the price of at most one pick in `explore_one_in` (20). Everything else
goes where the level is lowest, counting the calls that are already under way there.

The *level* of a model is a peak-sensitive moving average, as in Finagle's "peak EWMA": a
slower time counts at once and whole, a faster one the more, the longer after the last it
came. Times are whole microseconds and the arithmetic is exact, so the same history gives the
same picks on every machine. A model of which nothing is known is tried first.
Calls under way add to the level by their share of `max_concurrent`, or of `calls_at_once` (8)
where there is no such limit: a model as full as that counts as twice as slow.

It assumes that calls are much alike: a long cold prompt takes longer anywhere. It does not
look at weights. With `sticky = "turn"` it chooses for a turn, and learns from all its calls.

Choose it when the models are alike and it is their servers that differ, or have bad hours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypedDict, cast

from attrs import field, frozen, validators

from muxcore.core.records import Call, Candidate, Endpoint
from muxcore.core.strategy import Strategy
from muxcore.plugins.hookspecs import hookimpl

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
DECAY = timedelta(seconds=10) // MICROSECOND
"""After this long, a faster time counts for one half."""

SECOND = timedelta(seconds=1) // MICROSECOND
"""The level of a model that has never been measured, where no other has been either."""


class LatencyMemory(TypedDict):
    """Plain JSON: picks since the last exploration; each model's level and its moment.

    Both in microseconds, the moment since 1970.
    """

    picks: int
    levels: dict[str, list[int]]


@frozen
class LowestLatency:
    """The soonest to its first content lately, counting the calls under way."""

    explore_after_ms: int = field(default=300_000, validator=validators.ge(1000))
    explore_one_in: int = field(default=20, validator=validators.ge(1))
    calls_at_once: int = field(default=8, validator=validators.ge(1))

    def pick(
        self,
        candidates: Sequence[Candidate],
        memory: object,
        call: Call,  # noqa: ARG002 - the protocol's
        now: datetime,
    ) -> tuple[Endpoint, object]:
        known = (
            LatencyMemory(picks=0, levels={})
            if memory is None
            else cast("LatencyMemory", memory)
        )
        levels = dict(known["levels"])
        for candidate in candidates:
            _measure(candidate, levels)
        picks = known["picks"] + 1
        chosen = None
        if picks >= self.explore_one_in:
            chosen = self._stalest(candidates, levels, now)
        if chosen is None:
            chosen = self._soonest(candidates, levels)
        else:
            picks = 0
        return chosen.endpoint, LatencyMemory(picks=picks, levels=levels)

    def _stalest(
        self,
        candidates: Sequence[Candidate],
        levels: Mapping[str, Sequence[int]],
        now: datetime,
    ) -> Candidate | None:
        """Return the idle model that was measured longest ago, if that is too long ago."""
        limit = _moment(now) - self.explore_after_ms * 1000
        moments = [
            (levels[c.endpoint.alias][1] if c.endpoint.alias in levels else 0, place)
            for place, c in enumerate(candidates)
            if not c.health.in_flight
        ]
        moment, place = min(moments, default=(limit + 1, 0))
        return candidates[place] if moment <= limit else None

    def _soonest(
        self, candidates: Sequence[Candidate], levels: Mapping[str, Sequence[int]]
    ) -> Candidate:
        shown = [
            levels[c.endpoint.alias][0] for c in candidates if c.endpoint.alias in levels
        ]
        # What has been used without any content to show for it is taken for the worst.
        unmeasured = max(shown, default=SECOND)

        def wait(candidate: Candidate) -> int:
            alias, under_way = candidate.endpoint.alias, candidate.health.in_flight
            if alias in levels:
                level = levels[alias][0]
            elif candidate.tally.ended or under_way:
                level = unmeasured
            else:
                return 0
            room = candidate.endpoint.max_concurrent or self.calls_at_once
            return level * (room + under_way) // room

        return min(candidates, key=wait)


def _measure(candidate: Candidate, levels: dict[str, list[int]]) -> None:
    """Fold the newest time to first content into the model's level, once."""
    latest, at = candidate.tally.latest_first_content, candidate.tally.first_content_at
    if latest is None or at is None:
        return
    alias, time, moment = candidate.endpoint.alias, latest // MICROSECOND, _moment(at)
    if alias in levels:
        level, before = levels[alias]
        if moment == before:
            return
        if time < level:
            passed = max(moment - before, 0)
            time = level + (time - level) * passed // (passed + DECAY)
    levels[alias] = [time, moment]


def _moment(at: datetime) -> int:
    return (at - EPOCH) // MICROSECOND


@hookimpl
def vibe_mux_register_strategies(
    register: Callable[[str, Callable[..., Strategy]], None],
) -> None:
    register("lowest_latency", LowestLatency)
