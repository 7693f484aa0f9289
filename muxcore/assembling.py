"""Make one whole reply of the chunks of a stream. Pure, and linear in what arrives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muxcore.chat import Chunk, Json, Reply, Usage

JOINED = ("content", "reasoning_content", "reasoning", "refusal")
"""Members of a delta that are pieces of one text."""

HEAD = frozenset({"id", "created", "model"})
"""Members of the first chunk that are the whole answer's."""


class Assembler:
    """Collects chunks, of the one shape that decoders give; ask for `reply` at any time.

    Nothing is joined before that, so a long answer costs no more than its length.
    """

    __slots__ = (
        "_calls",
        "_finish_reason",
        "_first",
        "_lists",
        "_others",
        "_texts",
        "_usage",
    )

    def __init__(self) -> None:
        self._first: Json = {}
        self._texts: dict[str, list[str]] = {name: [] for name in JOINED}
        self._calls: dict[int, tuple[Json, list[str]]] = {}
        """By index: a call without its arguments, and the pieces of these."""
        self._lists: dict[str, list[Any]] = {}
        self._others: Json = {}
        self._finish_reason: str | None = None
        self._usage: Json = {}

    def add(self, chunk: Chunk) -> None:
        raw = chunk.raw
        choices = raw.get("choices")
        if choices:
            if not self._first:
                self._first = raw
            choice = choices[0]
            delta = choice.get("delta")
            if delta:
                for name, value in delta.items():
                    # Most chunks are one text among empty members: cheap for both.
                    if value:
                        pieces = self._texts.get(name)
                        if pieces is not None:
                            pieces.append(value)
                        else:
                            self._add_other(name, value)
            finish_reason = choice.get("finish_reason")
            if finish_reason:
                self._finish_reason = finish_reason
        usage = raw.get("usage")
        if usage:
            self._usage = usage

    def _add_other(self, name: str, value: Any) -> None:
        if name == "tool_calls":
            for fragment in value:
                self._add_fragment(fragment)
        elif isinstance(value, list):
            self._lists.setdefault(name, []).extend(value)
        else:
            self._others[name] = value

    def _add_fragment(self, fragment: Json) -> None:
        index = fragment.get("index", 0)
        function = fragment.get("function") or {}
        known = self._calls.get(index)
        if known is None:
            self._calls[index] = known = ({"function": {"name": ""}}, [])
        call, pieces = known
        for name, value in fragment.items():
            if name not in {"index", "function"} and value:
                call.setdefault(name, value)
        if function.get("name") and not call["function"]["name"]:
            call["function"]["name"] = function["name"]
        if arguments := function.get("arguments"):
            pieces.append(arguments)

    def reply(self) -> Reply:
        """Return all that has arrived, as if it had come at once."""
        message = self._message()
        head: Json = {n: v for n, v in self._first.items() if n in HEAD}
        raw: Json = {
            **head,
            "object": "chat.completion",
            "choices": [
                {"index": 0, "message": message, "finish_reason": self._finish_reason}
            ],
        }
        if self._usage:
            raw["usage"] = self._usage
        return Reply(message, self._finish_reason, usage_of(raw), raw)

    def _message(self) -> Json:
        texts = {name: "".join(pieces) for name, pieces in self._texts.items() if pieces}
        calls = [
            {**call, "function": {**call["function"], "arguments": "".join(pieces)}}
            for _, (call, pieces) in sorted(self._calls.items())
        ]
        content = texts.pop("content", None if calls else "")
        lists = {name: list(items) for name, items in self._lists.items()}
        others = {**self._others, **lists}
        message: Json = {"role": "assistant", **others, "content": content, **texts}
        if calls:
            message["tool_calls"] = calls
        return message


def usage_of(raw: Mapping[str, Any]) -> Usage:
    """Read the usage of a completion or chunk. What is no count counts as 0."""
    usage = raw.get("usage")
    if not isinstance(usage, dict):
        return Usage()
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Usage(
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        # DeepSeek has a name of its own for the cached ones.
        _count(cached) or _count(usage.get("prompt_cache_hit_tokens")),
    )


def _count(value: object) -> int:
    return value if type(value) is int and value > 0 else 0
