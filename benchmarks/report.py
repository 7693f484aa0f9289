"""Write the results as a document: `docs/benchmarks.md`."""
# ruff: noqa: RUF001 - figures have multiplication signs and dashes

from __future__ import annotations

import os
import platform
from collections.abc import Mapping

from rows import Results, Row
from workers import Figure

INTRODUCTION = """\
# Benchmarks

The cost of a pool, measured on loopback and compared with other clients.
`python3 benchmarks/run.py` repeats all measurements and writes this page. It takes a quarter
of an hour, and installs the other clients into separate environments (in the system's
temporary directory; `--cache` names another). `--quick` only checks that it works.

- Each contender runs in its own process with an empty environment. The contenders take turns,
  in a random order in each round, so that the noise of the machine affects all of them. All
  processes are restarted a few times.
- CPU is the user and system time of the contender's process alone. The model is a server in
  another process, which does almost no work for an answer.
- Ratios compare values of the same round. Figures are medians, followed by the quartiles.
  Only ratios within one run are meaningful: microseconds depend on the machine.
- A call is a small chat completion over a persistent connection. No test asserts a speed.
"""

NOTES = """\
## What makes the difference

- `requests.Session.post` reads the proxies, the certificates and `.netrc` of the environment
  at every call. vibe-mux reads the first two once per endpoint, and never the third.
- A call over a persistent connection bypasses `requests` and `urllib3`
  (`muxcore/shell/http/fast_path.py`): it reuses the request head that `http.client` wrote for
  the last call, and splits a simple response head into its lines instead of calling the e-mail
  parser. Everything else takes the normal path.
- All chunks of a stream that have arrived are unframed at once, and events of one line are
  split at once.
- `select` and `update` are functions over immutable records, and the lock is held only for
  them.

## Where the rest of the time goes

- A call: half is spent in the system (sending, receiving) and `http.client`, a fifth in
  encoding and rewriting the request, a tenth each in the reply, the pool's state, and the
  deadlines.
- A chunk: a third is `json` itself, a third is the conversion to one shape, the rest is
  parsing the stream and assembling the reply.
- select and both updates: nearly all is the creation of records: `attrs` sets each field of a
  frozen class by a function call. Another way would be a third faster, and less clear.
- A call that fails over: two calls, and a twentieth of one for classifying the refusal and
  disabling the model.
- `vibe-mux check`: importing `attrs`, `cattrs`, `pluggy`, `tomli` and `argparse` alone takes
  six times as long as a bare interpreter. A quarter of the total is the creation of some 60
  record classes; backends are imported only where the config sets capabilities.
- `vibe-mux run`: all of it is the start of this program, as for `check`. The server starts
  in parallel with vibe.
"""


def document(
    results: Results, date: str, versions: Mapping[str, str], *, quick: bool
) -> str:
    parts = [INTRODUCTION]
    if quick:
        parts.append("**This is a quick run: its figures are meaningless.**\n")
    packages = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    python = f"{platform.python_implementation()} {platform.python_version()}"
    machine = f"{platform.system()}, {platform.machine()}, {os.cpu_count()} cores"
    parts += [
        "## The run\n",
        f"- {date}, {machine}, {python}",
        f"- {packages}\n",
        "## Targets\n",
        _rows(results.rows),
        "`yes`: the target is reached; `more`: the next target, too.\n",
    ]
    if results.contenders:
        parts += ["## One small call, side by side\n", _side_by_side(results.contenders)]
    if results.servers:
        parts += [
            "## A server between, side by side, wall\n",
            _side_by_side(results.servers),
        ]
    parts.append(NOTES)
    return "\n".join(parts)


def _rows(rows: list[Row]) -> str:
    lines = [
        "| measured (CPU unless stated) | result | target | next target | |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        reached = "not measured"
        if row.figure is not None:
            reached = _format(row.figure, row.unit) + (f"; {row.note}" if row.note else "")
        sign = "≤" if row.most is not None else "≥"
        limit = row.most if row.most is not None else row.least
        unit = "" if row.unit == "×" else f" {row.unit}"
        asked = "" if limit is None else f"{sign} {limit:g}{unit}"
        then = "" if row.then is None else f"{sign} {row.then:g}{unit}"
        lines.append(f"| {row.what} | {reached} | {asked} | {then} | {_verdict(row)} |")
    return "\n".join(lines) + "\n"


def _verdict(row: Row) -> str:
    if row.reached is None or row.figure is None:
        return ""
    if not row.reached:
        return "no"
    if row.then is None:
        return "yes"
    median = row.figure.median
    more = median <= row.then if row.most is not None else median >= row.then
    return "more" if more else "yes"


def _side_by_side(table: dict[str, dict[str, Figure]]) -> str:
    columns = list(dict.fromkeys(name for line in table.values() for name in line))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, line in table.items():
        cells = [_format(line[column], "") if column in line else "" for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _format(figure: Figure, unit: str) -> str:
    median, low, high = (_short(v) for v in (figure.median, figure.low, figure.high))
    after = "" if unit in {"", "×"} else f" {unit}"
    return f"**{median}**{after} ({low}–{high})"


def _short(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 10 else f"{value:.2f}"
