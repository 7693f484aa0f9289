"""Converts vibe's messages, tools and images to a chat. Pure, except that images are read.

Only attributes are read, so the types of every vibe work: 1.x has no images, and what later
versions add, such as how a call is displayed, is ignored.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from muxcore.chat import Chat, Json
from muxcore.config.definitions import VIBES_TEMPERATURE

AFFINITY = "x-affinity"
"""The header that names vibe's session."""


def chat_of(
    model: Any,
    messages: Sequence[Any],
    temperature: float | None,
    tools: Sequence[Any] | None,
    max_tokens: int | None,
    tool_choice: Any,
) -> Chat:
    """Return the arguments of a call of vibe as a chat."""
    return Chat(
        [message_of(message) for message in messages],
        [tool.model_dump(exclude_none=True) for tool in tools] if tools else None,
        _choice(tool_choice),
        # The model's own temperature is left out: the member that serves uses its own.
        None if temperature == model.temperature else temperature,
        max_tokens,
        usual_temperature=VIBES_TEMPERATURE,
    )


def session_of(
    extra_headers: Mapping[str, str] | None, metadata: Mapping[str, str] | None
) -> str | None:
    """Return the session that a call belongs to, None if vibe names none."""
    named = {name.lower(): value for name, value in (extra_headers or {}).items()}
    return named.get(AFFINITY) or (metadata or {}).get("session_id") or None


def message_of(message: Any) -> Json:
    """Return one message in the shape of OpenAI's."""
    fields: Json = {"role": str(message.role)}
    if (content := _content(message)) is not None:
        fields["content"] = content
    for name in ("reasoning_content", "name", "tool_call_id"):
        if (value := getattr(message, name, None)) is not None:
            fields[name] = value
    if message.tool_calls:
        fields["tool_calls"] = [_call(call) for call in message.tool_calls]
    return fields


def _content(message: Any) -> str | list[Json] | None:
    text: str | None = message.content
    images = getattr(message, "images", None)
    if not images or str(message.role) != "user":
        # A message of tool calls alone has no content.
        return text or (None if message.tool_calls else "")
    parts: list[Json] = [{"type": "text", "text": text}] if text else []
    return [*parts, *map(_image, images)]


def _image(image: Any) -> Json:
    source = image.source
    data = getattr(source, "data", None)
    if data is None:
        data = base64.b64encode(Path(source.path).read_bytes()).decode("ascii")
    url = f"data:{image.mime_type};base64,{data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _call(call: Any) -> Json:
    function = {
        "name": call.function.name or "",
        "arguments": call.function.arguments or "",
    }
    return {"id": call.id, "type": call.type, "function": function}


def _choice(choice: Any) -> Any:
    return choice if choice is None or isinstance(choice, str) else choice.model_dump()
