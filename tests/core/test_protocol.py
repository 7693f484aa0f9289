"""The steps of one call: rules 1, 6 and 7."""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve

from muxcore.core.outcomes import (
    Cancelled,
    End,
    Failed,
    Fault,
    Limit,
    PickReason,
    RateLimited,
    Refusal,
    Rejected,
    Responding,
    Succeeded,
)
from muxcore.core.protocol import (
    Attempt,
    CallCancelled,
    CallEnding,
    CallExhausted,
    CallRejected,
    CallServed,
    CallStep,
    Choose,
    EndedAttempt,
    Sleep,
    Slept,
    Slot,
    call_steps,
    choose,
    choose_all,
    credited,
)
from muxcore.core.records import Call, Endpoint, Exhausted, Policy, Wait, WaitReason
from muxcore.errors import StrategyError
from tests.core.driver import Driver, broken, fine, limited

if TYPE_CHECKING:
    from tests.core.conftest import History

A, B = Endpoint("a"), Endpoint("b")
GRANTED = Slot(A, 1, PickReason.MODE)


def ended(running: Generator[CallStep, Any, CallEnding], event: object) -> CallEnding:
    """Send the last event, and return the call's end."""
    with pytest.raises(StopIteration) as stop:
        running.send(event)
    ending: CallEnding = stop.value.value
    return ending


# -- By hand --------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [Succeeded("a", 1), Responding("a", 1)])
def test_an_answer_or_its_first_content_serves_the_call(
    outcome: Succeeded | Responding,
) -> None:
    running = call_steps(Call())
    assert next(running) == Choose(Call())
    assert running.send(GRANTED) == Attempt(Call(), GRANTED)
    assert ended(running, outcome) == CallServed((EndedAttempt(GRANTED, outcome),))


def test_a_caller_who_leaves_ends_the_call() -> None:
    running = call_steps(Call())
    next(running)
    running.send(GRANTED)
    left = Cancelled("a", 1)
    assert ended(running, left) == CallCancelled((EndedAttempt(GRANTED, left),), left)


def test_a_call_without_an_endpoint_is_exhausted(noon: datetime) -> None:
    running = call_steps(Call())
    next(running)
    none_open = Exhausted(noon, WaitReason.DISABLED)
    assert ended(running, none_open) == CallExhausted((), none_open)


@pytest.mark.parametrize(
    ("outcome", "excluded"),
    [
        (RateLimited("a", 1), ()),
        (RateLimited("a", 1, Limit.BUDGET), ()),
        (RateLimited("a", 1, Limit.QUOTA), ("a",)),
        (Failed("a", 1), ()),
        (Failed("a", 1, Fault.AUTH), ("a",)),
        (Failed("a", 1, Fault.NOT_FOUND), ("a",)),
        (Failed("a", 1, Fault.PERSISTENT), ("a",)),
        (Failed("a", 1, Fault.UNPAID), ("a",)),
    ],
)
def test_after_a_failure_the_call_continues(
    outcome: RateLimited | Failed, excluded: tuple[str, ...], noon: datetime
) -> None:
    running = call_steps(Call())
    next(running)
    running.send(GRANTED)
    assert running.send(outcome) == Choose(Call(tried=("a",), excluded=excluded))
    none_open = Exhausted(noon, WaitReason.TRIED)
    assert ended(running, none_open) == CallExhausted(
        (EndedAttempt(GRANTED, outcome),), none_open
    )


@pytest.mark.parametrize(
    ("call", "endpoint", "named", "larger_than"),
    [
        (Call(), evolve(A, context_window=1000), None, 1000),
        (Call(), evolve(A, context_window=1000), 800, 800),
        (Call(), A, 800, 800),
        (Call(prompt_tokens=500), A, None, 500),
        (Call(larger_than=2000), A, 800, 2000),
        (Call(), A, None, 0),
    ],
)
def test_after_a_prompt_that_is_too_long_the_call_needs_a_larger_window(
    call: Call, endpoint: Endpoint, named: int | None, larger_than: int
) -> None:
    running = call_steps(call)
    next(running)
    slot = Slot(endpoint, 1, PickReason.MODE)
    running.send(slot)
    refusal = Rejected("a", 1, Refusal.TOO_LONG, named)
    expected = evolve(
        call, tried=("a",), excluded=("a",), outgrown=("a",), larger_than=larger_than
    )
    assert running.send(refusal) == Choose(expected)
    none_open = Exhausted(None, WaitReason.UNFIT)
    assert ended(running, none_open) == CallRejected(
        (EndedAttempt(slot, refusal),), refusal
    )


def test_only_a_success_is_of_a_conversation() -> None:
    call = Call(conversation="c", new_turn=False, refused=("r",), outgrown=("o",))
    success = Succeeded("a", 1, 10)
    assert credited(success, call) == evolve(success, conversation="c", refusers=("r", "o"))
    assert credited(success, evolve(call, new_turn=True)).new_turn is True
    for same, whose in (
        (Failed("a", 1), call),
        (Responding("a", 1), call),
        (success, evolve(call, conversation=None)),
    ):
        assert credited(same, whose) is same


