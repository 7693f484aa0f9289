"""A whole answer that comes in another wrapping, and whether an answer is one at all. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from muxcore import jsontext
from muxcore.chat import Chunk, Json, Reply
from muxcore.core.outcomes import Fault, Refusal
from muxcore.plugins.backend import Failure, ServerEvent

_STREAMED = re.compile(rb"(?:data|event|id|retry)?:")
"""How a line of an event stream begins. JSON, a web page and words begin in another way."""

_BLANK = b" \t\r\n\xef\xbb\xbf"


def looks_streamed(body: bytes) -> bool:
    """Whether a body, or the beginning of one, is an event stream."""
    return _STREAMED.match(body.lstrip(_BLANK)) is not None


def looks_whole(body: bytes) -> bool:
    """Whether a body, or the beginning of one, is JSON or a web page."""
    return body.lstrip(_BLANK).startswith((b"{", b"[", b"<"))


def is_whole(event: ServerEvent) -> bool:
    """Whether the last event of a stream, without the empty line after it, is not cut."""
    if event.data.strip() == "[DONE]":
        return True
    try:
        jsontext.decode(event.data)
    except (ValueError, RecursionError):
        return False
    return True


def failure_of(reply: Reply) -> Failure | None:
    """Return why an answer that looks well is none; None if it is one.

    An empty answer that tokens were counted for is the model's own.
    """
    content = any(reply.message.get(name) for name in ("content", "tool_calls"))
    if reply.finish_reason == "content_filter" and not content:
        return Failure(Refusal.FILTERED, message="a content filter withheld the answer")
    if reply.is_empty and not reply.usage.completion_tokens:
        return Failure(Fault.TRANSIENT, message="the answer is empty")
    return None


def chunks_of(reply: Reply) -> tuple[Chunk, ...]:
    """Cut a whole answer into the chunks of a stream: its content, its end, its usage."""
    head: Json = {
        **{name: reply.raw.get(name) for name in ("id", "created", "model")},
        "object": "chat.completion.chunk",
    }
    delta = {name: value for name, value in reply.message.items() if value is not None}
    if reply.tool_calls:
        delta["tool_calls"] = [
            {**call, "index": index} for index, call in enumerate(reply.tool_calls)
        ]

    def chunk(delta: Json, finish_reason: str | None) -> Chunk:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return Chunk({**head, "choices": [choice]})

    chunks = (chunk(delta, None), chunk({}, reply.finish_reason or "stop"))
    usage = reply.raw.get("usage")
    return (*chunks, Chunk({**head, "choices": [], "usage": usage})) if usage else chunks


class LastFinish:
    """Lets one finish reason of each choice through: the last one, after all content.

    Some servers send one with every chunk, or two at the end. Clients stop at the first.
    """

    __slots__ = ("_held", "_taken")

    def __init__(self) -> None:
        self._held: list[Chunk] = []
        """The chunk with a finish reason, and what has followed it without content."""
        self._taken: dict[object, Chunk] = {}
        """By choice: the end that was taken from a held chunk when content followed it."""

    def pass_on(self, chunk: Chunk) -> Iterable[Chunk]:
        """Return what may be passed on, now that `chunk` has come."""
        finishes = chunk.finish_reason is not None
        if not (self._held or finishes):
            return (chunk,)
        goes_on = finishes or chunk.commits
        passed = self._reopened(_index(chunk)) if goes_on else []
        if finishes:
            self._taken.pop(_index(chunk), None)
        if finishes or not goes_on:
            self._held.append(chunk)
        else:
            passed.append(chunk)
        return passed

    def end(self) -> Iterable[Chunk]:
        """Return what was held back: nothing more will come."""
        held, self._held = [*self._taken.values(), *self._held], []
        self._taken.clear()
        return held

    def _reopened(self, index: object) -> list[Chunk]:
        """Return the content of held chunks of a choice that goes on, without its end."""
        passed: list[Chunk] = []
        still_held: list[Chunk] = []
        for chunk in self._held:
            if chunk.finish_reason is None or _index(chunk) != index:
                still_held.append(chunk)
                continue
            first, *others = chunk.raw["choices"]
            reopened = {**first, "finish_reason": None}
            content = Chunk({**chunk.raw, "choices": [reopened, *others]})
            if content.commits or chunk.raw.get("usage"):
                passed.append(content)
            self._taken[index] = Chunk({**chunk.raw, "choices": [{**first, "delta": {}}]})
            self._taken[index].raw.pop("usage", None)
        self._held = still_held
        return passed


def _index(chunk: Chunk) -> object:
    choices = chunk.raw.get("choices") or [{}]
    index = choices[0].get("index")
    return index if isinstance(index, int | str) else 0
