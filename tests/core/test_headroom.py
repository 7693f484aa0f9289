"""Limits that providers announce are heeded before they are met (§13)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from attrs import evolve

from muxcore.core.allowance import (
    FIRST_MARGIN,
    LARGEST_MARGIN,
    TRUSTED_FOR,
    Allowance,
    AllowanceKind,
    Demand,
)
from muxcore.core.migration import migrate
from muxcore.core.outcomes import (
    Cancelled,
    Failed,
    Fault,
    Limit,
    Outcome,
    PickReason,
    RateLimited,
    Refusal,
    Rejected,
    Reset,
    Responding,
    Started,
    Succeeded,
)
from muxcore.core.protocol import choose
from muxcore.core.records import (
    LARGE_GROWTH,
    AnnouncedLimits,
    Call,
    Endpoint,
    Exhausted,
    Picked,
    Policy,
    Sticky,
    Wait,
    WaitReason,
)
from muxcore.core.selection import Standing, Verdict, explain
from tests.core.conftest import History

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
REQUESTS, TOKENS = AllowanceKind.REQUESTS, AllowanceKind.TOKENS
UNCACHED = AllowanceKind.UNCACHED_INPUT_TOKENS
LARGE = Call(prompt_tokens=6_400)
"""8,000 tokens, with the quarter by which estimates may be low."""
IGNORE = Policy(announced_limits=AnnouncedLimits.IGNORE)


def left(
    pool: History,
    remaining: int,
    resets_in: float | None = 40,
    kind: AllowanceKind = TOKENS,
    limit: int | None = 10_000,
    window: timedelta | None = None,
) -> Allowance:
    resets_at = None if resets_in is None else pool.now + resets_in * SECOND
    return Allowance(kind, remaining, limit, resets_at, window)


def announce(pool: History, alias: str, *allowances: Allowance) -> History:
    attempt = pool.start(alias)
    return pool.record(Succeeded(alias, attempt, allowances=allowances))


def begin(pool: History, call: Call = LARGE) -> int:
    """Begin an attempt of this call."""
    pool.state, _ = choose(pool.state, pool.mode, pool.now, call)
    return pool.state.attempts


def picked(choice: object) -> tuple[str, PickReason]:
    assert isinstance(choice, Picked)
    return choice.endpoint.alias, choice.reason


def charged(pool: History) -> list[int]:
    """Return the attempts under way that a limit was not yet announced for."""
    headroom = pool.state["a"].headroom
    assert headroom is not None
    return [charge.attempt for charge in headroom.charges]


def margin(pool: History) -> int:
    headroom = pool.state["a"].headroom
    return 0 if headroom is None else headroom.margin


def test_a_model_without_enough_left_is_passed_over_until_it_is_full() -> None:
    pool = History("a", "b")
    announce(pool, "a", left(pool, 5_000))
    assert picked(pool.select(LARGE)) == ("b", PickReason.MODE)
    assert picked(pool.select(Call(prompt_tokens=3_200))) == ("a", PickReason.MODE)
    assert explain(pool.state, pool.now, LARGE)[0] == Verdict(
        "a", Standing.SPENT, pool.now + 40 * SECOND
    )
    assert picked(pool.after(40).select(LARGE)) == ("a", PickReason.MODE)


def test_a_fallback_serves_while_the_primary_is_spent() -> None:
    pool = History("a", Endpoint("f", is_fallback=True))
    announce(pool, "a", left(pool, 0))
    assert picked(pool.select(LARGE)) == ("f", PickReason.FALLBACK)


def test_calls_under_way_take_from_what_was_announced_before_they_began() -> None:
    pool = History("a", "b")
    announce(pool, "a", left(pool, 9_000))
    small = Call(prompt_tokens=3_200)
    first, second = begin(pool, small), begin(pool, small)
    assert picked(pool.select(small))[0] == "b"
    pool.record(Cancelled("a", first))
    assert picked(pool.select(small))[0] == "a"
    pool.record(Cancelled("a", second))
    assert picked(pool.select(LARGE))[0] == "a"


def test_an_answer_counts_the_calls_that_began_before_it() -> None:
    pool = History("a", "b")
    announce(pool, "a", left(pool, 9_000))
    small = Call(prompt_tokens=1_600)
    begin(pool, small)
    second = begin(pool, small)
    pool.record(Responding("a", second, allowances=(left(pool, 5_000),)))
    headroom = pool.state["a"].headroom
    assert headroom is not None
    assert headroom.charges == ()


def test_a_first_content_that_announces_nothing_leaves_what_the_call_is_to_take() -> None:
    pool = History("a")
    announce(pool, "a", left(pool, 9_000))
    attempt = begin(pool)
    pool.record(Responding("a", attempt))
    assert charged(pool) == [attempt]
    pool.record(Succeeded("a", attempt))
    assert charged(pool) == []


def test_an_older_answer_changes_nothing() -> None:
    pool = History("a")
    older, newer = pool.start(), pool.start()
    pool.record(Responding("a", newer, allowances=(left(pool, 100),)))
    before = pool.state["a"].headroom
    pool.record(Responding("a", older, allowances=(left(pool, 9_000),)))
    assert pool.state["a"].headroom == before


@pytest.mark.parametrize("outcome", [RateLimited, Failed, Rejected, Succeeded, Responding])
def test_every_answer_may_announce(outcome: type[Outcome]) -> None:
    pool = History("a")
    pool.record(outcome("a", pool.start(), allowances=(left(pool, 7),)))  # type: ignore[call-arg]
    headroom = pool.state["a"].headroom
    assert headroom is not None
    assert [one.allowance.remaining for one in headroom.announcements] == [7]


def test_each_limit_is_kept_by_kind_and_window() -> None:
    pool = History("a")
    minute, day = (left(pool, n, window=n * MINUTE) for n in (1, 1440))
    announce(pool, "a", minute, day, left(pool, 3, kind=REQUESTS))
    announce(pool, "a", evolve(minute, remaining=0))
    headroom = pool.state["a"].headroom
    assert headroom is not None
    assert [one.allowance.remaining for one in headroom.announcements] == [0, 1440, 3]


def test_what_a_cache_serves_does_not_count_where_the_provider_says_so() -> None:
    pool = History("a", "b", policy=Policy(sticky=Sticky.CALL))
    attempt = pool.start()
    allowances = (left(pool, 3_000, kind=UNCACHED),)
    served = Succeeded("a", attempt, 4_000, conversation="c", allowances=allowances)
    pool.record(served)
    assert picked(pool.select(evolve(LARGE, conversation="c")))[0] == "a"
    assert picked(pool.select(evolve(LARGE, conversation="new")))[0] == "b"


def test_a_prompt_is_still_cached_where_an_earlier_call_was_served() -> None:
    """Of its limit, the call takes what was added since."""
    pool = History("a", "b", policy=Policy(sticky=Sticky.CALL))
    allowances = (left(pool, 6_000, kind=UNCACHED),)
    for alias, tokens in (("a", 8_000), ("b", 9_000)):
        attempt = pool.start(alias)
        served = Succeeded(alias, attempt, tokens, conversation="c", allowances=allowances)
        pool.record(served)
    call = Call(conversation="c", prompt_tokens=9_500)
    assert picked(pool.select(call)) == ("a", PickReason.MODE)
    assert explain(pool.state, pool.now, evolve(call, conversation="new"))[0] == Verdict(
        "a", Standing.SPENT, pool.now + 40 * SECOND
    )


def test_what_was_counted_in_the_last_call_is_better_than_an_estimate() -> None:
    pool = History("a", "b", policy=Policy(sticky=Sticky.CALL))
    pool.record(Succeeded("b", pool.start("b"), 6_000, conversation="c"))
    announce(pool, "a", left(pool, 6_000 + LARGE_GROWTH - 1))
    low = Call(conversation="c", prompt_tokens=100)
    assert picked(pool.select(low))[0] == "b"
    announce(pool, "a", left(pool, 6_000 + LARGE_GROWTH))
    assert picked(pool.select(low))[0] == "a"


def test_a_stream_announces_what_was_left_when_it_began() -> None:
    pool = History("a")
    announce(pool, "a", left(pool, 9_000))
    attempt = pool.start()
    slow = Responding("a", attempt, 5 * SECOND, (left(pool.after(5), 0, 12),))
    pool.record(slow)
    assert pool.select(LARGE) == Wait(pool.now + 7 * SECOND, WaitReason.SPENT)


# -- No call is refused ----------------------------------------------------------------------


def test_when_all_are_spent_the_first_to_have_room_is_waited_for() -> None:
    pool = History("a", "b")
    announce(pool, "a", left(pool, 0, 20))
    announce(pool, "b", left(pool, 0, 10))
    assert pool.select(LARGE) == Wait(pool.now + 10 * SECOND, WaitReason.SPENT)
    assert picked(pool.after(10).select(LARGE)) == ("b", PickReason.MODE)


def test_the_end_of_a_cooldown_ends_the_wait_for_room() -> None:
    pool = History("a", "b", "c")
    announce(pool, "a", left(pool, 0, 20))
    pool.fail(Limit.RATE, "b").fail(Fault.TRANSIENT, "c")
    assert pool.select(LARGE) == Wait(pool.now + 15 * SECOND, WaitReason.SPENT)


def test_when_none_has_room_in_time_the_first_is_tried_after_the_longest_wait() -> None:
    pool = History("a", "b")
    announce(pool, "a", left(pool, 0, 400))
    announce(pool, "b", left(pool, 0, 300))
    assert pool.select(LARGE) == Wait(pool.now + 30 * SECOND, WaitReason.SPENT)
    waited = evolve(LARGE, waited=30 * SECOND)
    assert picked(pool.after(30).select(waited)) == ("b", PickReason.SPENT)


def test_meanwhile_a_last_resort_may_be_due_sooner() -> None:
    pool = History("a", "b")
    announce(pool, "a", left(pool, 0, 400))
    pool.fail(Fault.TRANSIENT, "b")
    assert pool.select(LARGE) == Wait(pool.now + SECOND, WaitReason.SPENT)


def test_room_of_a_primary_is_waited_for_while_another_is_busy() -> None:
    pool = History("a", Endpoint("b", max_concurrent=1))
    announce(pool, "a", left(pool, 0, 4))
    pool.start("b")
    assert pool.select(LARGE) == Wait(pool.now + 4 * SECOND, WaitReason.SPENT)


def test_room_of_a_fallback_is_waited_for() -> None:
    pool = History(Endpoint("f", is_fallback=True))
    announce(pool, "f", left(pool, 0, 4))
    assert pool.select(LARGE) == Wait(pool.now + 4 * SECOND, WaitReason.SPENT)


@pytest.mark.parametrize("limit", [10_000, None])
def test_a_pool_of_one_is_never_refused(limit: int | None) -> None:
    pool = History("a", policy=Policy(max_wait=timedelta()))
    announce(pool, "a", left(pool, 0, 400, limit=limit))
    assert picked(pool.select(LARGE)) == ("a", PickReason.SPENT)
    over = evolve(LARGE, deadline=pool.now)
    assert picked(pool.select(over)) == ("a", PickReason.SPENT)


def test_half_of_the_time_to_the_deadline_is_left_for_the_try() -> None:
    pool = History("a")
    announce(pool, "a", left(pool, 0, 400))
    call = evolve(LARGE, deadline=pool.now + 8 * SECOND)
    assert pool.select(call) == Wait(pool.now + 4 * SECOND, WaitReason.SPENT)


def test_a_second_opinion_is_not_denied_for_what_is_announced() -> None:
    """Rule 6."""
    pool = History("a", "b")
    announce(pool, "b", left(pool, 0))
    pool.record(Rejected("a", pool.start("a"), Refusal.REQUEST))
    call = evolve(LARGE, tried=("a",), excluded=("a",), refused=("a",))
    assert picked(pool.select(call)) == ("b", PickReason.AFTER_REFUSAL)


def test_a_call_larger_than_the_limit_goes_where_it_is_full() -> None:
    pool = History("a")
    huge = Call(prompt_tokens=90_000)
    announce(pool, "a", left(pool, 10_000))
    assert picked(pool.select(huge))[0] == "a"
    announce(pool, "a", left(pool, 9_000, 12))
    assert pool.select(huge) == Wait(pool.now + 12 * SECOND, WaitReason.SPENT)


def test_an_announcement_is_trusted_for_a_time_only() -> None:
    pool = History("a", "b")
    month = left(pool, 0, None, window=timedelta(days=31))
    announce(pool, "a", month)
    lasts = TRUSTED_FOR.total_seconds()
    assert picked(pool.after(lasts - 1).select(LARGE))[0] == "b"
    assert picked(pool.after(1).select(LARGE))[0] == "a"


def test_a_clock_set_back_ends_it() -> None:
    pool = History("a")
    announce(pool, "a", left(pool, 0))
    assert picked(pool.after(-1).select(LARGE)) == ("a", PickReason.MODE)


# -- A turn's model --------------------------------------------------------------------------


def pinned(resets_in: float) -> History:
    pool = History("a", "b")
    pool.succeed("b", conversation="c")
    attempt = pool.start("b")
    allowances = (left(pool, 0, resets_in),)
    return pool.record(Succeeded("b", attempt, conversation="c", allowances=allowances))


def test_a_turn_waits_a_short_time_for_its_own_model() -> None:
    """Rule 2 of the selection."""
    pool = pinned(resets_in=2)
    call = Call(conversation="c", new_turn=False, prompt_tokens=6_400)
    assert pool.select(call) == Wait(pool.now + 2 * SECOND, WaitReason.SPENT)
    hasty = evolve(call, deadline=pool.now + 3 * SECOND)
    assert picked(pool.select(hasty)) == ("a", PickReason.MODE), "half of the time is left"
    assert picked(pool.after(2).select(call)) == ("b", PickReason.STICKY)


def test_a_turn_does_not_wait_long_while_another_has_room() -> None:
    pool = pinned(resets_in=2.1)
    call = Call(conversation="c", new_turn=False, prompt_tokens=6_400)
    assert picked(pool.select(call)) == ("a", PickReason.MODE)


def test_a_turn_does_not_wait_for_room_where_every_slot_is_taken() -> None:
    pool = History("a", Endpoint("b", max_concurrent=1))
    pool.succeed("b", conversation="c")
    announce(pool, "b", left(pool, 0, 2))
    call = Call(conversation="c", new_turn=False, prompt_tokens=6_400)
    assert isinstance(pool.select(call), Wait)
    pool.start("b")
    assert picked(pool.select(call)) == ("a", PickReason.MODE)


def test_a_turn_stays_where_its_cache_leaves_room() -> None:
    """Cold, the prompt would take more than is left, and warm it does not."""
    pool = History("a", "b")
    allowances = (left(pool, 3_000, kind=UNCACHED),)
    served = Succeeded("b", pool.start("b"), 4_000, conversation="c", allowances=allowances)
    pool.record(served)
    call = Call(conversation="c", new_turn=False, prompt_tokens=4_100)
    assert picked(pool.select(call)) == ("b", PickReason.STICKY)
    assert explain(pool.state, pool.now, call)[1] == Verdict("b", Standing.OPEN)
    cold = evolve(call, conversation="new")
    assert explain(pool.state, pool.now, cold)[1].standing is Standing.SPENT


# -- How a limit is filled -------------------------------------------------------------------


def test_a_limit_that_is_refilled_continuously_is_recognised() -> None:
    """The time until it is full is in proportion to what is missing."""
    pool = History("a")
    announce(pool, "a", left(pool, 8_000, 12))
    announce(pool, "a", left(pool, 5_000, 30))
    # 8,000 are there when 3,000 of 5,000 missing ones are.
    assert pool.select(LARGE) == Wait(pool.now + 18 * SECOND, WaitReason.SPENT)


def test_a_limit_of_a_fixed_window_is_full_at_its_end() -> None:
    pool = History("a")
    announce(pool, "a", left(pool, 8_000, 30))
    announce(pool.after(2), "a", left(pool, 5_000, 28))
    assert pool.select(LARGE) == Wait(pool.now + 28 * SECOND, WaitReason.SPENT)


def test_a_limit_without_a_reset_is_full_a_window_after_it_was_last_refilled() -> None:
    pool = History("a")
    announce(pool, "a", left(pool, 2_000, None, window=MINUTE))
    announce(pool.after(20), "a", left(pool, 9_000, None, window=MINUTE))
    announce(pool.after(40), "a", left(pool, 3_000, None, window=MINUTE))
    assert pool.select(LARGE) == Wait(pool.now + 20 * SECOND, WaitReason.SPENT)


def test_a_full_limit_holds_no_more_than_its_size_at_once() -> None:
    pool = History("a", "b")
    announce(pool, "a", left(pool, 0, 10))
    pool.after(10)
    begin(pool)
    assert picked(pool.select(LARGE))[0] == "b"


# -- The margin ------------------------------------------------------------------------------


def test_a_rate_limit_in_spite_of_room_teaches_a_margin_which_shrinks_again() -> None:
    pool = History("a")
    announce(pool, "a", left(pool, 9_900))
    pool.record(RateLimited("a", begin(pool)))
    assert margin(pool) == FIRST_MARGIN
    pool.after(60)
    for _ in range(20):
        before = margin(pool)
        pool.record(RateLimited("a", begin(pool)))
        assert before <= margin(pool) <= LARGEST_MARGIN
        pool.after(60)
    while margin(pool):
        before = margin(pool)
        pool.succeed("a")
        assert margin(pool) < before


@pytest.mark.parametrize("outcome", [Failed, Rejected, Responding])
def test_only_a_success_makes_the_margin_smaller(outcome: type[Outcome]) -> None:
    pool = History("a")
    announce(pool, "a", left(pool, 9_900))
    pool.record(RateLimited("a", begin(pool)))
    pool.record(outcome("a", pool.start()))  # type: ignore[call-arg]
    assert margin(pool) == FIRST_MARGIN
    pool.record(Succeeded("a", pool.start()))
    assert margin(pool) < FIRST_MARGIN


def test_a_rate_limit_that_was_expected_teaches_nothing() -> None:
    pool = History("a", policy=Policy(max_wait=timedelta()))
    announce(pool, "a", left(pool, 0, 400))
    pool.record(RateLimited("a", begin(pool)))
    assert margin(pool) == 0


# -- Switched off, and forgotten -------------------------------------------------------------


def test_ignored_it_is_byte_for_byte_as_before() -> None:
    """Rule 13: the states are those of the same outcomes without any allowance."""
    heeding, before = (History("a", "b", policy=IGNORE) for _ in range(2))
    for kind in (Succeeded, RateLimited, Failed, Rejected, Responding):
        allowances = (left(heeding, 0),)
        for pool, has in ((heeding, allowances), (before, ())):
            pool.record(Started("a", demand=Demand(5) if has else None))
            pool.record(kind("a", pool.state.attempts, allowances=has))
        assert repr(heeding.state) == repr(before.state)
        assert heeding.select(LARGE) == before.select(LARGE)


def test_a_reload_that_switches_it_off_forgets_what_is_left() -> None:
    pool = History("a", "b")
    announce(pool, "a", left(pool, 0))
    endpoints = [candidate.endpoint for candidate in pool.state.candidates]
    kept = migrate(pool.state, endpoints, Policy())
    assert kept["a"].headroom == pool.state["a"].headroom
    assert migrate(pool.state, endpoints, IGNORE)["a"].headroom is None
    assert migrate(pool.state, endpoints, Policy(), new_keys=("a",))["a"].headroom is None


def test_a_reset_forgets_what_is_left() -> None:
    pool = History("a", "b")
    announce(pool, "a", left(pool, 0))
    assert picked(pool.record(Reset("a")).select(LARGE))[0] == "a"


def test_a_model_that_is_disabled_too_is_a_last_resort_by_its_own_hint() -> None:
    pool = History("a", policy=Policy(max_wait=timedelta(seconds=5)))
    limit = RateLimited("a", pool.start(), hint=3 * SECOND, allowances=(left(pool, 0, 50),))
    pool.record(limit)
    assert pool.select(LARGE) == Wait(pool.now + 3 * SECOND, WaitReason.DISABLED)
    assert picked(pool.after(3).select(LARGE)) == ("a", PickReason.LAST_RESORT)
    assert not isinstance(pool.select(LARGE), Exhausted)
