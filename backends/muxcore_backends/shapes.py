"""Bring what servers send into the shape of OpenAI's chat completions.

The objects were just parsed from an answer and have no other owner, so they are changed in
place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from muxcore.assembling import usage_of
from muxcore.chat import REASONING, Json, Reply
from muxcore.core.records import Endpoint


class MalformedError(ValueError):
    """A part of an answer has the wrong type. The text names it."""


OTHER_NAMES = frozenset({"reasoning", "reasoning_text", "thinking"})
"""What servers call the words of reasoning, whatever their entry says."""
IN_PARTS = "reasoning_details"
"""Where routers keep reasoning in parts, which stay as they are: some are signed."""
THOUGHTS = ("thinking", "reasoning")
"""The types of parts of reasoning; a tuple, as a server may send anything."""
FORMS = (str, list, dict)
"""What holds words; anything else in a list is passed over."""
WORDS = ("text", "content", "thinking", "reasoning", "summary", "refusal")
"""Where the words of a part may stand."""


def normalise(message: Json, reasoning_field: str) -> None:
    """Make plain text of a message's (or delta's) content, and name its reasoning."""
    content = message.get("content")
    if content is not None and content.__class__ is not str:
        parts = [content] if isinstance(content, dict) and "type" in content else content
        if not isinstance(parts, list):
            raise MalformedError("the content is neither text nor a list of parts")
        _flatten(message, parts)
    if reasoning_field != REASONING and reasoning_field in message:
        message[REASONING] = message.pop(reasoning_field)
    if IN_PARTS in message or not OTHER_NAMES.isdisjoint(message):
        _name_reasoning(message)
    if "function_call" in message:
        _modernise(message)
    reasoning = message.get(REASONING)
    if reasoning is not None and reasoning.__class__ is not str:
        if not isinstance(reasoning, list | dict):
            raise MalformedError("the reasoning is no text")
        message[REASONING] = _words(reasoning)
    if "refusal" in message and not isinstance(message["refusal"], str | None):
        message["refusal"] = _words(message["refusal"])
    if "role" in message:
        # Google says "model", others nothing at all.
        message["role"] = "assistant"


def _name_reasoning(message: Json) -> None:
    """Give reasoning its one name. Some servers write it under two, which is said once."""
    said = [message.pop(name) for name in sorted(OTHER_NAMES) if name in message]
    said = [each for each in (*said, message.get(IN_PARTS)) if isinstance(each, FORMS)]
    found = map(_words, said)
    if not message.get(REASONING) and (words := next(filter(None, found), "")):
        message[REASONING] = words


def completion(
    raw: Json, endpoint: Endpoint, message: Json, reason: str | None, usage: Json | None
) -> Reply:
    """Make the reply of another API's answer: its id and model are taken from `raw`."""
    whole: Json = {
        "id": str(raw.get("id") or ""),
        "object": "chat.completion",
        # Such an answer may have no time, and a codec reads no clock.
        "created": 0,
        "model": str(raw.get("model") or endpoint.model),
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": usage,
    }
    return Reply(message, reason, usage_of(whole), whole)


def _modernise(message: Json) -> None:
    """Make the older `function_call`, a call of one tool, the only one of `tool_calls`."""
    call = message.pop("function_call")
    if call and not message.get("tool_calls"):
        message["tool_calls"] = [{"function": call}]


def _flatten(message: Json, parts: list[Any]) -> None:
    """Separate content in parts into words and thinking; what holds neither is dropped."""
    thoughts = [_words(part) for part in parts if _is_thought(part)]
    message["content"] = "".join(_words(part) for part in parts if not _is_thought(part))
    if any(thoughts):
        message[REASONING] = "".join(thoughts)


def _is_thought(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") in THOUGHTS


def _words(value: object) -> str:
    """Return the words of a text, of a part, or of a list of them; "" if there are none."""
    try:
        return "".join(_texts(value))
    except RecursionError:
        raise MalformedError("a part of the content is no text") from None


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for part in value:
                if isinstance(part, FORMS):
                    yield from _texts(part)
        case dict():
            yield from _texts(next(filter(None, map(value.get, WORDS)), None))
        case None:
            pass
        case _:
            raise MalformedError("a part of the content is no text")


WITHHELD = re.compile(
    r"filter|safety|sensitive|refus|prohibit|block|spii|recitation|moderat|polic|toxic"
    r"|violat|guardrail|censor"
)
"""Stems of the names for an answer that a filter withheld or cut."""

FAILED = re.compile(
    r"error|fail|abort|cancel|malformed|unexpected|invalid|interrupt|time_?d?_?out|network"
    r"|disconnect|insufficient|unavailable|overload|exception|missing|too_many|unload|crash"
    r"|rate_?limit|quota|kill|shut_?down|preempt|evict|drop|stall|internal"
)
"""Stems of the names for an answer that something ended before the model did."""

CUT = re.compile(r"length|max|limit|window|truncat|incomplete")
"""Stems of the names for an answer that had no more room."""

OPENAIS = {"stop": "stop", "tool_calls": "stop", "length": "length"}
"""Nearly every answer has one of these names, which need no search."""


class FailedAnswerError(Exception):
    """The finish reason names a failure. The text is that reason."""


def finish_reason_of(said: object, native: object = None, *, calls: bool) -> str | None:
    """Return a finish reason in OpenAI's words; None if the answer has none yet.

    `calls` is whether tools were called. What a router quotes as its provider's own reason,
    `native`, counts if it names a filter or a failure: the router's word for these is often "stop".
    Raise `FailedAnswerError` for a failure, `MalformedError` for no text.
    """
    if not said:
        return None
    if not isinstance(said, str):
        raise MalformedError("the finish reason is no text")
    reason = _reason(said)
    if reason == "stop" and isinstance(native, str) and _reason(native) == "content_filter":
        return "content_filter"
    # Ollama and Google end an answer with calls like any other.
    return "tool_calls" if calls and reason == "stop" else reason


def _reason(said: str) -> str:
    """Read one name; "OUTER: INNER" by its inner part first. What nobody knows is "stop"."""
    if said in OPENAIS:
        return OPENAIS[said]
    name = said.strip().lower()
    for part in (name.rpartition(":")[2].strip(), name):
        if WITHHELD.search(part):
            return "content_filter"
        if FAILED.search(part):
            raise FailedAnswerError(said)
        if CUT.search(part):
            return "length"
    return "stop"
