"""The text of a TOML file: where its values stand, and why it cannot be read."""

from typing import TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]
"""Where a value is: `("multiplexer", "pool", 1, "weight")`."""

TYPOGRAPHIC_QUOTES = "“”„‟‘’‚‛«»‹›"  # noqa: RUF001 - ambiguity is the point
"""Quotes that a word processor makes; neither TOML nor a key has one."""
