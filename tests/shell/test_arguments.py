"""Wrong arguments of a caller are clear errors, before any attempt."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any

import pytest

from muxcore import MultiplexerError
from muxcore.errors import InvalidArgumentError
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.shell.http.transport import USER_AGENT
from muxcore.standin import Model

Make = Callable[..., Multiplexer]
PING = {"role": "user", "content": "ping"}
HINT = " (put the one entry in a list)"
LIST = 'a list such as [{"role": "user", "content": "hello"}]'


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ("hello", f"messages is 'hello' (str), expected {LIST}"),
        (None, f"messages is None, expected {LIST}"),
        (
            PING,
            f"messages is {reprlib.repr(PING)} (dict), expected {LIST}{HINT}",
        ),
        ([PING, "hello"], f"messages[1] is 'hello' (str), expected a mapping, in {LIST}"),
        ([None], f"messages[0] is None, expected a mapping, in {LIST}"),
        (7, f"messages is 7 (int), expected {LIST}"),
    ],
)
@pytest.mark.parametrize("streams", [False, True])
def test_invalid_messages_are_refused_before_any_attempt(
    make: Make, alpha: Model, messages: Any, text: str, *, streams: bool
) -> None:
    multiplexer = make("alpha")
    ask = (
        multiplexer.complete if not streams else lambda m: multiplexer.stream(m).__enter__()
    )
    with pytest.raises(InvalidArgumentError) as caught:
        ask(messages)
    assert str(caught.value) == text
    assert isinstance(caught.value, MultiplexerError)
    assert not alpha.requests
    assert multiplexer.state.attempts == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"tools": "search"},
            "tools is 'search' (str), expected a list of mappings, one for each tool",
        ),
        (
            {"tools": [7]},
            "tools[0] is 7 (int), expected a mapping, in a list of mappings, one for each tool",
        ),
        ({"timeout": "5"}, "timeout is '5' (str), expected a number of seconds"),
    ],
)
def test_other_wrong_arguments_are_refused_too(
    make: Make, alpha: Model, arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        make("alpha").complete([PING], **arguments)
    assert str(caught.value) == text
    assert not alpha.requests


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"temperature": float("inf")}, "temperature is inf (float), expected what JSON"),
        ({"top_p": float("nan")}, "top_p is nan (float), expected what JSON can hold"),
        ({"stop": {"a"}}, "stop is {'a'} (set), expected what JSON can hold"),
        ({"metadata": object()}, "metadata is <object "),
        ({"tools": [{"parameters": {"minimum": float("-inf")}}]}, "tools is "),
    ],
)
@pytest.mark.parametrize("streams", [False, True])
def test_what_no_json_can_hold_is_the_callers_mistake(
    make: Make,
    alpha: Model,
    beta: Model,
    options: dict[str, Any],
    text: str,
    *,
    streams: bool,
) -> None:
    multiplexer = make("alpha", "beta")
    stream = multiplexer.stream([PING], **options)
    with pytest.raises(InvalidArgumentError) as caught:
        stream.__enter__() if streams else multiplexer.complete([PING], **options)
    assert str(caught.value).startswith(text)
    assert not alpha.requests
    assert not beta.requests
    assert all(m.rejected_count == m.in_flight == 0 for m in multiplexer.status().models)


def circular() -> list[Any]:
    content: list[Any] = []
    content.append(content)
    return [{"role": "user", "content": content}]


def nested(depth: int) -> list[Any]:
    content: Any = "x"
    for _ in range(depth):
        content = [content]
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    "messages",
    [circular(), nested(100_000), [{"role": "user", "content": [{("a",): 1}]}]],
    ids=["circular", "deep", "keys"],
)
@pytest.mark.parametrize("streams", [False, True])
def test_messages_that_no_json_can_hold_are_the_callers_mistake(
    make: Make, alpha: Model, messages: list[Any], *, streams: bool
) -> None:
    multiplexer = make("alpha")
    stream = multiplexer.stream(messages)
    with pytest.raises(InvalidArgumentError, match=r"^messages is .* what JSON can hold"):
        stream.__enter__() if streams else multiplexer.complete(messages)
    assert not alpha.requests


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "text", "text": 5}, "x"]},
        {"role": "user", "content": [{"type": "text", "text": None}]},
        {"role": "user"},
        {"role": "assistant", "content": "x", "tool_calls": [{"function": {"name": 5}}]},
    ],
)
def test_an_odd_history_is_measured_and_left_to_the_model(
    make: Make, alpha: Model, message: dict[str, Any]
) -> None:
    """What JSON can hold may be right for a server that nobody here knows."""
    pool = {"model": "alpha", "context_window": 9_000}
    assert make(pool).complete([message, PING]).model == "alpha"
    assert len(alpha.requests) == 1


@pytest.mark.parametrize(
    ("member", "value", "text"),
    [
        ("content", 5, "messages[0].content is 5 (int), expected a text, or a list"),
        ("tool_calls", 5, "messages[0].tool_calls is 5 (int), expected a list of mappings"),
        ("tool_calls", ["x"], "messages[0].tool_calls is ['x'] (list), expected a list"),
        ("tool_calls", [{"function": 5}], "messages[0].tool_calls is [{'function': 5}]"),
    ],
)
def test_what_no_dialect_can_read_is_the_callers_mistake(
    make: Make, alpha: Model, beta: Model, member: str, value: Any, text: str
) -> None:
    message = {"role": "assistant", "content": "x", member: value}
    with pytest.raises(InvalidArgumentError) as caught:
        make("alpha", "beta").complete([message, PING])
    assert str(caught.value).startswith(text)
    assert not alpha.requests + beta.requests


def test_a_tuple_of_messages_is_a_list_of_them(make: Make) -> None:
    assert make("alpha").complete((PING,), tools=()).model == "alpha"


def test_requests_name_this_package_as_user_agent(make: Make, alpha: Model) -> None:
    make("alpha").complete([PING])
    assert alpha.requests[0].headers["user-agent"] == USER_AGENT
    assert USER_AGENT.startswith("vibe-mux/")


def test_extra_headers_replace_the_user_agent(make: Make, alpha: Model) -> None:
    make("alpha", provider={"extra_headers": {"user-agent": "mine/1"}}).complete([PING])
    assert alpha.requests[0].headers["user-agent"] == "mine/1"
