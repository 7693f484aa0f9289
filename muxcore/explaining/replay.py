"""Every decision of a journal made again, and every state compared. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeAlias

from attrs import evolve, frozen

from muxcore.core.entries import Asked, Chosen, Configured, Ended, Entry
from muxcore.core.outcomes import PickReason, Started
from muxcore.core.records import Call, Choice, Exhausted, Picked, PoolState, Wait
from muxcore.core.selection import select
from muxcore.core.strategy import Strategy
from muxcore.core.updating import update
from muxcore.errors import StrategyError
from muxcore.explaining.folding import fold
from muxcore.journal.codec import digest_of, to_plain
from muxcore.journal.recent import Journal

MakeStrategy: TypeAlias = Callable[[str, Any], Strategy]
"""Makes the mode of this name with these options."""


@frozen
class Difference:
    """The first entry that would differ today: what was recorded and what comes now, in words."""

    number: int
    at: datetime
    call_id: str
    recorded: str
    today: str


@frozen
class Replayed:
    """What came of a replay. `difference` is None if all is as it was recorded."""

    entries: int
    decisions: int
    states: int
    difference: Difference | None = None


def replay(journal: Journal, make_strategy: MakeStrategy) -> Replayed:
    """Fold the journal anew and make its decisions again, up to the first that differs.

    What a plugin's mode raises is a difference, too.
    """
    replaying = _Replaying(make_strategy, journal.base.mode, journal.base.options)
    state, decisions, states = journal.base.state, 0, 0
    for number, now, entry in journal.lines:
        differs: tuple[str, str] | None = None
        if isinstance(entry, Started | Chosen):
            made = replaying.decide(state, now, entry)
            if made is not None:
                decisions += 1
                differs = _difference(made, entry)
        elif isinstance(entry, Asked | Ended | Configured):
            replaying.follow(entry)
        state = update(state, entry, now)
        digest = journal.digests.get(number)
        if digest is not None and differs is None:
            states += 1
            if digest_of(state) != digest:
                differs = "another state", "the state that these entries lead to"
        if differs is not None:
            call_id = replaying.call_id(entry)
            found = Difference(number, now, call_id, *differs)
            return Replayed(number - journal.base.number, decisions, states, found)
    return Replayed(len(journal.lines), decisions, states)


def sealed(journal: Journal) -> Journal:
    """Return the journal with a digest of its last state, as it is folded today."""
    digests = dict(journal.digests)
    for last in deque(fold(journal), maxlen=1):
        digests[last.line.number] = digest_of(last.after)
    return evolve(journal, digests=digests)


class _Replaying:
    """The mode, and the calls under way, at one place of a journal."""

    def __init__(self, make_strategy: MakeStrategy, mode: str, options: object) -> None:
        self._make_strategy = make_strategy
        self._mode = mode
        self._strategy: Strategy | None = None
        if mode:
            self._strategy = make_strategy(mode, options or {})
        self._calls: dict[int, Call] = {}
        self._ids: dict[int, str] = {}

    def follow(self, entry: Asked | Ended | Configured) -> None:
        match entry:
            case Asked():
                self._calls[entry.number], self._ids[entry.number] = entry.call, entry.id
                if self._strategy is None:
                    # A journal of version 1 names the mode only here.
                    self._strategy = self._make_strategy(entry.mode, {})
            case Ended():
                self._calls.pop(entry.number, None)
                self._ids.pop(entry.number, None)
            case Configured() if entry.mode:
                self._strategy = self._make_strategy(entry.mode, entry.options or {})

    def decide(
        self, state: PoolState, now: datetime, entry: Started | Chosen
    ) -> Choice | str | None:
        """Make the decision of this entry again, or return why none can be made.

        Return None where the entry holds no decision, or the journal lacks what it depended on.
        """
        if isinstance(entry, Chosen):
            self._calls[entry.number] = entry.call
            if entry.choice is None:
                return None
            call: Call | None = entry.call
        else:
            call = None if entry.call is None else self._calls.get(entry.call)
        if call is None or self._strategy is None:
            return None
        try:
            return select(state, self._strategy, now, call)
        except StrategyError as error:
            return str(error)

    def call_id(self, entry: Entry) -> str:
        match entry:
            case Started(call=int(number)) | Chosen(number=number):
                return self._ids.get(number, str(number))
            case _:
                return ""


def _difference(made: Choice | str, entry: Started | Chosen) -> tuple[str, str] | None:
    """Return what was recorded and what is decided today, if these differ."""
    if isinstance(entry, Started):
        if isinstance(made, Picked) and _is_same(made, entry):
            return None
        recorded = _asks(entry.alias, entry.reason)
        today = _in_words(made)
        if recorded == today:
            recorded += f", with memory {entry.memory!r} and demand {entry.demand!r}"
            if isinstance(made, Picked):
                today += f", with memory {made.memory!r} and demand {made.demand!r}"
        return recorded, today
    if entry.choice is None or made == entry.choice:
        return None
    return _in_words(entry.choice), _in_words(made)


def _is_same(made: Picked, begun: Started) -> bool:
    return (
        made.endpoint.alias == begun.alias
        and (begun.reason is None or made.reason is begun.reason)
        and made.demand == begun.demand
        # A tuple comes back as a list.
        and (made.memory == begun.memory or to_plain(made.memory) == begun.memory)
    )


def _in_words(choice: Choice | str) -> str:
    match choice:
        case Picked(endpoint=endpoint, reason=reason):
            return _asks(endpoint.alias, reason)
        case Wait(until=until, reason=reason):
            return f"waits until {until.isoformat()} ({reason})"
        case Exhausted(retry_at=retry_at, reason=reason):
            again = (
                "" if retry_at is None else f", to be asked again at {retry_at.isoformat()}"
            )
            return f"gives up ({reason}){again}"
        case str():
            return f"fails: {choice}"


def _asks(alias: str, reason: PickReason | None) -> str:
    return f"asks {alias}" + ("" if reason is None else f" ({reason})")
