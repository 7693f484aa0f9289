"""Repair tool calls: a valid name, and arguments that are one JSON object.

A call that broke off lacks both, and some models invent names that their own servers refuse.
"""

from __future__ import annotations

import json
import math
import re

from muxcore import jsontext
from muxcore.dialects.reading import UNREADABLE
from muxcore_backends.history import phrases
from muxcore_backends.history.steps import Message, Rewrite, each

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What OpenAI, Mistral and Anthropic take as the name of a function."""
UNFIT = re.compile(r"[^A-Za-z0-9_-]")
LONGEST_NAME = 64


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        _refuse(text)
    return number


# Python's own reads NaN and takes 1e999 for infinite: no server does.
_decoder = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
_raw_decode = _decoder.raw_decode


def is_object(text: str) -> bool:
    """Whether a call's arguments are one JSON object that strict servers take."""
    if jsontext.has_half_character(text):
        return False
    try:
        if text.startswith("{"):
            # Almost always: nothing stands around it, and nothing need be looked for there.
            value, end = _raw_decode(text)
            if end == len(text):
                return True
        value = _decoder.decode(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)


def _readable(message: Message) -> Message:
    role = message.get("role")
    if role == "tool":
        name = message.get("name")
        if name is None or _is_name(name):
            return message
        return {**message, "name": _named_call(name)}
    calls = message.get("tool_calls")
    if role != "assistant" or not calls:
        return message
    if all(map(_is_readable, calls)):
        return message
    return {**message, "tool_calls": [_readable_call(call) for call in calls]}


def _is_readable(call: Message) -> bool:
    function = call.get("function") or {}
    name, arguments = function.get("name"), function.get("arguments")
    return (
        call.get("type") == "function"
        and _is_name(name)
        and isinstance(arguments, str)
        and is_object(arguments)
    )


def _readable_call(call: Message) -> Message:
    function = call.get("function") or {}
    name, arguments = function.get("name"), function.get("arguments")
    repaired = {
        **function,
        "name": _named_call(name),
        "arguments": _normalized_arguments(arguments),
    }
    return {**call, "type": "function", "function": repaired}


def _is_name(name: object) -> bool:
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def _named_call(name: object) -> str:
    """Turn a name that some server refuses into one that all accept."""
    fit = UNFIT.sub("_", name) if isinstance(name, str) else ""
    return fit[:LONGEST_NAME] or phrases.UNNAMED


def _normalized_arguments(arguments: object) -> str:
    if not isinstance(arguments, str):
        return jsontext.encode_arguments(arguments if isinstance(arguments, dict) else {})
    if not arguments.strip():
        return "{}"
    if is_object(arguments):
        return arguments
    try:
        # What a careless model wrote may need no more than to be written properly.
        read = jsontext.decode(arguments)
    except (ValueError, RecursionError):
        read = None
    return jsontext.encode_arguments(
        read if isinstance(read, dict) else {UNREADABLE: arguments}
    )


CALLS = Rewrite(
    "broken tool calls mended", each(_readable), frozenset({"tool_calls", "name"})
)
