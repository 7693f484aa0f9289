"""Accept an answer in the wrong form (whole or streamed), and detect one that is empty. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from muxcore import jsontext
from muxcore.chat import Chunk, Json, Reply
from muxcore.core.outcomes import Fault, Refusal
from muxcore.plugins.backend import Failure, ServerEvent

_STREAMED = re.compile(rb"(?:data|event|id|retry)?:")
"""The beginning of a line of an event stream; JSON, HTML and prose begin differently."""

_LINE = re.compile(rb"\{.*\}")
_BLANK = b" \t\r\n\xef\xbb\xbf"


def looks_streamed(body: bytes) -> bool:
    """Whether a body, or the beginning of one, is an event stream."""
    return _STREAMED.match(body.lstrip(_BLANK)) is not None


def looks_whole(body: bytes) -> bool:
    """Whether a body, or the beginning of one, is JSON or a web page."""
    return body.lstrip(_BLANK).startswith((b"{", b"[", b"<"))


def events_of(body: bytes) -> bytes | None:
    """Return a body as an event stream if it is one, or JSON objects, one a line; else None."""
    if looks_streamed(body):
        return body
    text = body.strip(_BLANK)
    if b"\n" not in text:
        # Most answers are one line.
        return None
    lines = [line for each in text.splitlines() if (line := each.strip(_BLANK))]
    if all(_LINE.fullmatch(line) for line in lines):
        return b"".join(b"data: " + line + b"\n\n" for line in lines)
    return None


def is_whole(event: ServerEvent) -> bool:
    """Whether an event without the empty line after it is complete."""
    if event.data.strip().upper() == "[DONE]":
        return True
    try:
        jsontext.decode(event.data)
    except (ValueError, RecursionError):
        return False
    return True


def failure_of(reply: Reply) -> Failure | None:
    """Return the failure that a 200 response holds instead of an answer, or None.

    An empty answer with completion tokens counted is an answer of the model.
    """
    content = any(reply.message.get(name) for name in ("content", "tool_calls"))
    if reply.finish_reason == "content_filter" and not content:
        return Failure(Refusal.FILTERED, message="a content filter withheld the answer")
    if reply.is_empty and not reply.usage.completion_tokens:
        return Failure(Fault.TRANSIENT, message="the answer is empty")
    return None


def chunks_of(reply: Reply) -> tuple[Chunk, ...]:
    """Return a whole answer as the chunks of a stream: its content, its end, its usage."""
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
    """Passes on one finish reason of each choice: the last one, after all content.

    Some servers send one with every chunk, or two at the end. Clients stop at the first.
    """

    __slots__ = ("_held", "_taken")

    def __init__(self) -> None:
        self._held: list[Chunk] = []
        """The chunk with a finish reason, and the chunks without content after it."""
        self._taken: dict[object, Chunk] = {}
        """By choice: the finish of a held chunk whose content was passed on."""

    def pass_on(self, chunk: Chunk) -> Iterable[Chunk]:
        """Return the chunks that may be passed on after `chunk` has arrived."""
        finishes = chunk.finish_reason is not None
        if not (self._held or finishes):
            return (chunk,)
        continues = finishes or chunk.commits
        passed = self._reopened(_index(chunk)) if continues else []
        if finishes:
            self._taken.pop(_index(chunk), None)
        if finishes or not continues:
            self._held.append(chunk)
        else:
            passed.append(chunk)
        return passed

    def end(self) -> Iterable[Chunk]:
        """Return the held chunks, at the end of the stream."""
        held, self._held = [*self._taken.values(), *self._held], []
        self._taken.clear()
        return held

    def _reopened(self, index: object) -> list[Chunk]:
        """Return the content of a choice's held chunks, without its finish reason."""
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
