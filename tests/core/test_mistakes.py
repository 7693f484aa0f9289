"""What people who bring their own HTTP hand to the core wrongly: clear errors where it enters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from muxcore import (
    Endpoint,
    MultiplexerError,
    PoolState,
    Started,
    Succeeded,
    select,
    update,
)
from muxcore.core.outcomes import Cancelled, Failed, PickReason, Rejected
from muxcore.core.protocol import Attempt, Sleep, Slot, call_steps
from muxcore.core.records import Call, Pin, Wait, WaitReason
from muxcore.errors import InvalidArgumentError
from muxcore_strategies.failover import Failover

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAIVE = NOON.replace(tzinfo=None)
STATE = PoolState.of(Endpoint("a"), Endpoint("b"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"alias": "a", "weight": 0},
            "weight of the endpoint 'a' is 0, expected a whole number of at least 1",
        ),
        (
            {"alias": "a", "weight": "3"},
            "weight of the endpoint 'a' is '3', expected a whole number of at least 1",
        ),
        (
            {"alias": "a", "weight": True},
            "weight of the endpoint 'a' is True, expected a whole number of at least 1",
        ),
        (
            {"alias": "a", "max_concurrent": 0},
            "max_concurrent of the endpoint 'a' is 0, expected a whole number of at least 1",
        ),
        (
            {"alias": "a", "context_window": 1.5},
            "context_window of the endpoint 'a' is 1.5, expected a whole number of at least 1",
        ),
        ({"alias": ""}, "alias of an endpoint is '', expected a name"),
        ({"alias": None}, "alias of an endpoint is None, expected a name"),
    ],
)
def test_a_wrong_endpoint_is_an_error(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Endpoint(**options)
    assert str(caught.value) == text
    assert isinstance(caught.value, MultiplexerError)
    assert isinstance(caught.value, ValueError)


def test_two_endpoints_of_one_alias_are_an_error() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        PoolState.of(Endpoint("a"), Endpoint("b"), Endpoint("a"))
    text = "two endpoints have the alias 'a', expected one for each"
    assert str(caught.value) == text


def test_a_pool_is_made_of_endpoints() -> None:
    wrong: Any = "a"
    with pytest.raises(InvalidArgumentError) as caught:
        PoolState.of(Endpoint("b"), wrong)
    assert str(caught.value) == "'a' is no Endpoint, such as Endpoint('a')"


@pytest.mark.parametrize(
    ("mode", "shown"),
    [("failover", "'failover'"), (Failover, "the class Failover")],
)
def test_a_mode_is_the_strategy_itself(mode: Any, shown: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        select(STATE, mode, NOON)
    assert str(caught.value) == (
        f"mode is {shown}, expected a strategy, such as Failover() of"
        " muxcore_strategies.failover"
    )


@pytest.mark.parametrize("now", [NAIVE, NOON.date(), 5, None])
def test_a_moment_has_a_time_zone(now: Any) -> None:
    text = (
        f"now is {now!r}, which has no time zone, expected an aware datetime, such as"
        " datetime.now(UTC)"
    )
    for ask in (
        lambda: select(STATE, Failover(), now),
        lambda: update(STATE, Started("a"), now),
    ):
        with pytest.raises(InvalidArgumentError) as caught:
            ask()
        assert str(caught.value) == text


@pytest.mark.parametrize(
    "outcome",
    [
        Started("stranger"),
        Succeeded("stranger", 1),
        Succeeded("a", 7),
        Failed("a", -1),
        Rejected("stranger", 0),
        Cancelled("a", 10**40),
    ],
)
def test_an_outcome_of_a_stranger_changes_nothing(outcome: Any) -> None:
    """Rule 12."""
    assert update(STATE, outcome, NOON) is STATE


def test_a_pin_to_a_model_that_is_gone_leaves_the_choice_to_the_mode() -> None:
    state = PoolState(STATE.candidates, pins=(Pin("talk", "gone", NOON),))
    choice = select(state, Failover(), NOON, Call(conversation="talk", new_turn=False))
    assert getattr(choice, "reason", None) is PickReason.MODE


def test_an_event_that_does_not_fit_the_step_is_an_error() -> None:
    """A driver which mixes up its answers is told so, in the place where it does."""
    text = "the driver of a call sent None, which does not fit the last step"
    for before in (
        (),
        (Wait(NOON, WaitReason.BUSY),),
        (Slot(Endpoint("a"), 1, PickReason.MODE),),
    ):
        steps = call_steps(Call())
        next(steps)
        for event in before:
            assert isinstance(steps.send(event), Sleep | Attempt)
        with pytest.raises(TypeError) as caught:
            steps.send(None)
        assert str(caught.value) == text
