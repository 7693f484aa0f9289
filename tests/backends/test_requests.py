"""The bytes on the wire: the fields of the call, then the settings of the member."""

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
from muxcore_backends.anthropic import Anthropic
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
    ({}, {"extra": {"n": 1, "stop": None}}, {"n": 1, "stop": None}),
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
def test_each_field_of_a_chat_is_sent(
    backend: Backend, wire: dict[str, Any], chat: dict[str, Any], sent: dict[str, Any]
) -> None:
    assert body(backend, Chat(MESSAGES, **chat), **wire) == {**BARE, **sent}


@pytest.mark.parametrize(
    ("chat", "streams"),
    [
        (Chat(MESSAGES), True),
        (Chat(MESSAGES, stream=True), True),
        (Chat(MESSAGES, extra={"n": 2}), False),
        (Chat(MESSAGES, extra={"logprobs": True}), False),
        (Chat(MESSAGES, stream=True, extra={"n": 2}), True),
    ],
)
def test_a_server_that_only_a_stream_stops_is_asked_to_stream(
    chat: Chat, streams: bool
) -> None:
    local = evolve(endpoint(), provider="llama.cpp")
    sent = json.loads(Generic().request(local, chat).body)
    assert (sent.get("stream"), sent.get("stream_options")) == (
        (True, {"include_usage": True}) if streams else (None, None)
    )
    off = evolve(local, wire=evolve(WIRE, capabilities=("-streams_whole",)))
    assert json.loads(Generic().request(off, chat).body).get("stream", False) is chat.stream


def test_a_generic_stream_asks_for_its_usage() -> None:
    assert body(Generic(), Chat(MESSAGES, stream=True)) == {**BARE, **STREAM}
    chat = Chat(MESSAGES, stream=True, extra={"stream": False, "stream_options": {"a": 1}})
    options = {"a": 1, "include_usage": True}
    assert body(Generic(), chat) == {**BARE, "stream": True, "stream_options": options}


def test_mistral_sends_its_usage_without_a_request() -> None:
    as_generic = {"capabilities": frozenset({"usage_unasked"})}
    extra = {"stream_options": {"include_usage": True}}
    sent = body(Generic(), Chat(MESSAGES, stream=True, extra=extra), **as_generic)
    assert sent == {**BARE, "stream": True}
    chat = Chat(MESSAGES, stream=True, extra={"stream_options": {"include_usage": True}})
    assert body(Mistral(), chat) == {**BARE, "stream": True}


@pytest.mark.parametrize(
    ("level", "effort"),
    [("low", "none"), ("medium", "high"), ("high", "high"), ("max", "high"), ("new", None)],
)
def test_mistrals_wire_has_its_levels_of_thinking(level: str, effort: str | None) -> None:
    sent = {} if effort is None else {"reasoning_effort": effort}
    assert body(Mistral(), Chat(MESSAGES), thinking=level) == {**BARE, **sent}


def test_the_generic_wire_has_vibes_levels() -> None:
    sent = body(Generic(), Chat(MESSAGES), thinking="max")
    assert sent == {**BARE, "reasoning_effort": "max"}


def test_the_token_limit_is_sent_under_the_name_of_the_wire() -> None:
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


def test_a_key_is_requested_if_the_provider_has_one() -> None:
    assert Generic().request(endpoint(), Chat(MESSAGES)).key_header == KeyHeader()
    assert Generic().request(endpoint(key_variable=""), Chat(MESSAGES)).key_header is None


def test_members_unknown_to_mistral_are_left_out_and_reported() -> None:
    chat = Chat(MESSAGES, extra={"seed": 7, "store": False, "logit_bias": {}, "n": 1})
    request = Mistral().request(endpoint(), chat)
    assert json.loads(request.body) == {**BARE, "random_seed": 7, "n": 1}
    assert request.rewrites == ("left out: logit_bias, store",)


LIMITED: list[tuple[int | None, dict[str, Any], dict[str, Any], tuple[str, ...]]] = [
    # the window, what is asked for, what is sent, which rewrites are reported
    (None, {"max_tokens": 10**6}, {"max_tokens": 10**6}, ()),
    (50_000, {"max_tokens": 39_000}, {"max_tokens": 39_000}, ()),
    (50_000, {}, {}, ()),
    (50_000, {"max_tokens": 60_000}, {"max_tokens": 39_981}, ("max_tokens lowered to 39981",)),
    (
        50_000,
        {"extra": {"max_completion_tokens": 60_000}},
        {"max_completion_tokens": 39_979},
        ("max_tokens lowered to 39979",),
    ),
    (10_100, {"max_tokens": 9000}, {"max_tokens": 1024}, ("max_tokens lowered to 1024",)),
    (500, {"max_tokens": 9000}, {"max_tokens": 500}, ("max_tokens lowered to 500",)),
    (50_000, {"extra": {"max_tokens": "60000"}}, {"max_tokens": "60000"}, ()),
]  # fmt: skip


