"""The state file: one SQLite database, opened safely, with its errors put in words.

Only the thread that opened it may use it. Writers wait for each other a moment at most, and
then raise `BoardBusyError`. Nothing here deletes a file: one that is foreign, damaged or newer
stays as it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from muxcore.board import state_dir
from muxcore.plugins.board import BoardBusyError, BoardGoneError

APPLICATION = 0x76_6D_75_78
"""SQLite's mark of whose file it is: "vmux"."""
VERSION = 1
BUSY_SECONDS = 0.25
MAGIC = b"SQLite format 3\x00"

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB);
CREATE TABLE IF NOT EXISTS facts (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL, writer TEXT, place TEXT,
    attempt INTEGER, kind TEXT, fact BLOB);
CREATE TABLE IF NOT EXISTS leases (
    ticket INTEGER PRIMARY KEY AUTOINCREMENT, place TEXT, holder TEXT);
CREATE INDEX IF NOT EXISTS lanes ON leases (place, ticket);
CREATE TABLE IF NOT EXISTS journals (
    journal INTEGER PRIMARY KEY AUTOINCREMENT, writer TEXT, began REAL, latest REAL);
CREATE TABLE IF NOT EXISTS lines (
    journal INTEGER, number INTEGER, line BLOB, PRIMARY KEY (journal, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checkpoints (
    journal INTEGER, number INTEGER, checkpoint BLOB, PRIMARY KEY (journal, number)
    ) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals (
    place TEXT, alias TEXT, since REAL, succeeded INTEGER, limited INTEGER, failed INTEGER,
    PRIMARY KEY (place, alias)) WITHOUT ROWID;
"""

_LEFT_ALONE: list[object] = []
"""The parent's connections in a forked child: never used or closed, so never collected."""


class Database:
    """The open state file."""

    def __init__(self, path: Path, salt: bytes) -> None:
        """Open or make it; a new one gets this `salt`. Raise one of the board's errors."""
        self.path = path
        state_dir.prepare(path)
        _expect_ours_or_empty(path)
        with self._in_words():
            self._connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None
            )
            try:
                self._open(salt)
            except BaseException:
                self._connection.close()
                raise

    def _open(self, salt: bytes) -> None:
        """Make the tables, unless the file is of another program or of a newer version."""
        # The tables first: another process may be making them, and marks the file with them.
        sql = "SELECT count(*) FROM sqlite_master"
        tables = self._connection.execute(sql).fetchone()[0]
        version, application = self._pragma("user_version"), self._pragma("application_id")
        if tables and application != APPLICATION:
            raise BoardGoneError(f"{self.path} is a database of another program")
        if version > VERSION:
            raise BoardGoneError(
                f"{self.path} is of version {version}, and this vibe-mux knows versions up to"
                f" {VERSION}: use a newer vibe-mux, or another path in state_options"
            )
        if self._pragma("journal_mode = wal") != "wal":
            raise BoardGoneError(f"{self.path}: its file system has no shared memory")
        self._pragma("synchronous = normal")
        with self._transaction():
            for statement in SCHEMA.split(";"):
                self._connection.execute(statement)
            self._pragma(f"application_id = {APPLICATION}")
            self._pragma(f"user_version = {VERSION}")
            self._connection.execute(
                "INSERT OR IGNORE INTO meta VALUES ('salt', ?)", (salt,)
            )
        rows = self._connection.execute("SELECT value FROM meta WHERE name = 'salt'")
        self.salt: bytes = rows.fetchone()[0]

    def read(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        with self._in_words():
            return self._connection.execute(sql, values).fetchall()

    def write(self, sql: str, values: Sequence[object] = ()) -> int:
        """Run one statement; return the number of the row that it made."""
        with self._in_words():
            return self._connection.execute(sql, values).lastrowid or 0

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Do several writes, all of them or none."""
        with self._in_words(), self._transaction():
            yield

    def write_many(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        with self._in_words():
            self._connection.executemany(sql, rows)

    def used_bytes(self) -> int:
        """Return the size of what is kept, without what is free again."""
        with self._in_words():
            pages = self._pragma("page_count") - self._pragma("freelist_count")
            return int(pages * self._pragma("page_size"))

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._connection.close()

    def after_fork(self) -> None:
        """In a forked child: leave the connection alone, for ever."""
        _LEFT_ALONE.append(self._connection)

    def _pragma(self, text: str) -> Any:
        row = self._connection.execute(f"PRAGMA {text}").fetchone()
        return None if row is None else row[0]

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _in_words(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                raise BoardBusyError(f"{self.path} is locked") from error
            raise BoardGoneError(f"{self.path}: {error}") from error


def _expect_ours_or_empty(path: Path) -> None:
    """Raise `BoardGoneError` if the file is no database, before SQLite writes beside it."""
    try:
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
    except OSError as error:
        raise BoardGoneError(f"{path}: {error.strerror or error}") from error
    if head and head != MAGIC:
        raise BoardGoneError(f"{path} is not a state file")
