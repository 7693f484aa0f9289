"""Ids of calls, in the form that a server demands: the same on a call and on its result.

An id that fits stays. Any other becomes a hash of itself, so it is the same at every turn and
a prompt cache keeps hitting. In one history no two calls share an id: the later one gives
way, so nothing that comes later changes what was sent before.
"""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from muxcore_backends.history.pairs import ABOUT_CALLS, calls_of
from muxcore_backends.history.steps import Message, Messages, Rewrite

NINE = re.compile(r"[A-Za-z0-9]{9}")
"""Mistral's, and those of its chat templates."""
UP_TO_40 = re.compile(r"[!-~]{1,40}")
"""OpenAI's."""
LENIENT = re.compile(r"[!-~]{1,64}")
"""Those of servers behind chat templates: vLLM itself makes longer ones than OpenAI."""
UP_TO_64 = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Anthropic's; Bedrock adds the length."""

ALPHABET = string.digits + string.ascii_letters
LENGTH = 9
"""A hash is as long as the strictest server wants it: then it fits all of them."""


def ids(form: re.Pattern[str]) -> Rewrite:
    """Make the step that brings every id into this form."""
    return Rewrite(
        "tool-call ids changed", lambda messages: _renamed(messages, form), ABOUT_CALLS
    )


def _renamed(messages: Messages, form: re.Pattern[str]) -> Messages:
    return messages if _all_fit(messages, form) else _made_fit(messages, form)


def _all_fit(messages: Messages, form: re.Pattern[str]) -> bool:
    """Whether all calls have ids that fit, each its own; those of results are the same."""
    found = [call.get("id") for message in messages for call in calls_of(message)]
    fits = form.fullmatch
    return len(found) == len(set(found)) and all(
        isinstance(identity, str) and fits(identity) for identity in found
    )


def _made_fit(messages: Messages, form: re.Pattern[str]) -> Messages:
    taken: set[str] = set()
    numbers: dict[str, Iterator[int]] = {}
    renames: list[tuple[Any, str]] = []
    out: list[Message] | None = None
    for position, message in enumerate(messages):
        changed = message
        if message.get("role") == "tool":
            changed = _renamed_result(message, renames)
        elif calls := calls_of(message):
            renames = [_rename(call.get("id"), form, taken, numbers) for call in calls]
            if any(old != new for old, new in renames):
                renamed = [
                    {**call, "id": new}
                    for call, (_, new) in zip(calls, renames, strict=True)
                ]
                changed = {**message, "tool_calls": renamed}
        if out is not None:
            out.append(changed)
        elif changed is not message:
            out = [*messages[:position], changed]
    return messages if out is None else out


def _rename(
    old: Any, form: re.Pattern[str], taken: set[str], numbers: dict[str, Iterator[int]]
) -> tuple[Any, str]:
    new = _free(old, form, taken, numbers)
    taken.add(new)
    return old, new


def _free(
    old: Any, form: re.Pattern[str], taken: set[str], numbers: dict[str, Iterator[int]]
) -> str:
    if isinstance(old, str) and old not in taken and form.fullmatch(old):
        return old
    # Counted on where the last one of this name ended: a history may have one name only.
    numbered = numbers.setdefault(f"{old}", itertools.count())
    hashes = (_hash(f"{number} {old}") for number in numbered)
    return next(new for new in hashes if new not in taken)


def _renamed_result(result: Message, renames: list[tuple[Any, str]]) -> Message:
    """Rename a result after its call: the first of that id which has none yet."""
    identity = result.get("tool_call_id")
    for rename in renames:
        if rename[0] == identity:
            renames.remove(rename)
            new = rename[1]
            return result if new == identity else {**result, "tool_call_id": new}
    return result


@lru_cache(maxsize=4096)
def _hash(text: str) -> str:
    # OpenSSL comes with it: too slow for a command that needs no hash.
    import hashlib  # noqa: PLC0415

    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    number = int.from_bytes(digest, "big")
    letters = []
    for _ in range(LENGTH):
        number, letter = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[letter])
    return "".join(letters)
