"""Reads the journals in a state file. It writes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import frozen

from muxcore.board.database import APPLICATION, MAGIC, VERSION
from muxcore.core.entries import Configured
from muxcore.core.records import PoolState
from muxcore.errors import MultiplexerError
from muxcore.explaining.stories import stories
from muxcore.explaining.story import Story
from muxcore.journal.codec import decode, decode_checkpoint, digest_of
from muxcore.journal.recent import Checkpoint, Journal, JournalLine

AT_THE_START = -1
AT_THE_END = 2**63 - 1
ENTRIES_OF_A_CALL = 2_000
"""How far from its beginning the end of a call is looked for first."""


@frozen
class KeptJournal:
    """The journal of one process, as the file lists it."""

    number: int
    began: datetime
    latest: datetime


@contextmanager
def open_state_file(path: Path) -> Iterator[JournalReader]:
    """Open a state file to read its journals. Raise `MultiplexerError` if it is none."""
    if not is_state_file(path):
        raise MultiplexerError(f"{path} is not a state file")
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            _expect_ours(connection, path)
            yield JournalReader(connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise MultiplexerError(f"{path}: {error}") from error


def is_state_file(path: Path) -> bool:
    """Whether the file is a database. Raise `OSError` if it cannot be read."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


class JournalReader:
    """The journals of an open state file. Only the thread that opened it may use it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def journals(self) -> Sequence[KeptJournal]:
        """Return the journals, the one that was written last first."""
        rows = self._rows(
            "SELECT journal, began, latest FROM journals ORDER BY latest DESC"
        )
        return [KeptJournal(number, _moment(a), _moment(b)) for number, a, b in rows]

    def place_of_call(self, call_id: str) -> tuple[int, int] | None:
        """Return the journal and the number of the entry with which this call begins."""
        sql = "SELECT journal, number FROM lines WHERE instr(line, ?) LIMIT 1"
        rows = self._rows(sql, f'"id":"{call_id}"'.encode())
        return rows[0] if rows else None

    def checkpoints(self, journal: int) -> Sequence[int]:
        """Return the numbers of the checkpoints in this journal, ascending."""
        sql = "SELECT number FROM checkpoints WHERE journal = ? ORDER BY number"
        return [row[0] for row in self._rows(sql, journal)]

    def starts(self, journal: int) -> Sequence[tuple[int, datetime]]:
        """Return where reading may begin: the number before an entry, and its moment."""
        sql = (
            "SELECT line FROM lines WHERE journal = ? AND number IN (SELECT 0 UNION"
            " SELECT number + 1 FROM checkpoints WHERE journal = ?) ORDER BY number"
        )
        lines = (decode(data) for (data,) in self._rows(sql, journal, journal))
        return [(line.number - 1, line.now) for line in lines]

    def last(self, journal: int) -> int:
        """Return the number of the last entry of this journal."""
        sql = "SELECT coalesce(max(number), ?) FROM lines WHERE journal = ?"
        found: int = self._rows(sql, AT_THE_START, journal)[0][0]
        return found

    def read(
        self, journal: int, since: int = AT_THE_START, until: int = AT_THE_END
    ) -> tuple[Journal, ...]:
        """Return the entries from the checkpoint `since` to `until`, in parts without a gap.

        Entries without a state before them are left out: those before were deleted by age.
        """
        sql = (
            "SELECT number, checkpoint FROM checkpoints"
            " WHERE journal = ? AND number >= ? AND number <= ?"
        )
        states = {
            number: decode_checkpoint(data)
            for number, data in self._rows(sql, journal, since, until)
        }
        parts: list[tuple[Checkpoint, list[JournalLine]]] = []
        last: int | None = None
        sql = (
            "SELECT line FROM lines WHERE journal = ? AND number > ? AND number <= ?"
            " ORDER BY number"
        )
        for (data,) in self._rows(sql, journal, since, until):
            line = decode(data)
            if line.number - 1 != last:
                last = None
                base = states.get(line.number - 1) or _first_base(line)
                if base is not None:
                    parts.append((base, []))
                    last = base.number
            if last is not None:
                parts[-1][1].append(line)
                last = line.number
        return tuple(
            Journal(
                base,
                tuple(lines),
                {
                    line.number: digest_of(states[line.number].state)
                    for line in lines
                    if line.number in states
                },
            )
            for base, lines in parts
        )

    def _rows(self, sql: str, *values: object) -> list[Any]:
        return self._connection.execute(sql, values).fetchall()


def _first_base(line: JournalLine) -> Checkpoint | None:
    """Return the empty state that a journal without checkpoints begins with."""
    begins = line.number == 0 and isinstance(line.entry, Configured)
    return Checkpoint(AT_THE_START, PoolState.of()) if begins else None


def _expect_ours(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise MultiplexerError(f"{path} is a database of another program")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise MultiplexerError(
            f"{path} is of version {version}, and this vibe-mux knows versions up to"
            f" {VERSION}: use a newer vibe-mux"
        )


def _moment(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, tz=UTC)


def story_since(
    reader: JournalReader, number: int, since: int, call_id: str
) -> tuple[Story, ...]:
    """Return the story of a call that begins after an entry; none if there is no such call.

    It reads on, twice as far each time, until the call has ended.
    """
    last, length = reader.last(number), ENTRIES_OF_A_CALL
    while True:
        found = tuple(
            story
            for journal in reader.read(number, since, since + length)
            for story in stories(journal)
            if story.call_id == call_id
        )
        if since + length >= last or any(one.ended is not None for one in found):
            return found
        length *= 2
