"""The options of a call, and the checks of a caller's arguments."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from datetime import timedelta

from attrs import frozen

from muxcore import jsontext
from muxcore.chat import Chat
from muxcore.core.records import PoolState
from muxcore.errors import InvalidArgumentError, MultiplexerError
from muxcore.shell.call.cancellation import Cancellation

TEXTS = (str, bytes)
MAPPINGS = (dict, Mapping)
"""`dict` comes first: a check against an abstract class takes five times as long."""
EXAMPLE = '[{"role": "user", "content": "hello"}]'


@frozen
class CallOptions:
    """The options of a call, besides the chat. `timeout` is in seconds.

    `patience` limits how long the call waits for a model, if it is less than the policy's limit.
    """

    session: str | None = None
    timeout: float | None = None
    model: str | None = None
    cancellation: Cancellation | None = None
    patience: timedelta | None = None


def check_chat(chat: Chat) -> None:
    """Raise `InvalidArgumentError` for a value that is no chat in any dialect."""
    _check_list("messages", chat.messages, f"a list such as {EXAMPLE}")
    if chat.tools is not None:
        _check_list("tools", chat.tools, "a list of mappings, one for each tool")


def check_encodable(chat: Chat) -> None:
    """Raise `InvalidArgumentError` for what no JSON can hold, or no dialect can read."""
    parts = {
        "messages": chat.messages,
        "tools": chat.tools,
        "tool_choice": chat.tool_choice,
        "temperature": chat.temperature,
        "max_tokens": chat.max_tokens,
        **chat.extra,
    }
    for place, value in parts.items():
        try:
            jsontext.encode(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArgumentError(
                f"{place} is {_described(value)}, expected what JSON can hold ({error})"
            ) from None
    for position, message in enumerate(chat.messages):
        for name, is_readable, expected in MEMBERS:
            if not is_readable(value := message.get(name)):
                raise InvalidArgumentError(
                    f"messages[{position}].{name} is {_described(value)}, expected {expected}"
                )


def _is_content(value: object) -> bool:
    return value is None or isinstance(value, str) or _are_parts(value, "text", str)


def _are_calls(value: object) -> bool:
    return not value or _are_parts(value, "function", Mapping)


def _are_parts(value: object, member: str, kind: type) -> bool:
    """Whether it is a list of mappings, with a member of this kind if they have it."""
    return isinstance(value, Sequence) and all(
        isinstance(part, Mapping) and isinstance(part.get(member), kind | None)
        for part in value
    )


MEMBERS = (
    ("content", _is_content, "a text, or a list of mappings, one for each part"),
    ("tool_calls", _are_calls, "a list of mappings, each with a mapping as its function"),
)
"""The members of a message that every dialect reads, and what each must be."""


def call_seconds(options: CallOptions, longest: float) -> float:
    """Return how many seconds the call may run. Raise `InvalidArgumentError`."""
    timeout = options.timeout
    if timeout is None:
        return longest
    if not isinstance(timeout, int | float):
        raise InvalidArgumentError(
            f"timeout is {_described(timeout)}, expected a number of seconds"
        )
    if math.isnan(timeout):
        raise InvalidArgumentError("timeout is not a number (nan), expected seconds")
    return min(timeout, longest)


def check_known(alias: str, state: PoolState) -> None:
    """Raise `MultiplexerError` if no model of the pool has this alias."""
    aliases = [candidate.endpoint.alias for candidate in state.candidates]
    if alias not in aliases:
        known = ", ".join(aliases)
        raise MultiplexerError(f"there is no model {alias!r} in the pool (known: {known})")


def _check_list(place: str, value: object, expected: str) -> None:
    if isinstance(value, TEXTS) or not isinstance(value, Sequence):
        hint = " (put the one entry in a list)" if isinstance(value, Mapping) else ""
        raise InvalidArgumentError(
            f"{place} is {_described(value)}, expected {expected}{hint}"
        )
    for position, entry in enumerate(value):
        if not isinstance(entry, MAPPINGS):
            raise InvalidArgumentError(
                f"{place}[{position}] is {_described(entry)}, expected a mapping,"
                f" in {expected}"
            )


def _described(value: object) -> str:
    """Describe a wrong value, cut short: it may be a whole history."""
    if value is None:
        return "None"
    return f"{reprlib.repr(value)} ({type(value).__name__})"
