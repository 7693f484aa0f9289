"""The document of what was measured: `docs/benchmarks.md`."""
# ruff: noqa: RUF001 - as people write figures

from __future__ import annotations

import os
import platform
from collections.abc import Mapping

from rows import Results, Row
from running import Figure

INTRODUCTION = """\
# Benchmarks

How much a pool costs, measured on loopback against what else one could call a model with.
`python3 benchmarks/run.py` does all of it anew and writes this page; it takes a quarter of an
hour, and installs what it compares with into environments of its own (in the system's
temporary directory; `--cache` names another). `--quick` only shows that it works.

- Every contender has a process of its own and sees an empty environment. They take turns, in
  an order of chance in each round, so that the noise of the machine is in all of them. All
  processes are begun anew a few times.
- CPU is that of the contender's process alone, user and system. The model that all of them
  ask is a server in another process; it does next to nothing for an answer.
- A ratio is one within the same round. Figures are medians, with the quartiles after them.
  Only ratios inside one run mean anything: what is in microseconds depends on the machine.
- One call is a small chat completion over a connection that is kept. No test asserts a
  speed.
"""

NOTES = """\
## What makes the difference

- `requests.Session.post` reads the proxies, the certificates and `.netrc` of the environment
  at every call. vibe-mux reads the first two once for each endpoint, and never the third.
- A call over a connection that is kept goes past `requests` and `urllib3`
  (`muxcore/shell/http/fast_path.py`): the head of the request is the one that `http.client` wrote for
  the last call, and a plain head of an answer is read by one regular expression instead of
  a parser for e-mail. Everything out of the ordinary takes the ordinary way.
- All chunks of a stream that have come are taken out of their framing at once, and the
  events of one line by one regular expression.
- Choosing and learning are two functions over immutable records, with no lock held for
  longer than that.

## Where the rest of the time goes

- A call: half is the system's (sending, receiving) and `http.client`'s, a fifth encoding and
  rewriting the request, a tenth each the reply, the state of the pool, and the limits.
- A chunk: a third is `json` itself, a third bringing it into one shape, the rest taking the
  stream apart and collecting the reply.
- select and both updates: nearly all is making records: `attrs` stores each of their fields
  by a call, as they are frozen. Making them in another way would be a third faster, and
  less clear.
- A call that fails over: twice a call, and a twentieth of one for reading what the refusal
  says and disabling the model.
- `vibe-mux check`: importing `attrs`, `cattrs`, `pluggy`, `tomli` and `argparse`, with nothing
  else, takes six times a bare interpreter. A quarter of the whole is making some 60 record
  classes, a tenth importing the mode and the backends that the config names. With CPython
  3.11 it is 10.1 times a bare interpreter, which is quicker there.
- `vibe-mux run`: all of it is this program itself, which starts as `check` does. The server
  starts while vibe does.
"""


def document(
    results: Results, date: str, versions: Mapping[str, str], *, quick: bool
) -> str:
    parts = [INTRODUCTION]
    if quick:
        parts.append("**This is a quick run: its figures mean nothing.**\n")
    told = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    python = f"{platform.python_implementation()} {platform.python_version()}"
    machine = f"{platform.system()}, {platform.machine()}, {os.cpu_count()} cores"
    parts += [
        "## The run\n",
        f"- {date}, {machine}, {python}",
        f"- {told}\n",
        "## What must be reached\n",
        _rows(results.rows),
        "`yes` is reached, `more` what is to be reached after that as well.\n",
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
        "| measured, CPU unless said | reached | asked | then | |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        reached = "not measured yet"
        if row.figure is not None:
            reached = _told(row.figure, row.unit) + (f"; {row.note}" if row.note else "")
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
        cells = [_told(line[column], "") if column in line else "" for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _told(figure: Figure, unit: str) -> str:
    median, low, high = (_short(v) for v in (figure.median, figure.low, figure.high))
    after = "" if unit in {"", "×"} else f" {unit}"
    return f"**{median}**{after} ({low}–{high})"


def _short(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 10 else f"{value:.2f}"
