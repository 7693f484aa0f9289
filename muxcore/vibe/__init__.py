"""Vibe in this very process, over the pool. It needs vibe itself in the same environment.

`PoolBackend` is what vibe's own agent loop takes for a backend; `through_pool` puts it under
everything that vibe calls in this process. Whoever has no vibe here learns so when asking for
one of them: what merely starts a vibe of another environment does without.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muxcore.vibe.backend import PoolBackend as PoolBackend
    from muxcore.vibe.backend import through_pool as through_pool

__all__ = ["PoolBackend", "through_pool"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'muxcore.vibe' has no attribute {name!r}")
    return getattr(import_module("muxcore.vibe.backend"), name)
