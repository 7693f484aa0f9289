"""`vibe-mux modes`: every mode, backend and observer at hand, and where each comes from."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from muxcore.cli.main import WELL
from muxcore.plugins.listing import listing
from muxcore.text import printable

KINDS = (("Modes", "modes"), ("Backends", "backends"), ("Observers", "observers"))


def run(options: argparse.Namespace) -> int:
    found = listing()
    if options.json:
        print(json.dumps(found, indent=2))
        return WELL
    for title, kind in KINDS:
        if not found[kind]:
            continue
        print(f"{title}:")
        print(*_lines(found[kind]), sep="\n")
    for problem in found["problems"]:
        print(f"warning: {printable(problem)}", file=sys.stderr)
    return WELL


def _lines(entries: list[dict[str, Any]]) -> list[str]:
    rows = [
        (
            printable(e["name"]),
            printable(f"{e['distribution']} {e['version']}".rstrip()),
            printable(e["summary"]),
        )
        for e in entries
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(2)]
    return [
        f"  {name:<{widths[0]}}  {origin:<{widths[1]}}  {summary}"
        for name, origin, summary in rows
    ]
