"""How the gateway recognises `/mux`, and answers it. Pure.

Vibe sends a skill's text to the model as the user's message. The gateway sees it first and
answers it: no model is called, so it works while every model is down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve

from muxcore.chat import Chat, Chunk, Json, Reply
from muxcore.core.status import TITLE
from muxcore.gateway.skill_file import COMMAND, MARKER, NAME

ALREADY_LOADED = f"Skill '{NAME}' is already loaded earlier in this conversation."
"""What vibe 3 sends in place of the text from the second time on."""

# Vibe 3 sends the command and the text; vibe 2 the file, alone or after the command.
_BEGINNINGS = (COMMAND, f'<skill_content name="{NAME}">', "---", f"<!-- {MARKER}")


def asks_for_status(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last message is the user's `/mux`.

    A longer text that quotes it, such as vibe's request for a title, does not count.
    """
    return bool(messages) and _is_command(messages[-1])


def without_status(chat: Chat) -> Chat:
    """Return the chat without each earlier `/mux` and its answer, which no model has seen."""
    kept: list[Mapping[str, Any]] = []
    follows = False
    for message in chat.messages:
        is_answer = follows and _text(message.get("content")).startswith(TITLE)
        follows = _is_command(message)
        if not (follows or is_answer):
            kept.append(message)
    return chat if len(kept) == len(chat.messages) else evolve(chat, messages=kept)


def reply_of(text: str) -> tuple[Reply, tuple[Chunk, ...]]:
    """Make a reply of the gateway's own text, whole and in chunks. No model is called."""
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    message: Json = {"role": "assistant", "content": text}
    whole = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
    deltas: list[tuple[Json, str | None]] = [
        ({"role": "assistant", "content": ""}, None),
        ({"content": text}, None),
        ({}, "stop"),
    ]
    chunks = [
        Chunk({"choices": [{"delta": delta, "finish_reason": reason}]})
        for delta, reason in deltas
    ]
    chunks.append(Chunk({"choices": [], "usage": usage}))
    return Reply(message, "stop", raw=whole), tuple(chunks)


def _is_command(message: Mapping[str, Any]) -> bool:
    if message.get("role") != "user":
        return False
    text = _text(message.get("content")).strip()
    if text == COMMAND:
        return True
    if not text.startswith(_BEGINNINGS):
        return False
    words = text.removeprefix(COMMAND)
    if words != text and not words[0].isspace():
        # Another command, such as /muxer.
        return False
    return MARKER in words or words.strip().startswith(ALREADY_LOADED)


def _text(content: object) -> str:
    """Return a message's text, whole or in parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n\n".join(text for text in parts if isinstance(text, str))
    return ""
