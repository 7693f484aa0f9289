"""The newest entries of a journal, in memory, as records without a codec."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import Any, NamedTuple, TypeAlias

from attrs import field, frozen

from muxcore.core.entries import RULES, Configured, Entry
from muxcore.core.records import PoolState
from muxcore.journal.redaction import redacted, redacted_state

MOST_RECENT = 1_000


class JournalLine(NamedTuple):
    """An entry with its number in the journal and the moment that it counts from."""

    number: int
    now: datetime
    entry: Entry


@frozen
class Checkpoint:
    """The state after the entry of this number, and what chooses from there on.

    `rules` is the version of the rules that the entries were made by.
    """

    number: int
    state: PoolState
    mode: str = ""
    options: Any = None
    rules: int = RULES


@frozen
class Journal:
    """Entries without a gap, and the state before the first of them.

    `digests` are of the states after some of the entries, by their numbers.
    """

    base: Checkpoint
    lines: Sequence[JournalLine]
    digests: Mapping[int, str] = field(factory=dict)


Follower: TypeAlias = Callable[[Sequence[JournalLine]], None]
_Kept: TypeAlias = tuple[int, datetime, Sequence[Entry], PoolState]
"""A change: the number of its first entry, its moment, its entries, the state before."""


class RecentEntries:
    """The last entries. One thread appends at a time; any thread may read.

    Each call appends three times, so entries are kept as they come: lines are numbered and
    texts taken out when somebody reads.
    """

    def __init__(self, most: int = MOST_RECENT) -> None:
        self._most = most
        self._changes: deque[_Kept] = deque(maxlen=most)
        self._follower: Follower | None = None
        self._salt = os.urandom(32)

    def follow(self, follower: Follower | None) -> None:
        """Call `follower` with each batch; after an interrupt, again with the same one."""
        self._follower = follower

    def extend(
        self, number: int, now: datetime, entries: Sequence[Entry], before: PoolState
    ) -> None:
        """Append entries, the first under `number`. Repeating it changes nothing.

        `before` is the state that they change.
        """
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
            changes.append((number, now, entries, before))

    def lines(self) -> tuple[JournalLine, ...]:
        """Return the entries, oldest first, without what must not be kept."""
        return self._redacted(self._kept())[-self._most :]

    def journal(self, mode: str, options: object) -> Journal | None:
        """Return the same with the state before them; None if there is no entry.

        It begins where the last config did, to which the `mode` and its `options` belong.
        """
        changes = self._kept()
        if not changes:
            return None
        begins = 0
        for place, (_, _, entries, _) in enumerate(changes):
            if any(isinstance(entry, Configured) for entry in entries):
                begins = place
        number, _, _, before = changes[begins]
        state = redacted_state(before, self._salt)
        base = Checkpoint(number - 1, state, mode, options)
        return Journal(base, self._redacted(changes[begins:]))

    def _kept(self) -> tuple[_Kept, ...]:
        while True:
            try:
                return tuple(self._changes)
            except RuntimeError:  # pragma: no cover - another thread appended meanwhile
                continue

    def _redacted(self, changes: Sequence[_Kept]) -> tuple[JournalLine, ...]:
        return tuple(
            JournalLine(at, now, redacted(entry, self._salt))
            for number, now, entries, _ in changes
            for at, entry in zip(count(number), entries, strict=False)
        )
