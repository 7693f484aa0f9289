"""JSON as strict servers and clients take it, and as careless servers send it. Pure.

Outbound text holds no half of a character and no NaN. Inbound text may hold raw control
characters in its strings, NaN, infinite numbers and a byte order mark.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

_HALF = re.compile(
    # One literal prefix for both halves keeps the search fast on long texts.
    r"\\ud(?:[89ab][0-9a-f]{2}(?!\\ud[c-f])|[c-f](?<!\\ud[89ab][0-9a-f]{2}\\ud[c-f]))"
)
"""A surrogate without its other half, as the encoder escapes it. It also matches text that
quotes such an escape: that only takes the slower way."""
_HALF_ANY_CASE = re.compile(_HALF.pattern, re.IGNORECASE)


def _plain(value: object) -> object:
    """Encode any mapping and sequence: callers may hand in frozen ones."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return list(value)
    raise TypeError(f"a {type(value).__name__} cannot be sent as JSON")


_OPTIONS: dict[str, Any] = {"allow_nan": False, "default": _plain}
_COMPACT: dict[str, Any] = {**_OPTIONS, "separators": (",", ":")}
_escaped = json.JSONEncoder(**_COMPACT).encode
_unescaped = json.JSONEncoder(ensure_ascii=False, **_COMPACT).encode
_spaced = json.JSONEncoder(**_OPTIONS).encode
_spaced_unescaped = json.JSONEncoder(ensure_ascii=False, **_OPTIONS).encode


def encode(value: object) -> str:
    """Write compact JSON. Raise TypeError or ValueError if no JSON can hold `value`.

    Each lone surrogate becomes U+FFFD, in this text only: strict servers refuse the whole
    request for one, and a history that holds it would be refused at every turn.
    """
    text = _escaped(value)
    if "\\ud" in text and _HALF.search(text):
        return whole_characters(_unescaped(value))
    return text


def encode_arguments(value: object) -> str:
    """Write a tool call's arguments with white space, as models do."""
    text = _spaced(value)
    return whole_characters(_spaced_unescaped(value)) if has_half_character(text) else text


def has_half_character(text: str) -> bool:
    """Whether JSON text escapes a surrogate without its other half, in either case."""
    return ("\\ud" in text or "\\uD" in text) and _HALF_ANY_CASE.search(text) is not None


def whole_characters(text: str) -> str:
    """Replace each lone surrogate with U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _no_number(_: str) -> None:
    """Read NaN and Infinity as null: no JSON could pass them on."""


_lenient = json.JSONDecoder(strict=False, parse_float=_finite, parse_constant=_no_number)

scan_once = _lenient.scan_once  # type: ignore[attr-defined]  # the stubs lack it
"""Read the value at an index; return it and where it ends. Raise ValueError, StopIteration,
RecursionError. `decode` looks for white space at both ends by regular expression: a third of
the cost of a small chunk."""


def decode(text: str | bytes) -> Any:
    """Read one JSON value. Raise ValueError or RecursionError if `text` is none."""
    if isinstance(text, bytes):
        # To detect the usual encoding takes longer than to decode a small answer.
        encoding = "utf-8" if text.startswith(b'{"') else json.detect_encoding(text)
        text = text.decode(encoding, "replace")
    return _lenient.decode(text.removeprefix("\ufeff"))
