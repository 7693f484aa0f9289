"""What two processes show each other without showing a secret. Pure.

The proof and the fingerprint are keyed with the token, so only the server and those who may use
it can make or check them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Protocol


class Secret(Protocol):
    def reveal(self) -> str: ...


def server_proof(token: str, address: str, port: int, nonce: str) -> str:
    """Return what a server answers to `nonce` to show that it knows its token.

    Address and port are part of it: no other process can pass the nonce on to the real server
    and return its answer as its own.
    """
    return _digest(token, f"server {address} {port} {nonce}")


def keys_fingerprint(token: str, keys: Mapping[str, Secret]) -> str:
    """Return what two processes compare to see whether they have the same keys, by alias."""
    lines = (f"{alias} {key.reveal()}" for alias, key in sorted(keys.items()))
    return _digest(token, "\n".join(("keys", *lines)))


def same(one: str, other: str) -> bool:
    """Compare in constant time, so that the time reveals nothing of a wrong guess."""
    return hmac.compare_digest(one.encode(), other.encode())


def _digest(token: str, text: str) -> str:
    return hmac.digest(token.encode(), text.encode(), hashlib.sha256).hex()
