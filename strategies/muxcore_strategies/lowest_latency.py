"""`lowest_latency`: the model with the lowest recent time to first content.

Guarantee: a model that becomes slow is avoided after its first slow answer. A model that has
recovered is found again: once its last measurement is older than `explore_after_ms` (five
minutes), it is tried, with at most one pick in `explore_one_in` (20). All other picks go to
the lowest level, counting the calls that are already under way there.

The *level* of a model is a peak-sensitive moving average, as in Finagle's "peak EWMA": a
slower time replaces it at once; a faster time counts the more, the more time has passed since
the last one. Times are whole microseconds and the arithmetic is exact, so the same history
gives the same picks on every machine. A model that was never used is tried first.
Calls under way raise the level by their share of `max_concurrent`, or of `calls_at_once` (8)
where there is no such limit: a full model counts as twice as slow.

It assumes that calls are alike: a long cold prompt takes longer on any model. It ignores
weights. With `sticky = "turn"` it picks once a turn, and learns from all calls of the turn.

Choose it when the models are alike but their servers differ, or have bad hours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypedDict, cast

from attrs import field, frozen, validators

from muxcore.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from muxcore.core.records import Call, Candidate, Endpoint
    from muxcore.core.strategy import Strategy

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
DECAY = timedelta(seconds=10) // MICROSECOND
"""After this long, a faster time counts for one half, in microseconds."""

SECOND = timedelta(seconds=1) // MICROSECOND
"""The level of a model without a measurement while no other model has one either."""


class LatencyMemory(TypedDict):
    """Plain JSON: picks since the last exploration; by alias, the level and its moment.

    Both in microseconds, the moment since 1970.
    """

    picks: int
    levels: dict[str, list[int]]


@frozen
class LowestLatency:
    """The lowest recent time to first content, counting the calls under way."""

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
            chosen = self._least_recently_measured(candidates, levels, now)
        if chosen is None:
            chosen = self._lowest(candidates, levels)
        else:
            picks = 0
        return chosen.endpoint, LatencyMemory(picks=picks, levels=levels)

    def _least_recently_measured(
        self,
        candidates: Sequence[Candidate],
        levels: Mapping[str, Sequence[int]],
        now: datetime,
    ) -> Candidate | None:
        """Return the idle model with the oldest measurement, if that is too old."""
        limit = _moment(now) - self.explore_after_ms * 1000
        moments = [
            (levels[c.endpoint.alias][1] if c.endpoint.alias in levels else 0, place)
            for place, c in enumerate(candidates)
            if not c.health.in_flight
        ]
        moment, place = min(moments, default=(limit + 1, 0))
        return candidates[place] if moment <= limit else None

    def _lowest(
        self, candidates: Sequence[Candidate], levels: Mapping[str, Sequence[int]]
    ) -> Candidate:
        shown = [
            levels[c.endpoint.alias][0] for c in candidates if c.endpoint.alias in levels
        ]
        # A model that was used and has given no content yet counts as the slowest.
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
    """Fold the newest time to first content into the level, unless it is in there already."""
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
