"""The front door of Anthropic's Messages API. Pure."""

from __future__ import annotations

from typing import Any

from muxcore.chat import Chat, Json, Reply
from muxcore.dialects.messages import options
from muxcore.dialects.messages.blocks import blocks_of, messages_of
from muxcore.dialects.reading import MalformedItemError, at, content_of, text_in
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
from muxcore.gateway.front_doors.door import ClientRequest, FrontDoor, Stamp, as_chunk
from muxcore.gateway.front_doors.messages_stream import MessagesEncoder, error_body

ELSEWHERE = ("container", "mcp_servers")
"""Members that ask for what only Anthropic's own servers do."""

EFFORTS = {"max": 31_999, "high": 16_384, "medium": 8192}
"""Levels of thinking, each with its least budget in tokens; a smaller one is low."""

# --- the request ----------------------------------------------------------------------------


def read_request(body: bytes) -> ClientRequest:
    """Read a request, also one for the count of its tokens, which has no `max_tokens`."""
    members = parsed(body)
    refuse_any(members, ELSEWHERE, "no model of a pool runs it. Leave it out.")
    output = optional(members, "output_config", dict) or {}
    stop = optional(members, "stop_sequences", list)
    tools, choice, parallel = _tools(members)
    others = {
        "reasoning_effort": _effort(members, output),
        "response_format": options.chat_format(output.get("format")),
        "stop": stop or None,
        "top_p": optional(members, "top_p", float, int),
        "parallel_tool_calls": parallel,
    }
    chat = Chat(
        messages=_messages(members),
        tools=tools or None,
        tool_choice=choice,
        temperature=optional(members, "temperature", float, int),
        max_tokens=count_in(members, "max_tokens"),
        stream=optional(members, "stream", bool) or False,
        extra={name: value for name, value in others.items() if value is not None},
    )
    return ClientRequest(model_in(members), chat, members)


def _effort(members: Json, output: Json) -> str | None:
    """Return the level of thinking, or the one that a budget stands for."""
    if effort := output.get("effort"):
        return (
            effort if isinstance(effort, str) else refuse("output_config.effort", "a text")
        )
    match optional(members, "thinking", dict):
        case {"type": "enabled", "budget_tokens": int(budget)}:
            fit = (level for level, least in EFFORTS.items() if budget >= least)
            return next(fit, "low")
        case _:
            return None


def _messages(members: Json) -> list[Json]:
    turns = members.get("messages")
    if not turns or not is_objects(turns):
        refuse("messages", "a list of objects, and not empty")
    place = "system"
    try:
        system = _system(members.get("system"))
        place = "messages"
        return [*system, *messages_of(turns)]
    except MalformedItemError as error:
        refuse(f"{place}{error.place}", error.expected)


def _system(value: Any) -> list[Json]:
    if not value:
        return []
    parts: list[Json] = []
    for position, block in enumerate(blocks_of(value)):
        with at(f"[{position}]"):
            parts.append({"type": "text", "text": text_in(block, "text")})
    return [{"role": "system", "content": content_of(parts)}]


def _tools(members: Json) -> tuple[list[Json], Any, bool | None]:
    """Return the tools, the model's choice among them, and False for one call at a time."""
    tools = optional_objects(members, "tools") or []
    choice = optional(members, "tool_choice", dict)
    place = "tools"
    try:
        written = options.chat_tools(tools)
        place = "tool_choice"
        chosen = options.chat_choice(choice)
    except MalformedItemError as error:
        refuse(f"{place}{error.place}", error.expected)
    match chosen:
        case {"function": {"name": name}} if any(
            tool.get("name") == name for tool in tools
        ):
            if all(tool["function"]["name"] != name for tool in written):
                refuse("tool_choice", "a tool that a model of the pool can run")
        case _:
            pass
    alone = choice is not None and choice.get("disable_parallel_tool_use") is True
    return written, chosen, False if alone else None


# --- the response ---------------------------------------------------------------------------


def message(request: ClientRequest, stamp: Stamp, reply: Reply) -> Json:
    """Write a whole answer: what the stream of the same answer adds up to."""
    encoder = MessagesEncoder(request, stamp)
    encoder.feed(as_chunk(reply))
    encoder.end()
    return encoder.message


FRONT_DOOR = FrontDoor(read_request, message, MessagesEncoder, error_body)
