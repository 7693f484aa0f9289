from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve

from muxcore.core.migration import is_same_place, migrate
from muxcore.core.outcomes import Limit
from muxcore.core.records import (
    Candidate,
    Cooldown,
    Endpoint,
    Health,
    Pin,
    Policy,
    PoolState,
    Tally,
    Wire,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPELL = Cooldown(NOW, NOW + timedelta(seconds=60), Limit.RATE, 3, 1, NOW)
A = Endpoint("a", "model", "provider", wire=Wire("https://a/v1", "KEY"))
B = Endpoint("b", "model", "provider", wire=Wire("https://a/v1", "KEY"))
POLICY = Policy(max_wait=timedelta(seconds=9))
STATE = PoolState(
    (
        Candidate(A, Health(limited=SPELL, under_way=(4, 7)), Tally(succeeded=5)),
        Candidate(B, Health(under_way=(6,)), Tally(failed=1)),
    ),
    memory={"turn": 3},
    attempts=7,
    pins=(Pin("one", "a", NOW), Pin("two", "b", NOW)),
    last_used="b",
)


def test_a_reload_without_a_relevant_change_loses_nothing() -> None:
    assert migrate(STATE, [A, B], STATE.policy) == STATE


@pytest.mark.parametrize(
    "changed",
    [
        evolve(A, weight=5),
        evolve(A, max_concurrent=1),
        evolve(A, is_fallback=True),
        evolve(A, context_window=9),
        evolve(A, input_price=1.0),
        evolve(A, provider="renamed"),
        evolve(A, wire=evolve(A.wire, temperature=0.9, thinking="high")),
    ],
)
def test_an_endpoint_at_the_same_place_keeps_its_health(changed: Endpoint) -> None:
    state = migrate(STATE, [changed, B], POLICY)
    assert state["a"] == evolve(STATE["a"], endpoint=changed)
    assert state.policy == POLICY


@pytest.mark.parametrize(
    "changed",
    [
        evolve(A, model="other"),
        evolve(A, dialect="mistral"),
        evolve(A, wire=evolve(A.wire, api_base="https://b/v1")),
        evolve(A, wire=evolve(A.wire, key_variable="OTHER")),
        evolve(A, wire=evolve(A.wire, extra_headers=(("X", "y"),))),
    ],
)
def test_an_endpoint_at_another_place_starts_fresh(changed: Endpoint) -> None:
    state = migrate(STATE, [changed, B], POLICY)
    assert state["a"] == Candidate(changed)
    assert state["b"] == STATE["b"]
    # Numbers continue, so no old attempt is confused with a new one.
    assert state.attempts == 7


@pytest.mark.parametrize(
    ("changed", "learnt"),
    [(evolve(A, weight=5), 8_000), (evolve(A, context_window=9_000), None)],
)
def test_a_learnt_window_is_forgotten_with_the_configured_one(
    changed: Endpoint, learnt: int | None
) -> None:
    state = PoolState((evolve(STATE["a"], learnt_window=8_000),))
    assert migrate(state, [changed], POLICY)["a"].learnt_window == learnt


def test_a_new_key_ends_the_cooldowns_but_not_the_calls() -> None:
    state = migrate(STATE, [A, B], POLICY, new_keys={"a"})
    assert state["a"].health == Health(under_way=(4, 7))
    assert state["a"].tally == STATE["a"].tally
    assert state["b"] == STATE["b"]


def test_a_removed_endpoint_loses_its_pins() -> None:
    state = migrate(STATE, [A], POLICY)
    assert [candidate.endpoint.alias for candidate in state.candidates] == ["a"]
    assert state.pins == (Pin("one", "a", NOW),)
    assert state.last_used is None


def test_new_endpoints_start_fresh_in_the_order_of_the_config() -> None:
    c = Endpoint("c")
    state = migrate(STATE, [c, B, A], POLICY)
    assert [candidate.endpoint.alias for candidate in state.candidates] == ["c", "b", "a"]
    assert state["c"] == Candidate(c)
    assert state.last_used == "b"


@pytest.mark.parametrize(
    ("endpoints", "same_mode", "kept"),
    [
        ([A, B], True, True),
        ([A, B], False, False),
        ([A], True, False),
        ([B, A], True, False),
        ([evolve(A, weight=2), B], True, False),
        ([evolve(A, input_price=2.0), B], True, False),
        ([evolve(A, max_concurrent=2), B], True, True),
    ],
)
def test_the_modes_memory_is_kept_while_it_means_the_same(
    endpoints: list[Endpoint], same_mode: bool, kept: bool
) -> None:
    state = migrate(STATE, endpoints, POLICY, same_mode=same_mode)
    assert (state.memory == STATE.memory) is kept


def test_two_aliases_are_never_the_same_place() -> None:
    assert is_same_place(A, evolve(A, weight=3))
    assert not is_same_place(A, B)
