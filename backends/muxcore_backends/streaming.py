"""The decoder of an OpenAI-compatible stream, and what the decoders of other APIs share."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

from muxcore import jsontext
from muxcore.assembling import clean_usage, move_usage
from muxcore.chat import REASONING, Chunk, Json
from muxcore.core.records import Wire
from muxcore.plugins.backend import ServerEvent
from muxcore_backends.failures import bad_event, failed_answer
from muxcore_backends.shapes import (
    FailedAnswerError,
    MalformedError,
    finish_reason_of,
    normalise,
)
from muxcore_backends.toolcalls import FragmentJoint

DONE = "[DONE]"
CHUNK = "chat.completion.chunk"
COUNTS = ("prompt_tokens", "completion_tokens")
FIRST_HALF = re.compile("[\ud800-\udbff]")
HEARTBEAT = re.compile(r"ping|heart|alive|progress|process|queue|wait")
FAILED = frozenset({"error", "response.failed"})
"""The types of events that end an answer of another API with an error."""
FLAT_ERROR_MEMBERS = frozenset({"message", "detail", "msg", "errors"})


class GenericDecoder:
    """Decodes the events of one stream into chunks of OpenAI's shape.

    The stream is whole once a finish reason has come. A provider that sends none
    (`emits_finish_reason` is false) is taken at its `[DONE]`, or at a clean end after
    content; for such a provider, `done` means that the stream may end here.
    """

    __slots__ = (
        "_begun",
        "_counts",
        "_emits_finish_reason",
        "_ended",
        "_finished",
        "_halves",
        "_has_deltas",
        "_joint",
        "_reasoning_field",
    )

    def __init__(self, wire: Wire) -> None:
        self._reasoning_field = wire.reasoning_field_name
        self._emits_finish_reason = wire.emits_finish_reason
        self._joint = FragmentJoint()
        self._begun = False
        self._finished = False
        self._has_deltas = False
        self._ended = False
        self._counts: dict[str, int] = {}
        """The latest counts of the usage but 0."""
        self._halves: dict[object, str] = {}
        """By member, or index of a call: half a character, whose other half is in the next chunk."""

    @property
    def done(self) -> bool:
        if self._emits_finish_reason:
            return self._finished
        return self._finished or self._ended or self._begun

    @property
    def ended(self) -> bool:
        return self._ended

    def feed(self, event: ServerEvent) -> tuple[Chunk, ...]:
        data = event.data
        try:
            raw, end = jsontext.scan_once(data, 0)
            if end != len(data):
                raw = jsontext.decode(data)
        except (ValueError, RecursionError, StopIteration):
            return self._feed_unusual(event)
        if raw.__class__ is not dict:
            return self._feed_heartbeat(event, raw)
        if event.event == "error" or raw.get("error"):
            raise bad_event(data, "the stream sent an error without words")
        choices = raw.get("choices")
        if not choices:
            return self._feed_without_choices(event, raw)
        try:
            self._normalise(raw, choices)
        except MalformedError as error:
            raise bad_event(data, f"a chunk is malformed: {error}") from None
        choice = choices[0]
        # To look for one character is much faster, and most chunks have no backslash.
        if self._halves or ("\\" in data and "\\u" in data):
            self._join_halves(choice)
        if choice["finish_reason"] or "usage" in choice:
            move_usage(raw)
        self._complete(raw)
        chunk = Chunk(raw)
        if not (self._emits_finish_reason or self._begun):
            self._begun = chunk.commits
        return (chunk,)

    def _complete(self, raw: Json) -> None:
        """Fill in the head, and counts that a later usage has lost: some servers end with zeros."""
        complete_head(raw)
        usage = raw.get("usage")
        if not usage:
            return
        told = {name: usage[name] for name in COUNTS if usage.get(name)}
        self._counts |= told
        if told.keys() != self._counts.keys():
            usage |= self._counts
            if len(self._counts) == len(COUNTS):
                usage["total_tokens"] = sum(self._counts.values())

    def _normalise(self, raw: Json, choices: Any) -> None:
        if not isinstance(choices, list) or not isinstance(choices[0], dict):
            raise MalformedError("the choices are no list of objects")
        choice = choices[0]
        if choice.get("error"):
            raise bad_event(jsontext.encode(choice), "the stream ended with an error")
        if choice.get("index") is None:
            choice["index"] = 0
        delta = choice.get("delta")
        if delta is None and isinstance(choice.get("message"), dict):
            # A whole answer in one event; where deltas have come, it repeats them.
            message = choice.pop("message")
            delta = choice["delta"] = {} if self._has_deltas else message
        if delta.__class__ is dict:
            normalise(delta, self._reasoning_field)
            self._has_deltas = True
            calls = delta.get("tool_calls")
            if calls:
                delta["tool_calls"] = self._joint.put(calls, raw.get("id"))
                if not delta["tool_calls"]:
                    del delta["tool_calls"]
        elif delta is None:
            choice["delta"] = {}
        else:
            raise MalformedError("the delta is no object")
        self._finish(choice)

    def _finish(self, choice: Json) -> None:
        said = choice.get("finish_reason")
        if not said:
            choice["finish_reason"] = None
            return
        try:
            choice["finish_reason"] = finish_reason_of(
                said, choice.get("native_finish_reason"), calls=self._joint.begun
            )
        except FailedAnswerError as error:
            raise failed_answer(error) from None
        self._joint.finish()
        self._finished = True

    def _join_halves(self, choice: Json) -> None:
        """Join characters that were cut in two; replace halves that stay alone."""
        delta, is_last = choice["delta"], bool(choice["finish_reason"])
        for name in ("content", REASONING):
            text = self._joined(name, delta.get(name) or "", is_last=is_last)
            if text or delta.get(name):
                delta[name] = text
        for call in delta.get("tool_calls") or ():
            function = call["function"]
            function["arguments"] = self._joined(
                call["index"], function["arguments"], is_last=is_last
            )

    def _joined(self, place: object, piece: str, *, is_last: bool) -> str:
        text = self._halves.pop(place, "") + piece
        if text and FIRST_HALF.match(text[-1]) and not is_last:
            self._halves[place] = text[-1]
            text = text[:-1]
        try:
            text.encode()
        except UnicodeEncodeError:
            text = jsontext.whole_characters(text)
        return text

    def _feed_unusual(self, event: ServerEvent) -> tuple[Chunk, ...]:
        """Handle an event that is no plain JSON."""
        text = event.data.strip()
        if event.event == "error":
            raise bad_event(text, "the stream sent an error without words")
        if text.upper() == DONE:
            self._ended = True
        elif text != event.data and text:
            return self.feed(ServerEvent(text, event.event))
        elif len(lines := text.splitlines()) > 1 and all(map(_is_whole, lines)):
            # Some servers leave out the empty line between events.
            return tuple(
                itertools.chain(
                    *(self.feed(ServerEvent(line, event.event)) for line in lines)
                )
            )
        elif text.startswith(("{", "[")):
            raise bad_event(text, "a chunk is cut off, or no JSON")
        # Other text is a heartbeat. If it reports a failure, no finish reason follows.
        return ()

    def _feed_heartbeat(self, event: ServerEvent, value: object) -> tuple[Chunk, ...]:
        """Ignore a value that is no object, such as `"ping"`."""
        if event.event == "error" or isinstance(value, list):
            raise bad_event(event.data, "the stream sent an error without words")
        return ()

    def _feed_without_choices(self, event: ServerEvent, raw: Json) -> tuple[Chunk, ...]:
        """Handle a chunk of usage, a flat error, or a heartbeat."""
        move_usage(raw)
        if "choices" in raw or "usage" in raw:
            raw["choices"] = []
            self._complete(raw)
            return (Chunk(raw),)
        names = [raw.get(name) for name in ("object", "type", "status", "event")]
        if any(isinstance(name, str) and HEARTBEAT.search(name.lower()) for name in names):
            return ()
        named = "error" in names
        if named or (event.event == "message" and not FLAT_ERROR_MEMBERS.isdisjoint(raw)):
            raise bad_event(event.data, "the stream sent an error without words")
        return ()


def _is_whole(line: str) -> bool:
    if line.strip().upper() == DONE:
        return True
    try:
        return isinstance(jsontext.decode(line), dict)
    except (ValueError, RecursionError):
        return False


def complete_head(raw: Json) -> None:
    """Fill in what OpenAI's and Mistral's own clients demand of every chunk."""
    if raw.get("object") != CHUNK:
        raw["object"] = CHUNK
    if raw.get("created").__class__ is not int:
        raw["created"] = 0
    if raw.get("id").__class__ is not str:
        raw["id"] = ""
    if raw.get("model").__class__ is not str:
        raw["model"] = ""
    if raw.get("usage") is not None:
        clean_usage(raw)


def feed_object(
    event: ServerEvent, take: Callable[[Json], tuple[Chunk, ...]]
) -> tuple[Chunk, ...]:
    """Return what `take` makes of the object in an event of another API than this one.

    A heartbeat gives nothing. Raise `BadReplyError` for an error, for what is no JSON, and for
    an object whose parts `take` does not find as it expects them.
    """
    try:
        data = jsontext.decode(event.data)
    except (ValueError, RecursionError):
        text = event.data.strip()
        if text != DONE and (event.event == "error" or text.startswith(("{", "["))):
            raise bad_event(text, "an event is cut off, or no JSON") from None
        return ()
    if not isinstance(data, dict | list) and event.event != "error":
        return ()
    if not isinstance(data, dict) or data.get("type") in FAILED or data.get("error"):
        raise bad_event(_error_in(data), "the stream sent an error without words")
    try:
        return take(data)
    except FailedAnswerError as error:
        raise failed_answer(error) from None
    except (KeyError, TypeError, AttributeError, ValueError):
        raise bad_event(event.data, "an event is malformed") from None


def text_of(value: Any) -> str:
    """Return a member that must be text; raise `TypeError` if it is not."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _error_in(data: Any) -> str:
    """Return the error of an event as other APIs have it, with `error` at the top."""
    response = data.get("response") if isinstance(data, dict) else None
    if isinstance(response, dict) and response.get("error"):
        return jsontext.encode({"error": response["error"]})
    if isinstance(data, dict) and not data.get("error"):
        return jsontext.encode({"error": data})
    return jsontext.encode(data)
