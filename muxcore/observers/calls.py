"""An observer that reports each call when it has ended, and the lines of a log."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime

from muxcore.core.entries import Entry
from muxcore.core.records import PoolState
from muxcore.explaining.stories import StoryReader
from muxcore.explaining.story import Story, story_json, story_line


class CallObserver:
    """Calls `report` with the story of each call that has ended, and the state after it."""

    def __init__(self, report: Callable[[Story, PoolState], object]) -> None:
        self._report = report
        self._reader = StoryReader()

    def observe(
        self, now: datetime, entry: Entry, before: PoolState, after: PoolState
    ) -> None:
        story = self._reader.read(now, entry, before, after)
        if story is not None:
            self._report(story, after)

    def close(self) -> None:
        """Nothing is held back: a call is reported as soon as it ends."""


def as_json(story: Story) -> str:
    return json.dumps(story_json(story))


def call_log(
    write: Callable[[str], object], form: Callable[[Story], str] = story_line
) -> CallObserver:
    """Return an observer that writes a line for each call."""
    return CallObserver(lambda story, _: write(form(story)))
