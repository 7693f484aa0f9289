"""The journals of a state file as a reader finds them: with checkpoints, gaps, and old forms."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from muxcore.board import link
from muxcore.board.database import Database
from muxcore.board.file import FileBoard
from muxcore.board.journal_file import JournalFile
from muxcore.board.journal_reader import open_state_file
from muxcore.board.link import BoardLink
from muxcore.config.resolve import strategy_named
from muxcore.core.entries import Asked, CallResult, Configured, Ended, Entry
from muxcore.core.outcomes import Started, Succeeded
from muxcore.core.records import Call, Endpoint, PoolState
from muxcore.errors import MultiplexerError
from muxcore.explaining.replay import replay
from muxcore.journal.recent import Journal, JournalLine
from tests.board.test_link import NOON, OnePool, nothing


class Journaled:
    """A pool whose journal is written to the file, call by call."""

    def __init__(self, state_file: Path) -> None:
        self.file = state_file
        self.pool = OnePool()
        self.pool.state = PoolState.of(Endpoint("one"))
        self.link = BoardLink(
            lambda: FileBoard(now=self.pool.now, environment={}, path=state_file),
            self.pool.side(),
        )
        self.pool.follower = self.link.follow

    def call(self, times: int = 1) -> None:
        for _ in range(times):
            self.pool.moment += 1
            number = self.pool.state.attempts + 1
            for entry in (
                Asked(number, Call(), "failover", f"p-{number}"),
                Started("one", None, number),
                Succeeded("one", number),
                Ended(number, CallResult.SERVED),
            ):
                self.pool.record(entry)

    def write(self) -> None:
        self.link.step(tuple, nothing, write=True)

    def read(self) -> tuple[Journal, ...]:
        with open_state_file(self.file) as reader:
            return tuple(
                part
                for kept in reversed(reader.journals())
                for part in reader.read(kept.number)
            )


@pytest.fixture
def journaled(state_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journaled]:
    monkeypatch.setattr(link, "BETWEEN_CHECKPOINTS", 10)
    journaled = Journaled(state_file)
    yield journaled
    journaled.link.close()


def numbers(journal: Journal) -> list[int]:
    return [line.number for line in journal.lines]


def test_the_states_of_all_checkpoints_are_those_of_the_entries(
    journaled: Journaled,
) -> None:
    for _ in range(5):
        journaled.call(4)
        journaled.write()
    (journal,) = journaled.read()
    assert numbers(journal) == list(range(1, journaled.pool.entries + 1))
    made = replay(journal, strategy_named)
    assert made.difference is None
    assert made.states == journaled.pool.entries // 10


def test_a_journal_whose_beginning_was_deleted_is_read_from_the_next_checkpoint(
    journaled: Journaled,
) -> None:
    journaled.call(10)
    journaled.write()
    with closing(sqlite3.connect(journaled.file)) as connection, connection:
        connection.execute("DELETE FROM lines WHERE number <= 14")
    (journal,) = journaled.read()
    assert (journal.base.number, numbers(journal)[0]) == (20, 21)
    assert replay(journal, strategy_named).difference is None


def test_entries_that_were_lost_begin_another_part(journaled: Journaled) -> None:
    """Neither part has a gap, and each has the state before its first entry."""
    journaled.call(2)
    journaled.write()
    journaled.pool.follower = lambda _lines: None
    journaled.call(2)
    journaled.pool.follower = journaled.link.follow
    journaled.call(1)
    journaled.write()
    journaled.call(2)
    journaled.write()
    first, second = journaled.read()
    assert second.base.number > numbers(first)[-1]
    assert numbers(second)[-1] == journaled.pool.entries
    for part in (first, second):
        assert replay(part, strategy_named).difference is None
    assert second.base.state.attempts == 5


def test_what_could_not_be_written_for_long_is_left_out(
    journaled: Journaled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "MOST_UNWRITTEN", 8)
    journaled.call(1)
    journaled.write()
    journaled.call(7)
    journaled.write()
    parts = journaled.read()
    assert len(parts) == 2
    assert numbers(parts[1])[-1] == journaled.pool.entries
    assert replay(parts[1], strategy_named).difference is None


def test_a_board_that_was_lost_gets_another_journal(journaled: Journaled) -> None:
    journaled.call(2)
    journaled.write()
    journaled.link.lose("for a test")
    journaled.pool.moment += 2
    journaled.call(2)
    journaled.write()
    first, second = journaled.read()
    assert second.base.number == numbers(first)[-1]
    assert replay(second, strategy_named).difference is None


def test_a_journal_of_the_first_version_is_read(state_file: Path) -> None:
    """It has no checkpoint: it begins with the config."""
    board = FileBoard(now=lambda: NOON, environment={}, path=state_file)
    journal = JournalFile(board.database, board.name, NOON)
    configured = Configured((Endpoint("one"),))
    entries: list[Entry] = [
        configured,
        Asked(1, Call(), "failover"),
        Started("one", None, 1),
    ]
    lines = [JournalLine(number, NOON, entry) for number, entry in enumerate(entries)]
    journal.write(lines, {})
    with open_state_file(state_file) as reader:
        (part,) = reader.read(journal.number)
    made = replay(part, strategy_named)
    assert (made.decisions, made.difference) == (1, None)
    board.close()


def test_what_is_no_state_file_is_refused(state_file: Path) -> None:
    state_file.parent.mkdir()
    state_file.write_bytes(b"theirs")
    with (
        pytest.raises(MultiplexerError, match="is not a state file"),
        open_state_file(state_file),
    ):
        pass
    state_file.unlink()
    with closing(sqlite3.connect(state_file)) as connection, connection:
        connection.execute("CREATE TABLE theirs (one)")
    with (
        pytest.raises(MultiplexerError, match="another program"),
        open_state_file(state_file),
    ):
        pass


def test_a_newer_state_file_is_refused(state_file: Path) -> None:
    Database(state_file, b"salt").close()
    with closing(sqlite3.connect(state_file)) as connection:
        connection.execute("PRAGMA user_version = 9")
    with (
        pytest.raises(MultiplexerError, match="is of version 9"),
        open_state_file(state_file),
    ):
        pass
