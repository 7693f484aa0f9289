"""Mistral's own API: close to OpenAI's, but it refuses what it does not know."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, frozen

from muxcore.chat import Chat, Json
from muxcore.core.records import Endpoint
from muxcore.plugins.backend import HttpRequest
from muxcore.plugins.hookspecs import BackendFactory, hookimpl
from muxcore_backends.generic import Generic

REASONING_EFFORTS = {"low": "none", "medium": "high", "high": "high", "max": "high"}
"""What vibe's levels of thinking are on this wire. "off" leaves it to the server: some of
the models that are hosted there refuse the member altogether."""

OTHER_LIMIT = "max_completion_tokens"


@frozen
class Mistral(Generic):
    """Mistral's chat completions: thinking in parts, and no members of others."""

    def request(self, endpoint: Endpoint, chat: Chat) -> HttpRequest:
        if OTHER_LIMIT in chat.extra:
            extra = dict(chat.extra)
            limit = extra.pop(OTHER_LIMIT)
            if chat.max_tokens is not None:
                limit = chat.max_tokens
            chat = evolve(chat, extra=extra, max_tokens=limit)
        return super().request(endpoint, chat)

    def thinking(self, level: str) -> Json:
        effort = REASONING_EFFORTS.get(level)
        return {} if effort is None else {"reasoning_effort": effort}

    def streaming(self, body: Json) -> None:
        # Its last chunk tells the usage unasked, and its own client never asks.
        body.pop("stream_options", None)


@hookimpl
def vibe_mux_register_backends(register: Callable[[str, BackendFactory], None]) -> None:
    register("mistral", Mistral)
