"""Decode the events of a response into chunks of OpenAI's chat completions."""

from __future__ import annotations

from typing import Any

from attrs import define

from muxcore.chat import ORIGIN, REASONING, REASONING_ITEMS, Chunk, Json
from muxcore.dialects.responses.items import SEAM, answer_of, is_returnable
from muxcore.dialects.responses.settings import chat_usage
from muxcore.plugins.backend import ServerEvent
from muxcore_backends.shapes import finish_reason_of
from muxcore_backends.streaming import CHUNK, feed_object, text_of

WORDS = {
    "response.output_text.delta": "content",
    "response.refusal.delta": "refusal",
    "response.reasoning_summary_text.delta": REASONING,
    "response.reasoning_text.delta": REASONING,
}
"""The member of a delta, by the event that holds a piece of it."""

LAST = frozenset({"response.completed", "response.incomplete"})


def finish_reason_of_response(response: Json, *, calls: bool) -> str | None:
    """Return OpenAI's finish reason. Raise `FailedAnswerError` for a failed response."""
    status = response.get("status")
    if status == "incomplete":
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        return finish_reason_of(reason or "incomplete", calls=calls)
    # Some servers leave the status out.
    return finish_reason_of(
        "stop" if status in {None, "completed"} else status, calls=calls
    )


@define
class _OpenCall:
    """A call under way: its index for the caller, and how much of its arguments has come."""

    index: int
    pieces: int = 0


class ResponsesDecoder:
    """Decodes the events of one stream into chunks.

    What encrypted reasoning needs to be returned comes at its end, so it is emitted then.
    """

    __slots__ = ("_calls", "_ended", "_has_words", "_head", "_origin", "_said")

    def __init__(self, model: str, origin: str) -> None:
        self._origin = origin
        self._head: Json = {"id": "", "object": CHUNK, "created": 0, "model": model}
        self._calls: dict[Any, _OpenCall] = {}
        """By the place of each in the output."""
        self._said = False
        """Whether anything of the answer has come."""
        self._has_words: set[str] = set()
        """The kinds of words that have come."""
        self._ended = False

    @property
    def done(self) -> bool:
        return self._ended

    @property
    def ended(self) -> bool:
        return self._ended

    def feed(self, event: ServerEvent) -> tuple[Chunk, ...]:
        return feed_object(event, self._feed)

    def _feed(self, data: Json) -> tuple[Chunk, ...]:  # noqa: PLR0911 - one for each event
        kind = data.get("type")
        if member := WORDS.get(str(kind)):
            return self._words(member, data["delta"])
        match kind:
            case "response.created":
                return self._begin(data["response"])
            case "response.reasoning_summary_part.added" if REASONING in self._has_words:
                return (self._chunk({REASONING: SEAM}),)
            case "response.output_item.added":
                return self._open(data.get("output_index"), data["item"])
            case "response.function_call_arguments.delta":
                return self._arguments(data.get("output_index"), data["delta"])
            case "response.output_item.done":
                return self._close(data.get("output_index"), data["item"])
            case _ if kind in LAST:
                return self._end(data["response"])
            case _:
                return ()  # The ends of parts, or what is not known yet.

    def _begin(self, response: Json) -> tuple[Chunk, ...]:
        self._head["id"] = str(response.get("id") or "")
        self._head["model"] = str(response.get("model") or self._head["model"])
        return (self._chunk({"role": "assistant", "content": ""}),)

    def _words(self, member: str, words: Any) -> tuple[Chunk, ...]:
        self._has_words.add(member)
        return (self._chunk({member: text_of(words)}),) if words else ()

    def _open(self, place: Any, item: Json) -> tuple[Chunk, ...]:
        if item.get("type") != "function_call":
            return ()
        self._calls[place] = call = _OpenCall(len(self._calls))
        function = {"name": text_of(item["name"]), "arguments": ""}
        opening = {"id": text_of(item["call_id"]), "type": "function", "function": function}
        return (self._call(call, opening),)

    def _arguments(self, place: Any, piece: Any) -> tuple[Chunk, ...]:
        call = self._calls.get(place)
        if call is None or not piece:
            return ()
        call.pieces += 1
        return (self._call(call, {"function": {"name": "", "arguments": text_of(piece)}}),)

    def _close(self, place: Any, item: Json) -> tuple[Chunk, ...]:
        match item.get("type"):
            case "function_call":
                opening = () if place in self._calls else self._open(place, item)
                if self._calls[place].pieces:
                    return opening
                # All of its arguments at once.
                return (*opening, *self._arguments(place, item.get("arguments")))
            case "reasoning" if is_returnable(item):
                items = [{**item, ORIGIN: self._origin}]
                return (self._chunk({REASONING_ITEMS: items}),)
            case _:
                return ()

    def _end(self, response: Json) -> tuple[Chunk, ...]:
        whole = () if self._said else self._unstreamed(response)
        reason = finish_reason_of_response(response, calls=bool(self._calls))
        self._ended = True
        end = self._chunk({}, reason)
        usage = chat_usage(response.get("usage"))
        if usage is None:
            return (*whole, end)
        return (*whole, end, Chunk({**self._head, "choices": [], "usage": usage}))

    def _unstreamed(self, response: Json) -> tuple[Chunk, ...]:
        """Return the answer of a server that has streamed nothing of it."""
        message = answer_of(response.get("output") or (), self._origin)
        calls = message.get("tool_calls") or ()
        self._calls = {place: _OpenCall(place) for place in range(len(calls))}
        if calls:
            indexed = [{"index": place, **call} for place, call in enumerate(calls)]
            message["tool_calls"] = indexed
        return (self._chunk(message),)

    def _call(self, call: _OpenCall, members: Json) -> Chunk:
        return self._chunk({"tool_calls": [{"index": call.index, **members}]})

    def _chunk(self, delta: Json, reason: str | None = None) -> Chunk:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        chunk = Chunk({**self._head, "choices": [choice]})
        self._said = self._said or chunk.commits
        return chunk
