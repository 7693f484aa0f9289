"""vibe-mux: a pool of models behind every call of a coding agent.

Public names are imported on first use, so that `import muxcore` costs next to nothing and
brings neither requests nor cattrs before they are needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muxcore.chat import Chunk as Chunk
    from muxcore.chat import Reply as Reply
    from muxcore.config import Config as Config
    from muxcore.config import load
    from muxcore.core.outcomes import Cancelled as Cancelled
    from muxcore.core.outcomes import Failed as Failed
    from muxcore.core.outcomes import RateLimited as RateLimited
    from muxcore.core.outcomes import Rejected as Rejected
    from muxcore.core.outcomes import Reset as Reset
    from muxcore.core.outcomes import Responding as Responding
    from muxcore.core.outcomes import Started as Started
    from muxcore.core.outcomes import Succeeded as Succeeded
    from muxcore.core.records import Call as Call
    from muxcore.core.records import Candidate as Candidate
    from muxcore.core.records import Endpoint as Endpoint
    from muxcore.core.records import PoolState as PoolState
    from muxcore.core.selection import explain as explain
    from muxcore.core.selection import select as select
    from muxcore.core.strategy import Strategy as Strategy
    from muxcore.core.updating import update as update
    from muxcore.errors import ConfigError as ConfigError
    from muxcore.errors import MultiplexerError as MultiplexerError
    from muxcore.errors import PoolExhaustedError as PoolExhaustedError
    from muxcore.errors import RequestRejectedError as RequestRejectedError
    from muxcore.errors import StrategyError as StrategyError
    from muxcore.errors import StreamInterruptedError as StreamInterruptedError
    from muxcore.plugins.backend import Backend as Backend
    from muxcore.plugins.hookspecs import hookimpl as hookimpl
    from muxcore.shell.call.multiplexer import Multiplexer as Multiplexer

    load_config = load

_HOMES = {
    "muxcore.chat": ("Chunk", "Reply"),
    "muxcore.config": ("Config",),
    "muxcore.core.outcomes": (
        "Cancelled",
        "Failed",
        "RateLimited",
        "Rejected",
        "Reset",
        "Responding",
        "Started",
        "Succeeded",
    ),
    "muxcore.core.records": ("Call", "Candidate", "Endpoint", "PoolState"),
    "muxcore.core.selection": ("explain", "select"),
    "muxcore.core.strategy": ("Strategy",),
    "muxcore.core.updating": ("update",),
    "muxcore.errors": (
        "ConfigError",
        "MultiplexerError",
        "PoolExhaustedError",
        "RequestRejectedError",
        "StrategyError",
        "StreamInterruptedError",
    ),
    "muxcore.plugins.backend": ("Backend",),
    "muxcore.plugins.hookspecs": ("hookimpl",),
    "muxcore.shell.call.multiplexer": ("Multiplexer",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME_OF, "load_config"])  # noqa: PLE0605 - the table above is the list


def __getattr__(name: str) -> object:
    if name == "load_config":
        value = import_module("muxcore.config").load
    elif name in _HOME_OF:
        value = getattr(import_module(_HOME_OF[name]), name)
    else:
        raise AttributeError(f"module 'muxcore' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
