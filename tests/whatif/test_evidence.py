"""How a place fared between the attempts that the journal has."""

from __future__ import annotations

from datetime import timedelta

import pytest

from muxcore.core.outcomes import (
    Cancelled,
    End,
    Failed,
    Limit,
    RateLimited,
    Rejected,
    Succeeded,
)
from muxcore.whatif.evidence import Weather, weather_of
from muxcore.whatif.recorded import Observation
from tests.whatif.worlds import NOON

SECOND = timedelta(seconds=1)
OK, DOWN = Succeeded("a", 1), Failed("a", 1)
LIMITED = RateLimited("a", 1, Limit.RATE, 60 * SECOND)


def seen(*attempts: tuple[float, End]) -> list[Observation]:
    return [
        Observation(NOON + at * SECOND, ("a",), outcome, SECOND / 2, None, False, number)
        for number, (at, outcome) in enumerate(attempts)
    ]


def weather(*attempts: tuple[float, End], until: float = 0, luck: float = 0.5) -> Weather:
    observations = seen(*attempts)
    ended = max(observations[-1].at, NOON + until * SECOND)
    return weather_of(observations, NOON, ended, luck)


def test_a_limit_lasts_as_long_as_its_server_says() -> None:
    found = weather((0, OK), (10, LIMITED))
    assert found.at(NOON + 69 * SECOND) is not None
    assert found.at(NOON + 71 * SECOND) is None
    assert found.is_known(NOON + 69 * SECOND)


def test_a_success_ends_it_earlier() -> None:
    assert weather((10, LIMITED), (40, OK)).at(NOON + 41 * SECOND) is None


def test_failures_without_a_success_between_are_one_fault() -> None:
    found = weather((0, OK), (10, DOWN), (100, DOWN), (200, DOWN), (201, OK))
    (episode,) = found.episodes
    assert episode.since < NOON + 10 * SECOND
    assert episode.until > NOON + 200 * SECOND
    assert found.at(NOON + 150 * SECOND) is episode


@pytest.mark.parametrize("luck", [0.05, 0.35, 0.65, 0.95])
def test_a_fault_begins_after_the_last_success_and_ends_before_the_next(
    luck: float,
) -> None:
    found = weather((0, OK), (30, DOWN), (60, OK), luck=luck)
    episode = found.at(NOON + 30 * SECOND)
    assert episode is not None
    assert NOON < episode.since <= NOON + 30 * SECOND
    assert NOON + 30 * SECOND < episode.until < NOON + 60 * SECOND


def test_luck_draws_other_moments() -> None:
    lengths = {
        weather((0, OK), (30, DOWN), (90, OK), luck=n / 7).episodes for n in range(7)
    }
    assert len(lengths) == 7


def test_a_refusal_and_a_caller_who_leaves_say_nothing_of_the_place() -> None:
    found = weather((0, Rejected("a", 1)), (10, Cancelled("a", 1)))
    assert found.episodes == ()
    assert not found.is_known(NOON)


def test_what_was_not_seen_for_long_is_not_known() -> None:
    found = weather((0, OK), (600, OK))
    assert found.is_known(NOON + 44 * SECOND)
    assert not found.is_known(NOON + 300 * SECOND)
    assert not Weather().is_known(NOON)


@pytest.mark.parametrize("luck", [0.1, 0.5, 0.9])
def test_attempts_in_times_that_nobody_saw_meet_as_many_faults(luck: float) -> None:
    steady = [(float(at), DOWN if at % 600 == 300 else OK) for at in range(0, 6000, 30)]
    found = weather(*steady, until=18_000, luck=luck)
    unseen = [found.at(NOON + at * SECOND) for at in range(6_030, 18_000, 30)]
    assert sum(one is not None for one in unseen) / len(unseen) == pytest.approx(
        10 / 200, abs=0.025
    )
