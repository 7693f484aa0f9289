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
    MalformedItemError,
    at,
    content_of,
    object_in,
    text_in,
    unknown_part,
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
    if content is None:
        return []
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
            words += _parts(block)
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
        for position, each in enumerate(blocks_of(content)):
            with at(f"[{position}]"):
                parts += _parts(each)
    failed = {FAILED: True} if block.get(FAILED) is True else {}
    called = {"tool_call_id": identity, "content": content_of(parts)}
    return {"role": "tool", **called, **failed}


def _parts(block: Json) -> list[Json]:
    """Return a block as parts of content; its marks for a cache are left out."""
    match block:
        case {"type": "text"}:
            return [{"type": "text", "text": text_in(block, "text")}]
        case {"type": "image", "source": dict(source)}:
            return [_image(source)]
        case {"type": "document", "source": dict(source)}:
            return [*_heading(block, "title", "context"), *_document(source)]
        case {"type": "search_result", "content": list(texts)}:
            with at(".content"):
                words = [text_in(text, "text") for text in blocks_of(texts)]
            heading = [part["text"] for part in _heading(block, "title", "source")]
            return [{"type": "text", "text": "\n".join([*heading, *words])}]
        case {"type": "tool_reference", "tool_name": str(name)}:
            return [{"type": "text", "text": name}]
        case {"type": "image" | "document"}:
            raise MalformedItemError(".source", "an object")
        case {"type": str(kind)}:
            return [unknown_part(kind)]
        case _:
            raise MalformedItemError(".type", "a text")


def _heading(block: Json, *names: str) -> list[Json]:
    texts = [block[name] for name in names if isinstance(block.get(name), str)]
    return [{"type": "text", "text": text} for text in texts]


def _image(source: Json) -> Json:
    match source:
        case {"type": "base64", "media_type": str(kind), "data": str(data)}:
            url = f"data:{kind};base64,{data}"
        case {"type": "url", "url": str(url)}:
            pass
        case {"type": "base64" | "url"}:
            raise MalformedItemError(".source", "an image in base64, or its url")
        case _:
            return unknown_part("image")
    return {"type": "image_url", "image_url": {"url": url}}


def _document(source: Json) -> list[Json]:
    match source:
        case {"type": "text", "data": str(text)}:
            return [{"type": "text", "text": text}]
        case {"type": "content", "content": content}:
            with at(".source.content"):
                # It holds no further documents, so this ends.
                blocks = blocks_of(content)
                kinds = ("text", "image")
                nested = [block for block in blocks if block.get("type") in kinds]
                return [part for block in nested for part in _parts(block)]
        case _:
            return [unknown_part("document")]


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
                    if kind == "thinking" and isinstance(block.get(kind), str):
                        thoughts.append(block[kind])
                    for name, items in signed(block).items():
                        lists.setdefault(name, []).extend(items)
                case "compaction" if isinstance(block.get("content"), str):
                    texts.append(block["content"])
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
    if isinstance(given, dict):
        given = jsontext.encode_arguments(given)
    elif not isinstance(given, str):
        raise MalformedItemError(".input", "an object")
    function = {"name": text_in(block, "name"), "arguments": given}
    return {"id": text_in(block, "id"), "type": "function", "function": function}


# --- blocks from messages -------------------------------------------------------------------


def call_block(call: Message, arguments: str) -> Json:
    """Write a call with these arguments."""
    named = {"id": call["id"], "name": call["function"]["name"]}
    return {"type": "tool_use", **named, "input": object_in(arguments)}


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
