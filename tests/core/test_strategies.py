"""The two modes of the core's own tests: rule 10."""

from __future__ import annotations

import json
from collections import Counter
from copy import deepcopy
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from muxcore.core.allowance import Headroom
from muxcore.core.records import Call, Candidate, Endpoint, Pin, Tally
from muxcore.core.strategy import Strategy, uses_weight
from muxcore_strategies import failover, load_balance
from muxcore_strategies.failover import Failover
from muxcore_strategies.load_balance import LoadBalance

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def members(**weights: int) -> list[Candidate]:
    return [Candidate(Endpoint(alias, weight=weight)) for alias, weight in weights.items()]


class Balance:
    """Picks in a row, with the count and the share of each model."""

    def __init__(self) -> None:
        self.memory: object = None
        self.had: Counter[str] = Counter()

    def pick(self, candidates: list[Candidate], last: str | None = None) -> str:
        """Pick for a call of a conversation which the model `last` served last."""
        call = Call() if last is None else Call(pin=Pin("c", last, NOON))
        endpoint, self.memory = LoadBalance().pick(candidates, self.memory, call, NOON)
        self.had[endpoint.alias] += 1
        return endpoint.alias

    def picks(self, candidates: list[Candidate], number: int) -> str:
        return "".join(self.pick(candidates) for _ in range(number))


def again(candidate: Candidate) -> Candidate:
    """Return the candidate after one more cooldown."""
    return Candidate(candidate.endpoint, tally=Tally(failed=candidate.tally.failed + 1))


@pytest.mark.parametrize(
    ("module", "mode"), [(failover, Failover), (load_balance, LoadBalance)]
)
def test_modes_are_registered_by_name(module: object, mode: type[Strategy]) -> None:
    registered: dict[str, object] = {}
    module.vibe_mux_register_strategies(registered.__setitem__)  # type: ignore[attr-defined]
    assert list(registered.values()) == [mode]


def test_failover_picks_in_pool_order_without_memory() -> None:
    pool = members(b=1, a=9)
    assert Failover().pick(pool, None, Call(), NOON) == (pool[0].endpoint, None)
    assert Failover().pick(pool[1:], 7, Call(), NOON) == (pool[1].endpoint, 7)


def test_weights_of_70_and_30_give_7_and_3_of_10_calls() -> None:
    balance = Balance()
    assert balance.picks(members(a=70, b=30), 10) == "aabaabaaab"
    assert balance.had == {"a": 7, "b": 3}


def test_equal_weights_take_turns_in_pool_order() -> None:
    assert Balance().picks(members(a=1, b=1, c=1), 7) == "abcabca"


@settings(settings.get_profile("core"))
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=64), st.integers(1, 150))
def test_each_share_is_within_one_request_at_every_moment(
    weights: list[int], calls: int
) -> None:
    """Rule 10."""
    pool = [Candidate(Endpoint(str(n), weight=w)) for n, w in enumerate(weights)]
    balance, total = Balance(), sum(weights)
    for made in range(1, calls + 1):
        balance.pick(pool)
        for candidate in pool:
            alias, weight = candidate.endpoint.alias, candidate.endpoint.weight
            assert abs(balance.had[alias] * total - weight * made) < total


def limited(**weights: int) -> list[Candidate]:
    """Make models that announce limits."""
    return [evolve(one, headroom=Headroom(())) for one in members(**weights)]


@settings(settings.get_profile("core"))
@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=12),
    st.lists(st.integers(0, 11), max_size=150),
)
def test_each_share_is_as_exact_where_prompts_are_cached(
    weights: list[int], conversations: list[int]
) -> None:
    """Rule 10."""
    pool = limited(**{str(number): weight for number, weight in enumerate(weights)})
    balance, total = Balance(), sum(weights)
    for made, last in enumerate(conversations, 1):
        balance.pick(pool, str(last % len(pool)))
        for candidate in pool:
            alias, weight = candidate.endpoint.alias, candidate.endpoint.weight
            assert abs(balance.had[alias] * total - weight * made) < total


