"""`vibe-mux replay`: every decision of the journals made again."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attrs import define

from muxcore.cli.journals.reading import all_journals, journal_file, with_progress
from muxcore.cli.main import FAILED, WELL
from muxcore.config.resolve import strategy_named
from muxcore.core.entries import RULES
from muxcore.explaining.replay import Difference, replay, sealed
from muxcore.journal.export import to_lines
from muxcore.journal.recent import Journal
from muxcore.text import printable


def run(options: argparse.Namespace) -> int:
    journals = all_journals(journal_file(options.journal, options.config))
    if options.export is not None:
        return _export(journals, Path(options.export).expanduser())
    sums = _Sums()
    for journal in with_progress(journals):
        sums.add(journal)
        if sums.difference is not None:
            break
    print(json.dumps(sums.to_json(), indent=2) if options.json else sums.text())
    return WELL if sums.difference is None or sums.rules != RULES else FAILED


def _export(journals: Iterable[Journal], path: Path) -> int:
    count = entries = 0
    # It is written only where there is no file, so that no journal is lost.
    with path.open("xb") as file:
        for journal in journals:
            count, entries = count + 1, entries + len(journal.lines)
            file.writelines(to_lines(sealed(journal)))
    print(f"{path}: {count} journals, {entries:,} entries")
    return WELL


@define
class _Sums:
    """What came of all journals, up to the first difference."""

    journals: int = 0
    entries: int = 0
    decisions: int = 0
    states: int = 0
    rules: int = RULES
    """Those of the last journal."""
    difference: Difference | None = None

    def add(self, journal: Journal) -> None:
        made = replay(journal, strategy_named)
        self.journals += 1
        self.entries += made.entries
        self.decisions += made.decisions
        self.states += made.states
        self.difference = made.difference
        self.rules = journal.base.rules

    def text(self) -> str:
        done = (
            f"{self.journals} journals, {self.entries:,} entries: {self.decisions:,} decisions"
            f" made again, {self.states:,} states compared"
        )
        lines = []
        found = self.difference
        if found is None:
            lines.append(f"{done}. All are as recorded.")
        else:
            call = f" of call {printable(found.call_id)}" if found.call_id else ""
            lines += [
                f"{done}. Then entry {found.number:,}{call} differs, at {found.at.isoformat()}:",
                f"  recorded: {printable(found.recorded)}",
                f"  today:    {printable(found.today)}",
            ]
        if found is not None and self.rules != RULES:
            lines.append(
                f"The rules were of version {self.rules}, and today's are of version {RULES}:"
                " a difference is no fault."
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        found = self.difference
        return {
            "journals": self.journals,
            "entries": self.entries,
            "decisions": self.decisions,
            "states": self.states,
            "rules": {"recorded": self.rules, "today": RULES},
            "difference": found
            and {
                "entry": found.number,
                "at": found.at.isoformat(),
                "call_id": found.call_id,
                "recorded": found.recorded,
                "today": found.today,
            },
        }
