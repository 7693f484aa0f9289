"""`vibe-mux doctor`: tiny calls to every model of the pool, and what to do about each failure."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import threading
from collections.abc import Sequence
from typing import Any

from muxcore import config as configuration
from muxcore.cli.main import FAILED, WELL
from muxcore.config import Config, keys
from muxcore.errors import ConfigError
from muxcore.plugins.catalogue import REDIS
from muxcore.setup.probes import LONGEST, Check, Report, probe_all
from muxcore.shell import clock
from muxcore.text import printable


def run(options: argparse.Namespace) -> int:
    try:
        config = configuration.load(options.config)
    except ConfigError as error:
        if options.json:
            raise
        print(*error.problems, sep="\n", file=sys.stderr)
        return FAILED
    progress = _Progress(config)
    try:
        reports = probe_all(config, None, progress)
    finally:
        progress.clear()
    state = _state_faults(config)
    well = all(report.is_well for report in reports) and not state
    if options.json:
        print(json.dumps(_as_json(config, reports, state, well=well), indent=2))
    else:
        print(table(reports))
        if state:
            print("\nThe state is shared badly:", *state, sep="\n  ")
        if not config.enabled:
            print("\nThe multiplexer is off: the active model alone was probed.")
    return WELL if well else FAILED


def _state_faults(config: Config) -> tuple[str, ...]:
    """Return what is wrong with the Redis, if the config names one."""
    if config.state != REDIS or not config.catalogue.board(REDIS).is_built_in:
        return ()
    # Its library is an extra, which others do not have.
    from muxcore.board.engine.doctor import redis_faults  # noqa: PLC0415

    directory = None if config.source is None else config.source.parent
    variables = keys.variables(os.environ, directory)
    return tuple(
        map(printable, redis_faults(variables, config.state_options, clock.elapsed))
    )


class _Progress:
    """Shows on a terminal which models are being probed; shows nothing in a pipe."""

    def __init__(self, config: Config) -> None:
        self._running = [endpoint.alias for endpoint in config.endpoints]
        self._calls = 0
        self._lock = threading.Lock()
        self._shows = sys.stderr.isatty()
        self._show()

    def called(self) -> None:
        with self._lock:
            self._calls += 1
            self._show()

    def ended(self, alias: str) -> None:
        with self._lock:
            self._running.remove(alias)
            self._show()

    def clear(self) -> None:
        if self._shows:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _show(self) -> None:
        if not (self._shows and self._running):
            return
        names = printable(", ".join(self._running))
        text = f"probing {names}; calls made: {self._calls}, each may take {LONGEST:.0f} s"
        # One line, which the next one overwrites.
        text = text[: shutil.get_terminal_size().columns - 1]
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def table(reports: Sequence[Report]) -> str:
    """Draw a table of the results, and the advice below it."""
    head = ["model", *map(str, Check), "limits announced"]
    rows = [
        [
            printable(report.endpoint.alias),
            *(str(report.results[check]) for check in Check),
            ", ".join(f"{what}: {left}" for what, left in report.limits.items()) or "none",
        ]
        for report in reports
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in [head, *rows]
    ]
    faults = [
        f"  {printable(report.endpoint.alias)}: {fault}"
        for report in reports
        for fault in report.faults
    ]
    if not faults:
        return "\n".join([*lines, "", "All is well."])
    return "\n".join([*lines, "", "What to do:", *faults])


def _as_json(
    config: Config, reports: Sequence[Report], state: Sequence[str], *, well: bool
) -> dict[str, Any]:
    return {
        "state_faults": list(state),
        "ok": well,
        "enabled": config.enabled,
        "models": {
            report.endpoint.alias: {
                "ok": report.is_well,
                **{str(c): str(report.results[c]).lower() for c in Check},
                "limits": dict(report.limits),
                "faults": list(report.faults),
            }
            for report in reports
        },
    }
