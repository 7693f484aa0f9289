"""Takes secrets out of what servers send back, in whichever form they escape them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

SHORTEST_SECRET = 8
"""Shorter ones are placeholders such as "ollama" or "EMPTY", which are words of any message."""

MASK = "[the key]"
CUT = r"(?=[….]*\Z)"
"""The end of a text: a long message is cut there."""


def masked(text: str, secrets: Iterable[str]) -> str:
    """Mask each secret in a text, also one that is escaped, or that the text's end cuts."""
    for secret in secrets:
        if is_secret(secret):
            text = _pattern(secret).sub(MASK, text)
    return text


def is_secret(text: str) -> bool:
    """Whether a key or a header's value is long enough to be a secret."""
    return len(text) >= SHORTEST_SECRET


@lru_cache(maxsize=64)
def _pattern(secret: str) -> re.Pattern[str]:
    beginning = map(_forms, secret[:SHORTEST_SECRET])
    rest = (f"(?:{_forms(letter)}|{CUT})" for letter in secret[SHORTEST_SECRET:])
    return re.compile("".join((*beginning, *rest)))


def _forms(letter: str) -> str:
    """Return a pattern for the forms of one character.

    As it is, escaped as in JSON (once or twice), in a URL, in HTML, or as the bytes of UTF-8.
    """
    code = ord(letter)
    as_bytes = letter.encode("utf-8")
    percent = "".join(f"%{byte:02x}" for byte in as_bytes)
    escaped = rf"\\+(?:{re.escape(letter)}|(?i:u{code:04x}))"
    others = rf"(?i:{percent}|&\#0*{code};|&\#x0*{code:x};)"
    # Each form once: a text that matches twice takes exponential time where it differs later.
    plain = "|".join(map(re.escape, {letter, as_bytes.decode("latin-1")}))
    return f"(?:{plain}|{escaped}|{others})"
