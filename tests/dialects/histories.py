"""Histories as callers have them after a session with several models, interrupted at will."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import define, field
from hypothesis import strategies as st

from tests.dialects.table import DIALECTS, Dialect, Said

ODD_NAMES = ("functions.look", "look<|channel|>", "x" * 70)
PNG = "data:image/png;base64,"


@define
class History:
    """A history, and how it was made."""

    messages: list[Any] = field(factory=list)
    results: dict[str, str] = field(factory=dict)
    """The token of a call, by that of the result that it got."""
    orphans: list[str] = field(factory=list)
    thoughts: list[str] = field(factory=list)
    images: list[str] = field(factory=list)
    count: int = 0

    def token(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}e"

    def thought(self) -> str:
        self.count += 1
        self.thoughts.append(f"t{self.count}e")
        return self.thoughts[-1]


Draw = Callable[[Any], Any]

CHANCE = st.integers(0, 99)


@st.composite
def histories(draw: Draw) -> History:
    history = History()
    number = 0
    if draw(CHANCE) < 70:
        role = "developer" if draw(CHANCE) < 15 else "system"
        history.messages.append({"role": role, "content": history.token("w")})
        if draw(CHANCE) < 10:
            history.messages.append({"role": "system", "content": history.token("w")})
    if draw(CHANCE) < 10:
        _orphan(draw, history)
    if draw(CHANCE) < 10:
        number = _answer(draw, history, number)
    for _ in range(draw(st.integers(1, 4))):
        _user(draw, history)
        for _ in range(draw(st.sampled_from((0, 1, 1, 2, 3)))):
            number = _answer(draw, history, number)
            if draw(CHANCE) < 5:
                late = {"role": "system", "content": history.token("w")}
                history.messages.append(late)
        if draw(CHANCE) < 5:
            _orphan(draw, history)
    if draw(CHANCE) < 60:
        _user(draw, history)
    return history


def _user(draw: Draw, history: History) -> None:
    for _ in range(1 if draw(CHANCE) < 85 else 2):
        kind = draw(CHANCE)
        content: Any
        if kind < 60:
            content = history.token("w")
        elif kind < 70:
            content = [
                {"type": "text", "text": history.token("w")},
                {"type": "text", "text": history.token("w")},
            ]
        elif kind < 85:
            content = [
                {"type": "text", "text": history.token("w")},
                _image(history),
            ]
        elif kind < 90:
            content = draw(st.sampled_from(("", " ", [])))
        else:
            content = history.token("w") + draw(
                st.sampled_from((" é🎈\u2028", "\ud800", "\n"))
            )
        history.messages.append({"role": "user", "content": content})


def _image(history: History) -> dict[str, Any]:
    token = history.token("i")
    history.images.append(token)
    # Enough like base64 to be taken for it, and found again.
    return {"type": "image_url", "image_url": {"url": PNG + token}}


def _answer(draw: Draw, history: History, number: int) -> int:
    """Let some model answer, and the tools answer it, unless something comes between."""
    dialect: Dialect = draw(st.sampled_from(DIALECTS))
    many = draw(st.sampled_from((0, 1, 1, 2, 3)))
    calls = []
    tokens = []
    for _ in range(many):
        tokens.append(history.token("c"))
        name = draw(st.sampled_from(("look", "write_file")))
        calls.append((name, json.dumps({"n": tokens[-1]})))
    text = history.token("w") if draw(CHANCE) < (50 if many else 95) else ""
    thoughts = history.thought() if draw(CHANCE) < 50 else ""
    message = dialect.answer(Said(text, thoughts, tuple(calls)), number)
    _spoil(draw, message)
    history.messages.append(message)
    if many:
        _results(draw, history, message, tokens)
    return number + 1


def _spoil(draw: Draw, message: Any) -> None:
    """Break off an answer in its last call, or give that call an invalid name."""
    calls = message.get("tool_calls")
    if not calls:
        if draw(CHANCE) < 5:
            message["tool_calls"] = []
        return
    kind = draw(CHANCE)
    last = calls[-1]["function"]
    if kind < 4:
        last["arguments"] = last["arguments"][:-2]
    elif kind < 6:
        last["name"] = draw(st.sampled_from(ODD_NAMES))
    elif kind < 7:
        calls[-1]["id"] = draw(st.sampled_from(("", "é" * 9, "a b c d e")))


def _results(draw: Draw, history: History, message: Any, tokens: list[str]) -> None:
    made = []
    for call, token in zip(message["tool_calls"], tokens, strict=True):
        said = history.token("r")
        history.results[said] = token
        made.append(_result(draw, history, call, said))
    kind = draw(CHANCE)
    if kind < 10 and _are_distinct(message["tool_calls"]):
        made.reverse()
    elif kind < 20:
        # The user pressed escape.
        for lost in made[draw(st.integers(0, len(made) - 1)) :]:
            made.remove(lost)
            history.results.pop(_said(lost))
            for part in lost["content"] if isinstance(lost["content"], list) else ():
                if part["type"] == "image_url":
                    history.images.remove(part["image_url"]["url"].removeprefix(PNG))
    elif kind < 25:
        place = draw(st.integers(0, len(made)))
        made.insert(place, {"role": "user", "content": history.token("w")})
    elif kind < 28:
        # A result that comes twice.
        made.append({**made[0], "content": history.token("r")})
        history.orphans.append(made[-1]["content"])
    history.messages += made


def _result(draw: Draw, history: History, call: Any, said: str) -> Any:
    kind = draw(CHANCE)
    content: Any = said
    if kind < 10:
        content = [{"type": "text", "text": said}]
    elif kind < 15:
        content = [{"type": "text", "text": said}, _image(history)]
    result = {"role": "tool", "tool_call_id": call["id"], "content": content}
    return {**result, "name": call["function"]["name"]} if draw(CHANCE) < 50 else result


def _said(result: Any) -> str:
    content = result["content"]
    return content if isinstance(content, str) else content[0]["text"]


def _are_distinct(calls: list[Any]) -> bool:
    return len({call["id"] for call in calls}) == len(calls)


def _orphan(draw: Draw, history: History) -> None:
    said = history.token("r")
    history.orphans.append(said)
    identity = draw(st.sampled_from(("gone", "call_" + "9" * 50)))
    history.messages.append({"role": "tool", "tool_call_id": identity, "content": said})
