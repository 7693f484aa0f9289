"""Whether an `api_base` is a usable address, and whether it is on this machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit


def is_loopback(api_base: str) -> bool:
    """Whether a usable address is on this machine: 127.0.0.0/8, ::1 or localhost."""
    host = urlsplit(api_base).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def fault_of(api_base: str) -> str | None:
    """Describe what is wrong with an address, without repeating it; None if nothing is."""
    if not api_base.isprintable() or " " in api_base:
        return "has a space or a character that cannot be seen"
    try:
        parts = urlsplit(api_base)
        _ = parts.port  # Reading it is what checks it.
    except ValueError:
        return "cannot be read"
    return _fault_of(parts)


def _fault_of(parts: SplitResult) -> str | None:
    if parts.scheme not in {"http", "https"}:
        return "does not begin with http:// or https://"
    if not parts.hostname:
        return "names no host"
    if parts.username is not None:
        return "holds a user name or password"
    if parts.query or parts.fragment:
        return "has a part after ? or #"
    return None
