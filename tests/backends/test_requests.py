"""What is put on the wire: the call's words, then the member's own settings."""

import copy
import json
from collections import UserList
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from attrs import evolve

from muxcore.chat import Chat
from muxcore.core.records import Endpoint, Wire
from muxcore.plugins.backend import Backend, HttpRequest, KeyHeader
from muxcore.plugins.catalogue import built_in
from muxcore_backends.generic import Generic
from muxcore_backends.mistral import Mistral

MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "ls", "parameters": {}}}]
WIRE = Wire(api_base="https://api.example/v1", key_variable="EXAMPLE_KEY")
BARE = {"model": "m-1", "messages": MESSAGES}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
BOTH = [Generic(), Mistral()]


def endpoint(**wire: Any) -> Endpoint:
    return Endpoint("alias", "m-1", wire=evolve(WIRE, **wire))


def body(backend: Backend, chat: Chat, **wire: Any) -> Any:
    return json.loads(backend.request(endpoint(**wire), chat).body)


SAID: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # the wire, the chat, and what is sent besides model and messages
    ({}, {}, {}),
    ({}, {"tools": TOOLS}, {"tools": TOOLS}),
    ({}, {"tools": TOOLS, "tool_choice": "auto"}, {"tools": TOOLS, "tool_choice": "auto"}),
    ({}, {"tools": [], "tool_choice": "auto"}, {}),
    ({}, {"temperature": 0.0}, {"temperature": 0.0}),
    ({"temperature": 0.2}, {}, {"temperature": 0.2}),
    ({"temperature": 0.2}, {"temperature": 0.0}, {"temperature": 0.0}),
    ({"top_p": 0.9}, {}, {"top_p": 0.9}),
    ({"top_p": 0.9}, {"extra": {"top_p": 0.5}}, {"top_p": 0.5}),
    ({}, {"max_tokens": 50}, {"max_tokens": 50}),
    ({"max_output_tokens": 100}, {}, {"max_tokens": 100}),
    ({"max_output_tokens": 100}, {"max_tokens": 50}, {"max_tokens": 50}),
    ({"max_output_tokens": 100}, {"max_tokens": 200}, {"max_tokens": 100}),
    ({"max_output_tokens": 100}, {"extra": {"max_tokens": 7}}, {"max_tokens": 7}),
    ({}, {"extra": {"seed": 1, "stop": None}}, {"seed": 1, "stop": None}),
    ({}, {"extra": {"model": "other", "messages": []}}, {}),
    ({}, {"extra": {"stream": True, "stream_options": {"a": 1}}}, {}),
    ({"thinking": "off"}, {}, {}),
    ({"thinking": "high"}, {}, {"reasoning_effort": "high"}),
    (
        {"thinking": "high"},
        {"extra": {"reasoning_effort": "none"}},
        {"reasoning_effort": "none"},
    ),
]


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize(("wire", "chat", "sent"), SAID)
def test_what_is_sent(
    backend: Backend, wire: dict[str, Any], chat: dict[str, Any], sent: dict[str, Any]
) -> None:
    assert body(backend, Chat(MESSAGES, **chat), **wire) == {**BARE, **sent}


def test_a_generic_stream_asks_for_its_usage() -> None:
    assert body(Generic(), Chat(MESSAGES, stream=True)) == {**BARE, **STREAM}
    chat = Chat(MESSAGES, stream=True, extra={"stream": False, "stream_options": {"a": 1}})
    options = {"a": 1, "include_usage": True}
    assert body(Generic(), chat) == {**BARE, "stream": True, "stream_options": options}


def test_mistral_tells_its_usage_unasked() -> None:
    chat = Chat(MESSAGES, stream=True, extra={"stream_options": {"include_usage": True}})
    assert body(Mistral(), chat) == {**BARE, "stream": True}


