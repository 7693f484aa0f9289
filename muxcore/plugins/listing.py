"""List every mode, backend and observer, in a child process, because that imports every plugin.

A plugin that hangs, exits or prints at import does not affect the caller.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from attrs import asdict

from muxcore.plugins.catalogue import Catalogue, Registration, built_in, everything, version

LIMIT_SECONDS = 20.0
MARK = "vibe-mux listing: "


def listing(limit: float = LIMIT_SECONDS) -> dict[str, Any]:
    """Return all modes, backends and observers as plain JSON values, and the problems.

    If a plugin ends or delays the child process, only the built-in ones are listed.
    """
    command = [sys.executable, "-m", "muxcore.plugins.listing"]
    try:
        done = subprocess.run(  # noqa: S603 - this Python and this module
            command,
            capture_output=True,
            text=True,
            encoding="utf-8",
            # A plugin may print any bytes at import.
            errors="replace",
            timeout=limit,
            check=False,
            # The child can import what this process can, also in a checkout.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUTF8": "1"},
        )
    except subprocess.TimeoutExpired:
        return _built_in(f"a plugin took longer than {limit:g} s to import")
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            found: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return found
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    return _built_in(f"a plugin ended the process that imported it: {last}")


def _built_in(problem: str) -> dict[str, Any]:
    catalogue = built_in()
    problems = [*catalogue.problems, f"{problem}; only built-in ones are listed"]
    return _listed(catalogue, problems)


def _listed(catalogue: Catalogue, problems: Sequence[str]) -> dict[str, Any]:
    single: Registration[Any] = Registration("single", _single, version=version())
    return {
        "modes": [_entry(entry) for entry in (single, *catalogue.strategies.values())],
        "backends": [_entry(entry) for entry in catalogue.backends.values()],
        "observers": [_entry(entry) for entry in catalogue.observers.values()],
        "problems": list(problems),
    }


def _entry(entry: Registration[Any]) -> dict[str, Any]:
    fields = asdict(entry, filter=lambda attribute, _: attribute.name != "factory")
    return {**fields, "summary": entry.summary}


def _single() -> None:
    """Call the active model alone: no pool (the default)."""


def _main() -> None:
    catalogue = everything()
    found = _listed(catalogue, catalogue.problems)
    sys.stdout.write(f"\n{MARK}{json.dumps(found)}\n")


if __name__ == "__main__":
    _main()
