"""What is left of an announced limit, moment by moment: the arithmetic behind §13."""

from __future__ import annotations

from datetime import timedelta

import pytest
from attrs import evolve

from muxcore.core.allowance import (
    CACHE_LASTS,
    MINUTE,
    MOST_PROMPTS,
    TRUSTED_FOR,
    Allowance,
    AllowanceKind,
    Announcement,
    CachedPrompt,
    Charge,
    Demand,
    Headroom,
    announced,
)
from tests.core.conftest import NOON

SECOND = timedelta(seconds=1)
TOKENS = AllowanceKind.TOKENS
ONE = Demand(prompt=1_000)


def tokens(
    remaining: int, resets_in: float | None = 60, limit: int | None = 10_000
) -> Allowance:
    resets_at = None if resets_in is None else NOON + resets_in * SECOND
    return Allowance(TOKENS, remaining, limit, resets_at)


def announcement(
    remaining: int, *, gradual: bool = False, limit: int | None = 10_000, attempt: int = 1
) -> Announcement:
    """Announce at noon a limit that is full a minute later."""
    return Announcement(
        tokens(remaining, limit=limit), attempt, NOON, NOON + MINUTE, gradual
    )


def only(headroom: Headroom | None) -> Announcement:
    assert headroom is not None
    (one,) = headroom.announcements
    return one


def seconds_until_room(headroom: Headroom, demand: Demand, at: float = 0) -> float:
    now = NOON + at * SECOND
    return (headroom.fits_at(demand, now) - NOON) / SECOND


@pytest.mark.parametrize(
    ("kind", "taken"),
    [
        (AllowanceKind.REQUESTS, 1),
        (AllowanceKind.TOKENS, 101),
        (AllowanceKind.INPUT_TOKENS, 100),
        (AllowanceKind.UNCACHED_INPUT_TOKENS, 10),
        (AllowanceKind.UNCACHED_TOKENS, 11),
        (AllowanceKind.OUTPUT_TOKENS, 1),
    ],
)
def test_what_a_call_takes_of_each_kind_of_limit(kind: AllowanceKind, taken: int) -> None:
    assert Demand(prompt=100, uncached=10, answer=1).of(kind) == taken
    assert Demand().of(kind) == (kind is AllowanceKind.REQUESTS)


@pytest.mark.parametrize(
    ("one", "after", "left"),
    [
        (announcement(4_000), 59, 4_000),
        (announcement(4_000), 60, 10_000),
        (announcement(4_000, gradual=True), 0, 4_000),
        (announcement(4_000, gradual=True), 30, 7_000),
        (announcement(4_000, gradual=True), 60, 10_000),
        (announcement(4_000, gradual=True, limit=None), 30, 4_000),
        (announcement(4_000, limit=None), 60, None),
    ],
)
def test_what_is_left_of_a_limit_as_time_passes(
    one: Announcement, after: float, left: int | None
) -> None:
    assert one.left(NOON + after * SECOND) == left


@pytest.mark.parametrize(
    ("one", "amount", "after"),
    [
        (announcement(4_000), 4_000, 0),
        (announcement(4_000), 4_001, 60),
        (announcement(4_000, gradual=True), 4_000, 0),
        (announcement(4_000, gradual=True), 7_000, 30),
        (announcement(4_000, gradual=True), 10_000, 60),
        (announcement(4_000, gradual=True), 10_001, 60),
        (announcement(4_000, gradual=True, limit=None), 7_000, 60),
    ],
)
def test_when_a_limit_holds_an_amount(one: Announcement, amount: int, after: float) -> None:
    assert one.holds_at(amount) == NOON + after * SECOND


# -- Calls under way -------------------------------------------------------------------------


def charge(attempt: int, after: float = 0, demand: Demand = ONE) -> Charge:
    return Charge(attempt, demand, NOON + after * SECOND)


def test_what_is_left_is_less_what_later_calls_take_and_never_below_nothing() -> None:
    one = announcement(2_500, attempt=5)
    left = [
        Headroom((one,), charges).left(one, NOON)
        for charges in (
            (),
            (charge(4), charge(5)),  # counted by the answer that announced it
            (charge(6), charge(7)),
            (charge(6), charge(7), charge(8)),
        )
    ]
    assert left == [2_500, 2_500, 500, 0]
    unknown = announcement(2_500, limit=None)
    assert Headroom((unknown,), (charge(6),)).left(unknown, NOON + MINUTE) is None


