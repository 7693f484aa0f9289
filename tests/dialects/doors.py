"""How clients of each API hold a conversation, and what its front door makes of that.

Each answer is judged by the official client's types.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from attrs import frozen

from muxcore.chat import Json, Reply
from muxcore.gateway.front_doors import completions, responses
from muxcore.gateway.front_doors.door import FrontDoor, Stamp
from tests.dialects.official import need
from tests.dialects.table import TOOLS

Messages = Sequence[Any]


@frozen
class Door:
    """A front door, and its clients: how they write a conversation that they hold.

    `written` is the body of their next request; each answer in it is what the door has answered.
    """

    name: str
    door: FrontDoor
    written: Callable[[FrontDoor, Messages], Json]

    def taken(self, messages: Messages) -> list[Any]:
        """Return the messages that the pool gets for a client that holds these."""
        body = json.dumps(self.written(self.door, messages)).encode()
        return list(self.door.read(body).chat.messages)


def _chat_body(door: FrontDoor, messages: Messages) -> Json:
    return {"model": "mux", "messages": messages, "tools": TOOLS}


def _response_body(door: FrontDoor, messages: Messages) -> Json:
    tools = [{"type": "function", **tool["function"]} for tool in TOOLS]
    settings: Json = {"model": "mux", "tools": tools}
    items: list[Json] = []
    ids: dict[str, list[str]] = {}
    """By the id of a call: what the door made of it, for each call that still lacks a result."""
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            # The answer knows the conversation so far: its calls get ids of their own.
            asked = {**settings, "input": items or "hi"}
            request = door.read(json.dumps(asked).encode())
            answer = door.whole(request, Stamp(f"{number}", 0), Reply(message, "stop"))
            official_response().validate_python(answer)
            items += answer["output"]
            ids |= _ids(message, answer["output"])
        else:
            items.append(_item(message, ids))
    return {**settings, "input": items}


def _ids(message: Any, output: list[Json]) -> dict[str, list[str]]:
    given = [item["call_id"] for item in output if item["type"] == "function_call"]
    ids: dict[str, list[str]] = {}
    for call, new in zip(message.get("tool_calls") or (), given, strict=True):
        ids.setdefault(call["id"], []).append(new)
    return ids


@lru_cache
def official_response() -> Any:
    need("openai")
    from openai.types.responses import Response
    from pydantic import TypeAdapter

    return TypeAdapter(Response)


def _item(message: Any, ids: dict[str, list[str]]) -> Json:
    if message["role"] == "tool":
        identity = message["tool_call_id"]
        left = ids.get(identity, [identity])
        called = {"call_id": left.pop(0) if len(left) > 1 else left[0]}
        return {"type": "function_call_output", **called, "output": _parts(message)}
    return {"type": "message", "role": message["role"], "content": _parts(message)}


def _parts(message: Any) -> Any:
    content = message["content"]
    if isinstance(content, str):
        return content
    return [
        {"type": "input_text", "text": part["text"]}
        if part["type"] == "text"
        else {"type": "input_image", "image_url": part["image_url"]["url"]}
        for part in content
    ]


DOORS = (
    Door("chat completions", completions.FRONT_DOOR, _chat_body),
    Door("responses", responses.FRONT_DOOR, _response_body),
)
