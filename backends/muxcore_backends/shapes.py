"""Bring what servers send into the one shape of OpenAI's chat completions.

All of this works on objects that were parsed out of an answer a moment ago and belong to
nobody else, so they are changed in place.
"""

from __future__ import annotations

import json
import re
from typing import Any

from muxcore.chat import Json

REASONING = "reasoning_content"
LONGEST_ID_TAIL = 24
"""OpenAI refuses ids of more than 40 characters."""


class MalformedError(ValueError):
    """A part of an answer is not what it must be. Its text says which."""


def normalise(message: Json, reasoning_field: str) -> None:
    """Make plain text of a message's (or delta's) content, and name its reasoning."""
    content = message.get("content")
    if content is not None and content.__class__ is not str:
        if not isinstance(content, list):
            raise MalformedError("the content is neither text nor a list of parts")
        _flatten(message, content)
    if reasoning_field != REASONING and reasoning_field in message:
        message[REASONING] = message.pop(reasoning_field)
    reasoning = message.get(REASONING)
    if reasoning is not None and reasoning.__class__ is not str:
        raise MalformedError("the reasoning is no text")


def _flatten(message: Json, parts: list[Any]) -> None:
    """Take apart Mistral's content of text and thinking; other parts have no place here."""
    texts: list[str] = []
    thoughts: list[str] = []
    for part in parts:
        if not isinstance(part, dict):
            raise MalformedError("a part of the content is no object")
        match part.get("type"):
            case "text":
                texts.append(_text(part.get("text")))
            case "thinking":
                thoughts.append(_thinking(part.get("thinking")))
            case _:
                pass
    message["content"] = "".join(texts)
    if thoughts:
        message[REASONING] = "".join(thoughts)


def _thinking(value: object) -> str:
    if isinstance(value, list):
        return "".join(_text(part.get("text")) for part in value if isinstance(part, dict))
    return _text(value)


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedError("a part of the content is no text")
    return value


FINISH_REASONS = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    # DeepSeek, for an answer that it had to give up: it is not whole.
    "insufficient_system_resource": "length",
    "refusal": "content_filter",
    "safety": "content_filter",
}
"""OpenAI's finish reason, by what servers say. What nobody knows is an ordinary end."""


def finish_reason_of(said: str | None, *, calls: bool) -> str | None:
    """Return the finish reason in OpenAI's words; `calls` is whether tools were called."""
    if not said:
        return said
    reason = FINISH_REASONS.get(said.lower(), "stop")
    # Ollama and Google end an answer with calls like any other.
    return "tool_calls" if calls and reason == "stop" else reason


def complete_tool_calls(calls: object, completion: object) -> None:
    """Fill in what the tool calls of a whole message lack."""
    for position, call in enumerate(_objects(calls)):
        function = function_of(call)
        if not function.get("name"):
            raise MalformedError("a tool call names no function")
        call["id"] = call.get("id") or made_up_id(completion, position)
        call["type"] = call.get("type") or "function"
        call["function"] = function


def function_of(call: Json) -> Json:
    """Return a tool call's function, with its arguments as text."""
    function = call.get("function")
    if function is None:
        function = {}
    if not isinstance(function, dict):
        raise MalformedError("a tool call's function is no object")
    name, arguments = function.get("name"), function.get("arguments")
    if name is not None and not isinstance(name, str):
        raise MalformedError("a tool call's function name is no text")
    if arguments is None:
        function["arguments"] = ""
    elif isinstance(arguments, dict):
        # Some servers send the object itself where the text of it is due.
        function["arguments"] = json.dumps(arguments)
    elif not isinstance(arguments, str):
        raise MalformedError("a tool call's arguments are no text")
    identity = call.get("id")
    if identity is not None and not isinstance(identity, str):
        raise MalformedError("a tool call's id is no text")
    return function


def made_up_id(completion: object, position: int) -> str:
    """Make an id for a tool call without one, out of the completion's own to be new."""
    tail = re.sub(r"[^A-Za-z0-9]", "", completion) if isinstance(completion, str) else ""
    return f"call_{position}_{tail[-LONGEST_ID_TAIL:]}"


def _objects(calls: object) -> list[Json]:
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise MalformedError("the tool calls are no list of objects")
    return calls


class FragmentJoint:
    """Puts the tool-call fragments of one stream into OpenAI's order.

    There, a call's first fragment has its id and name, later ones have neither, and all
    fragments of one call, and of no other, share an index. The later ones have an empty name:
    Mistral's client takes no fragment without one, and OpenAI's joins the names.
    """

    __slots__ = ("_ids", "_named", "_positions")

    def __init__(self) -> None:
        self._positions: dict[int, int] = {}
        """Ours, by the index that the server uses at the time."""
        self._ids: list[str] = []
        self._named: list[bool] = []

    def put(self, calls: object, completion: object) -> list[Json]:
        """Return the fragments as the caller is to see them."""
        return [self._put(call, completion) for call in _objects(calls)]

    def _put(self, call: Json, completion: object) -> Json:
        function = function_of(call)
        name, identity = function.pop("name", None), call.pop("id", None)
        kind = call.pop("type", None)
        position = self._position(call.get("index"), identity, name)
        fragment: Json = {**call, "index": position, "function": function}
        if position == len(self._ids):
            self._ids.append(identity or made_up_id(completion, position))
            self._named.append(False)
            fragment["id"] = self._ids[position]
            fragment["type"] = kind or "function"
        fresh = name if name and not self._named[position] else ""
        self._named[position] = self._named[position] or bool(fresh)
        fragment["function"] = {"name": fresh, **function}
        return fragment

    @property
    def begun(self) -> bool:
        """Whether any call has come."""
        return bool(self._ids)

    def _position(self, index: object, identity: str | None, name: str | None) -> int:
        fresh = len(self._ids)
        if type(index) is not int:
            return self._position_without_index(identity, name)
        position = self._positions.get(index)
        # Gemini gives all parallel calls the index 0, each with an id and a name; older
        # vLLM gives every fragment of one call its own id, but only the first one a name.
        if position is None or (name and identity and identity != self._ids[position]):
            position = self._positions[index] = fresh
        return position

    def _position_without_index(self, identity: str | None, name: str | None) -> int:
        fresh = len(self._ids)
        if identity in self._ids:
            return self._ids.index(identity)
        return fresh if name or not fresh else fresh - 1
