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
from muxcore.gateway.front_doors import completions, messages, responses
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
            calls = [i for i in answer["output"] if i["type"] == "function_call"]
            ids |= _ids(message, [call["call_id"] for call in calls])
        else:
            items.append(_item(message, ids))
    return {**settings, "input": items}


def _ids(message: Any, given: list[str]) -> dict[str, list[str]]:
    ids: dict[str, list[str]] = {}
    for call, new in zip(message.get("tool_calls") or (), given, strict=True):
        ids.setdefault(call["id"], []).append(new)
    return ids


def _message_body(door: FrontDoor, messages: Messages) -> Json:
    settings: Json = {"model": "mux", "max_tokens": 100, "tools": CUSTOM_TOOLS}
    turns: list[Json] = []
    ids: dict[str, list[str]] = {}
    for number, message in enumerate(messages):
        match message["role"]:
            case "assistant":
                asked = {**settings, "messages": turns or HI}
                request = door.read(json.dumps(asked).encode())
                answer = door.whole(request, Stamp(f"{number}", 0), Reply(message, "stop"))
                official_message().validate_python(answer)
                turns.append({"role": "assistant", "content": answer["content"]})
                given = [b["id"] for b in answer["content"] if b["type"] == "tool_use"]
                ids |= _ids(message, given)
            case "tool":
                # Results that follow each other are of one turn.
                said = {"tool_use_id": _own_id(message, ids), "content": _blocks(message)}
                block = {"type": "tool_result", **said}
                if turns and turns[-1]["role"] == "user" and _is_result(turns[-1]):
                    turns[-1]["content"].append(block)
                else:
                    turns.append({"role": "user", "content": [block]})
            case role:
                role = "system" if role == "developer" else role
                turns.append({"role": role, "content": _blocks(message)})
    return {**settings, "messages": turns}


HI = [{"role": "user", "content": "hi"}]
CUSTOM_TOOLS = [
    {
        "name": tool["function"]["name"],
        "description": tool["function"]["description"],
        "input_schema": tool["function"]["parameters"],
    }
    for tool in TOOLS
]


def _is_result(turn: Json) -> bool:
    content = turn["content"]
    kinds = [b["type"] for b in content] if isinstance(content, list) else []
    return kinds[-1:] == ["tool_result"]


def _blocks(message: Any) -> Any:
    content = message["content"]
    if isinstance(content, str):
        return content
    return [part if part["type"] == "text" else _image(part) for part in content]


def _image(part: Json) -> Json:
    kind, _, data = part["image_url"]["url"].removeprefix("data:").partition(";base64,")
    source = {"type": "base64", "media_type": kind, "data": data}
    return {"type": "image", "source": source}


@lru_cache
def official_message() -> Any:
    need("anthropic")
    from anthropic.types import Message
    from pydantic import TypeAdapter

    return TypeAdapter(Message)


@lru_cache
def official_response() -> Any:
    need("openai")
    from openai.types.responses import Response
    from pydantic import TypeAdapter

    return TypeAdapter(Response)


def _item(message: Any, ids: dict[str, list[str]]) -> Json:
    if message["role"] == "tool":
        called = {"call_id": _own_id(message, ids)}
        return {"type": "function_call_output", **called, "output": _parts(message)}
    return {"type": "message", "role": message["role"], "content": _parts(message)}


def _own_id(result: Any, ids: dict[str, list[str]]) -> str:
    identity: str = result["tool_call_id"]
    left = ids.get(identity, [identity])
    return left.pop(0) if len(left) > 1 else left[0]


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
    Door("messages", messages.FRONT_DOOR, _message_body),
)
