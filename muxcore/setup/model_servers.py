"""Asking model servers for their models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from attrs import frozen

from muxcore.assembling import count_of
from muxcore.config.addresses import is_loopback

PATIENCE = (0.3, 0.7)
"""Seconds to connect, and to respond."""

IMAGES = frozenset({"image", "vision", "multimodal"})
"""What servers call the ability to read images, among a model's modalities or capabilities."""

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


def list_at(api_base: str, patience: tuple[float, float] = PATIENCE) -> object:
    """Return the server's list of models, {} if what it sends is no JSON, None without a server."""
    answer = models_at(api_base, patience)
    try:
        return None if answer is None else answer.json()
    except ValueError:
        return {}


@frozen
class ServedModel:
    """What a server says of a model; None where it says nothing. The window is in tokens."""

    context_window: int | None = None
    takes_images: bool | None = None


def served_model(listed: object, model: str) -> ServedModel:
    """Return what a list of models says of this one."""
    entries = list(_entries_of(listed, model))
    windows = (_window(entry) for entry in entries)
    images = (_takes_images(entry) for entry in entries)
    return ServedModel(
        next((window for window in windows if window is not None), None),
        next((takes for takes in images if takes is not None), None),
    )


def _entries_of(listed: object, model: str) -> Iterator[Mapping[Any, Any]]:
    """Yield the entries of a model. llama.cpp has two lists, with different members."""
    for name in ("data", "models"):
        models = listed.get(name) if isinstance(listed, Mapping) else None
        if not isinstance(models, list):
            continue
        entries = [m for m in models if isinstance(m, Mapping)]
        named = [
            m
            for m in entries
            if model in [m.get("id"), m.get("name"), *_texts(m.get("aliases"))]
        ]
        # A server of one model, such as llama.cpp's, answers for any name.
        yield from named or (entries if len(entries) == 1 else [])


def _window(entry: Mapping[Any, Any]) -> int | None:
    """Return the context window, in llama.cpp's place, vLLM's, or that of others."""
    meta = entry.get("meta")
    own = meta.get("n_ctx") if isinstance(meta, Mapping) else None
    for window in (own, entry.get("max_model_len"), entry.get("context_length")):
        if (tokens := count_of(window)) is not None and tokens > 0:
            return tokens
    return None


def _takes_images(entry: Mapping[Any, Any]) -> bool | None:
    architecture = entry.get("architecture")
    inner = architecture if isinstance(architecture, Mapping) else {}
    for said in (
        inner.get("input_modalities"),
        entry.get("input_modalities"),
        entry.get("capabilities"),
    ):
        if words := _texts(said):
            return not IMAGES.isdisjoint(words)
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
