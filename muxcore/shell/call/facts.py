"""What a chat says about its call: its conversation, whose turn it is, its size."""

from __future__ import annotations

import json
from collections.abc import Mapping

from muxcore import shell
from muxcore.chat import Chat, Message, Messages

BYTES_PER_TOKEN = 4
"""A rule of thumb for English and code; an estimate only ever skips what is far too small."""


def conversation_of(session: str | None, messages: Messages) -> str | None:
    """Name the conversation: the session, and a hash of its first user message.

    Sub-agents share their parent's session but begin with their own words.
    """
    if session is None:
        return None
    first = next((m.get("content") for m in messages if m.get("role") == "user"), None)
    words = first if isinstance(first, str) else json.dumps(first, default=str)
    digest = shell.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=8)
    return f"{session}/{digest.hexdigest()}"


def begins_turn(messages: Messages) -> bool:
    """Whether the user spoke last, which begins a new turn."""
    return not messages or messages[-1].get("role") == "user"


def estimated_tokens(chat: Chat) -> int:
    """Estimate the size of the prompt, in tokens."""
    size = sum(_size(message) for message in chat.messages)
    if chat.tools:
        size += sum(len(json.dumps(tool, default=str)) for tool in chat.tools)
    return size // BYTES_PER_TOKEN


def _size(message: Message) -> int:
    content = message.get("content")
    size = 0
    if isinstance(content, str):
        size += len(content)
    elif isinstance(content, list):
        # Images count with their text alone: how many tokens one takes differs widely.
        size += sum(len(p.get("text") or "") for p in content if isinstance(p, Mapping))
    for call in message.get("tool_calls") or ():
        size += len(str(call.get("function", "")))
    return size
