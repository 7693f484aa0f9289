"""Which facts an own entry makes, from the states before and after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from attrs import frozen

from muxcore.core.entries import Entry
from muxcore.core.outcomes import (
    Failed,
    RateLimited,
    Refuted,
    Rejected,
    Reset,
    Succeeded,
)
from muxcore.core.records import Candidate, Cooldown, PoolState
from muxcore.core.sharing.facts import (
    Fact,
    PlaceDisabled,
    PlaceRecovered,
    PlaceReset,
    RefusalRefuted,
    WindowLearnt,
)

NEARLY = timedelta(seconds=1)
"""Two processes that know the same cooldown may differ by up to this about its end."""


@frozen
class Publication:
    """A fact about an endpoint's place, on its way to the board.

    `attempt` is the own attempt that it comes from: by it, the process recognizes its own facts.
    `after` are the own attempts whose failures a `PlaceRecovered` clears, and which the board
    may not have numbered yet.
    """

    alias: str
    fact: Fact
    attempt: int
    after: tuple[int, ...] = ()


def publications(
    before: PoolState, entry: Entry, after: PoolState, now: datetime
) -> tuple[Publication, ...]:
    """Return what others should know of this entry; nothing for nearly all entries."""
    if isinstance(entry, Reset):
        return tuple(
            Publication(candidate.endpoint.alias, PlaceReset(), after.attempts or 1)
            for candidate in after.candidates
            if entry.alias in {None, candidate.endpoint.alias}
        )
    if not isinstance(entry, RateLimited | Failed | Succeeded | Rejected | Refuted):
        return ()
    was, became = before.find(entry.alias), after.find(entry.alias)
    if was is None or became is None or was is became:
        return ()
    facts: list[Publication] = []
    if isinstance(entry, Succeeded):
        facts += _recovered(entry, was, became)
    else:
        facts += _disabled(entry, was, became, now)
    if isinstance(entry, Refuted):
        refuted = RefusalRefuted(entry.kind, entry.conversation)
        facts.append(Publication(entry.alias, refuted, entry.attempt))
    window = became.learnt_window
    if window is not None and window != was.learnt_window:
        facts.append(Publication(entry.alias, WindowLearnt(window), entry.attempt))
    return tuple(facts)


def forgotten(
    state: PoolState, standing: Mapping[str, Sequence[Fact]], now: datetime
) -> tuple[Publication, ...]:
    """Return what this process knows and a board which lost its facts does not.

    `standing` has the facts that the board still has of each endpoint's place, by alias.
    """
    found: list[Publication] = []
    for candidate in state.candidates:
        alias, window = candidate.endpoint.alias, candidate.learnt_window
        stated = standing.get(alias, ())
        for cooldown in candidate.health.cooldowns:
            remaining = cooldown.until - now
            is_stated = any(
                isinstance(fact, PlaceDisabled)
                and fact.cause == cooldown.cause
                and fact.remaining > remaining - NEARLY
                for fact in stated
            )
            if cooldown.active(now) and not is_stated:
                fact = PlaceDisabled(
                    cooldown.cause, remaining, cooldown.failures, cooldown.hint
                )
                found.append(Publication(alias, fact, cooldown.unnumbered))
        if window is not None and WindowLearnt(window) not in stated:
            found.append(Publication(alias, WindowLearnt(window), 0))
    return tuple(found)


def _disabled(
    entry: RateLimited | Failed | Rejected | Refuted,
    was: Candidate,
    became: Candidate,
    now: datetime,
) -> list[Publication]:
    found = []
    for old, new in (
        (was.health.limited, became.health.limited),
        (was.health.broken, became.health.broken),
    ):
        if new is not None and new != old and new.active(now):
            fact = PlaceDisabled(new.cause, new.until - now, new.failures, new.hint)
            found.append(Publication(entry.alias, fact, entry.attempt))
    return found


def _recovered(entry: Succeeded, was: Candidate, became: Candidate) -> list[Publication]:
    ended: list[Cooldown] = [
        old
        for old, new in (
            (was.health.limited, became.health.limited),
            (was.health.broken, became.health.broken),
        )
        if old is not None and new is None
    ]
    if not ended:
        return []
    heard_of = max(cooldown.fact for cooldown in ended)
    after = tuple(cooldown.unnumbered for cooldown in ended if cooldown.unnumbered)
    fact = PlaceRecovered(heard_of)
    return [Publication(entry.alias, fact, entry.attempt, after)]
