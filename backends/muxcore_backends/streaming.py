"""The decoder of an OpenAI-compatible stream."""

from __future__ import annotations

import json
from typing import Any

from muxcore.assembling import usage_of
from muxcore.chat import Chunk, Json
from muxcore.core.records import Wire
from muxcore.plugins.backend import BadReplyError, HttpResponse, ServerEvent
from muxcore_backends.failures import bad_reply
from muxcore_backends.shapes import (
    FragmentJoint,
    MalformedError,
    finish_reason_of,
    normalise,
)

DONE = "[DONE]"
CHUNK = "chat.completion.chunk"
OK = 200
FLAT_ERROR_MEMBERS = frozenset({"message", "detail", "msg", "errors"})

# `json.loads` looks for white space at both ends by regular expression, and goes through two
# more functions: together a third of the cost of a small chunk.
_scan_once = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # the stubs lack it


class GenericDecoder:
    """Makes chunks of one stream's events, all in the one shape of OpenAI.

    The stream is whole once a finish reason has come. A provider that sends none
    (`emits_finish_reason` is false) is taken at its `[DONE]`, or at a clean end after
    content; so for one of those, `done` says that it may end here, not that it has.
    """

    __slots__ = (
        "_begun",
        "_emits_finish_reason",
        "_ended",
        "_finished",
        "_joint",
        "_reasoning_field",
    )

    def __init__(self, wire: Wire) -> None:
        self._reasoning_field = wire.reasoning_field_name
        self._emits_finish_reason = wire.emits_finish_reason
        self._joint = FragmentJoint()
        self._begun = False
        self._finished = False
        self._ended = False

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
            raw, end = _scan_once(data, 0)
            if end != len(data):
                raw = json.loads(data)
        except (ValueError, RecursionError, StopIteration):
            return self._feed_unusual(event)
        if event.event == "error" or raw.__class__ is not dict or raw.get("error"):
            raise _bad(data, "the stream sent an error without words")
        choices = raw.get("choices")
        if not choices:
            return self._feed_without_choices(event, raw)
        try:
            self._normalise(raw, choices)
        except MalformedError as error:
            raise _bad(data, f"a chunk is malformed: {error}") from None
        complete_head(raw)
        chunk = Chunk(raw)
        if not (self._emits_finish_reason or self._begun):
            self._begun = chunk.commits
        return (chunk,)

    def _normalise(self, raw: Json, choices: Any) -> None:
        if not isinstance(choices, list) or not isinstance(choices[0], dict):
            raise MalformedError("the choices are no list of objects")
        choice = choices[0]
        finish_reason = choice.get("finish_reason")
        if finish_reason == "error" or choice.get("error"):
            raise _bad(json.dumps(choice), "the stream ended with an error")
        if "index" not in choice or "finish_reason" not in choice:
            choice["index"] = choice.get("index", 0)
            choice["finish_reason"] = finish_reason
        delta = choice.get("delta")
        if delta.__class__ is dict:
            normalise(delta, self._reasoning_field)
            calls = delta.get("tool_calls")
            if calls:
                delta["tool_calls"] = self._joint.put(calls, raw.get("id"))
        elif delta is None:
            choice["delta"] = {}
        else:
            raise MalformedError("the delta is no object")
        if finish_reason:
            if not isinstance(finish_reason, str):
                raise MalformedError("the finish reason is no text")
            choice["finish_reason"] = finish_reason_of(
                finish_reason, calls=self._joint.begun
            )
            self._finished = True

    def _feed_unusual(self, event: ServerEvent) -> tuple[Chunk, ...]:
        """Take an event that is no JSON as it stands."""
        text = event.data.strip()
        if event.event == "error":
            raise _bad(text, "the stream sent an error without words")
        if text == DONE:
            self._ended = True
        elif text != event.data and text:
            return self.feed(ServerEvent(text, event.event))
        elif text:
            raise _bad(text, "a chunk is cut off, or no JSON")
        return ()

    def _feed_without_choices(self, event: ServerEvent, raw: Json) -> tuple[Chunk, ...]:
        """Take usage and the like; a flat error; or a ping, which is nothing."""
        if "choices" in raw or "usage" in raw:
            raw["choices"] = []
            complete_head(raw)
            return (Chunk(raw),)
        named = "error" in (raw.get("object"), raw.get("type"))
        if named or (event.event == "message" and not FLAT_ERROR_MEMBERS.isdisjoint(raw)):
            raise _bad(event.data, "the stream sent an error without words")
        return ()


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
    usage = raw.get("usage")
    if usage is not None:
        raw["usage"] = _counted(usage)


def _counted(usage: object) -> Json | None:
    if not isinstance(usage, dict):
        return None
    counts = usage_of({"usage": usage})
    whole = {
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "total_tokens": counts.total_tokens,
    }
    wrong = [name for name in whole if type(usage.get(name)) is not int]
    return {**usage, **{name: whole[name] for name in wrong}} if wrong else usage


def _bad(data: str, otherwise: str) -> BadReplyError:
    return bad_reply(HttpResponse(OK, {}, data.encode("utf-8", "replace")), otherwise)
