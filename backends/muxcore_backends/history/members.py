"""Members of messages: those of other dialects go, and where a server is strict, all others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from muxcore.chat import SIGNED_REASONING
from muxcore_backends.history.contents import PARTS
from muxcore_backends.history.pairs import ABOUT_CALLS, calls_of
from muxcore_backends.history.steps import Message, Rewrite, each

Known: TypeAlias = Mapping[str, frozenset[str]]
"""The members that a server knows: of messages by role, of parts by type."""

SIGNED = "extra_content"
"""Where Google keeps the signature of a call's thought."""

MINTED = frozenset(
    {
        "annotations",
        "is_error",
        "refusal",
        "reasoning",
        "reasoning_details",
        "reasoning_signature",
        "reasoning_state",
        "prefix",
        *SIGNED_REASONING,
    }
)
"""What one server or client puts into a message, and others refuse."""

CALL = frozenset({"id", "type", "function", "index"})
FUNCTION = frozenset({"name", "arguments"})

OPENAI: Known = {
    "system": frozenset({"role", "content", "name"}),
    "developer": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset({"role", "content", "name", "tool_calls", "refusal", "audio"}),
    "tool": frozenset({"role", "content", "tool_call_id"}),
    "text": frozenset({"type", "text"}),
    "image_url": frozenset({"type", "image_url"}),
}
MISTRAL: Known = {
    "system": frozenset({"role", "content"}),
    "user": frozenset({"role", "content"}),
    "assistant": frozenset({"role", "content", "tool_calls"}),
    "tool": frozenset({"role", "content", "name", "tool_call_id"}),
    "text": frozenset({"type", "text"}),
    "image_url": frozenset({"type", "image_url"}),
    "thinking": frozenset({"type", "thinking", "closed", "signature"}),
}

FOREIGN = "members of other servers left out"


def own(field: str) -> Rewrite:
    """Make the step that takes out what is known to be another server's.

    `field` is this server's own name for reasoning, which stays.
    """
    minted = MINTED - {field}

    def change(message: Message) -> Message:
        if minted.isdisjoint(message):
            return message
        return {name: value for name, value in message.items() if name not in minted}

    return Rewrite(FOREIGN, each(change), minted)


def known(names: Known, field: str = "", *, signed: bool = False) -> Rewrite:
    """Make the step that takes out all that this server does not know.

    `field` is its own name for reasoning, if it takes any; `signed` keeps a call's signature.
    """
    extra = frozenset({field}) if field else frozenset[str]()
    allowed = {**names, "assistant": names["assistant"] | extra}
    of_call = CALL | {SIGNED} if signed else CALL

    def change(message: Message) -> Message:
        kept: Message = _kept(message, allowed.get(message.get("role", "")))
        content = message.get("content")
        if isinstance(content, PARTS):
            parts = [_kept(part, allowed.get(_type_of(part))) for part in content]
            if any(one is not other for one, other in zip(parts, content, strict=True)):
                kept = {**kept, "content": parts}
        calls = calls_of(message)
        if calls and not all(
            of_call.issuperset(call) and FUNCTION.issuperset(call["function"])
            for call in calls
        ):
            kept = {**kept, "tool_calls": [_call(call, of_call) for call in calls]}
        return kept

    return Rewrite(FOREIGN, each(change))


def _type_of(part: Any) -> str:
    return str(part.get("type")) if isinstance(part, Mapping) else ""


def _kept(value: Any, names: frozenset[str] | None) -> Any:
    """Keep of an object what has one of these names; all of one of an unknown kind."""
    if names is None or names.issuperset(value):
        return value
    return {name: member for name, member in value.items() if name in names}


def _call(call: Any, names: frozenset[str]) -> Any:
    kept = _kept(call, names)
    return {**kept, "function": _kept(kept["function"], FUNCTION)}


PLACEHOLDER = {"google": {"thought_signature": "skip_thought_signature_validator"}}
"""What Google takes for the signature of a call that another model made."""


def _signed(message: Message) -> Message:
    calls = calls_of(message)
    if not calls or calls[0].get(SIGNED):
        return message
    # It checks the first call of a message only.
    return {**message, "tool_calls": [{**calls[0], SIGNED: PLACEHOLDER}, *calls[1:]]}


ALL_SIGNED = Rewrite("calls of other models marked as such", each(_signed), ABOUT_CALLS)


def _unsigned(message: Message) -> Message:
    calls = calls_of(message)
    if not any(SIGNED in call for call in calls):
        return message
    bare = [{n: v for n, v in call.items() if n != SIGNED} for call in calls]
    return {**message, "tool_calls": bare}


UNSIGNED = Rewrite(FOREIGN, each(_unsigned), ABOUT_CALLS)
