"""What is wrong with a config, and the words for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from attrs import field, frozen

from muxcore.config.toml import KeyPath

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_VALUE = 60


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


def other_brackets(path: KeyPath, value: object) -> str:
    """Return a hint where a table stands in a list's place, or tables in a table's; else ""."""
    if not all(isinstance(step, str) for step in path):
        return ""
    if isinstance(value, Mapping):
        return f"; its header is [[{spelled(path)}]], with two brackets"
    if isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
        return f"; its header is [{spelled(path)}], with one bracket"
    return ""
