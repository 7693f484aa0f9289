"""The line on which each value of a TOML text stands, and the text's blocks.

tomli gives positions of syntax errors only, so this scans the text once more. It expects valid
TOML: it finds places, and judges nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise

import tomli

from muxcore.config.toml import KeyPath

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*("(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)[ \t]*""")
_SCALAR = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'"
    r"|[^,\]}#\n]+",
    re.DOTALL,
)


def lines_of(text: str) -> Mapping[KeyPath, int]:
    """Return the line of each table, value and member of a list, counted from 1.

    A table or list that stands in several places has the line of the first.
    """
    scan = _Scan(text)
    # Deep nesting costs the lines of what follows it, not the report.
    with suppress(RecursionError):
        scan.document()
    lines, line, seen = {}, 1, 0
    for path, offset in sorted(scan.offsets.items(), key=lambda item: item[1]):
        line += text.count("\n", seen, offset)
        lines[path], seen = line, offset
    return lines


def blocks_of(text: str) -> Sequence[tuple[str, str]]:
    """Split a text into its top-level blocks: the first key of each, and its text.

    A block is a top-level pair, or a header with all that stands below it, each with the
    comment right above it. What comes before the first one has the key "".
    """
    scan = _Scan(text)
    scan.document()
    starts = [(_with_comment(text, start), key) for start, key in scan.blocks]
    bounds = [(0, ""), *starts, (len(text), "")]
    parts = [(key, text[start:end]) for (start, key), (end, _) in pairwise(bounds)]
    return [(key, part) for key, part in parts if part]


def _with_comment(text: str, start: int) -> int:
    """Return where the comment right above a line begins, else where the line itself does."""
    start = text.rfind("\n", 0, start) + 1
    while start:
        above = text.rfind("\n", 0, start - 1) + 1
        if not text[above:start].lstrip().startswith("#"):
            break
        start = above
    return start


def line_of(path: KeyPath, lines: Mapping[KeyPath, int]) -> int | None:
    """Return the line of the value at `path`, or else of the nearest table that holds it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path)


class _Scan:
    """A walk through a text: `at` is the next character, `offsets` is what was found."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.offsets: dict[KeyPath, int] = {}
        self.blocks: list[tuple[int, str]] = []
        # How many tables `[[path]]` has made so far, by the path without numbers.
        self._counts: dict[KeyPath, int] = {}

    def document(self) -> None:
        table: KeyPath = ()
        while self._skip_blank():
            if self.text.startswith("[", self.at):
                table = self._header()
            else:
                start = self.at
                keys = self._pair(table)
                if not table:
                    self.blocks.append((start, keys[0]))

    def _header(self) -> KeyPath:
        start = self.at
        brackets = 2 if self.text.startswith("[[", start) else 1
        self.at += brackets
        written = self._keys()
        self.at += brackets
        self.blocks.append((start, written[0]))
        path: KeyPath = ()
        for depth, key in enumerate(written, start=1):
            path = (*path, key)
            self.offsets.setdefault(path, start)
            is_new = brackets > 1 and depth == len(written)
            if is_new:
                self._counts[path] = self._counts.get(path, 0) + 1
            if count := self._counts.get(path):
                # A header inside a list of tables means its last one.
                path = (*path, count - 1)
                self.offsets.setdefault(path, start)
        return path

    def _keys(self) -> list[str]:
        keys = []
        while True:
            match = _KEY.match(self.text, self.at)
            if match is None:
                raise ValueError(f"no key at offset {self.at}")
            self.at = match.end()
            keys.append(_unquoted(match[1]))
            if not self.text.startswith(".", self.at):
                return keys
            self.at += 1

    def _pair(self, table: KeyPath) -> list[str]:
        start = self.at
        path = table
        keys = self._keys()
        for key in keys:
            path = (*path, key)
            self.offsets.setdefault(path, start)
        self.at += len("=")
        self._value(path)
        return keys

    def _value(self, path: KeyPath) -> None:
        self._skip_blank()
        match self.text[self.at]:
            case "[":
                self._members(path, "]")
            case "{":
                self._members(path, "}")
            case _:
                scalar = _SCALAR.match(self.text, self.at)
                self.at = scalar.end() if scalar else len(self.text)

    def _members(self, path: KeyPath, closing: str) -> None:
        """Walk through a list or an inline table."""
        self.at += 1
        index = 0
        while self._skip_blank() and self.text[self.at] != closing:
            if self.text[self.at] == ",":
                self.at += 1
            elif closing == "}":
                self._pair(path)
            else:
                self.offsets[*path, index] = self.at
                self._value((*path, index))
                index += 1
        self.at += 1

    def _skip_blank(self) -> bool:
        """Skip white space and comments; return whether anything is left."""
        if blank := _BLANK.match(self.text, self.at):
            self.at = blank.end()
        return self.at < len(self.text)


def _unquoted(key: str) -> str:
    return str(tomli.loads(f"key = {key}")["key"]) if key[0] in "\"'" else key
