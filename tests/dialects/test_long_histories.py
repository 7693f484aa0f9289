"""A history of any length costs no more than its length."""

from __future__ import annotations

from typing import Any

import pytest

from muxcore.chat import REASONING
from muxcore_backends.history import contents, ids, roles

MANY = 20_000


def test_calls_of_one_id_are_renamed_in_linear_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hashed = 0
    own = ids._hash

    def count(text: str) -> str:
        nonlocal hashed
        hashed += 1
        return own(text)

    monkeypatch.setattr(ids, "_hash", count)
    call = {
        "id": "call-1",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
    }
    messages: list[Any] = [
        message
        for _ in range(MANY)
        for message in (
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call-1", "content": "done"},
        )
    ]
    changed = ids._made_fit(messages, ids.NINE)
    found = [m["tool_calls"][0]["id"] for m in changed if "tool_calls" in m]
    assert len(set(found)) == MANY
    assert found == [m["tool_call_id"] for m in changed if m["role"] == "tool"]
    assert hashed <= MANY + 10


def test_messages_of_one_speaker_are_joined_once(monkeypatch: pytest.MonkeyPatch) -> None:
    joins = 0
    own = contents.joined

    def count(contents: Any) -> Any:
        nonlocal joins
        joins += 1
        return own(contents)

    monkeypatch.setattr(roles, "joined", count)
    (merged,) = roles._merged([{"role": "user", "content": "x"}] * MANY)
    assert joins == 1
    assert merged["content"].count("x") == MANY


@pytest.mark.parametrize(
    ("given", "joined"),
    [
        (["", None, "a"], "a"),
        ([None, ""], ""),
        (["a", "b"], "a\n\nb"),
        ([[{"t": 1}], ""], [{"t": 1}]),
        (["a", "b", [{"t": 1}], "c"], [{"type": "text", "text": "a\n\nb"}, {"t": 1}, {"type": "text", "text": "c"}]),
    ],
)  # fmt: skip
def test_contents_are_joined_as_text_while_all_are_text(given: Any, joined: Any) -> None:
    assert contents.joined(given) == joined


@pytest.mark.parametrize(
    ("reasonings", "merged"),
    [(["a", "b"], "a\n\nb"), (["a", None], "a"), (["a", ""], ""), (["a", "", "b"], "b")],
)
def test_reasoning_of_joined_messages_is_joined(reasonings: Any, merged: str) -> None:
    messages: list[Any] = [
        {"role": "assistant", "content": "x"} | ({} if each is None else {REASONING: each})
        for each in reasonings
    ]
    assert roles._merged(messages)[0][REASONING] == merged
