"""Reads a request's body as JSON, and its members by their type. Pure.

Every function raises `RefusedError`, which names the member and what was expected.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from http import HTTPStatus
from typing import Any, NoReturn

from muxcore.chat import Json
from muxcore.gateway.access import POOL
from muxcore.gateway.http.wire import ErrorResponse, RefusedError

WORDS = {
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "an integer",
    list: "a list",
    str: "a text",
}
"""What an error calls each type of value."""


def parsed(body: bytes) -> Json:
    try:
        raw = json.loads(
            body.decode("utf-8"), parse_constant=_reject_constant, parse_float=_finite
        )
    except _NumberError as error:
        raise RefusedError(ErrorResponse(HTTPStatus.BAD_REQUEST, str(error))) from None
    except (ValueError, RecursionError):
        text = "The body is not valid JSON."
        raise RefusedError(ErrorResponse(HTTPStatus.BAD_REQUEST, text)) from None
    if not isinstance(raw, dict):
        text = "The body is no JSON object."
        raise RefusedError(ErrorResponse(HTTPStatus.BAD_REQUEST, text))
    return raw


class _NumberError(ValueError):
    """A number of the body is one that JSON does not have, or that no model could read."""


def _reject_constant(text: str) -> NoReturn:
    raise _NumberError(f"The body is not valid JSON: {text[:40]} is no number of JSON.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _NumberError(
            f"The body holds {text[:40]}, a number too large for a model to read."
        )
    return number


def model_in(members: Json) -> str:
    """Return the model that a request names: the pool where it names none."""
    name: str | None = optional(members, "model", str)
    return POOL if name is None else name


def count_in(members: Json, name: str) -> int | None:
    """Return a number of tokens, which some clients write as 100.0."""
    value = members.get(name)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    count: int | None = optional(members, name, int)
    return count


def optional(members: Json, name: str, *kinds: type) -> Any:
    """Return a member of one of these types, None if it is not there or null."""
    value = members.get(name)
    # To Python a bool is an int, to JSON it is not.
    right = isinstance(value, kinds) and (type(value) is not bool or bool in kinds)
    if not (value is None or right):
        refuse(name, WORDS[kinds[0]])
    return value


def optional_objects(members: Json, name: str) -> list[Json] | None:
    value = members.get(name)
    if not (value is None or is_objects(value)):
        refuse(name, "a list of objects")
    return value


def is_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def refuse_any(members: Json, names: Collection[str], reason: str) -> None:
    """Refuse a request that has one of these members."""
    for name in names:
        if members.get(name):
            text, code = f"{name} is not served: {reason}", "unsupported_parameter"
            raise RefusedError(
                ErrorResponse(HTTPStatus.BAD_REQUEST, text, code=code, param=name)
            )


def refuse(name: str, expected: str) -> NoReturn:
    text = f"{name} must be {expected}."
    raise RefusedError(ErrorResponse(HTTPStatus.BAD_REQUEST, text, param=name))
