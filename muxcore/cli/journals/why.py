"""`vibe-mux why`: the stories of calls."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime

from muxcore.cli.journals.reading import (
    journal_file,
    last_stories,
    stories_at,
    story_of,
)
from muxcore.cli.main import WELL, UsageError
from muxcore.errors import MultiplexerError
from muxcore.explaining.story import Story, story_json, story_text
from muxcore.shell import clock


def run(options: argparse.Namespace) -> int:
    moment = None if options.at is None else _moment(options.at, clock.now())
    path = journal_file(options.journal, options.config)

    def wanted(story: Story) -> bool:
        return options.model is None or story.concerns(options.model)

    if options.call is not None:
        found = [story_of(path, options.call)]
    elif moment is not None:
        found = [story for story in stories_at(path, moment) if wanted(story)]
    else:
        found = last_stories(path, options.last, wanted)
    if options.json:
        print(json.dumps([story_json(story) for story in found], indent=2))
    elif not found:
        raise MultiplexerError(f"{path} has no such call")
    else:
        print("\n\n".join(map(story_text, found)))
    return WELL


def _moment(text: str, now: datetime) -> datetime:
    """Return the moment of a text: a local one, of today if it has no date."""
    whole = text if "-" in text else f"{now.astimezone():%Y-%m-%d}T{text}"
    try:
        return datetime.fromisoformat(whole).astimezone(UTC)
    except ValueError:
        wanted = "such as 14:03, 14:03:20 or 2026-03-01T14:03:20"
        raise UsageError(f"--at {text!r} is no time, {wanted}") from None
