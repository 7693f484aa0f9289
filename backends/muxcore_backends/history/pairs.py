"""Calls and results: each result right after its call, one for each, and none without.

This order is lost when the user interrupts a turn, when a user message stands between, or when
the beginning of the conversation was cut off.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, TypeAlias

from attrs import define, field

from muxcore_backends.history import phrases
from muxcore_backends.history.steps import Message, Messages, Rewrite

Call: TypeAlias = dict[str, Any]


@define
class _Batch:
    """The calls of one message: the results so far, and the calls still without one."""

    waiting: list[Message]
    results: list[Message] = field(factory=list)


def repair(messages: Messages) -> Messages:
    """Put every result after its call. No text is dropped.

    A call without a result gets one that says so. A result without a call gets a call: as a
    user message it would be obeyed like the user.
    """
    return messages if _are_paired(messages) else _paired(messages)


PAIRS = Rewrite("calls and results paired", repair)


def _are_paired(messages: Messages) -> bool:
    waiting: list[Any] = []
    for message in messages:
        if message.get("role") == "tool":
            identity = message.get("tool_call_id")
            if identity not in waiting:
                return False
            waiting.remove(identity)
        elif waiting:
            return False
        elif message.get("tool_calls"):
            waiting = [call.get("id") for call in calls_of(message)]
    return not waiting


def _split(messages: Messages) -> Messages:
    """Make an answer with several calls several answers, each with its result.

    The results stand right after their calls by now, one for each.
    """
    if all(len(calls_of(message)) < SEVERAL for message in messages):
        return messages
    out: list[Message] = []
    rest = iter(messages)
    for message in rest:
        calls = calls_of(message)
        if len(calls) < SEVERAL:
            out.append(message)
            continue
        results = {r.get("tool_call_id"): r for r in itertools.islice(rest, len(calls))}
        for call in calls:
            out += [{**message, "tool_calls": [call]}, results[call.get("id")]]
            message = {"role": "assistant", "content": ""}  # noqa: PLW2901 - said once
    return out


SEVERAL = 2
ABOUT_CALLS = frozenset({"tool_calls"})
SPLIT = Rewrite("parallel calls put one after the other", _split, ABOUT_CALLS)


def calls_of(message: Message) -> Sequence[Message]:
    """Return the calls of a message, which only an assistant's has."""
    return message.get("tool_calls") or () if message.get("role") == "assistant" else ()


def _paired(messages: Messages) -> Messages:
    out: list[Message | _Batch] = []
    batches: list[_Batch] = []
    names: dict[Any, str] = {}
    for message in messages:
        if message.get("role") == "tool":
            if not _place(message, batches):
                out += _with_a_call(message, names)
            continue
        out.append(message)
        if calls := calls_of(message):
            batches.append(_Batch(list(calls)))
            out.append(batches[-1])
            names.update((call.get("id"), _name_of(call)) for call in calls)
    flat: list[Message] = []
    for item in out:
        if isinstance(item, _Batch):
            flat += item.results
            flat += [_interrupted(call) for call in item.waiting]
        else:
            flat.append(item)
    return flat


def _place(result: Message, batches: list[_Batch]) -> bool:
    """Give a result to the latest call that lacks one; return False if there is none."""
    identity = result.get("tool_call_id")
    for batch in reversed(batches):
        for call in batch.waiting:
            if call.get("id") == identity:
                batch.results.append(result)
                batch.waiting.remove(call)
                return True
    if identity or not batches or not batches[-1].waiting:
        return False
    # Without an id it can only be of the last calls: the one of its name, or the first.
    latest = batches[-1]
    named = [call for call in latest.waiting if _name_of(call) == result.get("name")]
    call = (named or latest.waiting)[0]
    latest.results.append({**result, "tool_call_id": call.get("id")})
    latest.waiting.remove(call)
    return True


def _with_a_call(result: Message, names: dict[Any, str]) -> list[Message]:
    identity = result.get("tool_call_id")
    name = result.get("name") or names.get(identity) or phrases.UNNAMED
    call = {
        "id": identity,
        "type": "function",
        "function": {"name": name, "arguments": "{}"},
    }
    return [{"role": "assistant", "content": "", "tool_calls": [call]}, result]


def _interrupted(call: Message) -> Message:
    result: dict[str, Any] = {"role": "tool", "tool_call_id": call.get("id")}
    if name := _name_of(call):
        result["name"] = name
    return {**result, "content": phrases.INTERRUPTED}


def _name_of(call: Message) -> str:
    return (call.get("function") or {}).get("name") or ""
