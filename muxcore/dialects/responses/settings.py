"""Tools, their choice, the form of an answer, and usage, in both APIs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from muxcore.assembling import count_of, usage_of
from muxcore.chat import Json
from muxcore.dialects.reading import MalformedItemError, at
from muxcore.dialects.responses.items import FREE_INPUT, joined_name

KINDS_OF_TOOL = ("function", "custom", "namespace")
SEARCH = "tool_search"
"""A client's own search for tools, which has no name there."""
OFFERS = ("additional_tools", "tool_search_output")
"""Items of a conversation that offer further tools."""
FUNCTION = ("name", "description", "parameters", "strict")
SCHEMA = ("name", "description", "schema", "strict")


FREE_TEXT: Json = {
    "type": "object",
    "properties": {FREE_INPUT: {"type": "string"}},
    "required": [FREE_INPUT],
}
"""The parameters of a tool that takes free text, which no other API has."""


def _members(names: Sequence[str], of: Mapping[str, Any]) -> Json:
    return {name: of[name] for name in names if of.get(name) is not None}


# --- tools ----------------------------------------------------------------------------------


def functions_of(members: Json) -> list[Json]:
    """Return the tools of a request that any model can call, each name once.

    Those of a namespace come one after the other; what only its own provider can run is left out.
    Raise `MalformedItemError` for a malformed tool, and if nothing is left of some.
    """
    items = members.get("input")
    offers = [("tools", members.get("tools"))] + [
        (f"input[{position}].tools", item.get("tools"))
        for position, item in enumerate(items if isinstance(items, list) else ())
        if isinstance(item, dict) and item.get("type") in OFFERS
    ]
    functions: dict[str, Json] = {}
    for place, tools in offers:
        with at(place):
            for each in _callable(tools or []):
                functions.setdefault(chat_name(each), each)
    if not functions and (tools := members.get("tools")):
        kind = tools[0].get("type")
        text = f"function, custom or namespace: no model of a pool can run {kind}"
        raise MalformedItemError("tools[0].type", text)
    return list(functions.values())


def _callable(tools: Any) -> list[Json]:
    if not isinstance(tools, list):
        raise MalformedItemError("", "a list of objects")
    found: list[Json] = []
    for position, tool in enumerate(tools):
        with at(f"[{position}]"):
            match tool:
                case {"type": "function" | "custom", "name": str()}:
                    found.append(tool)
                case {"type": "tool_search", "execution": "client"}:
                    found.append({**tool, "name": SEARCH})
                case {"type": "namespace", "name": str(namespace), "tools": list(own)}:
                    own = [tool for tool in own if not _is_namespace(tool)]
                    with at(".tools"):
                        found += [{**t, "namespace": namespace} for t in _callable(own)]
                case {"type": str(kind)} if kind in KINDS_OF_TOOL:
                    raise MalformedItemError("", f"a {kind} with a name")
                case {"type": str()}:
                    continue
                case _:
                    raise MalformedItemError(".type", "a text")
    return found


def _is_namespace(tool: Any) -> bool:
    return isinstance(tool, dict) and tool.get("type") == "namespace"


def chat_tools(functions: Sequence[Json]) -> list[Json]:
    """Write functions as chat completions have them."""
    return [{"type": "function", "function": _chat_function(each)} for each in functions]


def _chat_function(function: Json) -> Json:
    written = {**_members(FUNCTION, function), "name": chat_name(function)}
    if function["type"] == "custom":
        form = function.get("format")
        definition = form.get("definition") if isinstance(form, dict) else None
        texts = (function.get("description"), definition)
        words = "\n\n".join(text for text in texts if isinstance(text, str) and text)
        return {"name": written["name"], "description": words, "parameters": FREE_TEXT}
    if not written.get("strict"):
        # Not strict is what chat completions take for granted, and fewer servers know it.
        written.pop("strict", None)
    return written


def chat_name(function: Json) -> str:
    name: str = function["name"]
    namespace = function.get("namespace")
    return name if namespace is None else joined_name(namespace, name)


def response_tools(tools: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Write tools of chat completions; those of the Responses API itself stay as they are."""
    written: list[Json] = []
    for tool in tools:
        function = tool.get("function")
        if isinstance(function, Mapping):
            # Left out, both mean the opposite: no parameters at all, and a strict schema.
            usual = {"parameters": {"type": "object", "properties": {}}, "strict": False}
            written.append({"type": "function", **usual, **_members(FUNCTION, function)})
        else:
            written.append(dict(tool))
    return written


def chat_choice(choice: Any) -> Any:
    """Return a choice of tools as chat completions have it."""
    match choice:
        case {"type": "function" | "custom", "name": str()}:
            return {"type": "function", "function": {"name": chat_name(choice)}}
        case _:
            return choice


def response_choice(choice: Any) -> Any:
    match choice:
        case "any":
            return "required"
        case {"function": {"name": name}}:
            return {"type": "function", "name": name}
        case _:
            return choice


# --- the form of an answer ------------------------------------------------------------------


def chat_format(form: Any) -> Json | None:
    """Return `text.format` as the `response_format` of chat completions."""
    match form:
        case {"type": "json_schema"}:
            return {"type": "json_schema", "json_schema": _members(SCHEMA, form)}
        case {"type": "json_object"}:
            return {"type": "json_object"}
        case _:
            return None


def response_format(form: Any) -> Json | None:
    match form:
        case {"type": "json_schema", "json_schema": dict(schema)}:
            return {"type": "json_schema", **_members(SCHEMA, schema)}
        case {"type": "json_object"}:
            return {"type": "json_object"}
        case _:
            return None


# --- usage ----------------------------------------------------------------------------------


def response_usage(usage: object) -> Json | None:
    """Return a usage of chat completions as that of a response; None without its counts."""
    counts = usage_of({"usage": usage})
    if counts.total_tokens is None:
        return None
    reasoning = _detail(usage, "completion_tokens_details", "reasoning_tokens")
    cached = {"cached_tokens": counts.cached_tokens or 0, "cache_write_tokens": 0}
    return {
        "input_tokens": counts.prompt_tokens,
        "input_tokens_details": cached,
        "output_tokens": counts.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning or 0},
        "total_tokens": counts.total_tokens,
    }


def chat_usage(usage: object) -> Json | None:
    counts = usage_of({"usage": usage})
    if counts.total_tokens is None:
        return None
    written: Json = {
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "total_tokens": counts.total_tokens,
    }
    if counts.cached_tokens is not None:
        written["prompt_tokens_details"] = {"cached_tokens": counts.cached_tokens}
    reasoning = _detail(usage, "output_tokens_details", "reasoning_tokens")
    if reasoning is not None:
        written["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return written


def _detail(usage: object, details: str, name: str) -> int | None:
    match usage:
        case {**members}:
            found = members.get(details)
            return count_of(found.get(name)) if isinstance(found, dict) else None
        case _:
            return None
