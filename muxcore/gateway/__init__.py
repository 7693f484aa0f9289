"""The loopback server: the APIs of agents in front of a pool.

Public names are imported on first use: a command that only looks for a server needs few.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muxcore.gateway.api.receipts import Receipt as Receipt
    from muxcore.gateway.discovery import Server as Server
    from muxcore.gateway.discovery import find as find
    from muxcore.gateway.discovery import publishing as publishing
    from muxcore.gateway.faults.spec import Drill as Drill
    from muxcore.gateway.faults.spec import FaultSpec as FaultSpec
    from muxcore.gateway.faults.spec import parse_drill as parse_drill
    from muxcore.gateway.http.server import Gateway as Gateway
    from muxcore.gateway.reload import ReloadingPool as ReloadingPool

    ConfigFollower = ReloadingPool

_HOME_OF = {
    "ConfigFollower": ("reload", "ReloadingPool"),
    "Drill": ("faults.spec", "Drill"),
    "FaultSpec": ("faults.spec", "FaultSpec"),
    "Gateway": ("http.server", "Gateway"),
    "Receipt": ("api.receipts", "Receipt"),
    "ReloadingPool": ("reload", "ReloadingPool"),
    "Server": ("discovery", "Server"),
    "find": ("discovery", "find"),
    "parse_drill": ("faults.spec", "parse_drill"),
    "publishing": ("discovery", "publishing"),
}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605 - the table above is the list


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'muxcore.gateway' has no attribute {name!r}")
    module, own_name = _HOME_OF[name]
    value = getattr(import_module(f"{__name__}.{module}"), own_name)
    globals()[name] = value
    return value
