"""Errors can be sent between processes, as test runners and job queues do."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

import pytest

from muxcore.chat import AttemptReport, Reply
from muxcore.errors import (
    CallCancelledError,
    CallError,
    ClosedError,
    ConfigError,
    MultiplexerError,
    PoolExhaustedError,
    RequestRejectedError,
    StrategyError,
    StreamInterruptedError,
)

REPORTS = (AttemptReport("alpha", "error", "it is down"),)
AT = datetime(2026, 11, 24, 12, tzinfo=UTC)

Journey: TypeAlias = Callable[[BaseException], BaseException]


def by_pickle(error: BaseException) -> BaseException:
    arrived = pickle.loads(pickle.dumps(error))  # noqa: S301 - its own
    assert isinstance(arrived, BaseException)
    return arrived


@pytest.mark.parametrize("journey", [by_pickle, copy.copy, copy.deepcopy])
@pytest.mark.parametrize(
    "error",
    [
        MultiplexerError("it went wrong"),
        ClosedError(),
        CallCancelledError(),
        ConfigError(["config: pool[0]: one", "config: pool[1]: two"]),
        CallError("no answer", REPORTS),
        RequestRejectedError("refused", REPORTS, 422),
        PoolExhaustedError("all down", REPORTS, AT),
        StreamInterruptedError(
            "broke off",
            Reply({"role": "assistant", "content": "half"}, model="alpha"),
            REPORTS,
        ),
        StrategyError("the mode is broken"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_pickling(error: BaseException, journey: Journey) -> None:
    error.add_note("while it was asked")
    arrived = journey(error)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


def test_the_texts_of_a_closed_and_a_cancelled_call() -> None:
    assert str(ClosedError()) == "closed"
    assert str(CallCancelledError()) == "cancelled"
