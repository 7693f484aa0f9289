"""Decode Anthropic's streams into chunks of OpenAI's shape."""

from __future__ import annotations

import itertools
from typing import Any

from muxcore import jsontext
from muxcore.chat import ORIGIN, REASONING, THINKING_BLOCKS, Chunk, Json
from muxcore.dialects.messages.options import chat_usage
from muxcore.plugins.backend import ServerEvent
from muxcore_backends.shapes import finish_reason_of
from muxcore_backends.streaming import CHUNK, feed_object, text_of


class AnthropicDecoder:
    """Decodes the events of one stream into chunks.

    The signature of a thought comes last, so its block is emitted when it ends.
    """

    __slots__ = ("_blocks", "_calls", "_ended", "_head", "_origin", "_said", "_usage")

    def __init__(self, model: str, origin: str) -> None:
        self._origin = origin
        self._head: Json = {"id": "", "object": CHUNK, "created": 0, "model": model}
        self._usage: Json = {}
        self._blocks: dict[Any, Json] = {}
        """The blocks under way by their index, each with what has come of it."""
        self._calls = 0
        self._said = False
        """Whether a stop reason has come."""
        self._ended = False

    @property
    def done(self) -> bool:
        return self._said

    @property
    def ended(self) -> bool:
        return self._ended

    def feed(self, event: ServerEvent) -> tuple[Chunk, ...]:
        return feed_object(event, self._feed)

    def _feed(self, data: Json) -> tuple[Chunk, ...]:  # noqa: PLR0911 - one for each event
        match data.get("type"):
            case "message_start":
                return self._begin(data["message"])
            case "content_block_start":
                return self._open(data.get("index"), data["content_block"])
            case "content_block_delta":
                return self._grow(self._blocks.get(data.get("index"), {}), data["delta"])
            case "content_block_stop":
                return self._close(self._blocks.pop(data.get("index"), {}))
            case "message_delta":
                return self._stop(data)
            case "message_stop":
                self._ended = True
                return ()
            case _:
                return ()  # A ping, or what is not known yet.

    def _begin(self, message: Json) -> tuple[Chunk, ...]:
        self._head["id"] = str(message.get("id") or "")
        self._head["model"] = str(message.get("model") or self._head["model"])
        self._count(message.get("usage"))
        return (self._chunk({"role": "assistant", "content": ""}),)

    def _count(self, usage: Any) -> None:
        """Keep the newest counts: later ones are totals, but only of what changed."""
        known = usage if isinstance(usage, dict) else {}
        # Some servers tell what was read at the beginning, and end with a 0 for it.
        self._usage |= {name: count for name, count in known.items() if count}
        self._usage = {**known, **self._usage}

    def _open(self, index: Any, block: Json) -> tuple[Chunk, ...]:
        self._blocks[index] = opened = dict(block)
        match block["type"]:
            case "text":
                return self._text(block.get("text"))
            case "thinking" if words := block.get("thinking"):
                return (self._chunk({REASONING: text_of(words)}),)
            case "tool_use":
                opened["pieces"], opened["call"] = 0, self._calls
                function = {"name": text_of(block["name"]), "arguments": ""}
                call = {
                    "id": text_of(block["id"]),
                    "type": "function",
                    "function": function,
                }
                self._calls += 1
                return (self._call(opened, call),)
            case _:
                return ()

    def _grow(self, block: Json, delta: Json) -> tuple[Chunk, ...]:
        match delta["type"]:
            case "text_delta":
                return self._text(delta["text"])
            case "thinking_delta":
                words = text_of(delta["thinking"])
                block["thinking"] = block.get("thinking", "") + words
                return (self._chunk({REASONING: words}),) if words else ()
            case "signature_delta":
                block["signature"] = block.get("signature", "") + text_of(
                    delta["signature"]
                )
                return ()
            case "input_json_delta" if "pieces" in block:
                return self._arguments(block, text_of(delta["partial_json"]))
            case _:
                return ()

    def _close(self, block: Json) -> tuple[Chunk, ...]:
        match block.get("type"):
            case "thinking" | "redacted_thinking":
                signed = [{**block, ORIGIN: self._origin}]
                return (self._chunk({THINKING_BLOCKS: signed}),)
            case "tool_use" if not block["pieces"]:
                # A call without arguments, or with all of them at once.
                return self._arguments(
                    block, jsontext.encode_arguments(block.get("input") or {})
                )
            case _:
                return ()

    def _stop(self, data: Json) -> tuple[Chunk, ...]:
        self._count(data.get("usage"))
        reason = (data.get("delta") or {}).get("stop_reason")
        if not reason:
            return ()
        # Some servers end no block.
        unended, self._blocks = self._blocks, {}
        rest = itertools.chain(*map(self._close, unended.values()))
        end = self._chunk({}, finish_reason_of(text_of(reason), calls=self._calls > 0))
        self._said = True
        usage = chat_usage(self._usage)
        if usage is None:
            return (*rest, end)
        return (*rest, end, Chunk({**self._head, "choices": [], "usage": usage}))

    def _text(self, text: Any) -> tuple[Chunk, ...]:
        return (self._chunk({"content": text_of(text)}),) if text else ()

    def _arguments(self, block: Json, piece: str) -> tuple[Chunk, ...]:
        if not piece:
            return ()
        block["pieces"] += 1
        return (self._call(block, {"function": {"name": "", "arguments": piece}}),)

    def _call(self, block: Json, call: Json) -> Chunk:
        return self._chunk({"tool_calls": [{"index": block["call"], **call}]})

    def _chunk(self, delta: Json, reason: str | None = None) -> Chunk:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return Chunk({**self._head, "choices": [choice]})
