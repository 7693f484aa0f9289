"""The settings of a call for the Responses API: limits, tools, reasoning, and other members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muxcore.chat import Chat, Json
from muxcore.core.records import Endpoint, Wire
from muxcore.dialects.responses import settings
from muxcore_backends.capabilities import TAKES_SAMPLING, of_responses

LIMIT = "max_output_tokens"

OWN = frozenset(
    {
        "include", "max_tool_calls", "metadata", "parallel_tool_calls", "prompt_cache_key",
        "prompt_cache_retention", "reasoning", "safety_identifier", "service_tier", "text",
        "top_logprobs", "top_p", "truncation", "user",
    }
)  # fmt: skip
"""Members of a request that are passed on unchanged; the API refuses unknown ones."""

SAID_OTHERWISE = frozenset(
    {
        "max_completion_tokens", "max_output_tokens", "max_tokens", "messages", "model",
        "reasoning_effort", "response_format", "store", "stream", "stream_options",
        "verbosity",
    }
)  # fmt: skip
"""Members of chat completions that are translated here, or are always the same."""

EFFORTS = {"max": "xhigh"}
"""The effort for a level of thinking that has another name here."""

ENCRYPTED = "reasoning.encrypted_content"
SAMPLING = ("temperature", "top_p")


def settings_of(endpoint: Endpoint, chat: Chat) -> tuple[Json, tuple[str, ...]]:
    """Return the body without the conversation, and remarks for users."""
    extra, wire = chat.extra, endpoint.wire
    body: Json = {
        "store": False,
        **_sampling(wire, chat),
        **_reasoning(wire, extra),
        **{name: value for name, value in extra.items() if name in OWN},
    }
    if (limit := _limit(wire, chat)) is not None:
        body[LIMIT] = limit
    if text := _text(extra):
        body["text"] = {**text, **body.get("text", {})}
    if chat.tools:
        body["tools"] = settings.response_tools(chat.tools)
        if chat.tool_choice is not None:
            body["tool_choice"] = settings.response_choice(chat.tool_choice)
    else:
        body.pop("parallel_tool_calls", None)
    if TAKES_SAMPLING not in of_responses(endpoint):
        for name in SAMPLING:
            body.pop(name, None)
    unknown = sorted(extra.keys() - OWN - SAID_OTHERWISE)
    return body, (f"left out: {', '.join(unknown)}",) if unknown else ()


def _sampling(wire: Wire, chat: Chat) -> Json:
    temperature = chat.temperature_for(wire.temperature)
    sampling = {"temperature": temperature, "top_p": wire.top_p}
    return {name: value for name, value in sampling.items() if value is not None}


def _reasoning(wire: Wire, extra: Mapping[str, Any]) -> Json:
    said = extra.get("reasoning_effort")
    effort = said if isinstance(said, str) and said else wire.thinking
    if effort == "off":
        return {}
    # Nothing is stored there, so the reasoning itself is needed for the next call.
    return {
        "reasoning": {"effort": EFFORTS.get(effort, effort)},
        "include": [ENCRYPTED],
    }


def _limit(wire: Wire, chat: Chat) -> int | None:
    extra = chat.extra
    said = chat.max_tokens or extra.get("max_completion_tokens") or extra.get("max_tokens")
    limits = [limit for limit in (said, wire.max_output_tokens) if limit]
    return min(limits, default=None)


def _text(extra: Mapping[str, Any]) -> Json:
    form = settings.response_format(extra.get("response_format"))
    text = {"format": form, "verbosity": extra.get("verbosity")}
    return {name: value for name, value in text.items() if value is not None}
