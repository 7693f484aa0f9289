"""The address of a server: its listening socket, and how its host is written in a URL."""

from __future__ import annotations

import socket

LOOPBACK = "127.0.0.1"
BACKLOG = 512


def literal(address: str) -> str:
    """Return a host or an IP address as a URL has it: an IPv6 address in brackets."""
    return f"[{address}]" if ":" in address else address


def listening(host: str = LOOPBACK, port: int = 0) -> socket.socket:
    """Listen at a port, a free one if it is 0. Raise `OSError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)
