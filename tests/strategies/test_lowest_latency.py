"""`lowest_latency`: the level of a model, and which one is picked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from attrs import evolve

from muxcore.core.outcomes import Cancelled, Responding, Succeeded
from muxcore.core.protocol import Slot, choose
from muxcore.core.records import Call, Candidate, Endpoint, Health, PoolState, Tally
from muxcore.core.updating import update
from muxcore_strategies.lowest_latency import LatencyMemory, LowestLatency

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
USUAL = LowestLatency()
A, B, C = (Endpoint(alias) for alias in "abc")


def measured(
    endpoint: Endpoint, seconds: float, *, ago: float = 0, under_way: int = 0
) -> Candidate:
    tally = Tally(
        succeeded=1,
        first_content_at=NOW - ago * SECOND,
        latest_first_content=seconds * SECOND,
    )
    return Candidate(endpoint, Health(under_way=tuple(range(under_way))), tally)


def pick(
    *candidates: Candidate, memory: object = None, mode: LowestLatency = USUAL
) -> tuple[str, LatencyMemory]:
    endpoint, kept = mode.pick(candidates, memory, Call(), NOW)
    return endpoint.alias, cast("LatencyMemory", kept)


def level(memory: LatencyMemory, alias: str) -> float:
    return memory["levels"][alias][0] / 1_000_000


def test_the_lowest_level_is_picked() -> None:
    assert pick(measured(A, 2), measured(B, 1))[0] == "b"
    assert pick(measured(A, 1), measured(B, 1))[0] == "a"


def test_a_model_that_was_never_tried_goes_first() -> None:
    assert pick(measured(A, 0.001), Candidate(B), Candidate(C))[0] == "b"


@pytest.mark.parametrize(
    "used",
    [
        Candidate(B, Health(under_way=(1,))),
        Candidate(B, tally=Tally(cancelled=1)),
        Candidate(B, tally=Tally(rejected=1)),
    ],
)
def test_a_model_that_has_given_no_content_counts_as_the_slowest(used: Candidate) -> None:
    assert pick(measured(A, 1), used, measured(C, 3))[0] == "a"
    assert pick(used, measured(C, 3, under_way=8))[0] == "b"
    # No model was ever measured: each counts as a second, so the less busy one is picked.
    assert pick(used, Candidate(A, Health(under_way=(2, 3))))[0] == "b"


def test_calls_under_way_count_by_their_share_of_the_cap() -> None:
    # 1 s with 4 of 8 under way is 1.5 s.
    assert pick(measured(A, 1, under_way=4), measured(B, 1.4))[0] == "b"
    assert pick(measured(A, 1, under_way=4), measured(B, 1.6))[0] == "a"
    capped = evolve(A, max_concurrent=4)
    assert pick(measured(capped, 1, under_way=3), measured(B, 1.7))[0] == "b"
    roomy = LowestLatency(calls_at_once=40)
    assert pick(measured(A, 1, under_way=4), measured(B, 1.4), mode=roomy)[0] == "a"


def test_a_slower_time_counts_at_once() -> None:
    memory = pick(measured(A, 1, ago=5))[1]
    assert level(memory, "a") == 1
    assert level(pick(measured(A, 9), memory=memory)[1], "a") == 9


@pytest.mark.parametrize(
    ("passed", "expected"),
    [(0.000001, 9), (10, 5), (90, 1.8), (-5, 9)],
    ids=["at once", "half", "nine tenths", "a clock that was set back"],
)
def test_a_faster_time_counts_by_its_age(passed: float, expected: float) -> None:
    memory = pick(measured(A, 9, ago=passed))[1]
    now = pick(measured(A, 1), memory=memory)[1]
    assert level(now, "a") == pytest.approx(expected, abs=1e-5)


def test_a_measurement_counts_once() -> None:
    memory = pick(measured(A, 9, ago=10))[1]
    once = pick(measured(A, 1), memory=memory)[1]
    assert pick(measured(A, 1), memory=once)[1]["levels"] == once["levels"]


def test_a_model_with_an_old_measurement_is_measured_again() -> None:
    old = measured(B, 5, ago=301)
    for picks in (0, 18):
        memory: LatencyMemory = {"picks": picks, "levels": {}}
        assert pick(measured(A, 1), old, memory=memory)[0] == "a"
    alias, kept = pick(measured(A, 1), old, memory={"picks": 19, "levels": {}})
    assert (alias, kept["picks"]) == ("b", 0)
    # Not if a call is under way there, or if the measurement is recent. The oldest goes first.
    due = {"picks": 19, "levels": {}}
    assert pick(measured(A, 1), evolve(old, health=Health(under_way=(1,))), memory=due)[
        0
    ] == ("a")
    alias, kept = pick(measured(A, 1), measured(B, 5, ago=299), memory=due)
    assert (alias, kept["picks"]) == ("a", 20)
    assert pick(measured(A, 1), old, measured(C, 5, ago=302), memory=due)[0] == "c"
    silent = Candidate(C, tally=Tally(cancelled=1))
    assert pick(measured(A, 1), old, silent, memory=due)[0] == "c"
    busy = measured(A, 1, under_way=1)
    assert pick(busy, measured(B, 5, under_way=1), memory=due)[0] == "a"


def test_its_options_are_checked() -> None:
    mode = LowestLatency(explore_after_ms=1000, explore_one_in=1)
    assert pick(measured(A, 1), measured(B, 5, ago=1), mode=mode)[0] == "b"
    for wrong in ({"explore_after_ms": 999}, {"explore_one_in": 0}, {"calls_at_once": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LowestLatency(**wrong)


def test_recovery_is_noticed_in_a_pool() -> None:
    """A model is slow for ten minutes: it is avoided after one slow answer, and found again."""
    mode, state, now = LowestLatency(), PoolState.of(A, B), NOW
    served: list[str] = []
    for number in range(700):
        now = NOW + 2 * number * SECOND
        state, choice = choose(state, mode, now, Call())
        assert isinstance(choice, Slot)
        alias = choice.endpoint.alias
        served.append(alias)
        bad = 200 <= number < 500
        seconds = {"a": 8.0 if bad else 0.5, "b": 1.0}[alias]
        responding = Responding(alias, choice.attempt, seconds * SECOND)
        state = update(state, responding, now)
        end = Cancelled if number == 7 else Succeeded
        state = update(state, end(alias, choice.attempt), now)
    before, during, after = served[:200], served[200:500], served[500:]
    assert before.count("b") == 2
    assert during.count("a") <= 4
    # Five minutes are 150 picks, and it recovered 200 picks ago.
    assert after[-20:] == ["a"] * 20