def test_waits_add_up(noon: datetime) -> None:
    running = call_steps(Call())
    next(running)
    wait = Wait(noon, WaitReason.BUSY)
    assert running.send(wait) == Sleep(Call(), wait)
    three, two = timedelta(seconds=3), timedelta(seconds=2)
    assert running.send(Slept(three, wait)) == Sleep(Call(waited=three), wait)
    call = Call(waited=three + two)
    assert running.send(Slept(two, GRANTED)) == Attempt(call, GRANTED)


def test_a_wait_may_end_without_an_endpoint(noon: datetime) -> None:
    running = call_steps(Call())
    next(running)
    running.send(Wait(noon, WaitReason.BUSY))
    none_open = Exhausted(None, WaitReason.BUSY)
    assert ended(running, Slept(timedelta(), none_open)) == CallExhausted((), none_open)


# -- Choosing -------------------------------------------------------------------------------


def test_choosing_begins_the_attempt(history: type[History]) -> None:
    pool = history("a", "b")
    state, choice = choose(pool.state, pool.mode, pool.now, Call())
    assert choice == GRANTED
    assert state["a"].health.under_way == (1,)


def test_a_call_that_must_wait_changes_no_state(history: type[History]) -> None:
    pool = history("a").fail(Fault.AUTH)
    state, choice = choose(pool.state, pool.mode, pool.now, Call())
    assert isinstance(choice, Wait)
    assert state is pool.state


def test_slots_go_to_waiters_in_the_order_of_arrival(history: type[History]) -> None:
    pool = history(Endpoint("a", max_concurrent=1))
    calls = [Call(conversation=str(number)) for number in range(3)]
    state, choices = choose_all(pool.state, pool.mode, pool.now, calls)
    assert isinstance(choices[0], Slot)
    assert all(isinstance(choice, Wait) for choice in choices[1:])
    assert state["a"].health.in_flight == 1


def test_a_mode_that_raises_ends_only_the_call_it_chose_for(
    history: type[History],
) -> None:
    class Moody:
        def pick(self, candidates: Any, memory: Any, call: Call, now: Any) -> Any:
            if call.conversation == "odd":
                raise RuntimeError
            return candidates[0].endpoint, memory

    pool = history("a", mode=Moody())
    line = [Call(), Call(conversation="odd"), Call()]
    state, choices = choose_all(pool.state, pool.mode, pool.now, line)
    assert isinstance(choices[1], StrategyError)
    assert [type(c) for c in choices[::2]] == [Slot, Slot]
    assert state.attempts == 2


# -- Driven to the end ----------------------------------------------------------------------


def test_a_failing_model_costs_one_more_attempt_and_the_next_call_none(
    noon: datetime,
) -> None:
    driver = Driver(A, B, now=noon, answers={"a": limited("a"), "b": fine("b")})
    assert isinstance(driver.call(), CallServed)
    assert isinstance(driver.call(), CallServed)
    assert driver.asked == ["a", "b", "b"]
    assert driver.now == noon


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("down", [broken, limited])
def test_a_call_makes_at_most_two_attempts_more_than_there_are_models(
    noon: datetime, size: int, down: Callable[[str], Callable[[int, datetime], End]]
) -> None:
    """Rule 7."""
    pool = [Endpoint(str(number)) for number in range(size)]
    driver = Driver(*pool, now=noon, answers={e.alias: down(e.alias) for e in pool})
    ending = driver.call()
    assert isinstance(ending, CallExhausted)
    assert len(ending.trail) == len(driver.asked) == size + 2
    assert driver.asked[:size] == [e.alias for e in pool]


@pytest.mark.parametrize(
    "down", [broken("a", Fault.AUTH), broken("a", Fault.UNPAID), limited("a", Limit.QUOTA)]
)
def test_a_permanently_failing_model_is_tried_once(
    noon: datetime, down: Callable[[int, datetime], End]
) -> None:
    driver = Driver(A, now=noon, answers={"a": down})
    assert isinstance(driver.call(), CallExhausted)
    assert driver.asked == ["a"]
    assert driver.now == noon


def test_a_pool_of_one_recovers_as_soon_as_the_model_does(noon: datetime) -> None:
    back = noon + timedelta(seconds=2.5)

    def recovers(attempt: int, now: datetime) -> End:
        return (broken if now < back else fine)("a")(attempt, now)

    driver = Driver(A, now=noon, answers={"a": recovers})
    assert isinstance(driver.call(), CallServed)
    assert driver.now == noon + timedelta(seconds=3)


def test_without_the_multiplexer_a_call_is_one_attempt(noon: datetime) -> None:
    driver = Driver(A, now=noon, answers={"a": broken("a")}, policy=Policy(direct=True))
    assert isinstance(driver.call(), CallExhausted)
    assert driver.asked == ["a"]
    assert not driver.state["a"].health.cooldowns
