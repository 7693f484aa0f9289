"""What a message holds: text, parts and images, and nothing where there is nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Any

from muxcore_backends.history import phrases
from muxcore_backends.history.steps import (
    CONTENT_IN_PARTS,
    Message,
    Messages,
    Rewrite,
    each,
    without,
)

PARTS = (list, tuple)
"""What parts may come in."""

ABOUT_PARTS = frozenset({CONTENT_IN_PARTS})
IMAGES = frozenset({"image_url", "image"})


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def parts_of(content: Any) -> list[Any]:
    """Return a message's content as parts, whichever form it has."""
    if isinstance(content, str):
        return [text_part(content)] if content else []
    return list(content or ())


def joined(contents: Iterable[Any]) -> Any:
    """Make one content of several: a text if all are, else parts. Linear in their length."""
    filled = [content for content in contents if content]
    texts = list(takewhile(lambda content: isinstance(content, str), filled))
    text = phrases.SEAM.join(texts)
    rest = filled[len(texts) :]
    if not rest:
        return text
    if len(filled) == 1:
        return rest[0]
    return [part for content in (text, *rest) for part in parts_of(content)]


def plain_text(content: Any) -> Any:
    """Make one text of parts that are all text; leave anything else as it is."""
    if not isinstance(content, PARTS):
        return content
    texts = [part["text"] for part in content if _is_text(part)]
    return phrases.SEAM.join(texts) if len(texts) == len(content) else content


def _is_text(part: Any) -> bool:
    return (
        isinstance(part, Mapping)
        and part.get("type") == "text"
        and isinstance(part.get("text"), str)
    )


def _settled(message: Message) -> Message:
    """Leave no content empty where it must be a text, and no empty list of calls."""
    if "tool_calls" in message and not message["tool_calls"]:
        message = without(message, "tool_calls")
    content = message.get("content")
    if content:
        return message
    if message.get("role") == "assistant":
        # Beside calls it may be missing; a message without either is left out later.
        return message if content is None or content == "" else {**message, "content": ""}
    return message if content == "" else {**message, "content": ""}


SETTLED = Rewrite("", each(_settled))


def _completed(message: Message) -> Message:
    return message if message.get("content") is not None else {**message, "content": ""}


COMPLETED = Rewrite("", each(_completed))
"""For servers that demand the member even beside calls."""


def _flat(message: Message) -> Message:
    content = message.get("content")
    flat = plain_text(content)
    return message if flat is content else {**message, "content": flat}


FLAT = Rewrite("text parts joined", each(_flat), ABOUT_PARTS)


def _blind(message: Message) -> Message:
    content = message.get("content")
    if not isinstance(content, PARTS) or not any(map(is_image, content)):
        return message
    seen = [text_part(phrases.NO_IMAGE) if is_image(part) else part for part in content]
    return {**message, "content": plain_text(seen)}


BLIND = Rewrite("images left out", each(_blind), ABOUT_PARTS)


def is_image(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in IMAGES


def _lift(messages: Messages) -> Messages:
    """Move the images of tool results to a user message, the only place where they are allowed.

    They stand after the last result of their turn, so that calls and results stay together.
    """
    out: list[Message] = []
    lifted: list[Any] = []
    changed = False
    for message in messages:
        if lifted and message.get("role") != "tool":
            out.append({"role": "user", "content": lifted})
            lifted = []
        content = message.get("content")
        if (
            message.get("role") == "tool"
            and isinstance(content, PARTS)
            and any(map(is_image, content))
        ):
            changed = True
            lifted = [*lifted, *filter(is_image, content)]
            rest = [part for part in content if not is_image(part)]
            message = {**message, "content": plain_text(rest)}  # noqa: PLW2901
        out.append(message)
    if lifted:
        out.append({"role": "user", "content": lifted})
    return out if changed else messages


LIFTED = Rewrite("images of tool results shown by the user", _lift, ABOUT_PARTS)


def _drop_empty(messages: Messages) -> Messages:
    kept = [message for message in messages if not _is_empty(message)]
    return messages if len(kept) == len(messages) else kept


def _is_empty(message: Message) -> bool:
    """Whether an assistant's message says nothing: its turn was interrupted at once.

    What it had thought until then does not count: no server takes thoughts alone.
    """
    return (
        message.get("role") == "assistant"
        and not message.get("tool_calls")
        and not any(map(_is_speech, parts_of(message.get("content"))))
    )


def _is_speech(part: Any) -> bool:
    return not isinstance(part, Mapping) or part.get("type") != "thinking"


SPOKEN = Rewrite("empty answers left out", _drop_empty)
