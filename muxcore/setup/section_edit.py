"""Changes of the `[multiplexer]` section in the text of a file; the rest stays as it is.

Texts in, texts out: nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tomli
from attrs import field, frozen

from muxcore.assembling import count_of
from muxcore.config.read import SECTION
from muxcore.config.toml.lines import blocks_of
from muxcore.errors import MultiplexerError


class EditError(MultiplexerError):
    """The text cannot be changed safely. Nothing is changed."""


@frozen
class ProposedEntry:
    """One model of a pool to write."""

    alias: str
    is_fallback: bool = False
    context_window: int | None = field(default=None, eq=False)
    """In tokens. A pool with and without it is the same pool."""


@frozen
class Wanted:
    """What to write into the section. Its other options stay as they are."""

    mode: str
    pool: tuple[ProposedEntry, ...]


def present(text: str) -> Wanted | None:
    """Return what a text has now; None when it names no pool."""
    section = tomli.loads(text).get(SECTION)
    if not isinstance(section, Mapping) or not isinstance(section.get("pool"), list):
        return None
    found = [raw for raw in section["pool"] if isinstance(raw, Mapping)]
    entries = tuple(
        ProposedEntry(
            str(raw.get("model", "")),
            raw.get("is_fallback") is True,
            count_of(raw.get("context_window")),
        )
        for raw in found
    )
    return Wanted(str(section.get("mode", "")), entries) if entries else None


def edited(text: str, wanted: Wanted) -> str:
    """Return the text with the section as it is wanted; the same text if it is so already."""
    before = _parsed(text)
    if SECTION not in before:
        changed = _extended(text, wanted)
    elif _is_as_written(before, text):
        changed = _with_newlines_of(text, section_text(wanted))
    else:
        changed = _changed(text, wanted)
    _expect_same_rest(before, changed)
    section = _parsed(changed)[SECTION]
    if not section.get("enabled") or present(changed) != wanted:
        raise EditError(_by_hand(wanted))
    return changed


def split(text: str) -> tuple[str, str]:
    """Return a text without its section, and the section's own text, as it is written."""
    before = _parsed(text)
    blocks = blocks_of(text)
    rest = "".join(part for key, part in blocks if key != SECTION)
    section = "".join(part for key, part in blocks if key == SECTION)
    if blocks and blocks[-1][0] == SECTION and rest.strip():
        # The empty line between the two.
        newline = "\r\n" if rest.endswith("\r\n") else "\n"
        rest = rest.rstrip("\r\n") + newline
    _expect_same_rest(before, rest)
    if _parsed(section).get(SECTION) != before.get(SECTION):
        raise EditError(f"the [{SECTION}] section cannot be cut out; move it by hand")
    return rest, section


def restored(text: str, original: str) -> str:
    """Return the text with the section of the original, or without any."""
    rest, _ = split(text)
    blocks = [part for key, part in blocks_of(original) if key == SECTION]
    # A pair such as `multiplexer.mode = "single"` is top-level only before any header.
    pairs = "".join(part for part in blocks if not _is_table(part))
    tables = "".join(part for part in blocks if _is_table(part))
    gap = "\n" if rest.strip() and tables else ""
    changed = pairs + rest + _with_newlines_of(text, gap) + tables
    _expect_same_rest(_parsed(text), changed)
    return changed


def _is_table(block: str) -> bool:
    lines = (line.lstrip() for line in block.splitlines())
    return next(line for line in lines if line and line[0] != "#").startswith("[")


def _is_as_written(data: Mapping[str, Any], text: str) -> bool:
    """Whether a text holds only what `section_text` writes, so that it can be written anew."""
    section = data[SECTION]
    if len(data) > 1 or "#" in text or not isinstance(section, Mapping):
        return False
    pool = section.get("pool", [])
    entries = pool if isinstance(pool, list) else [None]
    return section.keys() <= {"enabled", "mode", "pool"} and all(
        isinstance(entry, Mapping)
        and entry.keys() <= {"model", "is_fallback", "context_window"}
        for entry in entries
    )


