"""What a later phase of the roll-out changes for a config that is valid today."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from muxcore.config import Config
from muxcore.core.phases import PRESENT, Phase, new_section
from muxcore.text import printable


def describe_changes(now: Config, then: Config, phase: Phase) -> str:
    """Describe the changes, for the lines above the picture of the pool."""
    lines = [f"In phase {phase} (this release is {PRESENT}):"]
    found = changes(now, then)
    lines += [f"  - {change}" for change in found or ["nothing changes for this config"]]
    if now.source is None and (section := new_section(phase)):
        lines += ["A new config of that phase contains:", ""]
        lines += [f"  {line}" for line in section.splitlines()]
    return "\n".join([*lines, "", "The config as it will be understood:"])


def changes_json(now: Config, then: Config, phase: Phase) -> dict[str, Any]:
    """Describe the same for programs."""
    return {
        "phase": str(phase),
        "present_phase": str(PRESENT),
        "changes": list(changes(now, then)),
        "new_config": new_section(phase),
    }


def changes(now: Config, then: Config) -> tuple[str, ...]:
    """Return the differences, the most important first."""
    return tuple(_changes(now, then))


def _changes(now: Config, then: Config) -> Iterator[str]:
    before, after = _aliases(now), _aliases(then)
    if then.enabled and not now.enabled:
        target = f"a pool of {after[0]} alone" if len(after) == 1 else "the pool"
        yield (
            f"the multiplexer is on: calls go through {target}; one that fails may be tried"
            " again, and a model that is limited or down is left alone for a while"
        )
    if before != after:
        yield f"the models are {', '.join(after)}, and not {', '.join(before)} alone"
    yield from (warning for warning in then.warnings if warning not in now.warnings)


def _aliases(config: Config) -> list[str]:
    return [printable(endpoint.alias) for endpoint in config.endpoints]
