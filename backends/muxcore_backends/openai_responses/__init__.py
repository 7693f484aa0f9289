"""OpenAI's Responses API: a conversation of items, and reasoning that is returned encrypted."""

from __future__ import annotations

from collections.abc import Callable

from muxcore.plugins.hookspecs import BackendFactory, hookimpl
from muxcore_backends.openai_responses.codec import Responses

__all__ = ["Responses"]


@hookimpl
def vibe_mux_register_backends(register: Callable[[str, BackendFactory], None]) -> None:
    # The API style has this name in vibe's config.
    register("openai-responses", Responses)