def test_the_end_of_a_call_gives_back_what_it_was_to_take() -> None:
    headroom = Headroom((announcement(9_000),), (charge(2), charge(3)))
    assert headroom.after_end(2).charges == (charge(3),)
    assert headroom.after_end(9) is headroom


def test_calls_under_way_put_off_the_room_in_a_limit_that_is_refilled() -> None:
    """3,000 fit at once; with 4,000 under way, when 7,000 are there."""
    one = announcement(4_000, gradual=True)
    demand = Demand(prompt=3_000)
    assert seconds_until_room(Headroom((one,)), demand) == 0
    taken = Headroom((one,), (charge(2, demand=Demand(prompt=4_000)),))
    assert seconds_until_room(taken, demand) == 30


@pytest.mark.parametrize(
    ("under_way", "after"),
    [
        # Together they are the whole limit: once it is full.
        (9_000, 60),
        # More: a period after the last call under way began.
        (9_001, 70),
    ],
)
def test_what_a_full_limit_does_not_hold_waits_a_period_more(
    under_way: int, after: float
) -> None:
    taken = charge(2, 10, Demand(prompt=under_way))
    headroom = Headroom((announcement(4_000),), (taken,))
    assert seconds_until_room(headroom, ONE, at=20) == after


def test_nobody_waits_longer_than_an_announcement_is_trusted() -> None:
    month = evolve(announcement(0), resets_at=NOON + timedelta(days=31))
    trusted = TRUSTED_FOR / SECOND
    assert seconds_until_room(Headroom((month,)), ONE) == trusted
    assert seconds_until_room(Headroom((month,)), ONE, at=trusted) == trusted
    assert seconds_until_room(Headroom((month,)), ONE, at=-1) == -1


# -- What is cached --------------------------------------------------------------------------


def uncached(conversation: str, *, kind: AllowanceKind, at: float = 0) -> Headroom:
    """Serve 100 tokens of a conversation, beside another that is cached since noon.

    One limit counts all tokens, and another is of this kind.
    """
    one = evolve(announcement(4_000), allowance=evolve(tokens(4_000), kind=kind))
    limits = (announcement(4_000), one)
    headroom = Headroom(limits, prompts=(CachedPrompt("a", 50, NOON),))
    return headroom.after_serving(conversation, 100, NOON + at * SECOND)


@pytest.mark.parametrize(
    ("kind", "is_kept"),
    [
        (AllowanceKind.REQUESTS, False),
        (AllowanceKind.TOKENS, False),
        (AllowanceKind.INPUT_TOKENS, False),
        (AllowanceKind.UNCACHED_INPUT_TOKENS, True),
        (AllowanceKind.UNCACHED_TOKENS, True),
        (AllowanceKind.OUTPUT_TOKENS, False),
    ],
)
def test_what_may_be_cached_is_kept_where_a_limit_depends_on_it(
    kind: AllowanceKind,
    is_kept: bool,
) -> None:
    headroom = uncached("b", kind=kind)
    assert headroom.cached("b", 100, NOON) == (100 if is_kept else 0)
    assert headroom.cached("a", 100, NOON) == 50


def test_the_last_call_of_a_conversation_says_what_is_cached() -> None:
    headroom = uncached("a", kind=AllowanceKind.UNCACHED_TOKENS)
    assert headroom.prompts == (CachedPrompt("a", 100, NOON),)


def test_what_no_cache_keeps_any_more_is_forgotten() -> None:
    lasts = CACHE_LASTS / SECOND
    for at, kept in ((lasts - 1, ["a", "b"]), (lasts, ["b"])):
        headroom = uncached("b", kind=AllowanceKind.UNCACHED_TOKENS, at=at)
        assert [prompt.conversation for prompt in headroom.prompts] == kept


def test_so_many_prompts_are_kept_the_newest() -> None:
    headroom = uncached("b", kind=AllowanceKind.UNCACHED_TOKENS)
    for number in range(MOST_PROMPTS - 1):
        headroom = headroom.after_serving(str(number), 100, NOON)
    assert [prompt.conversation for prompt in headroom.prompts[:2]] == ["b", "0"]
    assert len(headroom.prompts) == MOST_PROMPTS


def test_an_announcement_keeps_what_is_cached() -> None:
    headroom = uncached("b", kind=AllowanceKind.UNCACHED_TOKENS)
    later = announced(headroom, [tokens(9_000)], 2, NOON)
    assert later is not None
    assert later.prompts == headroom.prompts


