"""The loopback server that speaks OpenAI's chat completions, with a pool behind it."""

from muxcore.gateway.drilling import Drill, Fault, parse_drill
from muxcore.gateway.following import ConfigFollower
from muxcore.gateway.joining import Server, find, publishing
from muxcore.gateway.receipts import Receipt
from muxcore.gateway.server import Gateway

__all__ = [
    "ConfigFollower",
    "Drill",
    "Fault",
    "Gateway",
    "Receipt",
    "Server",
    "find",
    "parse_drill",
    "publishing",
]
