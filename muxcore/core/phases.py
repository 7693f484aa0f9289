"""The four phases of the roll-out: what a config means in each, as pure functions.

This release is in the first phase. The later ones are here so that users can ask today
what they will change: `vibe-mux check --phase hard-default`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

from attrs import frozen

SINGLE = "single"
"""The mode that is the active model alone."""


class Phase(StrEnum):
    """A phase of the roll-out, in order."""

    OPT_IN = "opt-in"
    SOFT_DEFAULT = "soft-default"
    HARD_DEFAULT = "hard-default"
    LEGACY_REMOVAL = "legacy-removal"


PRESENT = Phase.OPT_IN


class Use(StrEnum):
    """How the calls of a config are made."""

    DIRECT = "the active model alone, called as without a multiplexer"
    ALONE = "a pool of the active model alone"
    POOL = "the pool, by its mode"


@frozen
class Section:
    """What a config says about the multiplexer; `enabled` is None where it says nothing."""

    has_section: bool = False
    enabled: bool | None = None
    mode: str = SINGLE


def is_on(enabled: bool | None, phase: Phase) -> bool:  # noqa: FBT001 - as it is written
    """Whether calls go through the multiplexer."""
    match phase:
        case Phase.OPT_IN | Phase.SOFT_DEFAULT:
            return enabled is True
        case Phase.HARD_DEFAULT:
            return enabled is not False
        case Phase.LEGACY_REMOVAL:
            return True
        case _ as never:
            assert_never(never)


def use(said: Section, phase: Phase) -> Use:
    """Decide how the calls are made."""
    if not is_on(said.enabled, phase):
        return Use.DIRECT
    # A user who opted out has chosen one model: no later release sends prompts to others.
    if said.enabled is False or said.mode == SINGLE:
        return Use.ALONE
    return Use.POOL


def advice(said: Section, phase: Phase) -> str:
    """Say what to change in the file because of the phase; "" for nothing."""
    if phase is Phase.HARD_DEFAULT and use(said, phase) is Use.ALONE:
        return (
            "one model alone without saying so is deprecated; to keep it,"
            f" {_opting_out(said)}; to use a pool, see `vibe-mux init`"
        )
    if phase is Phase.LEGACY_REMOVAL and said.enabled is False:
        how = (
            "remove this line"
            if said.mode == SINGLE
            else 'remove this line and write mode = "single"'
        )
        return (
            "false, which has no effect any more: the active model alone is a pool of one;"
            f" {how}"
        )
    return ""


def new_section(phase: Phase) -> str:
    """Return what a new config says of the multiplexer, as TOML; "" for nothing."""
    match phase:
        case Phase.OPT_IN:
            return ""
        case Phase.SOFT_DEFAULT | Phase.HARD_DEFAULT:
            # With a mode: the default one is a single model, which is not what is meant.
            return '[multiplexer]\nenabled = true\nmode = "failover"\n'
        case Phase.LEGACY_REMOVAL:
            return '[multiplexer]\nmode = "failover"\n'
        case _ as never:
            assert_never(never)


def _opting_out(said: Section) -> str:
    if said.enabled:
        return "write here: enabled = false"
    if said.has_section:
        return "add the line enabled = false to [multiplexer]"
    return "add the line [multiplexer] and below it the line enabled = false"
