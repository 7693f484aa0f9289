"""The steps of a rewriting, and how they are taken one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from attrs import frozen

Message: TypeAlias = Mapping[str, Any]
Messages: TypeAlias = Sequence[Message]


@frozen
class Rewrite:
    """One change that a history may need.

    `words` tells people what was done; without any it is not worth telling.
    """

    words: str
    apply: Callable[[Messages], Messages]


def rewritten(
    messages: Messages, steps: Iterable[Rewrite]
) -> tuple[Messages, tuple[str, ...]]:
    """Take all steps, and say in words which of them changed anything."""
    told: list[str] = []
    for step in steps:
        before, messages = messages, step.apply(messages)
        if messages is not before and step.words and step.words not in told:
            told.append(step.words)
    return messages, tuple(told)


def each(change: Callable[[Message], Message]) -> Callable[[Messages], Messages]:
    """Make a step's function of a change to single messages.

    `change` gives back the very message that it got if there is nothing to do.
    """

    def apply(messages: Messages) -> Messages:
        out: list[Message] | None = None
        for position, message in enumerate(messages):
            changed = change(message)
            if out is not None:
                out.append(changed)
            elif changed is not message:
                out = [*messages[:position], changed]
        return messages if out is None else out

    return apply


def without(message: Message, *names: str) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name not in names}