@pytest.mark.parametrize(("window", "asked", "sent", "rewrites"), LIMITED)
def test_an_answer_is_limited_to_what_the_window_leaves(
    window: int | None,
    asked: dict[str, Any],
    sent: dict[str, Any],
    rewrites: tuple[str, ...],
) -> None:
    messages = [{"role": "user", "content": "x" * 40_000}]
    request = Generic().request(
        Endpoint("alias", "m-1", context_window=window, wire=WIRE), Chat(messages, **asked)
    )
    assert json.loads(request.body) == {"model": "m-1", "messages": messages, **sent}
    assert request.rewrites == rewrites


def test_the_bytes_of_an_image_are_not_counted_as_tokens() -> None:
    url = "data:image/png;base64," + "A" * 400_000
    messages = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
    ]
    seeing = Endpoint(
        "alias", "m-1", context_window=50_000, wire=evolve(WIRE, supports_images=True)
    )
    request = Generic().request(seeing, Chat(messages, max_tokens=40_000))
    assert request.rewrites == ()


@pytest.mark.parametrize(
    ("base", "provider", "is_told"),
    [
        ("http://127.0.0.1:11434/v1", "x", True),
        ("http://10.0.0.5:8000/v1", "my-ollama", True),
        ("http://127.0.0.1:8080/v1", "x", False),
        ("https://api.example/v1", "x", False),
    ],
)
def test_the_usage_of_a_server_that_cuts_prompts_is_compared_with_the_estimate(
    base: str, provider: str, *, is_told: bool
) -> None:
    ollama = Endpoint("alias", "m-1", provider, wire=Wire(base))
    request = Generic().request(ollama, Chat([{"role": "user", "content": "x" * 4000}]))
    size = request.prompt_tokens
    assert (size is not None and 1000 <= size <= 1020) if is_told else size is None


def test_frozen_and_foreign_containers_are_encoded_like_plain_ones() -> None:
    frozen: UserList[Mapping[str, Any]] = UserList(
        [MappingProxyType({"role": "user", "content": ("hi",)})]
    )
    assert body(Generic(), Chat(frozen))["messages"] == [
        {"role": "user", "content": ["hi"]}
    ]


HALVES = [
    ("\ud800é", "\ufffdé"),
    ("cut \ud83d", "cut \ufffd"),
    ("\udc00 on", "\ufffd on"),
    ("\ud83d\ude00 whole", "\U0001f600 whole"),
    ("\ude00\ud83d turned", "\ufffd\ufffd turned"),
    ("\\ud83d is quoted", "\\ud83d is quoted"),
    ("\\\ud83d is not", "\\\ufffd is not"),
]


@pytest.mark.parametrize(("content", "sent"), HALVES)
@pytest.mark.parametrize("backend", [Generic(), Mistral(), Anthropic()])
def test_a_lone_surrogate_is_sent_as_a_replacement(
    backend: Backend, content: str, sent: str
) -> None:
    messages = [{"role": "user", "content": content}]
    raw = backend.request(endpoint(), Chat(messages)).body
    assert json.dumps(sent) in json.dumps(json.loads(raw)["messages"][0])
    assert messages == [{"role": "user", "content": content}]


ARGUMENTS = [
    ('{"p": "\\ud83d"}', '{"p": "\ufffd"}'),
    ('{"p": "\\uD83D\\uDE00"}', '{"p": "\\uD83D\\uDE00"}'),
    ('{"p": "a\tb"}', '{"p": "a\\tb"}'),
    ('{"p": NaN}', '{"p": null}'),
    ('{"p": 1e999}', '{"p": null}'),
    ('{"p": 1e9}', '{"p": 1e9}'),
]


@pytest.mark.parametrize(("arguments", "sent"), ARGUMENTS)
def test_arguments_that_a_strict_server_refuses_are_repaired(
    arguments: str, sent: str
) -> None:
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "f", "arguments": arguments},
    }
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "r"},
    ]
    called = body(Generic(), Chat(messages))["messages"][1]["tool_calls"][0]["function"]
    assert called["arguments"] == sent


@pytest.mark.parametrize("content", [b"bytes", {1, 2}, object(), float("nan")])
def test_a_value_without_json_form_is_an_error_of_the_caller(content: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Generic().request(endpoint(), Chat([{"role": "user", "content": content}]))


def test_all_backends_are_built_in() -> None:
    backends = built_in().backends
    assert (backends["generic"].factory, backends["mistral"].factory) == (Generic, Mistral)
    assert backends["anthropic"].factory is Anthropic
    assert all(entry.summary for entry in backends.values())


def test_a_request_does_not_hold_the_alias() -> None:
    # The alias is the user's word; no provider needs it.
    request: HttpRequest = Generic().request(endpoint(), Chat(MESSAGES))
    assert b"alias" not in request.body


def test_a_cache_key_goes_where_it_is_known() -> None:
    chat = Chat(MESSAGES, extra={"prompt_cache_key": "k"})
    for backend, host, known in (
        (Generic(), "api.openai.com", True),
        (Generic(), "127.0.0.1:8080", True),
        (Generic(), "generativelanguage.googleapis.com", False),
        (Generic(), "api.groq.com", False),
        (Mistral(), "api.mistral.ai", True),
    ):
        sent = backend.request(endpoint(api_base=f"https://{host}/v1"), chat)
        assert ("prompt_cache_key" in json.loads(sent.body)) is known
        assert sent.rewrites == (() if known else ("left out: prompt_cache_key",))
