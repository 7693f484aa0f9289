"""Tools, their choice, the form of an answer, and usage, in both APIs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from muxcore.assembling import count_of, usage_of
from muxcore.chat import Json
from muxcore.dialects.reading import MalformedItemError

OPEN_SCHEMA: Json = {"type": "object"}
STOP_REASONS = {
    "content_filter": "refusal",
    "length": "max_tokens",
    "tool_calls": "tool_use",
}
"""Why an answer ends, by the finish reason of chat completions; else its turn does."""

# --- tools ----------------------------------------------------------------------------------


def chat_tools(tools: Sequence[Json]) -> list[Json]:
    """Write tools as chat completions have them; what only its provider can run is left out.

    Raise `MalformedItemError` for a malformed tool, and if nothing is left of some.
    """
    own = [
        _chat_tool(tool, f"[{place}]")
        for place, tool in enumerate(tools)
        if (tool.get("type") or "custom") == "custom"
    ]
    if tools and not own:
        text = f"custom: no model of a pool can run {tools[0]['type']}"
        raise MalformedItemError("[0].type", text)
    return own


def _chat_tool(tool: Json, place: str) -> Json:
    match tool:
        case {"name": str(name), "input_schema": dict(schema)}:
            function: Json = {"name": name, "parameters": schema}
        case _:
            raise MalformedItemError(place, "a tool with a name and an input_schema")
    if isinstance(tool.get("description"), str):
        function["description"] = tool["description"]
    if tool.get("strict") is True:
        function["strict"] = True
    return {"type": "function", "function": function}


def message_tools(tools: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Write tools of chat completions; those of the Messages API itself stay as they are."""
    written: list[Json] = []
    for tool in tools:
        function = tool.get("function")
        if not isinstance(function, Mapping):
            written.append(dict(tool))
            continue
        schema = function.get("parameters") or OPEN_SCHEMA
        own: Json = {
            "name": function.get("name"),
            "input_schema": {**OPEN_SCHEMA, **schema},
        }
        if function.get("description"):
            own["description"] = function["description"]
        written.append(own)
    return written


def chat_choice(choice: Any) -> Any:
    """Return a choice of tools as chat completions have it. Raise `MalformedItemError`."""
    match choice:
        case None:
            return None
        case {"type": "auto" | "none" as kind}:
            return kind
        case {"type": "any"}:
            return "required"
        case {"type": "tool", "name": str(name)}:
            return {"type": "function", "function": {"name": name}}
        case _:
            raise MalformedItemError("", "auto, any, none, or a tool with its name")


def message_choice(choice: Any) -> Json | None:
    match choice:
        case "auto" | "none":
            return {"type": choice}
        case "required" | "any":
            return {"type": "any"}
        case {"function": {"name": name}}:
            return {"type": "tool", "name": name}
        case _:
            return None


# --- the form of an answer ------------------------------------------------------------------


def chat_format(form: Any) -> Json | None:
    """Return `output_config.format` as the `response_format` of chat completions."""
    match form:
        case {"type": "json_schema", "schema": dict(schema)}:
            # Chat completions demand a name.
            named = {"name": "answer", "schema": schema, "strict": True}
            return {"type": "json_schema", "json_schema": named}
        case _:
            return None


def message_format(form: Any) -> Json | None:
    match form:
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return {"type": "json_schema", "schema": schema}
        case _:
            return None


# --- usage ----------------------------------------------------------------------------------


def message_usage(usage: object) -> Json:
    """Return a usage of chat completions as that of a message: 0 where it is not known."""
    counts = usage_of({"usage": usage})
    cached = min(counts.cached_tokens or 0, counts.prompt_tokens or 0)
    return {
        "input_tokens": (counts.prompt_tokens or 0) - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": counts.completion_tokens or 0,
    }


def chat_usage(usage: Any) -> Json | None:
    """Return a usage as that of chat completions, which count cached tokens in the prompt.

    None if the server did not give it.
    """
    counts = usage if isinstance(usage, dict) else {}
    fresh, completion = map(count_of, map(counts.get, ("input_tokens", "output_tokens")))
    if fresh is None or completion is None:
        return None
    cached = count_of(counts.get("cache_read_input_tokens")) or 0
    prompt = fresh + cached + (count_of(counts.get("cache_creation_input_tokens")) or 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
