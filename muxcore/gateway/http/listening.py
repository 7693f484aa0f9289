"""Opens the listening socket: for the server itself, or for the process that starts it."""

from __future__ import annotations

import socket

LOOPBACK = "127.0.0.1"
BACKLOG = 512


def listening(host: str = LOOPBACK, port: int = 0) -> socket.socket:
    """Listen at a port, a free one if it is 0. Raise `OSError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)