@pytest.mark.parametrize(
    ("level", "effort"),
    [("low", "none"), ("medium", "high"), ("high", "high"), ("max", "high"), ("new", None)],
)
def test_levels_of_thinking_on_mistrals_wire(level: str, effort: str | None) -> None:
    sent = {} if effort is None else {"reasoning_effort": effort}
    assert body(Mistral(), Chat(MESSAGES), thinking=level) == {**BARE, **sent}


def test_the_generic_wire_has_vibes_own_levels() -> None:
    sent = body(Generic(), Chat(MESSAGES), thinking="max")
    assert sent == {**BARE, "reasoning_effort": "max"}


def test_the_other_name_of_the_limit() -> None:
    chat = Chat(MESSAGES, extra={"max_completion_tokens": 9})
    assert body(Generic(), chat, max_output_tokens=100) == {
        **BARE,
        "max_completion_tokens": 9,
    }
    assert body(Mistral(), chat, max_output_tokens=100) == {**BARE, "max_tokens": 9}
    assert body(Mistral(), evolve(chat, max_tokens=5)) == {**BARE, "max_tokens": 5}


@pytest.mark.parametrize("base", ["https://api.example/v1", "https://api.example/v1//"])
def test_the_url(base: str) -> None:
    request = Generic().request(endpoint(api_base=base), Chat(MESSAGES))
    assert request.url == "https://api.example/v1/chat/completions"


def test_the_headers() -> None:
    headers = (("X-Team", "a"), ("User-Agent", "b"))
    request = Generic().request(endpoint(extra_headers=headers), Chat(MESSAGES))
    assert request.headers == {"Content-Type": "application/json", **dict(headers)}


def test_a_key_is_asked_for_where_the_provider_has_one() -> None:
    assert Generic().request(endpoint(), Chat(MESSAGES)).key_header == KeyHeader()
    assert Generic().request(endpoint(key_variable=""), Chat(MESSAGES)).key_header is None


REASONED: list[dict[str, Any]] = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "a", "reasoning_content": "r", "tool_calls": []},
]


def test_reasoning_goes_out_under_the_providers_name_for_it() -> None:
    before = copy.deepcopy(REASONED)
    sent = body(Generic(), Chat(REASONED), reasoning_field_name="reasoning")
    assert sent["messages"] == [
        REASONED[0],
        {"role": "assistant", "content": "a", "reasoning": "r", "tool_calls": []},
    ]
    assert before == REASONED
    assert body(Generic(), Chat(REASONED))["messages"] == REASONED


def test_a_history_that_needs_nothing_is_not_copied() -> None:
    for wire in ({}, {"reasoning_field_name": "reasoning"}):
        messages, rewrites = Generic().rewriting(endpoint(**wire), MESSAGES)
        assert messages is MESSAGES
        assert rewrites == ()


def test_frozen_and_foreign_containers_are_sent_as_they_look() -> None:
    frozen: UserList[Mapping[str, Any]] = UserList(
        [MappingProxyType({"role": "user", "content": ("hi",)})]
    )
    assert body(Generic(), Chat(frozen))["messages"] == [
        {"role": "user", "content": ["hi"]}
    ]


def test_halves_of_characters_are_carried() -> None:
    messages = [{"role": "user", "content": "\ud800é"}]
    assert body(Generic(), Chat(messages))["messages"] == messages


@pytest.mark.parametrize("content", [b"bytes", {1, 2}, object(), float("nan")])
def test_what_no_json_can_hold_is_the_callers_error(content: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Generic().request(endpoint(), Chat([{"role": "user", "content": content}]))


def test_both_are_built_in() -> None:
    backends = built_in().backends
    assert (backends["generic"].factory, backends["mistral"].factory) == (Generic, Mistral)
    assert all(entry.summary for entry in backends.values())


def test_a_request_holds_nothing_of_the_alias() -> None:
    # The alias is the user's own word; no provider needs it.
    request: HttpRequest = Generic().request(endpoint(), Chat(MESSAGES))
    assert b"alias" not in request.body
