"""Reasoning: kept where it is understood, named as the server names it, else left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muxcore.chat import ORIGIN, REASONING
from muxcore.core.records import Endpoint
from muxcore_backends.history import phrases
from muxcore_backends.history.contents import PARTS, parts_of, text_part
from muxcore_backends.history.steps import CONTENT_IN_PARTS, Message, Rewrite, each, without

THINKING = "thinking"
"""The type of Mistral's parts of reasoning."""


def _gathered(message: Message) -> Message:
    """Separate thoughts and words in content that has Mistral's form."""
    if message.get("role") != "assistant":
        return message
    content = message.get("content")
    if not content and message.get("refusal"):
        return {**without(message, "refusal"), "content": message["refusal"]}
    if not isinstance(content, PARTS):
        return message
    if all(_type_of(part) == "text" for part in content):
        return message
    thoughts = [_words_of(part) for part in content if _type_of(part) == THINKING]
    words = [_words_of(part) for part in content if _type_of(part) in {"text", "refusal"}]
    taken = {**message, "content": "".join(words)}
    if any(thoughts) and not message.get(REASONING):
        taken[REASONING] = "".join(thoughts)
    return taken


GATHERED = Rewrite(
    "thoughts told apart from words",
    each(_gathered),
    frozenset({CONTENT_IN_PARTS, "refusal"}),
)


def _type_of(part: Any) -> Any:
    return part.get("type") if isinstance(part, Mapping) else None


def _words_of(part: Mapping[str, Any]) -> str:
    words = part.get(part["type"])
    if isinstance(words, PARTS):
        texts = [inner.get("text") for inner in words if isinstance(inner, Mapping)]
        return "".join(text for text in texts if isinstance(text, str))
    return words if isinstance(words, str) else ""


def _dropped(message: Message) -> Message:
    return without(message, REASONING) if REASONING in message else message


ABOUT_REASONING = frozenset({REASONING})
DROPPED = Rewrite("reasoning left out", each(_dropped), ABOUT_REASONING)


def origin_of(endpoint: Endpoint) -> str:
    """Return the name of an endpoint that signs its reasoning: no other can take it."""
    return f"{endpoint.provider}/{endpoint.model}"


def foreign_dropped(member: str, origin: str | None) -> Rewrite:
    """Make the step that leaves out reasoning but for what this origin has signed, in `member`.

    Without an origin all is left out.
    """

    def change(message: Message) -> Message:
        signed = message.get(member) or ()
        # A client may send anything under this name.
        listed = signed if isinstance(signed, PARTS) else ()
        own = [
            one
            for one in listed
            if origin and isinstance(one, Mapping) and one.get(ORIGIN) == origin
        ]
        if own and len(own) == len(listed):
            return message
        if not message.get(REASONING) and not signed:
            return message
        rest = without(message, REASONING, member)
        return {**rest, member: own} if own else rest

    return Rewrite(DROPPED.words, each(change), frozenset({REASONING, member}))


def named(field: str) -> Rewrite:
    """Make the step that gives reasoning the name that this provider has for it."""

    def rename(message: Message) -> Message:
        if REASONING not in message:
            return message
        return {field if name == REASONING else name: v for name, v in message.items()}

    # Not worth a remark: the words stay the same.
    return Rewrite("", each(rename), ABOUT_REASONING)


def _filled(message: Message) -> Message:
    if message.get("role") != "assistant" or message.get(REASONING):
        return message
    return {**message, REASONING: phrases.BLANK}


FILLED = Rewrite("blank reasoning where there was none", each(_filled))


def _in_parts(message: Message) -> Message:
    if REASONING not in message:
        return message
    thoughts = message[REASONING]
    if not thoughts or _holds_thoughts(message.get("content")):
        return without(message, REASONING)
    part = {"type": THINKING, "thinking": [text_part(thoughts)]}
    content = [part, *parts_of(message.get("content"))]
    return {**without(message, REASONING), "content": content}


IN_PARTS = Rewrite("reasoning as parts of the content", each(_in_parts), ABOUT_REASONING)


def _holds_thoughts(content: Any) -> bool:
    return isinstance(content, PARTS) and any(
        _type_of(part) == THINKING for part in content
    )
