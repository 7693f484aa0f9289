"""The two hooks that register modes and backends, built-in ones too."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pluggy

from muxcore.core.strategy import Strategy
from muxcore.plugins.backend import Backend

PROJECT = "vibe_mux"
"""The name of pluggy's project and of the entry-point group."""

StrategyFactory: TypeAlias = Callable[..., Strategy]
BackendFactory: TypeAlias = Callable[..., Backend]

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def vibe_mux_register_strategies(register: Callable[[str, StrategyFactory], None]) -> None:
    """Call `register(name, factory)` for each mode.

    The factory gets the mode's own options, `[multiplexer.options]`, as keyword arguments.
    """


@hookspec
def vibe_mux_register_backends(register: Callable[[str, BackendFactory], None]) -> None:
    """Call `register(name, factory)` for each wire dialect. The factory gets no arguments."""
