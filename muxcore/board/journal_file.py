"""The journals in the state file, and the counts since they began. Bounded by age and size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from attrs import evolve, frozen

from muxcore.board.database import Database
from muxcore.core.outcomes import Failed, RateLimited, Succeeded
from muxcore.core.status import Totals
from muxcore.journal.codec import encode, encode_checkpoint
from muxcore.journal.recent import Checkpoint, JournalLine
from muxcore.journal.redaction import redacted, redacted_state

LONGEST_AGE = timedelta(days=30)
LARGEST_BYTES = 64 * 1024 * 1024
BATCHES_BETWEEN_PRUNING = 200
AT_A_TIME = 5_000
"""How many lines are deleted at a time, so that no other process waits long."""


@frozen
class JournalBounds:
    """How much is kept."""

    age: timedelta = LONGEST_AGE
    size: int = LARGEST_BYTES


BOUNDS = JournalBounds()


@frozen
class JournalPlace:
    """Which journal of which state file."""

    file: Path
    number: int


class JournalFile:
    """The journal of one process in the state file. One thread uses it."""

    def __init__(
        self, database: Database, writer: str, now: datetime, bounds: JournalBounds = BOUNDS
    ) -> None:
        self._database = database
        self._bounds = bounds
        self._batches = 0
        self._salt = database.salt
        self._last = -1
        at = now.timestamp()
        self.number = database.write(
            "INSERT INTO journals (writer, began, latest) VALUES (?, ?, ?)",
            (writer, at, at),
        )
        self.place = JournalPlace(database.path, self.number)

    def write(
        self,
        lines: Sequence[JournalLine],
        places: Mapping[str, str],
        checkpoints: Sequence[Checkpoint] = (),
    ) -> None:
        """Append the lines which are not there yet, in one transaction.

        The first of the `checkpoints` is the state before the lines. It is left out where the
        lines continue what was written.
        """
        fresh = [line for line in lines if line.number > self._last]
        if not fresh:
            return
        rows = []
        for line in fresh:
            kept = redacted(line.entry, self._salt)
            rows.append((self.number, line.number, encode(line._replace(entry=kept))))
        at = fresh[-1].now.timestamp()
        states = [
            (self.number, one.number, self._encoded(one))
            for one in checkpoints
            if one.number != self._last
        ]
        with self._database.transaction():
            self._database.write_many("INSERT OR IGNORE INTO lines VALUES (?, ?, ?)", rows)
            self._database.write_many(
                "INSERT OR IGNORE INTO checkpoints VALUES (?, ?, ?)", states
            )
            self._database.write(
                "UPDATE journals SET latest = ? WHERE journal = ?", (at, self.number)
            )
            self._database.write_many(
                "INSERT INTO totals VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " succeeded = succeeded + excluded.succeeded,"
                " limited = limited + excluded.limited, failed = failed + excluded.failed",
                _counted(fresh, places, at),
            )
        self._last = fresh[-1].number
        self._batches += 1
        if self._batches % BATCHES_BETWEEN_PRUNING == 1:
            self.prune(fresh[-1].now)

    def _encoded(self, checkpoint: Checkpoint) -> bytes:
        state = redacted_state(checkpoint.state, self._salt)
        return encode_checkpoint(evolve(checkpoint, state=state))

    def totals(self, places: Mapping[str, str]) -> dict[str, Totals]:
        """Return what all journals count for these endpoints."""
        found = {}
        for alias, place in places.items():
            sql = "SELECT since, succeeded, limited, failed FROM totals WHERE place = ? AND alias = ?"
            for since, succeeded, limited, failed in self._database.read(
                sql, (place, alias)
            ):
                began = datetime.fromtimestamp(since, tz=UTC)
                found[alias] = Totals(began, succeeded, limited, failed)
        return found

    def prune(self, now: datetime) -> None:
        """Delete what is too old, and the oldest of what is too much."""
        database, oldest = self._database, (now - self._bounds.age).timestamp()
        old = database.read("SELECT journal FROM journals WHERE latest < ?", (oldest,))
        for (journal,) in old:
            for table in ("lines", "checkpoints", "journals"):
                database.write(f"DELETE FROM {table} WHERE journal = ?", (journal,))  # noqa: S608 - of the line above
        database.write("DELETE FROM facts WHERE at < ?", (oldest,))
        while database.used_bytes() > self._bounds.size:
            if not database.read("SELECT 1 FROM lines LIMIT 1"):
                return
            database.write(
                "DELETE FROM lines WHERE (journal, number) IN"
                " (SELECT journal, number FROM lines ORDER BY journal, number LIMIT ?)",
                (AT_A_TIME,),
            )
            # Only the state right before a line, or after one, is of use.
            database.write(
                "DELETE FROM checkpoints WHERE number < (SELECT min(lines.number) FROM lines"
                " WHERE lines.journal = checkpoints.journal) - 1"
            )


def _counted(
    lines: Sequence[JournalLine], places: Mapping[str, str], at: float
) -> list[tuple[object, ...]]:
    counts: dict[str, Counter[type]] = {}
    for line in lines:
        if isinstance(line.entry, Succeeded | RateLimited | Failed):
            counts.setdefault(line.entry.alias, Counter())[type(line.entry)] += 1
    return [
        (places[alias], alias, at, c[Succeeded], c[RateLimited], c[Failed])
        for alias, c in counts.items()
        if alias in places
    ]
