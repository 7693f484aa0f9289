"""The hooks that register modes, backends, boards and observers, built-in ones too."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import pluggy

if TYPE_CHECKING:
    # Whoever registers one imports it anyway, and no more than it.
    from muxcore.core.strategy import Strategy
    from muxcore.plugins.backend import Backend
    from muxcore.plugins.board import Board
    from muxcore.plugins.observer import Observer

PROJECT = "vibe_mux"
"""The name of pluggy's project and of the entry-point group."""

StrategyFactory: TypeAlias = "Callable[..., Strategy]"
BackendFactory: TypeAlias = "Callable[..., Backend]"
BoardFactory: TypeAlias = "Callable[..., Board]"
ObserverFactory: TypeAlias = "Callable[..., Observer]"

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


@hookspec
def vibe_mux_register_boards(register: Callable[[str, BoardFactory], None]) -> None:
    """Call `register(name, factory)` for each board, the value of `state` in the config.

    The factory gets keyword arguments: `now`, which reads the wall clock, `environment`, and
    the options of `state_options`; `timeout_ms`, which is how long a call waits for the board,
    only if it names that. It may block and raise the errors of `muxcore.plugins.board`.
    """


@hookspec
def vibe_mux_register_observers(register: Callable[[str, ObserverFactory], None]) -> None:
    """Call `register(name, factory)` for each observer.

    The factory gets its own options, `[multiplexer.observers.NAME]`, as keyword arguments.
    """
