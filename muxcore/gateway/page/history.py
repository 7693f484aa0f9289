"""Where the page gets the past from: the state file, or the newest entries in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from muxcore.board.journal_reader import (
    AT_THE_START,
    JournalReader,
    open_state_file,
    story_since,
)
from muxcore.core.status import status_of
from muxcore.errors import MultiplexerError
from muxcore.explaining.folding import fold
from muxcore.explaining.story import Story
from muxcore.gateway.page.parts import folded_until, milliseconds, rows_of
from muxcore.gateway.page.view import pool_view
from muxcore.journal.recent import Journal
from muxcore.shell.call.multiplexer import Multiplexer

IN_MEMORY = 0
"""The number of the journal in memory. Those in a state file begin with 1."""
MOST_JOURNALS = 50
MOST_PARTS = 16


class UnknownPlaceError(MultiplexerError):
    """There is no such journal, moment or call."""


@frozen
class Span:
    """The entries of a part of a journal: from after `since` to `until`."""

    since: int
    until: int
    began: datetime


def journals(multiplexer: Multiplexer) -> list[dict[str, Any]]:
    """Return the journals which there are, the server's own first."""
    own = multiplexer.recorded_in
    if own is None:
        journal = multiplexer.journal
        if journal is None:
            return []
        first, last = journal.lines[0].now, journal.lines[-1].now
        return [_listed(IN_MEMORY, first, last, is_own=True)]
    with open_state_file(own.file) as reader:
        found = sorted(reader.journals(), key=lambda one: one.number != own.number)
    return [
        _listed(one.number, one.began, one.latest, is_own=one.number == own.number)
        for one in found[:MOST_JOURNALS]
    ]


def parts(multiplexer: Multiplexer, number: int) -> list[list[int]]:
    """Return the parts of a journal: the entry before each, and when it begins."""
    if number == IN_MEMORY:
        journal = _recent(multiplexer)
        return [[AT_THE_START, milliseconds(journal.lines[0].now)]]
    with open_state_file(_file(multiplexer)) as reader:
        return [[span.since, milliseconds(span.began)] for span in _spans(reader, number)]


def part(multiplexer: Multiplexer, number: int, since: int) -> dict[str, Any]:
    """Return the rows of one part."""
    found = _part(multiplexer, number, since)
    return asdict(rows_of(folded for one in found for folded in fold(one)))


def pool_at(multiplexer: Multiplexer, number: int, at: datetime) -> dict[str, Any]:
    """Return the pool as it stood at this moment."""
    journal = _journal_at(multiplexer, number, at)
    state, mode = folded_until(journal, at)
    status = status_of(state, mode, at, enabled=not state.policy.direct)
    return pool_view(status, state, at)


def story(multiplexer: Multiplexer, number: int, since: int, call_id: str) -> Story:
    """Return the story of a call which begins in this part."""
    if number == IN_MEMORY:
        found = multiplexer.why(call_id)
    else:
        with open_state_file(_file(multiplexer)) as reader:
            found = story_since(reader, number, since, call_id)
    if not found:
        raise UnknownPlaceError(f"The journal has no call {call_id!r}.")
    return found[0]


def _journal_at(multiplexer: Multiplexer, number: int, at: datetime) -> Journal:
    if number == IN_MEMORY:
        return _recent(multiplexer)
    file = _file(multiplexer)
    with open_state_file(file) as reader:
        spans = _spans(reader, number)
    begun = [span for span in spans if span.began <= at] or spans[:1]
    found = _read(file, number, begun[-1].since, begun[-1].until) if begun else ()
    if not found:
        raise UnknownPlaceError("The journal has nothing of this moment.")
    return found[-1]


def _part(multiplexer: Multiplexer, number: int, since: int) -> Sequence[Journal]:
    if number == IN_MEMORY:
        return [_recent(multiplexer)]
    file = _file(multiplexer)
    with open_state_file(file) as reader:
        spans = {span.since: span for span in _spans(reader, number)}
    if since not in spans:
        raise UnknownPlaceError("The journal has no such part.")
    return _read(file, number, since, spans[since].until)


def _spans(reader: JournalReader, number: int) -> list[Span]:
    starts = reader.starts(number)
    ends = [*(since for since, _ in starts[1:]), reader.last(number)]
    return [
        Span(since, until, began)
        for (since, began), until in zip(starts, ends, strict=False)
    ]


@lru_cache(maxsize=MOST_PARTS)
def _read(file: Path, number: int, since: int, until: int) -> Sequence[Journal]:
    """Read a part. While a moment is dragged, it is the same one again and again."""
    with open_state_file(file) as reader:
        return reader.read(number, since, until)


def _recent(multiplexer: Multiplexer) -> Journal:
    journal = multiplexer.journal
    if journal is None:
        raise UnknownPlaceError("No call was made yet.")
    return journal


def _file(multiplexer: Multiplexer) -> Path:
    own = multiplexer.recorded_in
    if own is None:
        raise UnknownPlaceError("There is no state file.")
    return own.file


def _listed(
    number: int, began: datetime, latest: datetime, *, is_own: bool
) -> dict[str, Any]:
    times = {"began": milliseconds(began), "latest": milliseconds(latest)}
    return {"number": number, **times, "is_own": is_own}
