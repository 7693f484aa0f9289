"""Text from outside, made safe to show: nothing in it steers a terminal or hides a word."""

import re

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours, cursor movement
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # titles, links
    r"|\x1b[@-_]?"
)


def printable(text: str, keep: str = "") -> str:
    """Strip escape sequences, and every character that cannot be seen unless it is in `keep`.

    Invisible, direction-changing and unpaired surrogate characters go as well.
    """
    # Nearly all texts are.
    if text.isprintable():
        return text
    return "".join(c for c in _ESCAPES.sub("", text) if c in keep or c.isprintable())


def printable_lines(text: str) -> str:
    """Strip the same, but keep line breaks and tabs."""
    return printable(text, keep="\n\t")


def one_line(text: str, longest: int) -> str:
    """Strip the same, join the lines, and cut the text to `longest` characters."""
    if not text.isprintable():
        # Each kind of white space becomes a space before the rest of it is stripped.
        text = printable(" ".join(_ESCAPES.sub("", text).split()))
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def short_count(tokens: int) -> str:
    """Shorten as people do: 950, 34k, 1.2M."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        # From 999,500 on, thousands would round to "1000k".
        if tokens >= size - size // 2_000:
            digits = 1 if tokens < 10 * size else 0
            return f"{tokens / size:.{digits}f}".removesuffix(".0") + letter
    return str(tokens)
