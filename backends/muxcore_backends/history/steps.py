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

    `words` describes the change for users; if empty, the change is not reported.
    """

    words: str
    apply: Callable[[Messages], Messages]


def rewritten(
    messages: Messages, steps: Iterable[Rewrite]
) -> tuple[Messages, tuple[str, ...]]:
    """Apply all steps, and describe in words which of them changed anything."""
    applied: list[str] = []
    for step in steps:
        before, messages = messages, step.apply(messages)
        if messages is not before and step.words and step.words not in applied:
            applied.append(step.words)
    return messages, tuple(applied)


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
