"""What a chat shows about its call, above all its conversation."""

from __future__ import annotations

from typing import Any

import pytest

from muxcore import Multiplexer
from muxcore.chat import Chat
from muxcore.shell.call.facts import begins_turn, conversation_of
from muxcore.standin import StandInServer
from tests.shell.conftest import Make

SYSTEM = {"role": "system", "content": "You are an agent."}
USER = {"role": "user", "content": "Mend the tests."}
TOOLS = [{"type": "function", "function": {"name": "read", "parameters": {}}}]
AGENT = Chat((SYSTEM, USER), TOOLS)


def later(chat: Chat, **more: Any) -> Chat:
    """Return the chat some steps later in the same turn."""
    call = {"id": "1", "type": "function", "function": {"name": "read", "arguments": "{}"}}
    steps = (
        *chat.messages,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "red"},
    )
    return Chat(steps, chat.tools, **more)


@pytest.mark.parametrize("session", [None, "s"])
def test_the_steps_of_a_turn_are_one_conversation(session: str | None) -> None:
    assert conversation_of(session, AGENT) == conversation_of(session, later(AGENT))
    assert begins_turn(AGENT.messages)
    assert not begins_turn(later(AGENT).messages)


def test_what_the_system_adds_ends_no_turn_of_the_user() -> None:
    """Claude Code puts such messages behind the user's."""
    added = {"role": "system", "content": "One more tool is there."}
    assert begins_turn([*AGENT.messages, added])
    assert not begins_turn([*later(AGENT).messages, added])


@pytest.mark.parametrize(
    "other",
    [
        Chat((SYSTEM, {"role": "user", "content": "Write the docs."}), TOOLS),
        Chat(({"role": "system", "content": "You are another."}, USER), TOOLS),
        Chat(({"role": "developer", "content": "You are another."}, USER), TOOLS),
        Chat((SYSTEM, USER), [{"type": "function", "function": {"name": "write"}}]),
        Chat((SYSTEM, USER)),
        Chat((USER,), TOOLS),
    ],
    ids=["user", "system", "developer", "tool", "no tools", "no system"],
)
def test_different_openings_are_different_conversations(other: Chat) -> None:
    assert conversation_of(None, AGENT) != conversation_of(None, other)


def test_each_sub_agent_of_a_session_has_its_own_conversation() -> None:
    sub_agent = Chat((SYSTEM, {"role": "user", "content": "Look for races."}), TOOLS)
    assert conversation_of("s", AGENT) != conversation_of("s", sub_agent)
    assert conversation_of("s", AGENT) != conversation_of("another", AGENT)


def test_a_prompt_cache_key_replaces_a_session() -> None:
    keyed = Chat(AGENT.messages, TOOLS, extra={"prompt_cache_key": "s"})
    assert conversation_of(None, keyed) == conversation_of("s", AGENT)
    assert conversation_of("other", keyed) == conversation_of("other", AGENT)
    for odd in (7, None, "", ["s"]):
        strange = Chat(AGENT.messages, TOOLS, extra={"prompt_cache_key": odd})
        assert conversation_of(None, strange) == conversation_of(None, AGENT)


@pytest.mark.parametrize(
    "messages",
    [
        ({"role": "user", "content": [{"type": "text", "text": "hi"}]},),
        ({"role": "user", "content": None},),
        ({"role": "user"},),
        ({"role": "assistant", "content": "first"},),
        ({"role": "user", "content": "a lone \ud800 half"},),
    ],
)
def test_every_opening_has_a_name(messages: tuple[dict[str, Any], ...]) -> None:
    assert conversation_of(None, Chat(messages))
    assert conversation_of("s", Chat(messages))


def test_a_chat_without_messages_has_no_conversation() -> None:
    assert conversation_of("s", Chat(())) is None


def turn(multiplexer: Multiplexer, words: str, **more: Any) -> list[str]:
    """Return which model answered each of six steps of one turn."""
    chat = Chat((SYSTEM, {"role": "user", "content": words}), TOOLS)
    models = []
    for _ in range(6):
        models.append(multiplexer.complete(chat.messages, TOOLS, **more).model)
        chat = later(chat)
    return models


@pytest.mark.parametrize(
    "more", [{}, {"session": "s"}, {"prompt_cache_key": "k"}], ids=["none", "s", "key"]
)
def test_six_steps_of_a_turn_stay_on_one_model_under_load_balance(
    make: Make, server: StandInServer, more: dict[str, Any]
) -> None:
    multiplexer = make("alpha", "beta", mode="load_balance")
    served = [turn(multiplexer, f"Task {number}.", **more) for number in range(4)]
    assert all(len(set(models)) == 1 for models in served)
    assert {models[0] for models in served} == {"alpha", "beta"}
