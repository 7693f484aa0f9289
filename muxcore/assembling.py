"""Assemble the chunks of a stream into one reply. Pure, and linear in what arrives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from muxcore.chat import Chunk, Json, Reply, Usage

JOINED = ("content", "reasoning_content", "reasoning", "refusal")
"""Members of a delta that are pieces of one text."""

HEAD = frozenset({"id", "created", "model"})
"""Members of the first chunk that are the whole answer's."""


class Assembler:
    """Collects chunks, in the shape that decoders give; `reply` is available at any time.

    Nothing is joined before that, so a long answer costs no more than its length.
    """

    __slots__ = (
        "_calls",
        "_choice",
        "_finish_reason",
        "_first",
        "_lists",
        "_others",
        "_texts",
        "_usage",
    )

    def __init__(self) -> None:
        self._first: Json = {}
        self._choice: object = None
        """The index of the choice that the first chunk is of."""
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
            choice = choices[0]
            if not self._first:
                self._first, self._choice = raw, choice.get("index")
            elif choice.get("index") != self._choice:
                # Another of several answers, which are not to be mixed.
                return
            delta = choice.get("delta")
            if delta:
                for name, value in delta.items():
                    # Most chunks hold one text among empty members: both are cheap here.
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
        """Return everything that has arrived, as if it had come at once."""
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
    """Read the usage of a completion or chunk. Anything but a count is unknown: None."""
    usage = raw.get("usage")
    if not isinstance(usage, dict):
        return Usage()
    prompt, completion = _first_count(usage, PROMPT), _first_count(usage, COMPLETION)
    if (prompt is None) is not (completion is None):
        total = count_of(usage.get("total_tokens"))
        if total is not None:
            rest = max(0, total - (prompt or 0) - (completion or 0))
            prompt, completion = (rest, completion) if prompt is None else (prompt, rest)
    return Usage(prompt, completion, _cached(usage))


def _cached(usage: Json) -> int | None:
    for name in DETAILS:
        details = usage.get(name)
        if isinstance(details, dict):
            count = count_of(details.get("cached_tokens"))
            if count is not None:
                return count
    return _first_count(usage, CACHED)


PROMPT = ("prompt_tokens", "input_tokens")
COMPLETION = ("completion_tokens", "output_tokens")
DETAILS = ("prompt_tokens_details", "input_tokens_details")
CACHED = ("cached_tokens", "prompt_cache_hit_tokens")
"""Where the counts stand; for cached tokens Moonshot and DeepSeek have places of their own."""

MOST_TOKENS = 10**12
"""A count above this is junk, and could overflow whatever adds it up."""


def move_usage(raw: Json) -> None:
    """Put a usage that stands elsewhere into the place of OpenAI's.

    Moonshot writes it on the choice, Groq's older API in the member `x_groq`.
    """
    if raw.get("usage"):
        return
    choices = raw.get("choices")
    owners = list(choices[:1]) if isinstance(choices, list) else []
    if owners and isinstance(owners[0], dict):
        owners += [owners[0].get(name) for name in ("delta", "message")]
    owners += [value for name, value in raw.items() if name.startswith("x_")]
    for owner in owners:
        if isinstance(owner, dict) and isinstance(owner.get("usage"), dict):
            raw["usage"] = owner["usage"]
            return


def clean_usage(raw: Json) -> Usage:
    """Read the usage of a completion or chunk, and leave whole numbers only in `raw`.

    Strict clients read no others. A count that is not known is left out: it is not 0.
    """
    usage = raw.get("usage")
    if usage.__class__ is dict:
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        total = usage.get("total_tokens")
        # Nearly every usage is clean, which is quicker to see than to make.
        if (
            prompt.__class__ is completion.__class__ is total.__class__ is int
            and prompt >= 0
            and completion >= 0
            and prompt + completion == total <= MOST_TOKENS
        ):
            return Usage(prompt, completion, _cached(usage))
    counts = usage_of(raw)
    if "usage" in raw:
        raw["usage"] = _cleaned(usage, counts)
    return counts


def _cleaned(usage: object, counts: Usage) -> Json | None:
    if not isinstance(usage, dict):
        return None
    known = {
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "total_tokens": counts.total_tokens,
    }
    if counts.prompt_tokens is None and counts.completion_tokens is None:
        return None
    others = {name: value for name, value in usage.items() if name not in known}
    return {**others, **{name: n for name, n in known.items() if n is not None}}


def _first_count(usage: Json, names: Sequence[str]) -> int | None:
    for name in names:
        count = count_of(usage.get(name))
        if count is not None:
            return count
    return None


def count_of(value: object) -> int | None:
    """Return a number of tokens; None for anything else."""
    # Some servers count in floats.
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None
