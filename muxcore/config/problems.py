"""What is wrong with a config, and the words for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from attrs import field, frozen

from muxcore.config.lines import KeyPath, lines_of

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_VALUE = 60
_WORD = re.compile(r"[A-Za-z_-]{1,24}(?![^\s,\]}#])")
_QUOTED = re.compile(r"""\"[^"]*"?|'[^']*'?""")

TYPOGRAPHIC_QUOTES = "“”„‟‘’‚‛«»‹›"  # noqa: RUF001 - ambiguity is the point
"""Quotes that a word processor makes; neither TOML nor a key has one."""


@frozen
class Problem:
    """One mistake. `path` finds its line; `where`, if given, is shown instead of the path."""

    path: KeyPath
    text: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.where or spelled(self.path)}: {self.text}"


@frozen
class Findings:
    """What has been found so far. The lists grow while a config is resolved."""

    problems: list[Problem] = field(factory=list)
    warnings: list[Problem] = field(factory=list)

    def add(self, found: Findings, *, strict: bool = True) -> None:
        """Take over what has been found elsewhere; unless strict, problems become warnings."""
        (self.problems if strict else self.warnings).extend(found.problems)
        self.warnings.extend(found.warnings)


def spelled(path: KeyPath) -> str:
    """Write a path in its usual form: `multiplexer.pool[1].weight`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            name = step if _BARE_KEY.fullmatch(step) else json.dumps(step)
            text += f".{name}" if text else name
    return text


def shown(value: object) -> str:
    """Write a value as TOML does. A table, a list or a type is only named."""
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + '…"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, type):
        return f"a {value.__name__}"
    return "nothing" if value is None else str(value)


def listed(names: Iterable[str], last: str = "or") -> str:
    """Join names as in a sentence: `a, b or c`."""
    *others, final = names
    return f"{', '.join(others)} {last} {final}" if others else final


def nearest(name: object, known: Iterable[str]) -> str:
    """Return `; did you mean "…"?` for the most similar known name, "" if there is none."""
    import difflib  # noqa: PLC0415 - most configs have no such mistake

    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def explain_syntax(text: str, line: int, column: int, reason: str) -> str:
    """Say in plain words what is wrong at a place where TOML cannot be parsed.

    Only single words of the file are repeated: a config may hold secrets.
    """
    rest = text.split("\n")[line - 1][column - 1 :]
    if rest and rest[0] in TYPOGRAPHIC_QUOTES:
        return f'{rest[0]} is a typographic quote; write " instead'
    if reason == "Invalid value":
        return _explain_value(rest) or reason
    if reason.startswith("Expected '=' after a key"):
        return "expected key = value; a key with spaces needs quotes"
    if reason.startswith(("Cannot declare", "Cannot overwrite")):
        first = _first_line(text, line)
        return "defined twice" + (f", first in line {first}" if first else "")
    if reason.startswith(("Illegal character '\\n'", "Illegal character '\\r'")):
        return "a text is not closed; add the quote at its end"
    return reason


def _explain_value(rest: str) -> str:
    word = _WORD.match(rest)
    if word is None:
        return "" if rest.strip() else "a value is missing after ="
    plain = word[0].lower()
    if plain in {"true", "false"}:
        return f"{word[0]} is not a value of TOML; write {plain}"
    return f'text needs quotes; write "{word[0]}"'


def excerpt(text: str, line: int, column: int) -> str:
    """Show a line up to a place, with a caret below. Texts in quotes are left out."""
    written = text.split("\n")[line - 1]
    before = _QUOTED.sub('"…"', written[: column - 1])
    word = _WORD.match(written[column - 1 :])
    return f"    {before}{word[0] if word else '…'}\n    {' ' * len(before)}^"


def _first_line(text: str, line: int) -> int | None:
    """Return the line that first defines what the given line defines again."""
    rows = text.split("\n")
    again, before = rows[line - 1], rows[: line - 1]
    headers = [row for row in before if row.lstrip().startswith("[")]
    is_pair = not again.lstrip().startswith("[")
    table = headers[-1] if headers and is_pair else ""
    try:
        path = max(lines_of(f"{table}\n{again}\n"), key=len, default=())
        return lines_of("\n".join(before) + "\n").get(path)
    except (ValueError, IndexError):
        # One of them is a part of something longer.
        return None
