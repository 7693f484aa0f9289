"""Generated chats of an agent: turns with tools, reasoning and any text."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from muxcore.chat import Chat, Json

TEXTS = st.text(max_size=12)
TOOLS: tuple[Json, ...] = (
    {
        "type": "function",
        "function": {
            "name": "read_file",
            "description": "Read a file",
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
        },
    },
)


def _user(text: str) -> list[Json]:
    return [{"role": "user", "content": text}]


def _assistant(facts: tuple[str, str | None]) -> list[Json]:
    text, reasoning = facts
    message: Json = {"role": "assistant", "content": text}
    return [message if reasoning is None else {**message, "reasoning_content": reasoning}]


def _tool_turn(facts: tuple[str, str, str]) -> list[Json]:
    """Return a tool call and its result as vibe sends them: without content."""
    identity, arguments, result = facts
    function = {"name": "read_file", "arguments": arguments}
    call = {"id": identity, "index": 0, "type": "function", "function": function}
    return [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "name": "read_file", "tool_call_id": identity, "content": result},
    ]


def _parts(text: str) -> list[Json]:
    return [{"role": "user", "content": [{"type": "text", "text": text}]}]


IDENTITIES = st.sampled_from(("abcdefghi", "call_0_0123456789abcdef0123", "toolu_01", "x"))
ARGUMENTS = st.sampled_from(("{}", '{"path": "a.py"}', ""))
TURNS = st.one_of(
    TEXTS.map(_user),
    TEXTS.map(_parts),
    st.tuples(TEXTS, st.none() | TEXTS).map(_assistant),
    st.tuples(IDENTITIES, ARGUMENTS, TEXTS).map(_tool_turn),
)


def _chat(facts: tuple[str | None, list[list[Json]], bool, bool, Any]) -> Chat:
    system, turns, tools, stream, (tool_choice, temperature, max_tokens, extra) = facts
    messages: list[Json] = [] if system is None else [{"role": "system", "content": system}]
    for turn in turns:
        messages += turn
    return Chat(
        messages=messages,
        tools=list(TOOLS) if tools else None,
        tool_choice=tool_choice if tools else None,
        temperature=temperature,
        max_tokens=max_tokens,
        stream=stream,
        extra=extra,
    )


SETTINGS = st.tuples(
    st.sampled_from((None, "auto", "none")),
    st.sampled_from((None, 0.0, 0.7)),
    st.sampled_from((None, 1, 4096)),
    st.sampled_from(({}, {"seed": 1}, {"stream_options": {"include_usage": True}})),
)
CHATS = st.tuples(
    st.none() | TEXTS,
    st.lists(TURNS, min_size=1, max_size=5),
    st.booleans(),
    st.booleans(),
    SETTINGS,
).map(_chat)
