"""What other APIs, and older clients, write otherwise: brought into the form of chat completions."""

from __future__ import annotations

from typing import Any

from muxcore.dialects.reading import unknown_part
from muxcore_backends.history.contents import ABOUT_PARTS, PARTS, text_part
from muxcore_backends.history.steps import Message, Rewrite, each, without


def _modern(message: Message) -> Message:
    role, call = message.get("role"), message.get("function_call")
    if role == "function":
        return {**message, "role": "tool"}
    if role != "assistant" or not isinstance(call, dict) or message.get("tool_calls"):
        return message
    # The result has no id either: both get one later.
    calls = [{"id": None, "type": "function", "function": call}]
    return {**without(message, "function_call"), "tool_calls": calls}


MODERN = Rewrite(
    "older function calls made tool calls",
    each(_modern),
    frozenset({"function_call", "name"}),
)


def _formed(message: Message) -> Message:
    content = message.get("content")
    if not isinstance(content, PARTS):
        return message
    formed = [_part(part, message.get("role")) for part in content]
    if all(one is other for one, other in zip(formed, content, strict=True)):
        return message
    return {**message, "content": [part for part in formed if part is not None]}


def _part(part: Any, role: Any) -> Any:  # noqa: PLR0911 - one for each form
    """Return a part in the form of chat completions; None if it holds nothing for a model."""
    match part:
        case {"type": "text", "text": str()} | {"type": "image_url" | "thinking"}:
            return part
        case {"type": "image", "source": {"media_type": str(kind), "data": str(data)}}:
            return _image(f"data:{kind};base64,{data}")
        case {"type": "image", "source": {"url": str(url)}} | {"image_url": str(url)}:
            return _image(url)
        case {"type": "reasoning", "text": str(words)} if role == "assistant":
            return {"type": "thinking", "thinking": [text_part(words)]}
        case {"text": str(words)} | {"type": "refusal", "refusal": str(words)}:
            return text_part(words)
        case {"type": "text"}:
            return None
        case {"type": kind} if role == "tool":
            return unknown_part(kind)
        case _:
            # The server judges what a user sends; nobody else's answer holds more than words.
            return None if role == "assistant" else part


def _image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


FORMED = Rewrite("parts of other APIs rewritten", each(_formed), ABOUT_PARTS)
