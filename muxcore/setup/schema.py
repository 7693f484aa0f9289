"""The JSON schema of `[multiplexer]`, for editors, made from the records that `check` uses.

It knows the form of the section only: whether an alias exists, `check` finds out.
"""

from __future__ import annotations

from enum import Enum
from types import NoneType
from typing import Any, get_args, get_origin

import attrs

from muxcore.config.records import (
    Bounds,
    MultiplexerConfig,
    PoolEntry,
    RedisOptions,
    StateOptions,
)

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_PLAIN = {bool: "boolean", int: "integer", float: "number", str: "string"}


def section_schema() -> dict[str, Any]:
    """Return the schema of a file with the section; other tables are allowed."""
    section = _record(MultiplexerConfig)
    section["properties"]["pool"]["items"] = _record(PoolEntry)
    # Others are those of a board that is a plugin.
    known = [_record(kind)["properties"] for kind in (StateOptions, RedisOptions)]
    section["properties"]["state_options"]["properties"] = known[0] | known[1]
    return {
        "$schema": DIALECT,
        "title": "vibe-mux",
        "type": "object",
        "properties": {"multiplexer": section},
    }


def _record(kind: type[attrs.AttrsInstance]) -> dict[str, Any]:
    fields = attrs.fields(attrs.resolve_types(kind))
    return {
        "type": "object",
        "properties": {field.name: _option(field) for field in fields},
        "required": [field.name for field in fields if field.default is attrs.NOTHING],
        "additionalProperties": False,
    }


def _option(field: attrs.Attribute[Any]) -> dict[str, Any]:
    schema = _type(field.type)
    bounds = field.metadata.get("bounds", Bounds())
    limits = {"minimum": bounds.minimum, "maximum": bounds.maximum}
    schema |= {name: value for name, value in limits.items() if value is not None}
    if field.metadata.get("not_empty"):
        schema["minLength"] = 1
    if isinstance(field.default, bool | int | str):
        schema["default"] = field.default
    return schema


def _type(kind: Any) -> dict[str, Any]:
    arguments = get_args(kind)
    if NoneType in arguments:
        # None is the value of an option that is left out; TOML has no word for it.
        (kind,) = (argument for argument in arguments if argument is not NoneType)
    origin = get_origin(kind) or kind
    if origin is dict:
        return {"type": "object"}
    if origin is tuple:
        return {"type": "array", "items": {} if Any in arguments else _type(arguments[0])}
    if issubclass(origin, Enum):
        return {"enum": [member.value for member in origin]}
    return {"type": _PLAIN[origin]}
