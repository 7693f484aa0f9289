"""Decode the events of a response into chunks of OpenAI's chat completions."""

from __future__ import annotations

from typing import Any

from attrs import define

from muxcore import jsontext
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

LAST = frozenset({"response.completed", "response.incomplete", "response.done"})
ANSWER = frozenset({"content", "refusal"})
"""The kinds of words that are the answer itself."""


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
    said: str
    pieces: int = 0


class ResponsesDecoder:
    """Decodes the events of one stream into chunks.

    What encrypted reasoning needs to be returned comes at its end, so it is emitted then.
    """

    __slots__ = (
        "_calls",
        "_ended",
        "_fresh",
        "_has_words",
        "_head",
        "_origin",
        "_said",
        "_signed",
    )

    def __init__(self, model: str, origin: str) -> None:
        self._origin = origin
        self._head: Json = {"id": "", "object": CHUNK, "created": 0, "model": model}
        self._calls: dict[Any, _OpenCall] = {}
        """By the place of each in the output."""
        self._said = False
        """Whether anything of the answer has come."""
        self._has_words: set[str] = set()
        """The kinds of words that have come."""
        self._fresh: set[str] = set()
        """The kinds of words that have come since the last item of their kind ended."""
        self._signed = False
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
        self._fresh.add(member)
        return (self._chunk({member: text_of(words)}),) if words else ()

    def _open(self, place: Any, item: Json) -> tuple[Chunk, ...]:
        if item.get("type") != "function_call":
            return ()
        function = {"name": text_of(item["name"]), "arguments": ""}
        opening = {"id": text_of(item["call_id"]), "type": "function", "function": function}
        self._calls[place] = call = _OpenCall(len(self._calls), item["call_id"])
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
                given = item.get("arguments")
                text = (
                    jsontext.encode_arguments(given) if isinstance(given, dict) else given
                )
                return (*opening, *self._arguments(place, text))
            case "message":
                return self._untold(item, ANSWER)
            case "reasoning":
                words = self._untold(item, frozenset({REASONING}))
                if not is_returnable(item):
                    return words
                self._signed = True
                signed = [{**item, ORIGIN: self._origin}]
                return (*words, self._chunk({REASONING_ITEMS: signed}))
            case _:
                return ()

    def _untold(self, item: Json, kinds: frozenset[str]) -> tuple[Chunk, ...]:
        """Return the words of an item that ends, if no piece of them has come."""
        fresh, self._fresh = self._fresh & kinds, self._fresh - kinds
        message = {} if fresh else answer_of([item], self._origin)
        said = {name: message[name] for name in (REASONING, "content") if message.get(name)}
        self._has_words |= said.keys()
        return (self._chunk(said),) if said else ()

    def _end(self, response: Json) -> tuple[Chunk, ...]:
        whole = self._unstreamed(response)
        reason = finish_reason_of_response(response, calls=bool(self._calls))
        self._ended = True
        end = self._chunk({}, reason)
        usage = chat_usage(response.get("usage"))
        if usage is None:
            return (*whole, end)
        return (*whole, end, Chunk({**self._head, "choices": [], "usage": usage}))

    def _unstreamed(self, response: Json) -> list[Chunk]:
        """Return what has come in the whole response only."""
        known, signed = frozenset(self._has_words), self._signed
        chunks: list[Chunk] = []
        for at, item in enumerate(response.get("output") or ()):
            self._fresh |= known
            if not (signed and item.get("type") == "reasoning"):
                chunks += self._close(self._place_of(at, item), item)
        return chunks

    def _place_of(self, at: int, item: Json) -> Any:
        """Return the place of a call in the stream, which may be another than in the response."""
        said = item.get("call_id")
        known = (place for place, call in self._calls.items() if call.said == said)
        return next(known, ("late", at))

    def _call(self, call: _OpenCall, members: Json) -> Chunk:
        return self._chunk({"tool_calls": [{"index": call.index, **members}]})

    def _chunk(self, delta: Json, reason: str | None = None) -> Chunk:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        chunk = Chunk({**self._head, "choices": [choice]})
        self._said = self._said or chunk.commits
        return chunk
