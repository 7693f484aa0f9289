"""The loopback server that speaks OpenAI's chat completions, with a pool behind it.

What is named here is imported on first use: who only looks for a server needs none of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muxcore.gateway.drilling import Drill as Drill
    from muxcore.gateway.drilling import Fault as Fault
    from muxcore.gateway.drilling import parse_drill as parse_drill
    from muxcore.gateway.following import ConfigFollower as ConfigFollower
    from muxcore.gateway.joining import Server as Server
    from muxcore.gateway.joining import find as find
    from muxcore.gateway.joining import publishing as publishing
    from muxcore.gateway.receipts import Receipt as Receipt
    from muxcore.gateway.server import Gateway as Gateway

_HOME_OF = {
    "ConfigFollower": "following",
    "Drill": "drilling",
    "Fault": "drilling",
    "Gateway": "server",
    "Receipt": "receipts",
    "Server": "joining",
    "find": "joining",
    "parse_drill": "drilling",
    "publishing": "joining",
}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605 - the table above is the list


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'muxcore.gateway' has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
