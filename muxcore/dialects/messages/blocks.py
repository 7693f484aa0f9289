"""Messages from turns of blocks, and the blocks that stand for calls and images. Pure.

A turn of the user holds what are several messages in chat completions: each result of a tool, and
the words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from muxcore import jsontext
from muxcore.chat import REASONING, Json, Message
from muxcore.dialects.reading import (
    UNREADABLE,
    MalformedItemError,
    at,
    content_of,
    text_in,
)
from muxcore.dialects.sealing import unsealed

IMAGE = re.compile(r"data:(image/(?:jpeg|png|gif|webp));base64,(.*)", re.DOTALL)
FAILED = "is_error"
"""The member of a result that says whether the tool failed."""

# --- messages from turns --------------------------------------------------------------------


def messages_of(turns: Sequence[Json]) -> list[Json]:
    """Make the messages of a conversation. Raise `MalformedItemError`."""
    messages: list[Json] = []
    for position, turn in enumerate(turns):
        with at(f"[{position}]"):
            messages += _messages(turn)
    return messages


def _messages(turn: Json) -> list[Json]:
    role, content = turn.get("role"), turn.get("content")
    if role not in ("assistant", "user", "system"):
        raise MalformedItemError(".role", "user, assistant or system")
    with at(".content"):
        blocks = blocks_of(content)
        if role == "assistant":
            return [answer_of(blocks, lambda block: unsealed(block.get("signature")))]
        return _turn_messages(str(role), blocks)


def blocks_of(content: Any) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list) or not all(isinstance(b, dict) for b in content):
        raise MalformedItemError("", "a text, or a list of blocks")
    return content


def _turn_messages(role: str, blocks: Sequence[Json]) -> list[Json]:
    """Make the messages of a turn that is no answer: results, and words between them."""
    messages: list[Json] = []
    words: list[Json] = []
    for position, block in enumerate(blocks):
        with at(f"[{position}]"):
            if block.get("type") == "tool_result":
                words = []
                messages.append(_result(block))
                continue
            if not words:
                messages.append({"role": role, "content": words})
            words.append(_part(block, "text, image, document, search_result, tool_result"))
    messages = messages or [{"role": role, "content": []}]
    return [
        {**message, "content": content_of(message["content"])}
        if message["role"] == role
        else message
        for message in messages
    ]


def _result(block: Json) -> Json:
    identity, content = text_in(block, "tool_use_id"), block.get("content")
    parts: list[Json] = []
    with at(".content"):
        for position, each in enumerate(blocks_of([] if content is None else content)):
            with at(f"[{position}]"):
                parts.append(_part(each, "text, image, document or search_result"))
    failed = {FAILED: True} if block.get(FAILED) is True else {}
    called = {"tool_call_id": identity, "content": content_of(parts)}
    return {"role": "tool", **called, **failed}


def _part(block: Json, known: str) -> Json:
    """Return a block as a part of content; its marks for a cache are left out."""
    match block:
        case {"type": "text"}:
            return {"type": "text", "text": text_in(block, "text")}
        case {"type": "image", "source": dict(source)}:
            return {"type": "image_url", "image_url": {"url": _url(source)}}
        case {"type": "document", "source": {"type": "text", "data": str(text)}}:
            return {"type": "text", "text": text}
        case {"type": "search_result", "content": list(texts)}:
            with at(".content"):
                words = [text_in(text, "text") for text in blocks_of(texts)]
            head = [block.get(name) for name in ("title", "source")]
            lines = [line for line in head if isinstance(line, str)]
            return {"type": "text", "text": "\n".join([*lines, *words])}
        case {"type": "image"}:
            raise MalformedItemError(".source", "an object")
        case {"type": "document"}:
            raise MalformedItemError(
                ".source.type", "text: no model reads other files here"
            )
        case _:
            raise MalformedItemError(".type", f"{known}, not {block.get('type')}")


def _url(source: Json) -> str:
    match source:
        case {"type": "base64", "media_type": str(kind), "data": str(data)}:
            return f"data:{kind};base64,{data}"
        case {"type": "url", "url": str(url)}:
            return url
        case _:
            raise MalformedItemError(".source", "base64 or url: no files are kept")


def answer_of(blocks: Sequence[Json], signed: Callable[[Json], Json]) -> Json:
    """Make one message of the blocks of an answer. Raise `MalformedItemError`.

    `signed` returns the members that hold the signed reasoning of a block. The work of tools that
    run on the server is left out.
    """
    texts: list[str] = []
    thoughts: list[str] = []
    lists: dict[str, list[Json]] = {}
    calls: list[Json] = []
    for position, block in enumerate(blocks):
        with at(f"[{position}]"):
            match block.get("type"):
                case "text":
                    texts.append(text_in(block, "text"))
                case "thinking" | "redacted_thinking" as kind:
                    if kind == "thinking":
                        thoughts.append(text_in(block, "thinking"))
                    for name, items in signed(block).items():
                        lists.setdefault(name, []).extend(items)
                case "tool_use":
                    calls.append(_call(block))
                case _:
                    pass
    message: Json = {"role": "assistant", "content": "".join(texts)}
    if words := "".join(thoughts):
        message[REASONING] = words
    message |= lists
    if calls:
        message["tool_calls"] = calls
        message["content"] = message["content"] or None
    return message


def _call(block: Json) -> Json:
    given = block.get("input") or {}
    if not isinstance(given, dict):
        raise MalformedItemError(".input", "an object")
    function = {
        "name": text_in(block, "name"),
        "arguments": jsontext.encode_arguments(given),
    }
    return {"id": text_in(block, "id"), "type": "function", "function": function}


# --- blocks from messages -------------------------------------------------------------------


def call_block(call: Message, arguments: str) -> Json:
    """Write a call with these arguments."""
    named = {"id": call["id"], "name": call["function"]["name"]}
    return {"type": "tool_use", **named, "input": _input(arguments)}


def _input(arguments: str) -> Json:
    try:
        read = jsontext.decode(arguments or "{}")
    except (ValueError, RecursionError):
        read = None
    return read if isinstance(read, dict) else {UNREADABLE: arguments}


def image_block(image: Any) -> Json | None:
    """Write an image of chat completions; None if the API takes no such address."""
    url = image.get("url") if isinstance(image, Mapping) else image
    if match := IMAGE.fullmatch(str(url)):
        source = {"type": "base64", "media_type": match[1], "data": match[2]}
    elif str(url).startswith(("http://", "https://")):
        source = {"type": "url", "url": url}
    else:
        return None
    return {"type": "image", "source": source}
