"""The newest entries of a journal, in memory, as records without a codec."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import count
from typing import NamedTuple, TypeAlias

from muxcore.core.entries import Entry
from muxcore.journal.redaction import redacted

MOST_RECENT = 1_000


class JournalLine(NamedTuple):
    """An entry with its number in the journal and the moment that it counts from."""

    number: int
    now: datetime
    entry: Entry


Follower: TypeAlias = Callable[[Sequence[JournalLine]], None]


class RecentEntries:
    """The last entries. One thread appends at a time; any thread may read.

    What is appended is kept as it is, since each call appends three times: numbering the lines
    and taking texts out is left to the few that read.
    """

    def __init__(self, most: int = MOST_RECENT) -> None:
        self._most = most
        self._changes: deque[tuple[int, datetime, Sequence[Entry]]] = deque(maxlen=most)
        self._follower: Follower | None = None

    def follow(self, follower: Follower | None) -> None:
        """Call this with each batch; after an interrupt, once more with the same one."""
        self._follower = follower

    def extend(self, number: int, now: datetime, entries: Sequence[Entry]) -> None:
        """Append entries, the first under `number`. To repeat it changes nothing."""
        changes = self._changes
        if not changes or changes[-1][0] < number:
            if self._follower is not None:
                self._follower(
                    [
                        JournalLine(at, now, entry)
                        for at, entry in zip(count(number), entries, strict=False)
                    ]
                )
            # One call in C, which no interrupt can catch half-way.
            changes.append((number, now, entries))

    def lines(self) -> tuple[JournalLine, ...]:
        """Return the entries, oldest first, without what must not be kept."""
        while True:
            try:
                changes = tuple(self._changes)
            except RuntimeError:  # pragma: no cover - another thread appended meanwhile
                continue
            return tuple(
                JournalLine(at, now, redacted(entry))
                for number, now, entries in changes
                for at, entry in zip(count(number), entries, strict=False)
            )[-self._most :]
