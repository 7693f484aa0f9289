"""A pool's link to its board, step by step, where the board is busy or wants to be asked again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from muxcore.board.file import FileBoard
from muxcore.board.leasing import RENEW_SECONDS
from muxcore.board.link import BoardLink, PoolSide
from muxcore.core.entries import Entry
from muxcore.core.folding.leases import LeaseWanted
from muxcore.core.records import Endpoint, PoolState
from muxcore.core.updating import update
from muxcore.journal.recent import Checkpoint, JournalLine
from muxcore.plugins.board import Board, BoardBusyError

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ONE = Endpoint("one", max_concurrent=1)


class OnePool:
    """A pool of one endpoint, by its state alone."""

    def __init__(self) -> None:
        self.state = PoolState.of(ONE)
        self.moment = 0.0
        self.entries = 0
        self.follower: Callable[[Sequence[JournalLine]], None] = lambda _lines: None

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.moment)

    def record(self, entry: Entry) -> None:
        self.state = update(self.state, entry, self.now())
        self.entries += 1
        self.follower([JournalLine(self.entries, self.now(), entry)])

    def places(self, _salt: bytes) -> Mapping[str, str]:
        return {"one": "here"}

    def side(self) -> PoolSide:
        return PoolSide(
            state=lambda: self.state,
            checkpoint=lambda: Checkpoint(self.entries, self.state),
            record=self.record,
            follow=lambda _follower: None,
            places=self.places,
            now=self.now,
            elapsed=lambda: self.moment,
            lacks=lambda _call: None,
            wanted=tuple,
        )


def nothing() -> None:
    """Is told that all is heard."""


def lines(board: FileBoard) -> int:
    (row,) = board.database.read("SELECT count(*) FROM lines")
    return int(row[0])


def test_a_board_that_is_busy_while_it_is_opened_is_opened_by_the_next_step(
    state_file: Path,
) -> None:
    pool, opened = OnePool(), list[FileBoard]()
    FileBoard(now=pool.now, environment={}, path=state_file).close()
    other = sqlite3.connect(state_file, isolation_level=None)

    def open_board() -> Board:
        opened.append(FileBoard(now=pool.now, environment={}, path=state_file))
        other.execute("BEGIN IMMEDIATE")
        return opened[-1]

    link = BoardLink(open_board, pool.side())
    pool.follower = link.follow
    with pytest.raises(BoardBusyError):
        link.step(tuple, nothing, write=True)
    other.execute("ROLLBACK")
    link.step(tuple, nothing, write=True)
    (board,) = opened
    assert link.leasing is not None
    assert pool.state["one"].leases is not None, "caps are shared"
    assert lines(board) > 0, "the journal is written"
    link.close()
    other.close()


class RenewedBoard(FileBoard):
    """Counts how often its leases are renewed."""

    renewed = 0

    def renew(self) -> None:
        self.renewed += 1


def test_leases_are_renewed_every_few_seconds_while_there_are_any(state_file: Path) -> None:
    pool = OnePool()
    board = RenewedBoard(now=pool.now, environment={}, path=state_file)
    link = BoardLink(lambda: board, pool.side())
    pool.follower = link.follow
    link.step(tuple, nothing)
    link.step(tuple, nothing)
    assert board.renewed == 0, "no lease is held"

    def wanted() -> list[LeaseWanted]:
        return [LeaseWanted("one", slot=True, probe=False)]

    renewed = []
    for moment in (0.1, 0.2, RENEW_SECONDS, RENEW_SECONDS + 0.1):
        pool.moment = moment
        link.step(wanted, nothing)
        renewed.append(board.renewed)
    assert renewed == [1, 1, 1, 2]
    link.close()
