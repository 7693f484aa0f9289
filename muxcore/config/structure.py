"""From plain tables to records, with exact types, and every mistake of a table at once.

cattrs by itself would take "no" for True and "3" for 3, so each plain type has its own hook.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, Generic, TypeVar, get_args, get_origin

import attrs
from attrs import frozen
from cattrs import (
    ClassValidationError,
    Converter,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, override

from muxcore.config.problems import Problem, listed, nearest, other_brackets, shown
from muxcore.config.records import Bounds
from muxcore.config.toml import KeyPath

T = TypeVar("T")
Hook = Callable[[Any, Any], Any]

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NAMED_FIRST = re.compile(r"'([^']+)' ")
_LISTS = (tuple, list, set, frozenset)


@frozen
class Structured(Generic[T]):
    """The record built from the valid fields (None if a required one is bad), and the problems."""

    record: T | None
    problems: tuple[Problem, ...] = ()


class UnfitError(ValueError):
    """A value that is not what is expected."""

    def __init__(self, value: object, expected: str, hint: str = "") -> None:
        self.value = value
        super().__init__(f"{shown(value)}, expected {expected}{hint}")

    def at(self, path: KeyPath) -> Problem:
        return Problem(path, str(self))


class UnfitShapeError(UnfitError):
    """A list where a table is expected, or the other way round, or neither."""

    def at(self, path: KeyPath) -> Problem:
        return Problem(path, f"{self}{other_brackets(path, self.value)}")


def structure(
    kind: type[T], raw: object, path: KeyPath, *, closed: bool = False
) -> Structured[T]:
    """Make a record of a table. With `closed`, an unknown key is a problem.

    A bad option does not hide those of others: the record is built without it.
    """
    converter = _CLOSED if closed else _OPEN
    problems: list[Problem] = []
    while True:
        try:
            return Structured(converter.structure(raw, kind), tuple(problems))
        except Exception as error:  # noqa: BLE001 - a plugin's validators may raise anything
            found = list(_problems(error, raw, path))
        problems += found
        faulty = {p.path[len(path)] for p in found if len(p.path) > len(path)}
        if not isinstance(raw, Mapping) or not faulty & raw.keys():
            return Structured(None, tuple(problems))
        raw = {name: value for name, value in raw.items() if name not in faulty}
        if _required(kind) & faulty:
            return Structured(None, tuple(problems))


def _required(kind: type) -> set[object]:
    return {f.alias for f in attrs.fields(kind) if f.default is attrs.NOTHING}


def _problems(error: Exception, raw: Any, path: KeyPath) -> Iterator[Problem]:
    """Walk a tree of exceptions down to the bad values."""
    if isinstance(error, ClassValidationError):
        fields = attrs.fields_dict(error.cl)
        annotated, others = error.group_exceptions()
        for inner, note in annotated:
            name = str(fields[note.name].alias)
            if name in raw:
                yield from _problems(inner, raw[name], (*path, name))
            else:
                yield Problem(path, f'no "{name}", expected one; add {name} = …')
        for other in others:
            yield from _problems(other, raw, path)
    elif isinstance(error, IterableValidationError):
        for inner, place in error.group_exceptions()[0]:
            yield from _problems(inner, raw[place.index], (*path, place.index))
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [str(f.alias) for f in attrs.fields(error.cl) if f.init]
        for name in sorted(error.extra_fields, key=str):
            yield Problem((*path, str(name)), _unknown(name, known))
    elif isinstance(error, UnfitError):
        yield error.at(path)
    else:
        yield _refused(error, raw, path)


def _refused(error: Exception, raw: Any, path: KeyPath) -> Problem:
    """Report the error of a record's own validator. Those of attrs begin with the field's name."""
    reason = str(error) or type(error).__name__
    named = _NAMED_FIRST.match(reason)
    if named and isinstance(raw, Mapping) and named[1] in raw:
        raw, path = raw[named[1]], (*path, named[1])
    return Problem(path, f"{shown(raw)}, which is refused: {reason}")


def _unknown(name: object, known: list[str]) -> str:
    if hint := nearest(name, known):
        return f"an unknown option{hint}"
    if not known:
        return "an unknown option; there are none here"
    return f"an unknown option; the known ones are {listed(known, 'and')}"


def _exact(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        names = {bool: "true or false", str: "text in quotes"}
        raise UnfitError(value, names[kind], _repair(value, kind))
    return value


def _repair(value: object, kind: type) -> str:
    if kind is bool and isinstance(value, str) and value.lower() in {"true", "false"}:
        return f"; write {value.lower()} without quotes"
    return ""


def _number(kind: type, bounds: Bounds) -> Hook:
    name = "a whole number" if kind is int else "a number"

    def hook(value: Any, _: Any) -> Any:
        if type(value) is not int and not (kind is float and type(value) is float):
            raise UnfitError(value, name + _limits(bounds), _unquoted(value, kind))
        if not math.isfinite(value):
            raise UnfitError(value, name + _limits(bounds))
        if not _within(value, bounds):
            raise UnfitError(value, name + _limits(bounds, value))
        return kind(value)

    return hook


def _unquoted(value: object, kind: type) -> str:
    try:
        number = kind(value) if isinstance(value, str) else None
    except ValueError:
        number = None
    return "" if number is None else f"; write {number} without quotes"


def _within(value: float, bounds: Bounds) -> bool:
    return (
        (bounds.minimum is None or value >= bounds.minimum)
        and (bounds.maximum is None or value <= bounds.maximum)
        and (bounds.above is None or value > bounds.above)
    )


def _limits(bounds: Bounds, value: float = 0) -> str:
    """Name the bounds; a maximum beside a minimum only if the value exceeds it."""
    limits = []
    if bounds.minimum is not None:
        limits.append(f"at least {bounds.minimum}")
    if bounds.above is not None:
        limits.append(f"more than {bounds.above}")
    if bounds.maximum is not None and (bounds.minimum is None or value > bounds.maximum):
        limits.append(f"at most {bounds.maximum}")
    return f" of {listed(limits, 'and')}" if limits else ""


def _enum(value: Any, kind: type[Enum]) -> Any:
    names = [member.value for member in kind]
    if value not in names:
        expected = listed([shown(name) for name in names])
        raise UnfitError(value, expected, nearest(value, map(str, names)))
    return kind(value)


def _not_empty(value: Any, _: Any) -> Any:
    if not _exact(value, str):
        raise UnfitError(value, "text that is not empty")
    return value


def _headers(value: Any, _: Any) -> Any:
    """Check a table of headers. Their values may be secrets, so no message shows one."""
    if not isinstance(value, Mapping):
        raise UnfitError(type(value), "a table of names and texts")
    for name, content in value.items():
        if not _HEADER_NAME.fullmatch(str(name)):
            raise UnfitError(value, f"names that a header can have, unlike {shown(name)}")
        if not isinstance(content, str):
            raise UnfitError(value, f"text in quotes for {shown(name)}")
        if not _carried(content):
            raise UnfitError(value, f"text that a header can carry for {shown(name)}")
    return dict(value)


def _carried(content: str) -> bool:
    latin = all(ord(character) < 256 for character in content)  # noqa: PLR2004 - Latin-1
    return latin and content.isprintable() and content == content.strip()


def _bounded(kind: Any, bounds: Bounds) -> Hook:
    """Return the hook of a number with bounds. Where the type allows None, None passes."""
    inner = _number(int if int in {kind, *get_args(kind)} else float, bounds)
    optional = type(None) in get_args(kind)
    return lambda value, kind: None if optional and value is None else inner(value, kind)


def _field_hook(field: attrs.Attribute[Any]) -> Hook | None:
    if field.metadata.get("secret"):
        return _headers
    if field.metadata.get("not_empty"):
        return _not_empty
    if bounds := field.metadata.get("bounds"):
        return _bounded(field.type, bounds)
    return None


def _table(value: Any, _: Any) -> Any:
    if not isinstance(value, Mapping):
        raise UnfitShapeError(value, "a table")
    return dict(value)


def _record_hooks(converter: Converter, *, closed: bool) -> Callable[[Any], Hook]:
    def make(kind: Any) -> Hook:
        overrides: dict[str, Any] = {
            field.name: override(struct_hook=hook)
            for field in attrs.fields(attrs.resolve_types(kind))
            if (hook := _field_hook(field))
        }
        overrides |= {"_cattrs_forbid_extra_keys": closed, "_cattrs_use_alias": True}
        structure_fields = make_dict_structure_fn(kind, converter, **overrides)
        return lambda value, kind: structure_fields(_table(value, kind), kind)

    return make


def _list_hook(converter: Converter) -> Hook:
    def hook(value: Any, kind: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise UnfitShapeError(value, "a list")
        of = (*get_args(kind), Any)[0]
        members, errors = [], []
        for index, member in enumerate(value):
            try:
                members.append(converter.structure(member, of))
            except Exception as error:  # noqa: BLE001 - all problems are gathered
                error.__notes__ = [IterableValidationNote(f"in {index}", index, of)]
                errors.append(error)
        if errors:
            raise IterableValidationError("a bad list", errors, kind)
        return _plain(kind)(members)

    return hook


def _plain(kind: Any) -> Any:
    """Return the type without its arguments: `tuple` for `tuple[str, ...]`."""
    return get_origin(kind) or kind


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _any_number(kind: type) -> Hook:
    return _number(kind, Bounds())


def _but_for_enums(hook: Hook) -> Hook:
    """Exclude enums from a plain type's hook, which cattrs would apply to them too."""
    return lambda value, kind: (_enum if _is_enum(kind) else hook)(value, kind)


def _converter(*, closed: bool) -> Converter:
    converter = Converter(use_alias=True, forbid_extra_keys=closed)
    converter.register_structure_hook_func(_is_enum, _enum)
    plain = {bool: _exact, str: _exact, int: _any_number(int), float: _any_number(float)}
    for kind, hook in plain.items():
        converter.register_structure_hook(kind, _but_for_enums(hook))
    converter.register_structure_hook_func(lambda kind: _plain(kind) is dict, _table)
    converter.register_structure_hook_func(
        lambda kind: _plain(kind) in _LISTS, _list_hook(converter)
    )
    records = _record_hooks(converter, closed=closed)
    converter.register_structure_hook_factory(attrs.has, records)
    return converter


_OPEN = _converter(closed=False)
_CLOSED = _converter(closed=True)
