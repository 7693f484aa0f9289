"""Folding a journal: each entry, with the states before and after it."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from muxcore.core.records import PoolState
from muxcore.core.updating import update
from muxcore.journal.recent import Journal, JournalLine


@frozen
class FoldedLine:
    """A line of a journal, with the states before and after its entry."""

    line: JournalLine
    before: PoolState
    after: PoolState


def fold(journal: Journal) -> Iterator[FoldedLine]:
    """Yield each line of the journal, in order."""
    state = journal.base.state
    for line in journal.lines:
        before, state = state, update(state, line.entry, line.now)
        yield FoldedLine(line, before, state)
