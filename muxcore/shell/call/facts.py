"""What a chat tells about its call: which conversation, whose turn, how large."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from muxcore.chat import Chat

BYTES_PER_TOKEN = 4
"""A rule of thumb for English and code; an estimate only ever skips what is far too small."""


def conversation_of(
    session: str | None, messages: Sequence[Mapping[str, Any]]
) -> str | None:
    """Name the conversation: the session, and its first user message.

    Sub-agents share their parent's session but begin with words of their own.
    """
    if session is None:
        return None
    # OpenSSL comes with it: too slow to import for who needs no hash.
    import hashlib  # noqa: PLC0415

    first = next((m.get("content") for m in messages if m.get("role") == "user"), None)
    words = first if isinstance(first, str) else json.dumps(first, default=str)
    digest = hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=8)
    return f"{session}/{digest.hexdigest()}"


def begins_turn(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the user spoke last: then a new turn begins."""
    return not messages or messages[-1].get("role") == "user"


def estimated_tokens(chat: Chat) -> int:
    """Estimate the size of the prompt, in tokens."""
    size = sum(_size(message) for message in chat.messages)
    if chat.tools:
        size += sum(len(json.dumps(tool, default=str)) for tool in chat.tools)
    return size // BYTES_PER_TOKEN


def _size(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    size = 0
    if isinstance(content, str):
        size += len(content)
    elif isinstance(content, list):
        # Images are told by their parts' text alone: how many tokens one is differs widely.
        size += sum(len(p.get("text") or "") for p in content if isinstance(p, Mapping))
    for call in message.get("tool_calls") or ():
        size += len(str(call.get("function", "")))
    return size