@pytest.mark.parametrize(
    ("had", "last", "picked"),
    [
        ("", "c", "c"),
        ("a", "c", "c"),
        ("ab", "a", "c"),  # the third turn of each three is the third model's
        ("abc", "c", "c"),
        ("a", "a", "b"),  # it has had its turn
        ("a", "z", "b"),  # it cannot serve now
    ],
)
def test_the_model_that_served_a_conversation_last_goes_first_if_no_other_loses_its_turn(
    had: str, last: str, picked: str
) -> None:
    pool, balance = limited(a=1, b=1, c=1), Balance()
    assert balance.picks(pool, len(had)) == had
    assert balance.pick(pool, last) == picked


def test_a_turn_that_is_due_now_is_not_put_off() -> None:
    """Without the second call, `c` would be a whole request behind its half."""
    pool, balance = limited(a=1, b=1, c=2), Balance()
    assert [balance.pick(pool, last) for last in ("a", "b", "b")] == ["a", "c", "b"]


def test_models_without_limits_take_turns_whoever_served_last() -> None:
    pool, balance = members(a=1, b=1, c=1), Balance()
    assert [balance.pick(pool, "c") for _ in range(4)] == ["a", "b", "c", "a"]


def test_the_shares_are_exact_after_a_whole_round() -> None:
    balance = Balance()
    balance.picks(members(a=5, b=4, c=1), 1000)
    assert balance.had == {"a": 500, "b": 400, "c": 100}


def test_the_lag_is_carried_while_others_come_and_go() -> None:
    a, b, c = members(a=1, b=1, c=1)
    balance = Balance()
    assert balance.pick([a, b, c]) == "a"
    # Only busy: `c` keeps its third of a turn, no more and no less.
    assert balance.picks([a, b], 2) == "ba"
    memory = balance.memory
    assert isinstance(memory, dict)
    assert Fraction(memory["lags"]["c"], memory["denominator"]) == Fraction(1, 3)
    assert balance.picks([a, b, c], 2) == "bc"


@settings(settings.get_profile("core"))
@given(st.lists(st.sets(st.sampled_from("abc"), min_size=1), min_size=1, max_size=60))
def test_no_model_starves_while_the_set_keeps_changing(sets: list[set[str]]) -> None:
    """Forgetting everything at each change would starve the later models."""
    pool, balance = members(a=5, b=4, c=1), Balance()
    due = dict.fromkeys("abc", Fraction())
    for shown in sets:
        candidates = [c for c in pool if c.endpoint.alias in shown]
        total = sum(c.endpoint.weight for c in candidates)
        for candidate in candidates:
            due[candidate.endpoint.alias] += Fraction(candidate.endpoint.weight, total)
        balance.pick(candidates)
        assert all(abs(balance.had[alias] - due[alias]) < 2 for alias in "abc")


def test_a_model_that_was_disabled_starts_at_zero_without_a_burst() -> None:
    a, b = members(a=1, b=1)
    balance = Balance()
    assert balance.picks([a, b], 2) == "ab"
    assert balance.picks([a], 100) == "a" * 100
    picks = balance.picks([a, again(b)], 100)
    assert all(one != other for one, other in pairwise(picks))


def test_a_model_that_always_fails_takes_no_share_from_the_others() -> None:
    a, b, c = members(a=1, b=1, c=1)
    balance = Balance()
    for _ in range(100):
        if balance.pick([a, b, c]) == "c":
            c = again(c)
    assert abs(balance.had["a"] - balance.had["b"]) <= 1
    assert balance.had["c"] <= 34


@settings(settings.get_profile("core"))
@given(st.lists(st.sampled_from(["ab", "abc", "c", "bc"]), max_size=12))
def test_the_memory_is_plain_json_and_is_not_changed(sets: list[str]) -> None:
    pool = {c.endpoint.alias: c for c in members(a=7, b=5, c=3)}
    memory: object = None
    for shown in sets:
        candidates, before = [pool[alias] for alias in shown], deepcopy(memory)
        endpoint, after = LoadBalance().pick(candidates, memory, Call(), NOON)
        assert memory == before
        assert json.loads(json.dumps(after)) == after
        stored = json.loads(json.dumps(memory))
        assert LoadBalance().pick(candidates, stored, Call(), NOON) == (endpoint, after)
        memory = after


def test_only_a_mode_that_says_so_uses_weights() -> None:
    assert uses_weight(LoadBalance()) is True
    assert uses_weight(Failover()) is False
