"""The order of roles: some servers and chat templates refuse what others accept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from muxcore.chat import REASONING
from muxcore_backends.history import phrases
from muxcore_backends.history.contents import joined
from muxcore_backends.history.pairs import calls_of
from muxcore_backends.history.steps import Message, Messages, Rewrite, each


def _as_system(message: Message) -> Message:
    return {**message, "role": "system"} if message.get("role") == "developer" else message


SYSTEM = Rewrite("", each(_as_system))
"""Only OpenAI has the role `developer`; for other servers it becomes `system`."""


def _with_early_system(messages: Messages) -> Messages:
    """Turn late system messages into user messages, where the system must come first."""
    return _demoted(messages, lambda before: before not in {None, "system"})


EARLY_SYSTEM = Rewrite("late system messages said by the user", _with_early_system)


def _with_system_after_user(messages: Messages) -> Messages:
    return _demoted(messages, lambda before: before in {"assistant", "tool"})


SYSTEM_AFTER_USER = Rewrite(EARLY_SYSTEM.words, _with_system_after_user)


def _demoted(messages: Messages, is_late: Callable[[str | None], bool]) -> Messages:
    out: list[Message] = []
    changed = False
    before = None
    for message in messages:
        if message.get("role") == "system" and is_late(before):
            out.append({**message, "role": "user"})
            changed = True
        else:
            out.append(message)
        before = out[-1].get("role")
    return out if changed else messages


def _with_bridges(messages: Messages) -> Messages:
    out: list[Message] = []
    before = None
    for message in messages:
        role = message.get("role")
        if role == "user" and before == "tool":
            out.append({"role": "assistant", "content": phrases.NOTED})
        out.append(message)
        before = role
    return messages if len(out) == len(messages) else out


BRIDGED = Rewrite("an answer put between a tool's result and the user", _with_bridges)


def _merged(messages: Messages) -> Messages:
    runs: list[list[Message]] = []
    for message in messages:
        if runs and _may_merge(runs[-1][-1], message):
            runs[-1].append(message)
        else:
            runs.append([message])
    if len(runs) == len(messages):
        return messages
    return [run[0] if len(run) == 1 else _one_of(run) for run in runs]


MERGED = Rewrite("messages of one speaker joined", _merged)


def _may_merge(first: Message, second: Message) -> bool:
    role = first.get("role")
    if role != second.get("role"):
        return False
    return role in {"system", "user"} or (role == "assistant" and not calls_of(first))


def _one_of(run: Sequence[Message]) -> Message:
    merged: dict[str, Any] = {}
    reasoning: list[str] = []
    for message in run:
        merged.update(message)
        if message.get(REASONING):
            reasoning.append(message[REASONING])
        elif REASONING in message:
            reasoning.clear()
    merged["content"] = joined(message.get("content") for message in run)
    if reasoning:
        merged[REASONING] = phrases.SEAM.join(reasoning)
    return merged


def _with_an_opening(messages: Messages) -> Messages:
    """Put a user message first, after the system."""
    for position, message in enumerate(messages):
        match message.get("role"):
            case "system":
                continue
            case "assistant":
                opening = {"role": "user", "content": phrases.EARLIER}
                return [*messages[:position], opening, *messages[position:]]
            case _:
                break
    return messages


OPENED = Rewrite("a beginning put before the first answer", _with_an_opening)


def _with_an_end(messages: Messages) -> Messages:
    """Put a user message last, unless a tool's result is."""
    if not messages or messages[-1].get("role") != "assistant":
        return messages
    return [*messages, {"role": "user", "content": phrases.GO_ON}]


ENDED = Rewrite("the user's word put after the last answer", _with_an_end)
