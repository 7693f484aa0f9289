"""How a place fared over time: what was seen of it, and what is assumed between.

Faults begin and end between the attempts that met them. Times without an attempt nearby are
assumed to have as many faults as the others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import accumulate, pairwise
from statistics import median

from attrs import evolve, frozen

from muxcore.core.outcomes import Failed, RateLimited
from muxcore.whatif.recorded import Observation

SEEN_FOR = timedelta(seconds=45)
"""How long before and after an attempt the journal shows how its place fares."""
SAME_FAULT = timedelta(minutes=4)
"""Failures without a success between belong together, if they are not farther apart."""
SHORTEST_FAULT = timedelta(seconds=4)
"""Half of all faults last twice as long or less after they are met; few last much longer."""
GOLDEN = 0.6180339887498949
"""Multiples of it, less their whole part, are spread evenly between 0 and 1."""


@frozen
class Episode:
    """A time in which a place limits or fails: `since <= t < until`.

    `of` is an attempt that met it. `hinted` is whether its server says how long it lasts.
    """

    since: datetime
    until: datetime
    of: Observation
    hinted: bool = False


@frozen
class Weather:
    """The episodes of one place, and when it was seen, both in the order of time."""

    episodes: tuple[Episode, ...] = ()
    seen: tuple[datetime, ...] = ()

    def at(self, moment: datetime) -> Episode | None:
        """Return the episode at this moment, None while the place is well."""
        position = bisect_right(self.episodes, moment, key=lambda one: one.since)
        for episode in reversed(self.episodes[max(0, position - 3) : position]):
            if moment < episode.until:
                return episode
        return None

    def is_known(self, moment: datetime) -> bool:
        """Whether the journal says how the place fared at this moment."""
        episode = self.at(moment)
        if episode is not None and episode.hinted and moment >= episode.of.at:
            return True
        position = bisect_right(self.seen, moment)
        near = self.seen[max(0, position - 1) : position + 1]
        return any(abs(moment - at) <= SEEN_FOR for at in near)


def weather_of(
    observations: Sequence[Observation], began: datetime, ended: datetime, luck: float = 0.5
) -> Weather:
    """Return how a place fared from `began` to `ended`, by attempts in the order of time.

    When faults begin and end is not known exactly: another `luck`, from 0 to 1, draws other
    moments of those that are possible.
    """
    evidence = [one for one in observations if _is_evidence(one)]
    episodes: list[Episode] = []
    for position, one in enumerate(evidence):
        if one.is_served:
            continue
        before = evidence[position - 1] if position else None
        after = evidence[position + 1] if position + 1 < len(evidence) else None
        if before is not None and _continues(before, one):
            met = episodes[-1]
            episodes[-1] = _ended(
                evolve(met, of=one, until=one.at),
                after,
                draw(luck, position),
                one.at - met.since,
            )
            continue
        since = one.at
        if before is not None:
            since -= min((one.at - before.at) / 2, _length(draw(luck, -position)))
        episodes.append(
            _ended(Episode(since, one.at, one), after, draw(luck, position), timedelta())
        )
    seen = tuple(one.at for one in evidence)
    unmet = _unmet(episodes, seen, began, ended, luck)
    return Weather(tuple(sorted([*episodes, *unmet], key=lambda one: one.since)), seen)


def draw(luck: float, number: int) -> float:
    """Return a number from 0 to 1, which differs by `number`."""
    return (luck + number * GOLDEN) % 1.0


def _length(drawn: float) -> timedelta:
    return SHORTEST_FAULT / max(1.0 - drawn, 0.01)


def _continues(before: Observation, one: Observation) -> bool:
    """Whether both attempts met the same fault."""
    return (
        type(before.outcome) is type(one.outcome)
        and before.is_broken == one.is_broken
        and one.at - before.at <= SAME_FAULT
    )


def _ended(
    episode: Episode, after: Observation | None, drawn: float, lasted: timedelta
) -> Episode:
    """Return the episode with its end, which its last attempt and the next one limit."""
    one = episode.of
    hint = getattr(one.outcome, "hint", None)
    if hint:
        until = one.at + one.took + hint
        if after is not None and after.is_served:
            until = min(until, after.at)
        return evolve(episode, until=until, hinted=True)
    longest = max(_length(drawn), lasted * drawn, one.took)
    if after is not None:
        # The next attempt met a success, or another fault.
        longest = min(longest, (after.at - one.at) * 0.9)
    return evolve(episode, until=one.at + longest, hinted=False)


def _is_evidence(one: Observation) -> bool:
    """Whether the attempt says how the place fares; a refusal is about its request."""
    return one.is_served or isinstance(one.outcome, RateLimited | Failed)


def _unmet(
    episodes: Sequence[Episode],
    seen: Sequence[datetime],
    began: datetime,
    ended: datetime,
    luck: float,
) -> list[Episode]:
    """Return as many episodes that no attempt met as those that were met make likely.

    An episode is met if an attempt begins in it. So one that lasts for L is met in the time T(L)
    that is at most L before an attempt, and each that was met stands for all / T(L) of its length.
    """
    # A rehearsal may take longer than the journal.
    limit = ended + (ended - began) / 2
    gaps = [
        (one, (other - one).total_seconds())
        for one, other in pairwise([began, *seen, limit])
    ]
    lengths = sorted(length for _, length in gaps)
    sums = [0.0, *accumulate(lengths)]
    found, due = list[Episode](), luck
    if not sums[-1]:
        return found
    for episode in episodes:
        lasts = max((episode.until - episode.since).total_seconds(), 1.0)
        shorter = bisect_right(lengths, lasts)
        met = sums[shorter] + lasts * (len(lengths) - shorter)
        due += sums[-1] / met - 1
        room = [(start, length - lasts) for start, length in gaps if length > lasts]
        while due >= 1 and room:
            due -= 1
            since = _place(room, draw(luck, len(found)))
            until = since + timedelta(seconds=lasts)
            found.append(evolve(episode, since=since, until=until))
    return found


def _place(room: Sequence[tuple[datetime, float]], drawn: float) -> datetime:
    """Return the moment at the part `drawn` of all the room: beginnings, and seconds of each."""
    left = drawn * sum(length for _, length in room)
    for start, length in room:
        if left < length:
            return start + timedelta(seconds=left)
        left -= length
    return room[-1][0]


def middle(values: Sequence[float]) -> float | None:
    """Return the median, None of nothing."""
    return median(values) if values else None
