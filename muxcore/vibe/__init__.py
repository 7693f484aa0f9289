"""What is vibe's alone: the in-process backend, and the environment that vibe is started with.

`PoolBackend` is a backend for vibe's own agent loop; `through_pool` installs it for everything
that vibe calls in this process. Both need vibe in the same environment and are imported on
first use: starting a vibe of another environment needs neither.
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