# -- The margin ------------------------------------------------------------------------------


def test_a_margin_keeps_a_part_of_each_limit_free() -> None:
    """A tenth of 10,000: of the 4,000 that are left, 3,000 can be taken."""
    headroom = Headroom((announcement(4_000),), margin=100)
    assert seconds_until_room(headroom, Demand(prompt=3_000)) == 0
    assert seconds_until_room(headroom, Demand(prompt=3_001)) == 60
    assert seconds_until_room(headroom, Demand(prompt=10_000)) == 60


def test_the_margin_doubles_up_to_a_half_and_shrinks_to_nothing() -> None:
    """In thousandths: it grows with each surprise; each success takes a 32nd, at least one."""
    headroom = Headroom((), (charge(1),))
    grown = []
    for _ in range(6):
        headroom = headroom.after_limit(1)
        grown.append(headroom.margin)
    assert grown == [50, 100, 200, 400, 500, 500]
    assert headroom.after_success().margin == 484
    assert evolve(headroom, margin=33).after_success().margin == 31
    assert evolve(headroom, margin=1).after_success().margin == 0


# -- The newest announcement -----------------------------------------------------------------


def test_an_answer_that_announces_nothing_changes_nothing() -> None:
    headroom = Headroom((announcement(9_000),), (charge(2),))
    assert announced(headroom, (), 3, NOON) is headroom
    assert announced(None, (), 3, NOON) is None


def test_one_answer_may_announce_twice_and_the_second_time_counts() -> None:
    """A stream announces at its beginning, and at its end."""
    first = announced(None, [tokens(9_000)], 1, NOON)
    assert only(announced(first, [tokens(8_000)], 1, NOON)).allowance.remaining == 8_000


@pytest.mark.parametrize("resets_in", [40, None])
def test_an_announcement_is_as_old_as_its_answer(resets_in: float | None) -> None:
    """The first content came 5 seconds after the server counted."""
    one = only(announced(None, [tokens(0, resets_in)], 1, NOON, 5 * SECOND))
    assert one.at == NOON - 5 * SECOND
    assert one.resets_at == one.at + (40 if resets_in else 60) * SECOND


@pytest.mark.parametrize(
    ("remaining", "after", "resets_in"),
    [
        (3_999, 20, 60),  # less than before: the period goes on
        (4_000, 20, 60),  # as much: nothing was refilled
        (4_001, 20, 80),  # more: it was full just before
        (3_999, 60, 120),  # the period is over: another one begins
    ],
)
def test_without_a_reset_a_period_begins_when_the_limit_was_refilled(
    remaining: int, after: float, resets_in: float
) -> None:
    before = announced(None, [tokens(4_000, None)], 1, NOON)
    later = announced(before, [tokens(remaining, None)], 2, NOON + after * SECOND)
    assert (only(later).resets_at - NOON) / SECOND == resets_in


GRADUAL, AT_ONCE = (Headroom((announcement(2_000, gradual=g),)) for g in (True, False))
"""8,000 are missing, and 60 seconds: 7.5 for each thousand, if it is refilled gradually."""


@pytest.mark.parametrize(
    ("remaining", "resets_in", "limit", "gradual"),
    [
        (6_000, 30, 10_000, True),
        (6_000, 33, 10_000, True),
        (6_000, 27, 10_000, True),
        # More than a tenth beside what is expected.
        (6_000, 33.1, 10_000, False),
        (6_000, 26.9, 10_000, False),
        (6_000, 60, 10_000, False),
        # Another limit by now, or of an unknown size.
        (6_000, 30, 9_999, False),
        (6_000, 30, None, False),
        # The same amounts to within a tenth, or a full limit, show nothing: as before.
        (2_799, 54, 10_000, None),
        (2_799, 9, 10_000, None),
        (10_000, 0, 10_000, None),
        # A tenth apart, they show it.
        (2_800, 54, 10_000, True),
        (2_800, 9, 10_000, False),
    ],
)
@pytest.mark.parametrize("before", [GRADUAL, AT_ONCE], ids=["gradual", "at once"])
def test_a_limit_is_refilled_gradually_if_time_and_amount_are_in_proportion(
    before: Headroom,
    remaining: int,
    resets_in: float,
    limit: int | None,
    gradual: bool | None,
) -> None:
    later = only(announced(before, [tokens(remaining, resets_in, limit)], 2, NOON))
    assert later.gradual is (only(before).gradual if gradual is None else gradual)
