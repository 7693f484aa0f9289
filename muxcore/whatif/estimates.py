"""What a place would have answered at some moment, estimated from the journal.

Pure, but for the memory of where each conversation has been: a prompt cache depends on that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

from attrs import define, evolve, field, frozen

from muxcore.core.allowance import CACHE_LASTS
from muxcore.core.outcomes import (
    Cancelled,
    End,
    Failed,
    RateLimited,
    Rejected,
    Succeeded,
)
from muxcore.core.records import Endpoint
from muxcore.whatif.evidence import Weather, middle, weather_of
from muxcore.whatif.recorded import (
    Observation,
    PlaceKey,
    RequestRecord,
    observed_at,
    place_key,
)

A_MINUTE = timedelta(minutes=1)
MORE_LOAD = 1.5
"""The journal does not show how a place takes this many times its busiest minute."""
FEW = 3
"""So many attempts in a minute are never more load."""


@frozen
class Estimate:
    """What comes of an attempt, `took` after its beginning; `first` is its first content.

    `known` is whether the journal says how the place fared then.
    """

    outcome: End
    took: timedelta
    first: timedelta | None
    streamed: bool
    known: bool


@frozen
class _Speed:
    """How fast a place answers: seconds to its first content, and for each token after it."""

    first: float
    each: float

    @classmethod
    def of(cls, served: Sequence[Observation]) -> _Speed | None:
        firsts = [(one.first or one.took).total_seconds() for one in served]
        each = [
            (one.took - one.first).total_seconds() / one.outcome.tokens_out
            for one in served
            if one.first is not None
            and isinstance(one.outcome, Succeeded)
            and one.outcome.tokens_out
        ]
        first = middle(firsts)
        return None if first is None else cls(first, middle(each) or 0.0)


@define
class _Visit:
    """The last time that a conversation was at a place, and its size in tokens then."""

    at: datetime
    size: int


@define
class _Whereabouts:
    """Where a conversation has been."""

    visits: dict[PlaceKey, _Visit] = field(factory=dict)
    last: PlaceKey | None = None

    def warm(self, place: PlaceKey, at: datetime) -> int:
        """Return how many tokens the place may have cached."""
        visit = self.visits.get(place)
        return 0 if visit is None or at - visit.at > CACHE_LASTS else visit.size

    def arrive(self, place: PlaceKey, at: datetime, size: int) -> None:
        self.visits[place], self.last = _Visit(at, size), place


class Estimator:
    """Estimates attempts in the order of their beginning."""

    def __init__(self, record: RequestRecord, luck: float = 0.5) -> None:
        """Another `luck`, from 0 to 1, draws other possible answers."""
        seen = record.observations
        self._record = record
        self._places = {one.place for one in seen}
        moments = [one.at for one in seen] or [
            call.calls[0].began for call in record.requests
        ]
        began, ended = min(moments), max(moments)
        self._observed = {place: observed_at(seen, place) for place in self._places}
        self._weather = {
            place: weather_of(found, began, ended, luck)
            for place, found in self._observed.items()
        }
        self._speeds = {
            place: _Speed.of([one for one in found if one.is_served])
            for place, found in self._observed.items()
        }
        self._usual = _Speed.of([one for one in seen if one.is_served]) or _Speed(1.0, 0.0)
        self._peaks = {place: _peak(found) for place, found in self._observed.items()}
        self._own: dict[tuple[int, PlaceKey], list[Observation]] = defaultdict(list)
        self._served: dict[int, Observation] = {}
        for one in seen:
            self._own[one.request, one.place].append(one)
            if one.is_served:
                self._served[one.request] = one
        self._kept, self._context = _caching(record, self._served)
        self._whereabouts: dict[str, _Whereabouts] = defaultdict(_Whereabouts)
        self._starts: dict[PlaceKey, list[datetime]] = defaultdict(list)

    def attempt(
        self, endpoint: Endpoint, attempt: int, request: int, now: datetime
    ) -> Estimate:
        """Estimate what the endpoint answers to this request now."""
        place = place_key(endpoint)
        weather = self._weather.get(place, Weather())
        known = weather.is_known(now) and not self._is_more_load(place, now)
        own = self._own.get((request, place), [])
        refused = next((one for one in own if isinstance(one.outcome, Rejected)), None)
        episode = weather.at(now)
        if episode is not None:
            of = episode.of
            outcome = of.outcome
            if isinstance(outcome, RateLimited | Failed):
                hint = None
                if episode.hinted:
                    hint = max(episode.until - now - of.took, timedelta(seconds=1))
                outcome = evolve(
                    outcome, alias=endpoint.alias, attempt=attempt, hint=hint, allowances=()
                )
                return Estimate(outcome, of.took, of.first, of.is_broken, known)
        if refused is not None and isinstance(refused.outcome, Rejected):
            outcome = evolve(
                refused.outcome, alias=endpoint.alias, attempt=attempt, allowances=()
            )
            return Estimate(outcome, refused.took, None, streamed=False, known=True)
        if request not in self._served:
            left = next((one for one in own if isinstance(one.outcome, Cancelled)), None)
            if left is not None:
                outcome = evolve(left.outcome, alias=endpoint.alias, attempt=attempt)
                return Estimate(outcome, left.took, None, streamed=False, known=True)
        return self._success(endpoint, attempt, request, now, known=known)

    def _success(
        self, endpoint: Endpoint, attempt: int, request: int, now: datetime, *, known: bool
    ) -> Estimate:
        place = place_key(endpoint)
        read, written, recorded = self._tokens(request)
        same = recorded if recorded is not None and recorded.place == place else None
        if same is not None:
            took, first = same.took, same.first
        else:
            speed = self._speeds.get(place) or self._usual
            first = timedelta(seconds=speed.first)
            took = first + timedelta(seconds=speed.each * written)
        conversation = self._record.requests[request].call.conversation
        cached = 0
        if conversation is not None:
            been = self._whereabouts[conversation]
            warm = been.warm(place, now)
            if (
                same is not None
                and isinstance(same.outcome, Succeeded)
                and self._context.get(request) == (been.last == place, warm > 0)
            ):
                cached = same.outcome.tokens_cached
            else:
                cached = min(read, int(self._kept * warm))
            been.arrive(place, now + took, read + written)
        streamed = recorded is not None and recorded.streamed
        outcome = Succeeded(
            endpoint.alias, attempt, read, cached, written, None if streamed else first
        )
        return Estimate(outcome, took, first, streamed, known)

    def _tokens(self, request: int) -> tuple[int, int, Observation | None]:
        """Return the tokens of a request and its answer, and where they are from."""
        recorded = self._served.get(request)
        if recorded is not None and isinstance(recorded.outcome, Succeeded):
            return recorded.outcome.tokens_in, recorded.outcome.tokens_out, recorded
        asked = self._record.requests[request]
        before = None if asked.follows is None else self._served.get(asked.follows)
        if before is not None and isinstance(before.outcome, Succeeded):
            size = before.outcome.tokens_in + before.outcome.tokens_out
            return size, before.outcome.tokens_out, None
        return asked.call.prompt_tokens or 0, 0, None

    def _is_more_load(self, place: PlaceKey, now: datetime) -> bool:
        """Count this attempt; return whether the place never got as many in a minute."""
        starts = self._starts[place]
        starts.append(now)
        recent = len(starts) - bisect_left(starts, now - A_MINUTE)
        return recent > max(FEW, MORE_LOAD * self._peaks.get(place, 0))


def _peak(observations: Sequence[Observation]) -> int:
    """Return the most attempts that began within a minute."""
    starts = [one.at for one in observations]
    return max(
        (
            number + 1 - bisect_left(starts, at - A_MINUTE)
            for number, at in enumerate(starts)
        ),
        default=0,
    )


def _caching(
    record: RequestRecord, served: dict[int, Observation]
) -> tuple[float, dict[int, tuple[bool, bool]]]:
    """Return the part of a warm prompt that was cached, and the context of each answer.

    The context is whether the conversation stayed at its place, and whether it was there lately.
    """
    whereabouts: dict[str, _Whereabouts] = defaultdict(_Whereabouts)
    parts: list[float] = []
    context: dict[int, tuple[bool, bool]] = {}
    for request, one in sorted(served.items(), key=lambda item: item[1].at):
        outcome = one.outcome
        conversation = record.requests[request].call.conversation
        if conversation is None or not isinstance(outcome, Succeeded):
            continue
        been = whereabouts[conversation]
        warm = been.warm(one.place, one.at)
        context[request] = (been.last == one.place, warm > 0)
        if warm:
            parts.append(outcome.tokens_cached / warm)
        size = outcome.tokens_in + outcome.tokens_out
        been.arrive(one.place, one.at + one.took, size)
    return middle(parts) or 0.0, context
