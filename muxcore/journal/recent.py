"""The newest entries of a journal, in memory, as records without a codec."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from itertools import count
from typing import NamedTuple

from muxcore.core.entries import Entry
from muxcore.journal.redaction import TEXTED, redacted

MOST_RECENT = 1_000


class JournalLine(NamedTuple):
    """An entry with its number in the journal and the moment that it counts from."""

    number: int
    now: datetime
    entry: Entry


class RecentEntries:
    """The last entries. One thread appends at a time; any thread may read."""

    def __init__(self, most: int = MOST_RECENT) -> None:
        self._lines: deque[JournalLine] = deque(maxlen=most)

    @property
    def last(self) -> int:
        """The number of the newest entry; 0 if there is none."""
        return self._lines[-1].number if self._lines else 0

    def extend(self, number: int, now: datetime, entries: Sequence[Entry]) -> None:
        """Append entries, the first under `number`. To repeat it changes nothing."""
        if self.last >= number:
            return
        # One call in C, which no interrupt can catch half-way.
        self._lines.extend(
            [
                JournalLine(at, now, redacted(e) if isinstance(e, TEXTED) else e)
                for at, e in zip(count(number), entries, strict=False)
            ]
        )

    def lines(self) -> tuple[JournalLine, ...]:
        """Return the entries, oldest first."""
        while True:
            try:
                return tuple(self._lines)
            except RuntimeError:  # pragma: no cover - another thread appended meanwhile
                continue

    def clear(self) -> None:
        self._lines.clear()
