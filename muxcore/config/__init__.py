"""The config: TOML to records, with every mistake at once, its line and a suggestion."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeAlias

from muxcore.config.keys import Key
from muxcore.config.read import read
from muxcore.config.records import Config, Timeouts
from muxcore.config.resolve import resolve
from muxcore.core.phases import PRESENT, Phase

__all__ = ["Config", "Key", "Phase", "Source", "Timeouts", "load"]

Source: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | Config | None
"""A path, a mapping of the file's shape, a `Config`, or None for vibe's own file."""


def load(
    source: Source = None,
    *,
    env: Mapping[str, str] | None = None,
    phase: Phase | str = PRESENT,
) -> Config:
    """Load a config, or raise a `ConfigError` with all of its mistakes.

    `env` defaults to the environment of the process. With `phase`, such as "hard-default",
    the config means what it will mean in that phase of the roll-out. A `Config` is returned
    as it is.
    """
    if isinstance(source, Config):
        return source
    environment = os.environ if env is None else env
    return resolve(read(source, environment), environment, phase=Phase(phase))
