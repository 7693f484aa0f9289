"""Whole answers through the public library, over real HTTP."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime, timedelta
from time import monotonic  # noqa: TID251 - how long it took is what is tested
from typing import Any

import pytest

from muxcore import (
    MultiplexerError,
    PoolExhaustedError,
    RequestRejectedError,
    StrategyError,
)
from muxcore.chat import Usage
from muxcore.core.records import Call, Candidate, Endpoint, PoolState, Wire
from muxcore.shell import clock
from muxcore.shell.call.member import Limits, Member
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.shell.factory import Parts
from muxcore.standin import (
    Answer,
    Behaviour,
    ConnectionClosed,
    ConnectionReset,
    Cut,
    EndWithoutFinish,
    ErrorEvent,
    Model,
    Raw,
    StandInServer,
    StatusAnswer,
    ToolCall,
    dead_port,
    rate_limited,
    refusal,
    server_error,
)
from muxcore_backends.generic import Generic
from tests.waiting import wait_until

Make = Callable[..., Multiplexer]
Start = Callable[..., Future[Any]]

PING = [{"role": "user", "content": "ping"}]
FALLBACK = {"model": "beta", "is_fallback": True}
TOOLS = [{"type": "function", "function": {"name": "read", "parameters": {}}}]


def ms(count: float) -> timedelta:
    return timedelta(milliseconds=count)


def outcomes(reply: Any) -> list[tuple[str, str]]:
    return [(attempt.alias, attempt.outcome) for attempt in reply.attempts]


def test_a_reply_has_all_its_fields(make: Make, alpha: Model) -> None:
    alpha.then(Answer("Bonjour", usage=Usage(20, 5, 12)))
    reply = make("alpha").complete(
        PING, temperature=0.7, max_tokens=9, seed=3, metadata={"a": 1}
    )
    assert reply.text == "Bonjour"
    assert reply.message == {"role": "assistant", "content": "Bonjour"}
    assert reply.tool_calls == []
    assert reply.finish_reason == "stop"
    assert reply.usage == Usage(20, 5, 12)
    assert reply.model == "alpha"
    assert outcomes(reply) == [("alpha", "succeeded")]
    assert reply.raw["object"] == "chat.completion"

    body = alpha.requests[0].body
    assert body == {
        "model": "model-a",
        "messages": PING,
        "temperature": 0.7,
        "max_tokens": 9,
        "seed": 3,
        "metadata": {"a": 1},
    }


def test_tool_calls_are_passed_on(make: Make, alpha: Model) -> None:
    alpha.then(Answer(tool_calls=(ToolCall("read", '{"path": "a"}', "call00001"),)))
    reply = make("alpha").complete(PING, tools=TOOLS, tool_choice="auto")
    assert reply.text == ""
    assert reply.finish_reason == "tool_calls"
    assert reply.tool_calls == [
        {
            "id": "call00001",
            "type": "function",
            "function": {"name": "read", "arguments": '{"path": "a"}'},
        }
    ]
    assert alpha.requests[0].body["tools"] == TOOLS
    assert alpha.requests[0].body["tool_choice"] == "auto"


def test_one_connection_serves_call_after_call(make: Make, alpha: Model) -> None:
    multiplexer = make("alpha")
    for _ in range(3):
        multiplexer.complete(PING)
        with multiplexer.stream(PING) as stream:
            list(stream)
    assert len({request.connection for request in alpha.requests}) == 1


def test_failover_follows_the_order_of_the_pool(
    make: Make, alpha: Model, beta: Model
) -> None:
    multiplexer = make("beta", "alpha")
    assert multiplexer.complete(PING).model == "beta"
    beta.then(server_error())
    reply = multiplexer.complete(PING)
    assert outcomes(reply) == [("beta", "error"), ("alpha", "succeeded")]
    assert reply.text == "pong from model-a"
    assert reply.attempts[0].message == "The server is overloaded"
    assert len(alpha.requests) == 1


FAULTS: dict[str, tuple[Behaviour, str, str]] = {
    "rate limited": (rate_limited(), "rate limited", "Rate limit exceeded"),
    "unavailable": (server_error(), "error", "The server is overloaded"),
    "closed": (ConnectionClosed(), "error", "the connection was closed without an answer"),
    "reset": (ConnectionReset(), "error", "the connection was reset"),
    "cut": (Cut(1), "error", "the answer broke off"),
    "an error in band": (ErrorEvent({"message": "no"}), "error", "no"),
    "no JSON": (Raw((b"{",)), "error", "the answer is cut off, or no JSON"),
    "HTML": (Raw((b"<title>Oops</title>",)), "error", "Oops"),
    "empty": (Raw((b"",)), "error", "the answer is cut off, or no JSON"),
    "no choices": (Raw((b'{"choices": []}',)), "error", "it has no choices"),
    "a redirect": (
        StatusAnswer(307, {}, {"Location": "/v1/models"}),
        "error",
        "",
    ),
    "a refused key": (
        refusal(401, "bad key"),
        "key refused",
        "bad key (its provider names no api_key_env_var)",
    ),
    "no such model": (
        refusal(404, "nope", code="model_not_found"),
        "model not found",
        "nope",
    ),
    "odd encoding": (
        Raw((b"not gzip",), headers={"content-encoding": "gzip"}),
        "error",
        "its answer could not be decompressed",
    ),
}


@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_model_is_replaced(
    make: Make, alpha: Model, beta: Model, fault: str, *, kept: bool
) -> None:
    behaviour, outcome, message = FAULTS[fault]
    multiplexer = make("alpha", FALLBACK)
    if kept:
        # A request over an idle connection takes another path.
        multiplexer.complete(PING)
        multiplexer.complete(PING)
    asked = len(alpha.requests)
    alpha.default = behaviour
    reply = multiplexer.complete(PING)
    assert reply.model == "beta"
    assert outcomes(reply) == [("alpha", outcome), ("beta", "succeeded")]
    assert message in reply.attempts[0].message
    # An idle connection that is closed without a byte may have been closed before.
    again = kept and fault in {"closed", "reset"}
    assert (len(alpha.requests), len(beta.requests)) == (asked + 1 + again, 1)


def test_a_whole_answer_without_finish_reason_is_an_answer(
    make: Make, alpha: Model
) -> None:
    alpha.then(EndWithoutFinish())
    reply = make("alpha").complete(PING)
    assert (reply.text, reply.finish_reason) == ("pong from model-a", None)


def test_a_dead_address_is_failed_over(make: Make) -> None:
    with dead_port() as url:
        reply = make("alpha", FALLBACK, urls={"alpha": url}).complete(PING)
    assert outcomes(reply) == [("alpha", "error"), ("beta", "succeeded")]
    assert reply.attempts[0].message == "the connection was refused"


def test_a_host_name_that_does_not_exist_is_failed_over(make: Make) -> None:
    urls = {"alpha": "http://no-such-host.invalid/v1"}
    reply = make("alpha", FALLBACK, urls=urls).complete(PING)
    assert reply.attempts[0].message == "its name could not be resolved"


def test_a_host_name_that_cannot_exist_is_failed_over(make: Make) -> None:
    urls = {"alpha": f"http://{'a' * 64}.invalid/v1"}
    reply = make("alpha", FALLBACK, urls=urls).complete(PING)
    assert reply.attempts[0].outcome == "error"


def test_load_is_balanced_within_a_single_call(
    make: Make, alpha: Model, beta: Model
) -> None:
    multiplexer = make(
        {"model": "alpha", "weight": 70},
        {"model": "beta", "weight": 30},
        mode="load_balance",
    )
    served: Counter[str] = Counter()
    for number in range(1, 101):
        served[multiplexer.complete(PING).model] += 1
        assert abs(served["alpha"] - 0.7 * number) < 1
    assert served == {"alpha": 70, "beta": 30}
    assert (len(alpha.requests), len(beta.requests)) == (70, 30)


def test_single_is_the_active_model_alone(make: Make, beta: Model) -> None:
    multiplexer = make({"model": "alpha", "max_concurrent": 2}, mode="single")
    assert multiplexer.complete(PING).model == "alpha"
    with pytest.raises(MultiplexerError, match="no model 'beta'"):
        multiplexer.complete(PING, model="beta")
    assert not beta.requests


def test_disabled_makes_one_attempt_and_learns_nothing(make: Make, alpha: Model) -> None:
    multiplexer = make("alpha", "beta", enabled=False)
    alpha.then(server_error(), rate_limited(timedelta(seconds=60)))
    for outcome in ("error", "rate limited"):
        with pytest.raises(PoolExhaustedError) as caught:
            multiplexer.complete(PING)
        assert outcomes(caught.value) == [("alpha", outcome)]
        assert multiplexer.status().models_available == 1
    assert multiplexer.complete(PING).model == "alpha"
    assert len(alpha.requests) == 3
    assert not multiplexer.status().enabled


def test_the_same_name_at_two_providers_is_two_models() -> None:
    here, there = Model("same", provider="here"), Model("same", provider="there")
    with StandInServer([here, there]) as server:
        config = {
            "providers": [
                {"name": name, "api_base": server.url_of(name), "backend": "generic"}
                for name in ("here", "there")
            ],
            "models": [
                {"name": "same", "provider": name, "alias": f"same-{name}"}
                for name in ("here", "there")
            ],
            "multiplexer": {
                "enabled": True,
                "mode": "failover",
                "pool": [{"model": "same-here"}, {"model": "same-there"}],
            },
        }
        here.then(rate_limited())
        with Multiplexer.from_config(config, env={}) as multiplexer:
            assert multiplexer.complete(PING).text == "pong from there/same"
            status = multiplexer.status()
            assert [model.is_disabled for model in status.models] == [True, False]
            assert [model.rate_limit_count for model in status.models] == [1, 0]
            assert [model.success_count for model in status.models] == [0, 1]


def test_a_fallback_serves_only_while_no_primary_can(
    make: Make, alpha: Model, beta: Model
) -> None:
    # Listed first, and still a fallback.
    multiplexer = make(FALLBACK, "alpha")
    assert [multiplexer.complete(PING).model for _ in range(3)] == ["alpha"] * 3
    alpha.then(server_error())
    assert multiplexer.complete(PING).model == "beta"
    assert multiplexer.complete(PING).model == "beta"
    multiplexer.reset("alpha")
    assert multiplexer.complete(PING).model == "alpha"
    assert len(beta.requests) == 2


def test_a_busy_primary_is_waited_for_although_a_fallback_is_free(
    start: Start, make: Make, alpha: Model, beta: Model
) -> None:
    multiplexer = make({"model": "alpha", "max_concurrent": 1}, FALLBACK)
    alpha.hold()
    first = start(multiplexer.complete, PING)
    alpha.wait_for(lambda model: model.in_flight == 1)
    second = start(multiplexer.complete, PING)
    wait_until(lambda: multiplexer._runtime.pool._line)
    assert not beta.requests
    alpha.release()
    assert first.result().model == "alpha"
    assert second.result().model == "alpha"
    assert alpha.max_in_flight == 1
    assert not beta.requests


def test_a_primary_that_stays_busy_is_waited_for_half_of_the_time(
    start: Start, make: Make, alpha: Model
) -> None:
    multiplexer = make({"model": "alpha", "max_concurrent": 1}, FALLBACK)
    alpha.hold()
    first = start(multiplexer.complete, PING)
    alpha.wait_for(lambda model: model.in_flight == 1)
    began = monotonic()
    reply = multiplexer.complete(PING, timeout=1)
    assert monotonic() - began > 0.49
    assert outcomes(reply) == [("beta", "succeeded")]
    alpha.release()
    first.result()


def test_no_call_waits_for_longer_than_max_wait(
    start: Start, make: Make, alpha: Model
) -> None:
    multiplexer = make({"model": "alpha", "max_concurrent": 1}, max_wait_ms=50)
    alpha.hold()
    first = start(multiplexer.complete, PING)
    alpha.wait_for(lambda model: model.in_flight == 1)
    began = monotonic()
    with pytest.raises(PoolExhaustedError) as caught:
        multiplexer.complete(PING)
    assert monotonic() - began >= 0.05
    assert caught.value.retry_at is None
    assert str(caught.value) == (
        "no model could serve the call: every model that could serve is busy"
    )
    alpha.release()
    first.result()


def test_a_pool_of_one_recovers_within_a_second_of_an_error(
    make: Make, alpha: Model
) -> None:
    alpha.then(server_error())
    began = monotonic()
    reply = make("alpha").complete(PING)
    assert outcomes(reply) == [("alpha", "error"), ("alpha", "succeeded")]
    assert monotonic() - began >= 1.0
    arrived = [request.arrived for request in alpha.requests]
    assert arrived[1] - arrived[0] >= 0.99


def test_a_pool_of_one_obeys_the_hint_of_the_server(make: Make, alpha: Model) -> None:
    alpha.then(rate_limited(ms(120)))
    reply = make("alpha").complete(PING)
    assert outcomes(reply) == [("alpha", "rate limited"), ("alpha", "succeeded")]
    arrived = [request.arrived for request in alpha.requests]
    assert 0.12 <= arrived[1] - arrived[0] < 1.5


@pytest.mark.parametrize("first", ["alpha", "beta"])
def test_the_last_resort_is_the_model_that_may_be_tried_first(
    make: Make, alpha: Model, beta: Model, first: str
) -> None:
    soon, late = rate_limited(ms(40)), rate_limited(timedelta(seconds=20))
    alpha.then(soon if first == "alpha" else late)
    beta.then(soon if first == "beta" else late)
    reply = make("alpha", FALLBACK).complete(PING)
    assert outcomes(reply) == [
        ("alpha", "rate limited"),
        ("beta", "rate limited"),
        (first, "succeeded"),
    ]


def entered(multiplexer: Multiplexer) -> Callable[..., Any]:
    """Make the call of a stream."""

    def enter(messages: Any) -> None:
        with multiplexer.stream(messages):
            pass

    return enter


REFUSALS: dict[str, tuple[StatusAnswer, str, str]] = {
    "bad request": (
        refusal(400, "messages: too few"),
        "request refused",
        "messages: too few",
    ),
    "unprocessable": (refusal(422, "no such role"), "request refused", "no such role"),
    "content filter": (
        refusal(400, "The content was filtered", code="content_filter"),
        "content filtered",
        "The content was filtered",
    ),
    "too long": (
        refusal(400, "maximum context length is 8192 tokens"),
        "prompt too long",
        "maximum context length is 8192 tokens",
    ),
}


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("case", REFUSALS)
def test_a_request_that_both_models_refuse_raises_the_first_refusal(
    make: Make, alpha: Model, beta: Model, case: str, *, streams: bool
) -> None:
    """Rule 6."""
    answer, outcome, message = REFUSALS[case]
    alpha.then(answer)
    beta.then(refusal(413, "in other words"))
    multiplexer = make("alpha", "beta")
    ask = multiplexer.complete if not streams else entered(multiplexer)
    with pytest.raises(RequestRejectedError) as caught:
        ask(PING)
    assert caught.value.status == answer.status
    assert str(caught.value) == f"alpha refused the request ({outcome}): {message}"
    assert [alias for alias, _ in outcomes(caught.value)] == ["alpha", "beta"]
    assert (len(alpha.requests), len(beta.requests)) == (1, 1)
    assert caught.value.retry_at is None
    assert multiplexer.status().models_available == 2
    assert multiplexer.status().models[0].rejected_count == 1
    assert multiplexer.complete(PING).model == "alpha"


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("case", REFUSALS)
def test_a_request_that_another_model_takes_is_answered_and_reported(
    make: Make, alpha: Model, case: str, *, streams: bool
) -> None:
    """Rule 6."""
    answer, outcome, message = REFUSALS[case]
    alpha.then(answer)
    multiplexer = make("alpha", "beta")
    if streams:
        with multiplexer.stream(PING) as stream:
            list(stream)
            reply = stream.reply
    else:
        reply = multiplexer.complete(PING)
    refused, served = reply.attempts
    assert (refused.alias, refused.outcome, refused.message) == ("alpha", outcome, message)
    assert (refused.refuted_by, served.refuted_by) == ("beta", "")
    status = multiplexer.status()
    assert status.models_available == 2
    assert "**alpha**: 🟢 active" in str(status)
    assert "  - Refused, but taken by another model: 1\n" in str(status)


def test_a_refusal_beside_a_limited_model_has_the_time_of_its_opinion(
    make: Make, alpha: Model, beta: Model
) -> None:
    beta.then(rate_limited(timedelta(seconds=90)))
    multiplexer = make("beta", "alpha")
    multiplexer.complete(PING)
    alpha.then(refusal(400, "no"))
    with pytest.raises(RequestRejectedError, match="alpha refused the request") as caught:
        multiplexer.complete(PING)
    assert caught.value.retry_at == multiplexer.status().models[0].disabled_until


def test_a_window_named_in_a_refusal_is_learnt(
    make: Make, alpha: Model, beta: Model
) -> None:
    alpha.then(refusal(400, "maximum context length is 100 tokens"))
    multiplexer = make("alpha", "beta")
    long = [{"role": "user", "content": "word " * 400}]
    assert multiplexer.complete(long).model == "beta"
    assert multiplexer.complete(long).model == "beta"
    assert multiplexer.complete(PING).model == "alpha"
    assert len(alpha.requests) == 2


def test_a_refusal_without_a_message_is_reported(make: Make, alpha: Model) -> None:
    alpha.then(StatusAnswer(400, b""))
    with pytest.raises(RequestRejectedError) as caught:
        make("alpha").complete(PING)
    assert str(caught.value).startswith("alpha refused the request (request refused)")


def test_too_long_a_prompt_goes_to_a_larger_model(
    make: Make, alpha: Model, beta: Model
) -> None:
    alpha.then(refusal(400, "maximum context length is 8192 tokens"))
    multiplexer = make("alpha", {"model": "beta", "context_window": 128_000})
    reply = multiplexer.complete(PING)
    assert outcomes(reply) == [("alpha", "prompt too long"), ("beta", "succeeded")]
    assert multiplexer.status().models_available == 2
    assert len(beta.requests) == 1


def test_the_refusing_model_is_named_although_another_failed_later(
    make: Make, alpha: Model, beta: Model
) -> None:
    alpha.then(refusal(400, "maximum context length is 8192 tokens"))
    beta.default = server_error()
    multiplexer = make("alpha", {"model": "beta", "context_window": 128_000}, max_wait_ms=0)
    with pytest.raises(RequestRejectedError) as caught:
        multiplexer.complete(PING)
    assert str(caught.value) == (
        "alpha refused the request (prompt too long): maximum context length is 8192 tokens"
    )
    assert caught.value.status == 400
    assert outcomes(caught.value) == [("alpha", "prompt too long"), ("beta", "error")]


def test_the_refusing_model_is_named_although_another_failed_earlier(
    make: Make, alpha: Model, beta: Model
) -> None:
    alpha.then(server_error())
    beta.then(refusal(422, "no such role"))
    with pytest.raises(RequestRejectedError) as caught:
        make("alpha", "beta").complete(PING)
    assert str(caught.value) == "beta refused the request (request refused): no such role"
    assert caught.value.status == 422
    assert outcomes(caught.value) == [("alpha", "error"), ("beta", "request refused")]


def test_an_exhausted_pool_lists_every_attempt(
    make: Make, alpha: Model, beta: Model
) -> None:
    alpha.then(server_error())
    beta.then(rate_limited(timedelta(seconds=90)))
    multiplexer = make("alpha", FALLBACK, max_wait_ms=0)
    before = clock.now()
    with pytest.raises(PoolExhaustedError) as caught:
        multiplexer.complete(PING)
    error = caught.value
    assert error.retry_at is not None
    # The error may be tried again first: after a second.
    assert timedelta(seconds=1) <= error.retry_at - before < timedelta(seconds=1.5)
    assert str(error) == (
        "no model could serve the call: every model that could serve is disabled;"
        f" the next may be tried at {error.retry_at.astimezone():%H:%M:%S}\n"
        "  alpha: error: The server is overloaded\n"
        "  beta: rate limited: Rate limit exceeded"
    )
    assert outcomes(error) == [("alpha", "error"), ("beta", "rate limited")]
    # While all models are disabled, a call ends without an attempt.
    with pytest.raises(PoolExhaustedError) as again:
        multiplexer.complete(PING)
    assert again.value.attempts == ()
    assert (len(alpha.requests), len(beta.requests)) == (1, 1)


def test_an_attempt_without_a_message_is_described_by_its_kind(
    make: Make, alpha: Model
) -> None:
    alpha.default = StatusAnswer(404, b"")
    with pytest.raises(PoolExhaustedError) as caught:
        make("alpha").complete(PING)
    assert "\n  alpha: model not found" in str(caught.value)


def test_control_characters_in_a_servers_message_are_stripped(
    make: Make, alpha: Model
) -> None:
    alpha.default = refusal(400, "\x1b[31mred\x07\r\nalpha: all is well")
    with pytest.raises(RequestRejectedError) as caught:
        make("alpha").complete(PING)
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.attempts[0].message == "red alpha: all is well"


def test_a_call_makes_at_most_two_more_attempts_than_models(
    make: Make, alpha: Model, beta: Model
) -> None:
    alpha.default = beta.default = rate_limited(ms(1))
    with pytest.raises(PoolExhaustedError) as caught:
        make("alpha", "beta").complete(PING)
    assert len(caught.value.attempts) == 4
    assert len(alpha.requests) + len(beta.requests) == 4
    assert str(caught.value).startswith(
        "no model could serve the call: every model was tried"
    )


def test_a_requested_model_serves_alone(make: Make, alpha: Model, beta: Model) -> None:
    multiplexer = make("alpha", FALLBACK, max_wait_ms=0)
    assert multiplexer.complete(PING, model="beta").model == "beta"
    beta.then(server_error())
    with pytest.raises(PoolExhaustedError):
        multiplexer.complete(PING, model="beta")
    assert not alpha.requests


def test_an_unknown_model_is_reported_with_the_known_ones(make: Make) -> None:
    multiplexer = make("alpha", "beta")
    text = "there is no model 'gamma' in the pool (known: alpha, beta)"
    for ask in (
        lambda: multiplexer.complete(PING, model="gamma"),
        lambda: multiplexer.reset("gamma"),
    ):
        with pytest.raises(MultiplexerError) as caught:
            ask()
        assert str(caught.value) == text


def test_a_conversation_stays_on_its_model_until_the_user_speaks(
    make: Make, alpha: Model
) -> None:
    multiplexer = make("alpha", FALLBACK)
    history: list[dict[str, Any]] = [*PING]
    alpha.then(server_error())
    assert multiplexer.complete(history, session="s").model == "beta"
    multiplexer.reset()
    history += [
        {"role": "assistant", "content": "", "tool_calls": []},
        {"role": "tool", "content": "done", "tool_call_id": "call00001"},
    ]
    assert multiplexer.complete(history, session="s").model == "beta"
    # Another conversation of the session, and one without a session, choose separately.
    other = [{"role": "user", "content": "other"}, *history[1:]]
    assert multiplexer.complete(other, session="s").model == "alpha"
    assert multiplexer.complete(history).model == "alpha"
    history.append({"role": "user", "content": "go on"})
    assert multiplexer.complete(history, session="s").model == "alpha"


def test_a_conversation_is_identified_by_any_kind_of_first_message(
    make: Make, alpha: Model
) -> None:
    # The text need not be valid: it holds a lone surrogate.
    alpha.default = Answer("yes", usage=Usage(1, 1))
    multiplexer = make("alpha")
    for content in ("text", "half \ud800", [{"type": "text", "text": "hi"}], None):
        multiplexer.complete([{"role": "user", "content": content}], session="s")
    assert len(multiplexer.state.pins) == 4
    # Without a user message it has an empty opening.
    multiplexer.complete([{"role": "system", "content": "alone"}], session="s")
    assert len(multiplexer.state.pins) == 4


def test_a_prompt_is_measured_for_the_windows_of_the_pool(
    make: Make, alpha: Model, beta: Model
) -> None:
    multiplexer = make(
        {"model": "alpha", "context_window": 100}, {"model": "beta", "context_window": 900}
    )
    long = "word " * 200
    call = {"function": {"name": "f", "arguments": long}}
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    for messages, tools, model in (
        (PING, None, "alpha"),
        ([{"role": "user", "content": long}], None, "beta"),
        ([{"role": "user", "content": [{"type": "text", "text": long}]}], None, "beta"),
        ([{"role": "user", "content": [image]}], None, "alpha"),
        ([{"role": "assistant", "tool_calls": [call]}], None, "beta"),
        (PING, [{"type": "function", "function": {"name": long}}], "beta"),
        # All are too small: the largest is used.
        ([{"role": "user", "content": long * 9}], None, "beta"),
    ):
        assert multiplexer.complete(messages, tools=tools).model == model
    assert (len(alpha.requests), len(beta.requests)) == (2, 5)


class Raises:
    """A broken mode."""

    def pick(
        self, candidates: Any, memory: object, call: Call, now: datetime
    ) -> tuple[Endpoint, object]:
        raise ZeroDivisionError("by me")


class Stranger:
    def pick(
        self, candidates: Any, memory: object, call: Call, now: datetime
    ) -> tuple[Endpoint, object]:
        return Endpoint("stranger"), memory


def built(
    url: str, strategy: Any, *, cap: int | None = None, origin: str = ""
) -> Multiplexer:
    """Make a multiplexer from parts that no config would give."""
    endpoint = Endpoint("alpha", "model-a", max_concurrent=cap, wire=Wire(url))
    member = Member(endpoint, Generic(), None, Limits(1, 1, 1))
    return Multiplexer(
        Parts(
            [member],
            strategy,
            PoolState.of(endpoint),
            mode="broken",
            call_timeout=timedelta(seconds=5),
            origin=origin,
        )
    )


@pytest.mark.parametrize(
    ("mode", "words"),
    [(Raises(), "raised ZeroDivisionError: by me"), (Stranger(), "picked Endpoint")],
)
def test_a_broken_mode_ends_the_call_and_is_named(
    server: StandInServer, mode: Any, words: str
) -> None:
    with built(server.url, mode, origin="mode odd of some-plugin 1.2") as multiplexer:
        with pytest.raises(StrategyError) as caught:
            multiplexer.complete(PING)
        assert words in str(caught.value)
        assert type(mode).__qualname__ in str(caught.value)
        assert str(caught.value).endswith("(mode odd of some-plugin 1.2)")
        assert multiplexer.status().models[0].in_flight == 0
        if isinstance(mode, Raises):
            assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_mode_without_a_distribution_is_named_by_its_class(server: StandInServer) -> None:
    with (
        built(server.url, Raises()) as multiplexer,
        pytest.raises(StrategyError, match=r"Raises raised ZeroDivisionError: by me$"),
    ):
        multiplexer.complete(PING)


class RaisesSecondTime:
    """Picks well until `broken` is set."""

    def __init__(self) -> None:
        self.broken = threading.Event()

    def pick(
        self, candidates: list[Candidate], memory: object, call: Call, now: datetime
    ) -> tuple[Endpoint, object]:
        if self.broken.is_set():
            raise ZeroDivisionError
        return candidates[0].endpoint, memory


def test_a_mode_that_breaks_while_calls_wait_ends_those_and_no_other(
    start: Start, server: StandInServer, alpha: Model
) -> None:
    mode = RaisesSecondTime()
    alpha.hold()
    with built(server.url, mode, cap=1) as multiplexer:
        first = start(multiplexer.complete, PING)
        alpha.wait_for(lambda model: model.in_flight == 1)
        second = start(multiplexer.complete, PING)
        wait_until(lambda: len(multiplexer._runtime.pool._line) == 1)
        mode.broken.set()
        alpha.release()
        assert first.result().model == "alpha"
        with pytest.raises(StrategyError):
            second.result()


def test_status_and_repr_describe_the_pool(make: Make, alpha: Model) -> None:
    multiplexer = make("alpha", FALLBACK)
    alpha.then(rate_limited())
    multiplexer.complete(PING)
    assert repr(multiplexer) == "<Multiplexer failover: alpha, beta>"
    status = multiplexer.status()
    assert status.last_used_model == "beta"
    assert "**alpha**: 🔴 disabled until" in str(status)
    assert "**Pool:** 1/2 models available" in str(status)
    assert status.to_json()["per_model"]["beta"]["success_count"] == 1
    json.dumps(status.to_json())
    assert repr(multiplexer._runtime.members["alpha"]) == "Member('alpha')"


def test_a_timeout_of_zero_ends_the_call_at_once(make: Make, alpha: Model) -> None:
    alpha.hold()
    with pytest.raises(PoolExhaustedError, match="deadline"):
        make("alpha").complete(PING, timeout=0)


def test_a_mapping_a_config_and_a_path_give_the_same_multiplexer(
    make: Make, server: StandInServer, tmp_path: Any
) -> None:
    from muxcore import load_config

    file = tmp_path / "config.toml"
    file.write_text(
        f"""
        active_model = "alpha"
        [[providers]]
        name = "p"
        api_base = "{server.url}"
        [[models]]
        name = "model-a"
        provider = "p"
        alias = "alpha"
        [multiplexer]
        enabled = true
        """,
        encoding="utf-8",
    )
    for source in (file, str(file), load_config(file)):
        with Multiplexer.from_config(source, env={}) as multiplexer:
            assert multiplexer.complete(PING).model == "alpha"
