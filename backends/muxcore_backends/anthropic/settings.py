"""The settings of a call for Anthropic: limits, tools, thinking, and other members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muxcore.chat import Chat, Json
from muxcore.core.records import Endpoint, Wire
from muxcore.dialects.messages.options import (
    OPEN_SCHEMA,
    message_choice,
    message_format,
    message_tools,
)
from muxcore_backends.anthropic.turns import Conversation
from muxcore_backends.capabilities import (
    ADAPTIVE_THINKING,
    TAKES_SAMPLING,
    claude_version,
    of_claude,
)

USUAL_LIMIT = 32_000
"""The API demands a limit. All models since Claude 4 take this one."""
LIMITS_BEFORE_4 = {(3, 0): 4096, (3, 5): 8192}

EFFORTS = frozenset({"low", "medium", "high", "xhigh", "max"})
BUDGETS = {"low": 2048, "medium": 8192, "high": 16_384, "max": 31_999}
USUAL_BUDGET = BUDGETS["medium"]
LEAST_BUDGET = 1024

OWN = frozenset(
    {
        "container", "context_management", "inference_geo", "mcp_servers", "metadata",
        "output_config", "service_tier", "speed", "stop_sequences", "thinking", "top_k",
        "top_p",
    }
)  # fmt: skip
"""Members of a request that are passed on unchanged; the API refuses unknown ones."""

SAID_OTHERWISE = frozenset(
    {
        "max_completion_tokens", "max_tokens", "messages", "model", "parallel_tool_calls",
        "reasoning_effort", "response_format", "stop", "stream", "stream_options", "user",
    }
)  # fmt: skip
"""Members of OpenAI's that are translated here."""

SAMPLING = ("temperature", "top_p", "top_k")
"""Refused by newer models, and by any model that thinks."""


def settings_of(
    endpoint: Endpoint, chat: Chat, conversation: Conversation
) -> tuple[Json, tuple[str, ...]]:
    """Return the body without the conversation, and remarks for users."""
    extra, wire = chat.extra, endpoint.wire
    has = of_claude(endpoint)
    body: Json = {name: value for name, value in extra.items() if name in OWN}
    body["max_tokens"] = _limit(endpoint, chat)
    body |= _translated(extra)
    remarks: list[str] = []
    body |= _tools(chat, conversation)
    if "thinking" not in body:
        said = extra.get("reasoning_effort")
        level = said if isinstance(said, str) and said else wire.thinking
        thinking, off = _thinking(level, body["max_tokens"], conversation, has)
        output = {**thinking.pop("output_config", {}), **body.get("output_config", {})}
        body |= {**thinking, **({"output_config": output} if output else {})}
        remarks += off
    thinks = body.get("thinking", {}).get("type", "disabled") != "disabled"
    if TAKES_SAMPLING in has and not thinks:
        body = {**_sampling(wire, chat), **body}
        if "temperature" in body:
            # Newer models refuse both.
            body.pop("top_p", None)
    else:
        for name in SAMPLING:
            body.pop(name, None)
    unknown = sorted(extra.keys() - OWN - SAID_OTHERWISE)
    if unknown:
        remarks.append(f"left out: {', '.join(unknown)}")
    return body, tuple(remarks)


def _limit(endpoint: Endpoint, chat: Chat) -> int:
    wire, extra = endpoint.wire, chat.extra
    said = chat.max_tokens or extra.get("max_completion_tokens") or extra.get("max_tokens")
    version = claude_version(endpoint.model)
    usual = USUAL_LIMIT
    for since, limit in LIMITS_BEFORE_4.items():
        if since <= version < (4, 0):
            usual = limit
    limits = [limit for limit in (said, wire.max_output_tokens) if limit]
    return min(limits, default=usual)


def _sampling(wire: Wire, chat: Chat) -> Json:
    temperature = chat.temperature_for(wire.temperature)
    sampling: Json = {}
    if temperature is not None:
        # OpenAI's goes up to 2.
        sampling["temperature"] = min(temperature, 1.0)
    if wire.top_p is not None:
        sampling["top_p"] = wire.top_p
    return sampling


def _translated(extra: Mapping[str, Any]) -> Json:
    body: Json = {}
    if stop := extra.get("stop"):
        body["stop_sequences"] = [stop] if isinstance(stop, str) else list(stop)
    if user := extra.get("user"):
        body["metadata"] = {"user_id": user}
    if form := message_format(extra.get("response_format")):
        body["output_config"] = {"format": form}
    return body


def _thinking(
    level: str, limit: int, conversation: Conversation, has: frozenset[str]
) -> tuple[Json, list[str]]:
    if level in {"off", "none"}:
        return {}, []
    if ADAPTIVE_THINKING in has:
        output = {"effort": level} if level in EFFORTS else {}
        return {"thinking": {"type": "adaptive"}, "output_config": output}, []
    if not conversation.may_think:
        return {}, ["thinking off until the user speaks"]
    # The answer itself needs room too.
    budget = min(BUDGETS.get(level, USUAL_BUDGET), limit // 2)
    if budget < LEAST_BUDGET:
        return {}, ["thinking off: too little room"]
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}, []


def _tools(chat: Chat, conversation: Conversation) -> Json:
    if not chat.tools:
        # Calls in a history are refused where no tool is defined.
        names = conversation.calls
        if not names:
            return {}
        bare = [{"name": name, "input_schema": OPEN_SCHEMA} for name in names]
        return {"tools": bare, "tool_choice": {"type": "none"}}
    tools: Json = {"tools": message_tools(chat.tools)}
    choice = message_choice(chat.tool_choice)
    if chat.extra.get("parallel_tool_calls") is False:
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    return {**tools, "tool_choice": choice} if choice else tools
