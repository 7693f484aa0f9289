"""The backend `azure` for vibe-mux: deployments of Azure OpenAI."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from attrs import evolve, frozen

from muxcore import Backend, Endpoint, hookimpl
from muxcore.chat import Chat
from muxcore.plugins.backend import HttpRequest, KeyHeader
from muxcore_backends.generic import Generic

API_VERSION = "2024-10-21"


@frozen
class Azure(Generic):
    """Azure OpenAI: the model is a deployment in the URL, the key has its own header."""

    def request(self, endpoint: Endpoint, chat: Chat) -> HttpRequest:
        request = super().request(endpoint, chat)
        base = endpoint.wire.api_base.rstrip("/")
        path = f"openai/deployments/{quote(endpoint.model, safe='')}/chat/completions"
        return evolve(
            request,
            url=f"{base}/{path}?api-version={API_VERSION}",
            key_header=request.key_header and KeyHeader("api-key", prefix=""),
        )


@hookimpl
def vibe_mux_register_backends(
    register: Callable[[str, Callable[..., Backend]], None],
) -> None:
    register("azure", Azure)
