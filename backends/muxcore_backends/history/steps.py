"""The steps of rewriting a history, and how they are applied in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import is_
from typing import Any, TypeAlias

from attrs import frozen

Message: TypeAlias = Mapping[str, Any]
Messages: TypeAlias = Sequence[Message]


@frozen
class Rewrite:
    """One change that a history may need.

    `words` describes the change for users; if empty, the change is not reported. `about` names
    what it changes: members of messages, or `CONTENT_IN_PARTS`. It is skipped for a history
    that has none of them; if `about` is empty, it is always applied.
    """

    words: str
    apply: Callable[[Messages], Messages]
    about: frozenset[str] = frozenset()


CONTENT_IN_PARTS = "content in parts"
TEXTS = frozenset({str, type(None)})


def rewritten(
    messages: Messages, steps: Iterable[Rewrite]
) -> tuple[Messages, tuple[str, ...]]:
    """Apply all steps, and describe in words which of them changed anything."""
    applied: list[str] = []
    found = _features(messages)
    for step in steps:
        if step.about and step.about.isdisjoint(found):
            continue
        before, messages = messages, step.apply(messages)
        if messages is not before:
            found = _features(messages)
            if step.words and step.words not in applied:
                applied.append(step.words)
    return messages, tuple(applied)


def _features(messages: Messages) -> set[str]:
    """Return what steps may be about: the members that any message has, and `CONTENT_IN_PARTS`."""
    found: set[str] = set().union(*messages)
    if not TEXTS.issuperset([message.get("content").__class__ for message in messages]):
        found.add(CONTENT_IN_PARTS)
    return found


def each(change: Callable[[Message], Message]) -> Callable[[Messages], Messages]:
    """Make a step's function of a change to single messages.

    `change` returns the same object if there is nothing to change.
    """

    def apply(messages: Messages) -> Messages:
        changed = [change(message) for message in messages]
        return messages if all(map(is_, changed, messages)) else changed

    return apply


def without(message: Message, *names: str) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name not in names}
