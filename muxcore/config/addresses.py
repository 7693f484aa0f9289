"""Whether addresses are usable: an `api_base`, and whether it is on this machine; a Redis."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, parse_qs, urlsplit


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


REDIS_SCHEMES = (
    *(
        f"redis{tls}{kind}://"
        for kind in ("", "+sentinel", "+cluster")
        for tls in ("", "s")
    ),
    "unix://",
)
SENTINEL_PORT = 26379


def redis_fault(url: str) -> str | None:
    """Describe what is wrong with the URL of a Redis, without repeating it; None if nothing is."""
    if not url.isprintable() or " " in url:
        return "has a space or a character that cannot be seen"
    scheme, mark, _ = url.partition("://")
    if scheme + mark not in REDIS_SCHEMES:
        return f"does not begin with one of {', '.join(REDIS_SCHEMES)}"
    try:
        parts = urlsplit(url)
        for host in parts.netloc.rpartition("@")[2].split(","):
            _ = urlsplit(f"//{host}").port
        query = parse_qs(parts.query)
    except ValueError:
        return "cannot be read"
    is_unix, is_sentinel = scheme == "unix", scheme.endswith("+sentinel")
    faults = {
        "names no host": not is_unix and not parts.hostname,
        "names no socket": is_unix and not parts.path,
        "has no ?service=NAME, the name that the sentinels know": is_sentinel
        and "service" not in query,
    }
    return next((fault for fault, is_so in faults.items() if is_so), None)
