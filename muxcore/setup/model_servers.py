"""Asking model servers for their models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from muxcore.assembling import count_of
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


def window_of(listed: object, model: str) -> int | None:
    """Return the context window in tokens that a list of models names, None if it names none.

    llama.cpp has it in `meta.n_ctx`, vLLM in `max_model_len`, others in `context_length`.
    """
    models = listed.get("data") if isinstance(listed, Mapping) else None
    entries = (
        [m for m in models if isinstance(m, Mapping)] if isinstance(models, list) else []
    )
    named = [m for m in entries if model in {m.get("id"), *_texts(m.get("aliases"))}]
    # A server of one model, such as llama.cpp's, answers for any name.
    for entry in named or (entries if len(entries) == 1 else []):
        meta = entry.get("meta")
        own = meta.get("n_ctx") if isinstance(meta, Mapping) else None
        for window in (own, entry.get("max_model_len"), entry.get("context_length")):
            if (tokens := count_of(window)) is not None and tokens > 0:
                return tokens
    return None


def _texts(value: object) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def at_once(ask: Callable[[str], T], api_bases: Iterable[str]) -> dict[str, T]:
    """Ask each server in its own thread. Return all answers by `api_base`."""
    answers: dict[str, T] = {}

    def one(api_base: str) -> None:
        answers[api_base] = ask(api_base)

    threads = [threading.Thread(target=one, args=(api_base,)) for api_base in api_bases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
