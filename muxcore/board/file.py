"""The board of one machine: facts and leases in the state file."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from attrs import evolve

from muxcore.board.database import Database
from muxcore.board.holder_lock import HolderLock, dead_holders, is_dead
from muxcore.board.state_dir import default_path
from muxcore.core.sharing.facts import Fact, PlaceDisabled, WindowLearnt
from muxcore.journal.codec import from_bytes, to_bytes
from muxcore.plugins.board import BoardFact, BoardGoneError, PresentStanding, SlotLease
from muxcore.plugins.hookspecs import BoardFactory, hookimpl

PAGE = 200
LONGEST_COOLDOWN = timedelta(hours=1)
"""Facts that are older have no effect any more; a window that was learnt has."""


class FileBoard:
    """All processes of one user on one machine, in one SQLite file."""

    def __init__(
        self,
        *,
        now: Callable[[], datetime],
        environment: Mapping[str, str],
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        """Open the file, or make it. Raise `BoardGoneError` or `BoardBusyError`."""
        file = default_path(environment) if path is None else Path(path).expanduser()
        self._now = now
        self.database = Database(file, secrets.token_bytes(32))
        try:
            self._holder = HolderLock(file.parent)
        except OSError as error:
            self.database.close()
            raise BoardGoneError(f"{file.parent}: {error.strerror or error}") from error
        self._closed = False
        try:
            for name in dead_holders(file.parent):
                self._forget(name)
        except BaseException:
            self.database.close()
            self._holder.release()
            raise

    @property
    def salt(self) -> bytes:
        return self.database.salt

    @property
    def name(self) -> str:
        """The name of this process's part in the file."""
        return self._holder.name

    def publish(self, place: str, fact: Fact, attempt: int = 0) -> int:
        kind, at = type(fact).__name__, self._now().timestamp()
        values = (at, self._holder.name, place, attempt, kind, to_bytes(fact))
        return self._open().write(
            "INSERT INTO facts (at, writer, place, attempt, kind, fact)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            values,
        )

    def hear(self, since: int) -> Sequence[BoardFact]:
        rows = self._open().read(
            "SELECT number, at, writer, place, attempt, fact FROM facts WHERE number > ?"
            " ORDER BY number LIMIT ?",
            (since, PAGE),
        )
        return [self._fact(*row) for row in rows]

    def standing(self) -> PresentStanding:
        oldest = (self._now() - LONGEST_COOLDOWN).timestamp()
        database = self._open()
        newest = database.read("SELECT coalesce(max(number), 0) FROM facts")[0][0]
        rows = database.read(
            "SELECT number, at, writer, place, attempt, fact FROM facts"
            " WHERE number <= ? AND (at >= ? OR kind = ?) ORDER BY number",
            (newest, oldest, WindowLearnt.__name__),
        )
        return PresentStanding(newest, tuple(self._fact(*row) for row in rows))

    def take(self, place: str, cap: int, ticket: int | None = None) -> SlotLease:
        database = self._open()
        if ticket is None:
            ticket = database.write(
                "INSERT INTO leases (place, holder) VALUES (?, ?)",
                (place, self._holder.name),
            )
        ahead = self._holders_ahead(place, ticket)
        if len(ahead) >= cap:
            dead = {name for name in set(ahead) if is_dead(database.path.parent, name)}
            for name in dead:
                self._forget(name)
            if dead:
                ahead = self._holders_ahead(place, ticket)
        return SlotLease(place, ticket, granted=len(ahead) < cap)

    def renew(self) -> None:
        """Do nothing: a lease lasts as long as its holder's lock."""

    def give_back(self, lease: SlotLease) -> None:
        self._open().write("DELETE FROM leases WHERE ticket = ?", (lease.ticket,))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            try:
                self._forget(self._holder.name)
            finally:
                self.database.close()
                self._holder.release()

    def after_fork(self) -> None:
        self._closed = True
        self.database.after_fork()
        self._holder.after_fork()

    def _forget(self, holder: str) -> None:
        """End all leases of a holder."""
        self.database.write("DELETE FROM leases WHERE holder = ?", (holder,))

    def _holders_ahead(self, place: str, ticket: int) -> list[str]:
        sql = "SELECT holder FROM leases WHERE place = ? AND ticket < ?"
        return [row[0] for row in self._open().read(sql, (place, ticket))]

    def _open(self) -> Database:
        if self._closed:
            raise BoardGoneError("the board is closed")
        return self.database

    def _fact(
        self, number: int, at: float, writer: str, place: str, attempt: int, data: bytes
    ) -> BoardFact:
        fact = from_bytes(data)
        if isinstance(fact, PlaceDisabled):
            # A clock that was set back makes no fact younger than new.
            age = timedelta(seconds=max(0.0, self._now().timestamp() - at))
            fact = evolve(fact, remaining=fact.remaining - age)
        own = writer == self._holder.name
        return BoardFact(number, place, fact, own, attempt if own else 0)


@hookimpl
def vibe_mux_register_boards(register: Callable[[str, BoardFactory], None]) -> None:
    register("file", FileBoard)
