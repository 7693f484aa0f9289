"""What a chat shows about its call: the conversation, whether a turn begins, the size."""

from __future__ import annotations

import json
from collections.abc import Mapping

from muxcore import shell
from muxcore.chat import Chat, Message, Messages

USERS = frozenset({"user"})
SYSTEMS = frozenset({"system", "developer"})
BYTES_PER_TOKEN = 4
"""A rule of thumb for English and code. An estimate only rules out windows far too small."""


def conversation_of(session: str | None, chat: Chat) -> str | None:
    """Return the name of the conversation, so that the calls of one turn stay on one model.

    With a session, or a `prompt_cache_key` in its place, the name is that and a hash of the
    first user message: sub-agents share their parent's session but begin with their own words.
    Without either, it is a hash of the opening: the system prompt, the names of the tools, and
    the first user message. None for a chat without messages.
    """
    if not chat.messages:
        return None
    first_words = _content_of(chat.messages, USERS)
    session = session or _cache_key(chat)
    if session is not None:
        return f"{session}/{_digest(first_words)}"
    tools = "\0".join(map(_tool_name, chat.tools or ()))
    return _digest(f"{_content_of(chat.messages, SYSTEMS)}\0\0{tools}\0\0{first_words}")


def _cache_key(chat: Chat) -> str | None:
    key = chat.extra.get("prompt_cache_key")
    return key if isinstance(key, str) and key else None


def _content_of(messages: Messages, roles: frozenset[str]) -> str:
    """Return the content of the first message in one of these roles, as text."""
    content: object = None
    for message in messages:
        if message.get("role") in roles:
            content = message.get("content")
            break
    if not content:
        return ""
    return content if isinstance(content, str) else json.dumps(content, default=str)


def _tool_name(tool: Mapping[str, object]) -> str:
    function = tool.get("function")
    return str(function.get("name") if isinstance(function, Mapping) else tool.get("name"))


def _digest(text: str) -> str:
    digest = shell.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8)
    return digest.hexdigest()


def begins_turn(messages: Messages) -> bool:
    """Whether the user spoke last, which begins a new turn; what the system adds is no matter."""
    for message in reversed(messages):
        role = message.get("role")
        if role not in SYSTEMS:
            return role == "user"
    return True


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
        # Images are not counted: the number of tokens of one differs widely.
        size += sum(
            len(str(p.get("text") or "")) for p in content if isinstance(p, Mapping)
        )
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        size += sum(
            len(str(c.get("function", ""))) for c in calls if isinstance(c, Mapping)
        )
    return size
