"""The config: TOML to records, with every fault at once, its line and a suggestion."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeAlias

from muxcore.config.keys import Key
from muxcore.config.reading import read
from muxcore.config.records import Config, Timeouts
from muxcore.config.resolving import resolve

__all__ = ["Config", "Key", "Source", "Timeouts", "load"]

Source: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | Config | None
"""A path, a mapping of the file's shape, a `Config`, or None for vibe's own file."""


def load(source: Source = None, *, env: Mapping[str, str] | None = None) -> Config:
    """Load a config, or raise a `ConfigError` with all of its faults.

    `env` defaults to the environment of the process.
    """
    if isinstance(source, Config):
        return source
    environment = os.environ if env is None else env
    return resolve(read(source, environment), environment)
