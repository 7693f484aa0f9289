"""Finds the journals that a command is to read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from muxcore.board.journal_reader import (
    AT_THE_START,
    JournalReader,
    is_state_file,
    open_state_file,
    story_since,
)
from muxcore.board.state_dir import default_path
from muxcore.config import load
from muxcore.errors import MultiplexerError
from muxcore.explaining.stories import stories
from muxcore.explaining.story import Story
from muxcore.journal.codec import JournalFormatError
from muxcore.journal.export import JournalGapError, from_lines
from muxcore.journal.recent import Journal
from muxcore.plugins.catalogue import FILE


def journal_file(named: str | None, config: str | None) -> Path:
    """Return the file that was named, or the state file of the config."""
    if named is not None:
        path = Path(named).expanduser()
    else:
        found = load(config, env=os.environ)
        if found.state not in {None, FILE}:
            raise MultiplexerError(
                f'the config keeps state in "{found.state}", which has no journal: it needs'
                f' state = "{FILE}"'
            )
        own = found.state_options.get("path")
        path = default_path(os.environ) if own is None else Path(own).expanduser()
    if not path.exists():
        raise MultiplexerError(f"{path} does not exist: no call was recorded there yet")
    return path


def all_journals(path: Path) -> Iterator[Journal]:
    """Yield every journal of a file, oldest first. Raise `MultiplexerError`."""
    if not is_state_file(path):
        try:
            with path.open("rb") as file:
                yield from from_lines(file)
        except (JournalFormatError, JournalGapError) as error:
            raise MultiplexerError(f"{path}: {error}") from error
        return
    with open_state_file(path) as reader:
        for kept in reversed(reader.journals()):
            yield from reader.read(kept.number)


def with_progress(journals: Iterable[Journal]) -> Iterator[Journal]:
    """Yield the journals; on a terminal, show which one is at work."""
    shown = sys.stderr.isatty()
    for number, journal in enumerate(journals, 1):
        if shown:
            text = f"\rjournal {number}: {len(journal.lines):,} entries … "
            print(text, end="", file=sys.stderr, flush=True)
        yield journal
    if shown:
        print("\r" + " " * 60 + "\r", end="", file=sys.stderr, flush=True)


def story_of(path: Path, call_id: str) -> Story:
    """Return the story of one call. Raise `MultiplexerError` if it is not there."""
    found: Iterable[Story] = ()
    if not is_state_file(path):
        every = (story for journal in all_journals(path) for story in stories(journal))
        found = (story for story in every if story.call_id == call_id)
    else:
        with open_state_file(path) as reader:
            place = reader.place_of_call(call_id)
            if place is not None:
                journal, number = place
                starts = (AT_THE_START, *reader.checkpoints(journal))
                since = max(start for start in starts if start < number)
                found = story_since(reader, journal, since, call_id)
    for story in found:
        return story
    raise MultiplexerError(f"{path} has no call {call_id!r}: it may be older than 30 days")


def stories_at(path: Path, moment: datetime) -> list[Story]:
    """Return the calls that were under way at this moment, or the last before it."""
    latest: list[Story] = []
    under_way: list[Story] = []
    for journal in all_journals(path):
        for story in stories(journal):
            if story.began > moment:
                continue
            if story.ended is None or story.ended >= moment:
                under_way.append(story)
            elif not latest or story.ended >= (latest[0].ended or moment):
                latest = [story]
    return sorted(under_way or latest, key=_began)


def last_stories(path: Path, most: int, wanted: Callable[[Story], bool]) -> list[Story]:
    """Return the last calls that are wanted, at most so many, the oldest first."""
    if not is_state_file(path):
        every = (story for journal in all_journals(path) for story in stories(journal))
        return sorted(filter(wanted, every), key=_began)[-most:]
    found: list[Story] = []
    with open_state_file(path) as reader:
        for kept in reader.journals():
            if len(found) >= most and kept.latest < found[-most].began:
                break
            found += _last_of(reader, kept.number, most, wanted)
            found.sort(key=_began)
    return found[-most:]


def _last_of(
    reader: JournalReader, journal: int, most: int, wanted: Callable[[Story], bool]
) -> Sequence[Story]:
    """Return the last calls of one journal, reading no more of it than needed."""
    checkpoints = list(reader.checkpoints(journal))
    further = 1
    while True:
        since = checkpoints[-further] if further < len(checkpoints) else AT_THE_START
        found = [
            story
            for part in reader.read(journal, since)
            for story in stories(part)
            if wanted(story)
        ]
        if len(found) >= most or since == AT_THE_START:
            return found
        further *= 4


def _began(story: Story) -> datetime:
    return story.began
