"""The front door of OpenAI's Responses API, without its state: nothing is kept. Pure."""

from __future__ import annotations

from typing import Any

from muxcore.chat import Chat, Json, Reply
from muxcore.dialects.reading import MalformedItemError
from muxcore.dialects.responses import settings
from muxcore.dialects.responses.items import messages_of
from muxcore.gateway.front_doors.body import (
    count_in,
    is_objects,
    model_in,
    optional,
    optional_objects,
    parsed,
    refuse,
    refuse_any,
)
from muxcore.gateway.front_doors.completions import error_body
from muxcore.gateway.front_doors.door import ClientRequest, FrontDoor, Stamp, as_chunk
from muxcore.gateway.front_doors.responses_stream import ResponsesEncoder

STATEFUL = ("background", "conversation", "previous_response_id", "prompt", "store")
"""Members that ask for what only a server with a memory can do."""

PASSED = ("prompt_cache_key", "safety_identifier", "service_tier", "top_p", "user")
"""Members that chat completions have under the same name."""

# --- the request ----------------------------------------------------------------------------


def read_request(body: bytes) -> ClientRequest:
    members = parsed(body)
    refuse_any(members, STATEFUL, "nothing is kept here. Send the whole conversation.")
    reasoning = optional(members, "reasoning", dict) or {}
    text = optional(members, "text", dict) or {}
    functions, choice = _tools(members)
    others = {
        "reasoning_effort": _effort(reasoning.get("effort")),
        "response_format": settings.chat_format(text.get("format")),
        "verbosity": text.get("verbosity"),
        # True is what every server takes for granted, and some do not know the member.
        "parallel_tool_calls": False
        if members.get("parallel_tool_calls") is False
        else None,
        **{name: members.get(name) for name in PASSED},
    }
    chat = Chat(
        messages=_messages(members),
        tools=settings.chat_tools(functions) or None,
        tool_choice=choice,
        temperature=optional(members, "temperature", float, int),
        max_tokens=count_in(members, "max_output_tokens"),
        stream=optional(members, "stream", bool) or False,
        extra={name: value for name, value in others.items() if value is not None},
    )
    return ClientRequest(model_in(members), chat, members)


def _effort(value: object) -> str | None:
    if not isinstance(value, str | None):
        refuse("reasoning.effort", "a text")
    return value


def _messages(members: Json) -> list[Json]:
    instructions = optional(members, "instructions", str)
    system = [{"role": "system", "content": instructions}] if instructions else []
    value = members.get("input")
    if isinstance(value, str):
        return [*system, {"role": "user", "content": value}]
    if not value or not is_objects(value):
        refuse("input", "a text, or a list of items, and not empty")
    try:
        return [*system, *messages_of(value)]
    except MalformedItemError as error:
        refuse(f"input{error.place}", error.expected)


def _tools(members: Json) -> tuple[list[Json], Any]:
    """Return the functions that the model may call, and its choice among them."""
    optional_objects(members, "tools")
    choice = members.get("tool_choice")
    try:
        functions = settings.functions_of(members)
    except MalformedItemError as error:
        refuse(error.place, error.expected)
    match choice:
        case {"type": "allowed_tools", "tools": list(allowed), "mode": mode}:
            names = [tool.get("name") for tool in allowed if isinstance(tool, dict)]
            functions, choice = [each for each in functions if each["name"] in names], mode
        case {"type": str() as kind} if kind not in {"function", "custom"}:
            refuse("tool_choice", f"that of a function, not of {kind}")
        case _:
            pass
    return functions, settings.chat_choice(choice)


# --- the response ---------------------------------------------------------------------------


def response(request: ClientRequest, stamp: Stamp, reply: Reply) -> Json:
    """Write a whole response: what the stream of the same answer ends with."""
    encoder = ResponsesEncoder(request, stamp)
    encoder.feed(as_chunk(reply))
    encoder.end()
    return encoder.response


FRONT_DOOR = FrontDoor(read_request, response, ResponsesEncoder, error_body)
