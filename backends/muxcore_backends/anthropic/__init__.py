"""Anthropic's Messages API: content in blocks, the system apart, results said by the user."""

from __future__ import annotations

from collections.abc import Callable

from muxcore.plugins.hookspecs import BackendFactory, hookimpl
from muxcore_backends.anthropic.codec import Anthropic

__all__ = ["Anthropic"]


@hookimpl
def vibe_mux_register_backends(register: Callable[[str, BackendFactory], None]) -> None:
    register("anthropic", Anthropic)
