"""Takes secrets out of what servers send back, in whichever form they escape them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

SHORTEST_SECRET = 8
"""Shorter ones are placeholders such as "ollama" or "EMPTY", which are words of any message."""

MASK = "[the key]"
ELLIPSIS = "…."


def masked(text: str, secrets: Iterable[str]) -> str:
    """Mask each secret in a text, also one that is escaped, or that the text's end cuts."""
    for secret in secrets:
        if is_secret(secret):
            text = _without_cut(_pattern(secret).sub(MASK, text), secret)
    return text


def is_secret(text: str) -> bool:
    """Whether a key or a header's value is long enough to be a secret."""
    return len(text) >= SHORTEST_SECRET


def _without_cut(text: str, secret: str) -> str:
    """Mask the beginning of a secret at the end of a text: a long message is cut there."""
    shown = text.rstrip(ELLIPSIS)
    for length in range(len(secret) - 1, SHORTEST_SECRET - 1, -1):
        if shown.endswith(secret[:length]):
            return shown[:-length] + MASK + text[len(shown) :]
    return text


@lru_cache(maxsize=64)
def _pattern(secret: str) -> re.Pattern[str]:
    return re.compile("".join(map(_forms, secret)))


def _forms(letter: str) -> str:
    """Return a pattern for the forms of one character.

    As it is, escaped as in JSON (once or twice), in a URL, in HTML, or as the bytes of UTF-8.
    """
    code = ord(letter)
    as_bytes = letter.encode("utf-8")
    percent = "".join(f"%{byte:02x}" for byte in as_bytes)
    escaped = rf"\\+(?:{re.escape(letter)}|(?i:u{code:04x}))"
    others = rf"(?i:{percent}|&\#0*{code};|&\#x0*{code:x};)"
    raw = re.escape(as_bytes.decode("latin-1"))
    return f"(?:{re.escape(letter)}|{raw}|{escaped}|{others})"
