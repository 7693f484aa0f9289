"""Mistral's own API: close to OpenAI's, but it refuses unknown members."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar

from attrs import evolve, frozen

from muxcore.chat import Chat, Json
from muxcore.core.outcomes import Fault
from muxcore.core.records import Endpoint
from muxcore.plugins.backend import Failure, HttpRequest, HttpResponse
from muxcore.plugins.hookspecs import BackendFactory, hookimpl
from muxcore_backends import capabilities
from muxcore_backends.capabilities import REFUSES_REASONING
from muxcore_backends.generic import Generic
from muxcore_backends.history import contents, members, reasoning, roles
from muxcore_backends.history.calls import CALLS
from muxcore_backends.history.forms import FORMED, MODERN
from muxcore_backends.history.ids import NINE, ids
from muxcore_backends.history.pairs import PAIRS
from muxcore_backends.history.steps import Rewrite

REASONING_EFFORTS = {"low": "none", "medium": "high", "high": "high", "max": "high"}
"""What vibe's levels of thinking are on this wire. "off" leaves it to the server: some of
the models that are hosted there refuse the member altogether."""

OTHER_LIMIT = "max_completion_tokens"

OTHER_NAMES = {"seed": "random_seed"}
"""Members that have another name here, by OpenAI's name."""

SAME_WHEN_SPENT = "Mistral says the same of a plan that is spent"

KNOWN = frozenset(
    {
        "temperature", "top_p", "max_tokens", "stream", "stop", "random_seed", "metadata",
        "response_format", "tools", "tool_choice", "presence_penalty", "frequency_penalty",
        "min_tokens", "repetition_penalty", "top_k", "logprobs", "top_logprobs",
        "prompt_logprobs", "top_prompt_logprobs", "n", "prediction", "parallel_tool_calls",
        "reasoning_effort", "prompt_mode", "guardrails", "prompt_cache_key", "service_tier",
        "safe_prompt",
    }
)  # fmt: skip
"""The members of a request that it takes; it refuses any other."""


@frozen
class Mistral(Generic):
    """Mistral's chat completions: thinking in parts, and no members of others."""

    capabilities: ClassVar[Mapping[str, str]] = capabilities.MISTRALS

    def request(self, endpoint: Endpoint, chat: Chat) -> HttpRequest:
        if OTHER_LIMIT in chat.extra:
            extra = dict(chat.extra)
            limit = extra.pop(OTHER_LIMIT)
            if chat.max_tokens is not None:
                limit = chat.max_tokens
            chat = evolve(chat, extra=extra, max_tokens=limit)
        return super().request(endpoint, chat)

    def steps(self, endpoint: Endpoint) -> tuple[Rewrite, ...]:
        return _steps(endpoint)

    def others(
        self,
        extra: Mapping[str, Any],
        has: frozenset[str],  # noqa: ARG002 - all of it is one server
    ) -> tuple[Json, tuple[str, ...]]:
        named = {OTHER_NAMES.get(name, name): value for name, value in extra.items()}
        unknown = sorted(named.keys() - KNOWN - {"model", "messages", "stream_options"})
        taken = {name: value for name, value in named.items() if name in KNOWN}
        return taken, ((f"left out: {', '.join(unknown)}",) if unknown else ())

    def thinking(self, level: str) -> Json:
        effort = REASONING_EFFORTS.get(level)
        return {} if effort is None else {"reasoning_effort": effort}

    def failure(self, answer: HttpResponse, now: datetime) -> Failure:
        failure = super().failure(answer, now)
        if failure.kind is not Fault.AUTH:
            return failure
        return evolve(failure, message=f"{failure.message}; {SAME_WHEN_SPENT}")

    def streaming(self, body: Json) -> None:
        # The last chunk reports the usage unasked, and Mistral's own client never asks.
        body.pop("stream_options", None)


@lru_cache(maxsize=256)
def _steps(endpoint: Endpoint) -> tuple[Rewrite, ...]:
    wire = endpoint.wire
    refuses = REFUSES_REASONING in capabilities.settled((), wire.capabilities)
    takes_reasoning = wire.thinking != "off" and not refuses
    thoughts = (
        (contents.SETTLED, contents.SPOKEN, reasoning.IN_PARTS)
        if takes_reasoning
        else (
            reasoning.GATHERED,
            reasoning.DROPPED,
            contents.SETTLED,
            contents.SPOKEN,
        )
    )
    return (
        MODERN,
        FORMED,
        PAIRS,
        CALLS,
        ids(NINE),
        roles.SYSTEM,
        contents.LIFTED if wire.supports_images else contents.BLIND,
        *thoughts,
        roles.SYSTEM_AFTER_USER,
        roles.BRIDGED,
        # Mistral overlooks the calls of a first message, and then misses those of the results.
        roles.OPENED,
        roles.ENDED,
        members.known(members.MISTRAL),
    )


@hookimpl
def vibe_mux_register_backends(register: Callable[[str, BackendFactory], None]) -> None:
    register("mistral", Mistral)
