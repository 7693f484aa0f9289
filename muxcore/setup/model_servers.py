"""Asking model servers for their models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from muxcore.config.addresses import is_loopback

PATIENCE = (0.3, 0.7)
"""Seconds to connect, and to respond."""

T = TypeVar("T")


def models_at(api_base: str, patience: tuple[float, float] = PATIENCE) -> Any:
    """Return the server's response to `GET /models`, without a key; None if there is none."""
    import requests  # noqa: PLC0415 - slow to import

    with requests.Session() as session:
        # Loopback never goes through a proxy.
        session.trust_env = not is_loopback(api_base)
        try:
            return session.get(f"{api_base.rstrip('/')}/models", timeout=patience)
        except (requests.RequestException, OSError, ValueError):
            return None


def at_once(ask: Callable[[str], T], api_bases: Iterable[str]) -> dict[str, T]:
    """Ask each server in a thread of its own. Return all answers by `api_base`."""
    answers: dict[str, T] = {}

    def one(api_base: str) -> None:
        answers[api_base] = ask(api_base)

    threads = [threading.Thread(target=one, args=(api_base,)) for api_base in api_bases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