def section_text(wanted: Wanted) -> str:
    """Write a whole section."""
    lines = [f"[{SECTION}]", "enabled = true", f"mode = {quoted(wanted.mode)}"]
    for entry in wanted.pool:
        lines += ["", f"[[{SECTION}.pool]]", f"model = {quoted(entry.alias)}"]
        if entry.is_fallback:
            lines.append("is_fallback = true")
        if entry.context_window is not None:
            lines.append(f"context_window = {entry.context_window}")
    return "\n".join(lines) + "\n"


def _extended(text: str, wanted: Wanted) -> str:
    """Add the section at the end, where a new table is always valid."""
    gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
    if text.endswith(("\n\n", "\r\n\r\n")):
        gap = ""
    return text + _with_newlines_of(text, gap + section_text(wanted))


def _changed(text: str, wanted: Wanted) -> str:
    tomlkit = _library()
    document = _document(text)
    section: Any = document[SECTION]
    if not hasattr(section, "items"):
        raise EditError(f"{SECTION} is not a table; {_by_hand(wanted)}")
    if section.get("enabled") is not True:
        section["enabled"] = True
    if section.get("mode") != wanted.mode:
        section["mode"] = wanted.mode
    now = present(text)
    if now is None or now.pool != wanted.pool:
        section["pool"] = _pool(tomlkit, section, wanted.pool)
    return _with_newlines_of(text, tomlkit.dumps(document))


def _pool(tomlkit: Any, section: Any, entries: Sequence[ProposedEntry]) -> Any:
    """Make the pool in the form of the file. Entries that stay keep their other options."""
    former = section.get("pool", ())
    stays = {raw.get("model"): raw for raw in former if isinstance(raw, Mapping)}
    inline = isinstance(section, tomlkit.items.InlineTable) or (
        isinstance(former, tomlkit.items.Array) and len(former) > 0
    )
    pool = tomlkit.array() if inline else tomlkit.aot()
    if inline:
        pool.multiline(
            len(entries) > 1 and not isinstance(section, tomlkit.items.InlineTable)
        )
    for entry in entries:
        table: Any = stays.get(entry.alias)
        if table is None:
            table = tomlkit.inline_table() if inline else tomlkit.table()
            table["model"] = entry.alias
        if entry.is_fallback:
            table["is_fallback"] = True
        else:
            table.pop("is_fallback", None)
        if entry.context_window is not None:
            table["context_window"] = entry.context_window
        pool.append(table)
    return pool


def _library() -> Any:
    try:
        import tomlkit  # noqa: PLC0415 - an extra
        import tomlkit.items  # noqa: PLC0415
    except ImportError:
        raise EditError(
            "changing a section that has more than a pool needs tomlkit, which keeps the rest:"
            " pip install 'vibe-mux[init]'"
        ) from None
    return tomlkit


def _document(text: str) -> Any:
    tomlkit = _library()
    document = tomlkit.parse(text)
    if tomlkit.dumps(document) != text:
        raise EditError("this file cannot be changed without changing the form of the rest")
    return document


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise EditError(f"not valid TOML: {error}") from None


def _expect_same_rest(before: Mapping[str, Any], changed: str) -> None:
    after = _parsed(changed)
    rest = [{k: v for k, v in data.items() if k != SECTION} for data in (before, after)]
    if rest[0] != rest[1]:
        raise EditError("this file cannot be changed without changing the rest of it")


def _with_newlines_of(text: str, changed: str) -> str:
    if "\r\n" in text and text.count("\r\n") == text.count("\n"):
        return changed.replace("\r\n", "\n").replace("\n", "\r\n")
    return changed


def _by_hand(wanted: Wanted) -> str:
    return f"write the section by hand:\n{section_text(wanted)}"


def quoted(text: str) -> str:
    """Write a text as TOML does."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    shown = "".join(
        escapes.get(c, c if c.isprintable() else f"\\U{ord(c):08x}") for c in text
    )
    return f'"{shown}"'
