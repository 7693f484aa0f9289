"""Writes a long journal into a state file, as a process of the last days would have."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from muxcore.board.database import Database
from muxcore.board.journal_file import JournalFile
from muxcore.journal.recent import JournalLine
from tests.explaining.recording import NOON, live, recording_of

CALLS_AT_A_TIME = 250
SECONDS_OF_AN_ENTRY = 2.7


def write_journal(file: Path, entries: int, now: datetime) -> None:
    """Write so many entries or a few more, of the days or hours before `now`."""
    recording = recording_of("failover")
    length = timedelta(seconds=SECONDS_OF_AN_ENTRY * entries) + timedelta(hours=1)
    recording.seconds = (now - length - NOON).total_seconds()
    lines: list[JournalLine] = []
    recording.pool.journal.follow(lines.extend)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = Database(file, b"salt" * 8)
    journal = JournalFile(database, "earlier", recording.now())
    base, seed = recording.pool.checkpoint(), 0
    while base.number < entries:
        lines.clear()
        live(recording, seed, CALLS_AT_A_TIME)
        before, base, seed = base, recording.pool.checkpoint(), seed + 1
        journal.write(lines, {}, (before, base))
    database.close()
