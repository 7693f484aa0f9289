"""Finding the keys of providers. Their bytes are never shown, logged or stored."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from attrs import frozen

from muxcore.config import keyring
from muxcore.config.keyring import Keyring

QUOTES = "“”„‟‘’‚‛«»‹›"  # noqa: RUF001 - ambiguity is the point
"""Quotes that a word processor makes; no key has one."""

_ASSIGNMENT = re.compile(
    r"""
    [ \t]* (?:export[ \t]+)? (?P<name>[^\s=\#'"]+) [ \t]* = [ \t]*
    (?: '(?P<single>(?:[^'\\]|\\.)*)' | "(?P<double>(?:[^"\\]|\\.)*)" | (?P<bare>.*) )
    """,
    re.VERBOSE,
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A long run of letters and digits without an underscore: a key, not a variable's name.
_LIKE_A_KEY = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9]{24,}")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


class Key:
    """A key, with the variable that named it and the place where it was.

    It shows nothing of itself and refuses to be copied out of the process; only `reveal`
    gives its text.
    """

    __slots__ = ("_text", "place", "variable")

    def __init__(self, text: str, variable: str = "", place: str = "") -> None:
        self._text = text
        self.variable = variable
        self.place = place

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Key(<hidden>, variable={self.variable!r}, place={self.place!r})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a key cannot be pickled or copied")


@frozen
class Place:
    """Somewhere keys may be: its name, as people are told it, and how to look there.

    `fault` says what keeps it from being looked into, if anything does; "" if not.
    """

    name: str
    find: Callable[[str], str | None]
    fault: Callable[[], str] = str

    def __str__(self) -> str:
        fault = self.fault()
        return f"{self.name} (which cannot be read: {fault})" if fault else self.name


def places(environment: Mapping[str, str], directory: Path | None) -> tuple[Place, ...]:
    """Give the places in the order of search. Only a file has those beside the environment."""
    found = [Place("the environment", environment.get)]
    if directory is not None:
        file = directory / ".env"
        values, reason = _read(file)
        found.append(Place(str(file), values.get, lambda: reason))
        if keyring.is_wanted() and keyring.is_installed():
            system = Keyring()
            found.append(Place(keyring.NAME, system.find, lambda: system.fault))
    return tuple(found)


def hint(among: tuple[Place, ...]) -> str:
    """Name a place that would be looked in if its extra were installed; "" for none."""
    from_file = len(among) > 1
    if from_file and keyring.is_wanted() and not keyring.is_installed():
        return keyring.HINT
    return ""


def find(variable: str, among: tuple[Place, ...]) -> Key | None:
    """Give the first key that is not empty."""
    for place in among:
        if text := place.find(variable):
            return Key(text, variable, place.name)
    return None


def fault_of(key: Key) -> str | None:
    """Say why no header can carry a key, without showing any of it. None: one can."""
    text = key.reveal()
    if any(quote in text for quote in QUOTES):
        return "holds a typographic quote"
    if text != text.strip():
        return "begins or ends with a space or a line break"
    if not text.isprintable():
        return "holds a character that cannot be printed"
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return "holds a character that is not of Latin-1"
    return None


def is_variable(name: str) -> bool:
    """Whether this can be a variable's name; if not, it may be a key in the wrong place."""
    return bool(_VARIABLE.fullmatch(name)) and not _LIKE_A_KEY.fullmatch(name)


def _read(file: Path) -> tuple[dict[str, str], str]:
    try:
        return parse_dotenv(file.read_text("utf-8-sig")), ""
    except FileNotFoundError:
        return {}, ""
    except OSError as error:
        return {}, error.strerror or type(error).__name__
    except UnicodeDecodeError:
        return {}, "it is not UTF-8"


def parse_dotenv(text: str) -> dict[str, str]:
    """Read `NAME=value` lines: quotes, `export` and comments as in a shell, nothing expanded."""
    values = {}
    for line in text.split("\n"):
        if match := _ASSIGNMENT.match(line):
            values[match["name"]] = _value(match)
    return values


def _value(match: re.Match[str]) -> str:
    if match["single"] is not None:
        return re.sub(r"\\([\\'])", r"\1", match["single"])
    if match["double"] is not None:
        return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), match["double"])
    return re.sub(r"(^|\s)#.*", "", match["bare"]).strip()
