"""The limits that responses announce reach the state of the pool (§13)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from muxcore.core.allowance import Allowance, AllowanceKind
from muxcore.core.records import AnnouncedLimits
from muxcore.errors import MultiplexerError, RequestRejectedError
from muxcore.plugins.backend import AnnouncingBackend, Backend
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.standin import Model
from muxcore.standin.script import Raw, StatusAnswer
from muxcore_backends.anthropic import Anthropic
from muxcore_backends.generic import Generic
from tests.shell.conftest import Make

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PING = [{"role": "user", "content": "ping"}]
ANNOUNCED = {
    "x-ratelimit-limit-tokens": "5000",
    "x-ratelimit-remaining-tokens": "0",
    "x-ratelimit-reset-tokens": "20s",
}
BODY = {"choices": [{"message": {"content": "pong"}, "finish_reason": "stop"}]}
WHOLE = StatusAnswer(200, BODY, ANNOUNCED)
EVENT = b'data: {"choices":[{"delta":{"content":"pong"},"finish_reason":"stop"}]}\n\n'
STREAMED = Raw(
    (EVENT, b"data: [DONE]\n\n"),
    headers={**ANNOUNCED, "content-type": "text/event-stream"},
)


def left(multiplexer: Multiplexer) -> list[int]:
    headroom = multiplexer.state["alpha"].headroom
    if headroom is None:
        return []
    return [one.allowance.remaining for one in headroom.announcements]


@pytest.mark.parametrize("dialect", [Generic(), Anthropic()])
def test_the_built_in_backends_read_what_is_announced(dialect: Backend) -> None:
    assert isinstance(dialect, AnnouncingBackend)
    found = dialect.allowances({"x-ratelimit-remaining-requests": "7"}, NOW)
    assert found == (Allowance(AllowanceKind.REQUESTS, 7),)


def test_a_whole_answer_announces(make: Make, alpha: Model, beta: Model) -> None:
    alpha.default = WHOLE
    multiplexer = make("alpha", "beta")
    assert multiplexer.complete(PING).model == "alpha"
    assert left(multiplexer) == [0]
    assert multiplexer.complete(PING).model == "beta"


def test_a_stream_announces_with_its_first_content(make: Make, alpha: Model) -> None:
    alpha.default = STREAMED
    multiplexer = make("alpha")
    with multiplexer.stream(PING) as stream:
        assert left(multiplexer) == [0]
        assert "".join(chunk.text for chunk in stream) == "pong"


@pytest.mark.parametrize("status", [429, 500, 400])
def test_an_error_announces(make: Make, alpha: Model, status: int) -> None:
    alpha.default = StatusAnswer(status, {"error": {"message": "no"}}, ANNOUNCED)
    multiplexer = make("alpha", "beta")
    try:
        assert multiplexer.complete(PING).model == "beta"
    except RequestRejectedError:
        assert status == 400
    assert left(multiplexer) == [0]


def test_a_pool_of_one_that_is_spent_is_tried_all_the_same(
    make: Make, alpha: Model
) -> None:
    alpha.default = WHOLE
    multiplexer = make("alpha", max_wait_ms=0)
    for _ in range(3):
        assert multiplexer.complete(PING).text == "pong"


def test_ignored_nothing_is_read(make: Make, alpha: Model) -> None:
    alpha.default = WHOLE
    multiplexer = make("alpha", announced_limits="ignore")
    assert multiplexer.state.policy.announced_limits is AnnouncedLimits.IGNORE
    assert multiplexer._runtime.members["alpha"].limit_reader is None
    multiplexer.complete(PING)
    assert left(multiplexer) == []


class Raising:
    def allowances(self, headers: Mapping[str, str], now: datetime) -> Any:
        raise LookupError("oops")


class Odd:
    def allowances(self, headers: Mapping[str, str], now: datetime) -> Any:
        return ["much"]


@pytest.mark.parametrize("reader", [Raising(), Odd()])
def test_a_backend_that_misreads_limits_breaks_no_call(
    make: Make, alpha: Model, reader: AnnouncingBackend
) -> None:
    alpha.default = WHOLE
    multiplexer = make("alpha")
    multiplexer._runtime.members["alpha"].limit_reader = reader
    assert multiplexer.complete(PING).text == "pong"
    assert left(multiplexer) == []


def test_an_odd_value_of_the_option_is_an_error(make: Make) -> None:
    text = 'announced_limits: "off", expected "heed" or "ignore"'
    with pytest.raises(MultiplexerError, match=text):
        make("alpha", announced_limits="off")
