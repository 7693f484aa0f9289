"""Reads the parts of another API's objects, and says where one is malformed. Pure."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from muxcore import jsontext
from muxcore.chat import Json

UNREADABLE = "unreadable_arguments"
"""Holds the arguments of a call that broke off in the middle of them."""

UNKNOWN_PART = "(A part of type {kind} that this model cannot read.)"
"""Stands for a sound or a file in front of a model that takes none."""


class MalformedItemError(ValueError):
    """An item is not as expected; `place` is where, after the name of the list."""

    def __init__(self, place: str, expected: str) -> None:
        self.place = place
        self.expected = expected
        super().__init__(f"{place} must be {expected}")


@contextmanager
def at(place: str) -> Generator[None]:
    """Put `place` in front of the place of a `MalformedItemError`."""
    try:
        yield
    except MalformedItemError as error:
        raise MalformedItemError(f"{place}{error.place}", error.expected) from None


def text_in(item: Json, name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise MalformedItemError(f".{name}", "a text")
    return value


def object_in(arguments: str) -> Json:
    """Read the arguments of a call, which must be an object for a client to take it."""
    try:
        read = jsontext.decode(arguments or "{}")
    except (ValueError, RecursionError):
        read = None
    return read if isinstance(read, dict) else {UNREADABLE: arguments}


def unknown_part(kind: object) -> Json:
    """Return words in place of a part: a session that holds one goes on, and the model is told."""
    return {"type": "text", "text": UNKNOWN_PART.format(kind=kind)}


def content_of(parts: list[Json]) -> Any:
    """Return parts as the content of a message: a text where all of it is one."""
    if not parts:
        return ""
    is_one_text = len(parts) == 1 and parts[0]["type"] == "text"
    return parts[0]["text"] if is_one_text else parts
