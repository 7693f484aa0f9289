"""Finding the line of a key. tomli tells positions of syntax errors only.

A key is on the first line up to which the file, parsed alone, holds it. This is slow, so it
is done only when there is something to report.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomli

from muxcore.config.problems import KeyPath

# What may be open at the end of a line: an array, an inline table, both, a long text.
_CLOSINGS = ("", "\n]", "\n}", "\n}\n]", '"""', "'''")


def line_of(path: KeyPath, text: str) -> int | None:
    """Give the line of the value at `path`, or else of the nearest that holds it."""
    while path:
        if (line := _line_of(path, text)) is not None:
            return line
        path = path[:-1]
    return None


def _line_of(path: KeyPath, text: str) -> int | None:
    last = path[-1]
    signs = [last] if isinstance(last, str) else ["[", "{"]
    end = 0
    # Not splitlines, which also splits where neither TOML nor an editor does.
    for number, line in enumerate(text.split("\n"), start=1):
        end += len(line) + 1
        if any(sign in line for sign in signs) and _begins(path, text[:end]):
            return number
    return None


def _begins(path: KeyPath, prefix: str) -> bool:
    for closing in _CLOSINGS:
        try:
            return _holds(tomli.loads(prefix + closing), path)
        except tomli.TOMLDecodeError:
            continue
    return False


def _holds(data: Any, path: KeyPath) -> bool:
    for step in path:
        if isinstance(step, int):
            if not isinstance(data, list) or step >= len(data):
                return False
        elif not isinstance(data, Mapping) or step not in data:
            return False
        data = data[step]
    return True
