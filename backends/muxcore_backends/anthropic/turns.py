"""From OpenAI's messages to Anthropic's turns: two speakers, whose content is in blocks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TypeAlias

from attrs import frozen

from muxcore.chat import ORIGIN, THINKING_BLOCKS
from muxcore.core.records import Endpoint
from muxcore.dialects.messages.blocks import FAILED, call_block, image_block
from muxcore.dialects.reading import unknown_part
from muxcore_backends.history import contents, phrases, reasoning, roles
from muxcore_backends.history.calls import CALLS
from muxcore_backends.history.contents import parts_of
from muxcore_backends.history.forms import FORMED, MODERN
from muxcore_backends.history.ids import UP_TO_64, ids
from muxcore_backends.history.pairs import PAIRS, calls_of
from muxcore_backends.history.steps import Message, Messages, Rewrite, without

Block: TypeAlias = dict[str, Any]

EPHEMERAL = {"type": "ephemeral"}


@lru_cache(maxsize=256)
def steps(endpoint: Endpoint) -> tuple[Rewrite, ...]:
    """Return the steps that a history needs before it can be put into turns."""
    thinks = endpoint.wire.thinking != "off"
    signer = reasoning.origin_of(endpoint) if thinks else None
    always = (
        MODERN,
        FORMED,
        PAIRS,
        CALLS,
        ids(UP_TO_64),
        roles.SYSTEM,
        roles.EARLY_SYSTEM,
        reasoning.GATHERED,
        reasoning.foreign_dropped(THINKING_BLOCKS, signer),
    )
    return always if endpoint.wire.supports_images else (*always, contents.BLIND)


@frozen
class Conversation:
    """A history as Anthropic takes it."""

    system: list[Block]
    turns: list[dict[str, Any]]

    @property
    def calls(self) -> list[str]:
        """The names of all tools that were called."""
        names = [
            block["name"]
            for turn in self.turns
            for block in turn["content"]
            if block["type"] == "tool_use"
        ]
        return list(dict.fromkeys(names))

    @property
    def may_think(self) -> bool:
        """Whether every answer since the user spoke begins with a thought, if it has calls.

        Where one does not, another model gave it, and thinking is refused for this turn.
        """
        since = itertools.takewhile(_is_no_users_word, reversed(self.turns))
        return not any(map(_calls_without_thought, since))


def _kinds(turn: dict[str, Any]) -> list[str]:
    return [block["type"] for block in turn["content"]]


def _is_no_users_word(turn: dict[str, Any]) -> bool:
    return turn["role"] == "assistant" or "tool_result" in _kinds(turn)


def _calls_without_thought(turn: dict[str, Any]) -> bool:
    kinds = _kinds(turn)
    return "tool_use" in kinds and kinds[0] not in {"thinking", "redacted_thinking"}


def conversation(messages: Messages) -> Conversation:
    """Put a history, already brought into order, into turns."""
    system = [
        block
        for message in messages
        if message.get("role") == "system"
        for block in _texts(message.get("content"))
    ]
    turns: list[dict[str, Any]] = []
    for message in messages:
        match message.get("role"):
            case "system":
                continue
            case "assistant":
                _append(turns, "assistant", _answer(message))
            case "tool":
                _append(turns, "user", [_result(message)])
            case _:
                _append(turns, "user", list(_blocks(message.get("content"))))
    if turns and turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": _texts(phrases.EARLIER)})
    if not turns or turns[-1]["role"] == "assistant":
        turns.append({"role": "user", "content": _texts(phrases.GO_ON)})
    _mark(system)
    _mark(turns[-1]["content"])
    return Conversation(system, turns)


def _append(turns: list[dict[str, Any]], role: str, blocks: list[Block]) -> None:
    if not blocks:
        return
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    else:
        turns.append({"role": role, "content": blocks})


def _mark(blocks: list[Block]) -> None:
    """Let the server keep its work on the prompt up to here for the next call."""
    if blocks:
        blocks[-1] = {**blocks[-1], "cache_control": EPHEMERAL}


def _answer(message: Message) -> list[Block]:
    thoughts = [without(block, ORIGIN) for block in message.get(THINKING_BLOCKS) or ()]
    calls = [call_block(c, c["function"]["arguments"]) for c in calls_of(message)]
    said = [*_texts(message.get("content")), *calls]
    # Thoughts alone are refused; they are of a turn that was interrupted.
    return [*thoughts, *said] if said else []


def _result(message: Message) -> Block:
    block: Block = {"type": "tool_result", "tool_use_id": message.get("tool_call_id")}
    if content := list(_blocks(message.get("content"))):
        block["content"] = content
    if message.get(FAILED):
        block[FAILED] = True
    return block


def _texts(content: Any) -> list[Block]:
    return [block for block in _blocks(content) if block["type"] == "text"]


def _blocks(content: Any) -> Iterator[Block]:
    for part in parts_of(content):
        kind = part.get("type")
        if kind == "text":
            # A text of nothing but white space is refused like an empty one.
            if (part.get("text") or "").strip():
                yield part if isinstance(part, dict) else dict(part)
        elif kind == "image_url":
            image = image_block(part.get("image_url"))
            yield image or contents.text_part(phrases.NO_IMAGE)
        else:
            yield unknown_part(kind)
