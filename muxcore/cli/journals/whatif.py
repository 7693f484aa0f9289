"""`vibe-mux whatif`: the calls of the journals under another config, side by side."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from muxcore.cli.journals.reading import all_journals, journal_file, with_progress
from muxcore.cli.main import WELL
from muxcore.config import load
from muxcore.core.records import PoolState
from muxcore.text import printable, short_count
from muxcore.whatif.figures import COST, ConfigComparison, compare

TOKENS = "tokens"


def run(options: argparse.Namespace) -> int:
    other = load(options.other, env=os.environ)
    path = journal_file(options.journal, options.config)
    state = PoolState.of(*other.endpoints, policy=other.policy)
    comparison = compare(
        with_progress(all_journals(path)), state, other.strategy, other.strategy_name
    )
    if options.json:
        print(json.dumps(_to_json(comparison), indent=2))
    else:
        print(_text(comparison, options.other))
    return WELL


def _to_json(comparison: ConfigComparison) -> dict[str, Any]:
    return {
        "requests": comparison.recorded.requests,
        "estimated": comparison.estimated,
        "conclusive": comparison.is_conclusive,
        "recorded": comparison.recorded.named(),
        "rehearsed": dict(comparison.values()),
    }


def _text(comparison: ConfigComparison, other: str) -> str:
    requests, share = comparison.recorded.requests, comparison.estimated
    if not requests:
        return "The journal has no call: there is nothing to compare."
    estimated = f"{share:.0%} of the attempts under it are estimated"
    if not comparison.is_conclusive:
        return (
            f"It cannot tell what {printable(other)} would make of these {requests:,} requests:"
            f" {estimated}, as the journal does not say how their models fared then."
        )
    recorded, rehearsed = comparison.recorded.named(), comparison.values()
    names = list(dict.fromkeys([*recorded, *rehearsed]))
    rows = [("", "recorded", printable(other))]
    for name in names:
        was, would = recorded.get(name, 0.0), rehearsed.get(name, 0.0)
        rows.append((printable(name), _shown(name, was), _would(name, would)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows
    ]
    return "\n".join([f"{requests:,} requests; {estimated}.", "", *lines])


def _would(name: str, value: float | None) -> str:
    return "cannot tell" if value is None else _shown(name, value)


def _shown(name: str, value: float) -> str:
    if name == COST:
        return f"${value:.2f}"
    return short_count(round(value)) if name.startswith(TOKENS) else f"{value:,.0f}"
