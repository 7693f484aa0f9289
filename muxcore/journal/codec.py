"""Entries as canonical bytes and back: one line of JSON each, with a version.

The same entry always gives the same bytes. A line of an older version is always read, as new
fields have defaults; one of a newer version is refused with words.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import Enum
from functools import cache
from hashlib import blake2b
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from attrs import NOTHING, Factory, fields, has

from muxcore.core.entries import Entry
from muxcore.core.records import Exhausted, PoolState, Wait
from muxcore.core.sharing.facts import Fact, LeasesChanged
from muxcore.errors import MultiplexerError
from muxcore.journal.recent import Checkpoint, JournalLine

VERSION = 2
MICROSECOND = timedelta(microseconds=1)
KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in get_args(Entry | Fact | LeasesChanged | Wait | Exhausted)
}
"""Records that stand in a union, by the name which says which one it is."""
KIND = "type"


class JournalFormatError(MultiplexerError):
    """A line of a journal that this version cannot read."""


def encode(line: JournalLine) -> bytes:
    """Return one line of a journal, without a line break."""
    number, now, entry = line
    plain = {"v": VERSION, "n": number, "at": now.isoformat(), "entry": to_plain(entry)}
    return canonical(plain)


def decode(data: bytes) -> JournalLine:
    """Return what `encode` made. Raise `JournalFormatError`."""
    try:
        return line_of(json.loads(data))
    except JournalFormatError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        shown = data[:60].decode("utf-8", "replace")
        text = f"not a line of a journal ({type(error).__name__}: {error}): {shown!r}"
        raise JournalFormatError(text) from error


def line_of(plain: dict[str, Any]) -> JournalLine:
    """Return the line of these JSON values."""
    _expect_known(plain["v"])
    now = datetime.fromisoformat(plain["at"])
    return JournalLine(plain["n"], now, from_plain(plain["entry"]))


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Return the canonical bytes of a checkpoint."""
    return canonical({"v": VERSION, **to_plain(checkpoint)})


def decode_checkpoint(data: bytes) -> Checkpoint:
    """Return what `encode_checkpoint` made. Raise `JournalFormatError`."""
    try:
        return checkpoint_of(json.loads(data))
    except JournalFormatError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JournalFormatError(f"not a checkpoint: {error}") from error


def checkpoint_of(plain: dict[str, Any]) -> Checkpoint:
    """Return the checkpoint of these JSON values."""
    _expect_known(plain["v"])
    found: Checkpoint = _record(Checkpoint, plain)
    return found


def digest_of(state: PoolState) -> str:
    """Return a digest of the canonical bytes of a state."""
    return blake2b(canonical(to_plain(state)), digest_size=16).hexdigest()


def to_bytes(record: object) -> bytes:
    """Return the canonical bytes of one record of `KINDS`."""
    return canonical(to_plain(record))


def from_bytes(data: bytes) -> Any:
    """Return what `to_bytes` made. Raise `JournalFormatError`."""
    try:
        return from_plain(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JournalFormatError(f"not a record: {error}") from error


def _expect_known(version: int) -> None:
    if version > VERSION:
        raise JournalFormatError(
            f"the journal is of version {version}, and this vibe-mux reads versions up to"
            f" {VERSION}: read it with the vibe-mux that wrote it, or a newer one"
        )


def canonical(plain: object) -> bytes:
    """Encode JSON values; equal ones give the same bytes."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def to_plain(value: Any) -> Any:  # noqa: PLR0911 - one for each kind of value
    """Turn a record into JSON values. Fields that have their default are left out."""
    # The types that occur most often come first.
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, str):
        # A member of an enumeration is written as its value.
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value // MICROSECOND
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    kind: type[Any] = type(value)
    plain = {
        name: to_plain(found)
        for name, default in _defaults(kind)  # type: ignore[arg-type]
        if (found := getattr(value, name)) is not default and found != default
    }
    if kind.__name__ in KINDS:
        plain[KIND] = kind.__name__
    return plain


def from_plain(plain: Any) -> Any:
    """Turn what `to_plain` made of a record of `KINDS` back into it."""
    name = plain[KIND]
    if name not in KINDS:
        raise ValueError(f"there is no entry {name!r}")
    return _record(KINDS[name], plain)


@cache
def _defaults(kind: type[Any]) -> tuple[tuple[str, object], ...]:
    return tuple(
        (field.name, NOTHING if isinstance(field.default, Factory) else field.default)  # type: ignore[arg-type]
        for field in fields(kind)
    )


@cache
def _readers(kind: type) -> dict[str, Callable[[Any], Any]]:
    hints = get_type_hints(kind)
    return {field.name: _reader(hints[field.name]) for field in fields(kind)}


def _record(kind: type, plain: dict[str, Any]) -> Any:
    readers = _readers(kind)
    # A field that is unknown here comes from a newer version of the same format.
    return kind(**{n: readers[n](v) for n, v in plain.items() if n in readers})


def _reader(hint: Any) -> Callable[[Any], Any]:  # noqa: PLR0911 - the same
    """Return what reads a value of this type."""
    if get_origin(hint) in {Union, UnionType}:
        members = [member for member in get_args(hint) if member is not type(None)]
        read = _union_reader(members)
        return lambda value: None if value is None else read(value)
    if get_origin(hint) is tuple:
        item, *others = get_args(hint)
        if others == [Ellipsis]:
            read_item = _reader(item)
            return lambda value: tuple(read_item(one) for one in value)
        read_items = [_reader(one) for one in get_args(hint)]
        return lambda value: tuple(
            read(one) for read, one in zip(read_items, value, strict=True)
        )
    if hint is datetime:
        return datetime.fromisoformat
    if hint is timedelta:
        return lambda value: value * MICROSECOND
    if isinstance(hint, type) and has(hint):
        return lambda value: _record(hint, value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    return lambda value: value


def _union_reader(members: list[Any]) -> Callable[[Any], Any]:
    if len(members) == 1:
        return _reader(members[0])
    if all(has(member) for member in members):
        return from_plain
    by_value = {str(one): one for kind in members for one in kind}
    return lambda value: by_value[value]
