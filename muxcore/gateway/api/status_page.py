"""The text and the JSON of `/mux` and `/status`. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from attrs import frozen

from muxcore.config.definitions import Definitions
from muxcore.core.status import Status
from muxcore.text import printable

SWITCH = "enabled = true\n"


@frozen
class SwitchOnHint:
    """How to switch the multiplexer on: the lines to write, and where.

    `has_section`: the file has a `[multiplexer]` section already. With a pool in it, only one
    line is missing.
    """

    active_model: str
    file: Path | None
    lines: str
    has_section: bool

    @classmethod
    def of(cls, active_model: str, file: Path | None, data: Mapping[str, Any]) -> Self:
        section = data.get("multiplexer")
        has_pool = isinstance(section, Mapping) and bool(section.get("pool"))
        others = [alias for alias in Definitions.of(data).models if alias != active_model]
        lines = SWITCH if has_pool else _pool(active_model, others)
        return cls(active_model, file, lines, isinstance(section, Mapping))

    @property
    def action(self) -> str:
        """What to do with the lines; the file's name follows."""
        if self.lines == SWITCH:
            return "set in [multiplexer] of"
        # TOML knows a section once.
        return "change [multiplexer] to these lines in" if self.has_section else "add to"

    def __str__(self) -> str:
        where = "your config" if self.file is None else f"`{printable(str(self.file))}`"
        how = f"{self.action.replace('[multiplexer]', '`[multiplexer]`')} {where}"
        return (
            f"**The multiplexer is off:** `{printable(self.active_model)}` alone is called, as"
            f" without it.\n\nTo switch it on, {how}\n\n```toml\n{self.lines}```\n"
        )


def status_text(status: Status, off: SwitchOnHint | None) -> str:
    """Write the status for people, as Markdown."""
    text = str(status)
    if off is None:
        return text
    title, _, rest = text.partition("\n\n")
    return f"{title}\n\n{off}\n{rest}"


def status_json(status: Status, off: SwitchOnHint | None) -> dict[str, Any]:
    """Write the status for programs."""
    written = status.to_json()
    return written if off is None else {**written, "to_switch_on": off.lines}


def _pool(active_model: str, others: list[str]) -> str:
    lines = [f'[multiplexer]\n{SWITCH}mode = "failover"\n', _entry(active_model)]
    # A comment where no other model is known, so that the lines are right as they stand.
    lines += [_entry(alias) + "is_fallback = true\n" for alias in others] or [
        "\n# and one more [[multiplexer.pool]] for each further model\n"
    ]
    return "".join(lines)


def _entry(alias: str) -> str:
    return f"\n[[multiplexer.pool]]\nmodel = {json.dumps(printable(alias), ensure_ascii=False)}\n"
