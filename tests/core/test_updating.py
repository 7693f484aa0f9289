"""`update`: rules 4, 6 and 12, and the cooldowns of failures.md."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from muxcore.core.outcomes import (
    Cancelled,
    Failed,
    Fault,
    Limit,
    Outcome,
    RateLimited,
    Refusal,
    Rejected,
    Reset,
    Responding,
    Started,
    Succeeded,
)
from muxcore.core.records import Pin, Policy
from muxcore.core.updating import MOST_PINS

if TYPE_CHECKING:
    from tests.core.conftest import History

RATE, QUOTA, BUDGET = Limit.RATE, Limit.QUOTA, Limit.BUDGET
TRANSIENT, UNPAID = Fault.TRANSIENT, Fault.UNPAID
GRAVE = [Fault.PERSISTENT, Fault.AUTH, Fault.NOT_FOUND]
HOUR = 3600.0


def policy(rate: float = 60, error: float = 15) -> Policy:
    return Policy(timedelta(seconds=rate), timedelta(seconds=error))


@pytest.mark.parametrize(
    ("kind", "hint", "seconds"),
    [
        (RATE, None, 60),
        (RATE, 30, 60),
        (RATE, 578, 578),
        (RATE, 2 * HOUR, HOUR),
        (QUOTA, None, 900),
        (QUOTA, 58, 900),
        (QUOTA, 1800, 1800),
        (QUOTA, 2 * HOUR, HOUR),
        (BUDGET, None, 60),
        (BUDGET, 3, 3),
        (BUDGET, 90, 90),
        (BUDGET, 2 * HOUR, HOUR),
        (UNPAID, None, 900),
        (UNPAID, 30, 900),
        (UNPAID, 2 * HOUR, HOUR),
        (TRANSIENT, None, 15),
        (TRANSIENT, 5, 15),
        (TRANSIENT, 33, 33),
        (TRANSIENT, 2 * HOUR, HOUR),
        *[(kind, None, 15) for kind in GRAVE],
        *[(kind, 5, 15) for kind in GRAVE],
        *[(kind, 40, 40) for kind in GRAVE],
        *[(kind, 2 * HOUR, HOUR) for kind in GRAVE],
    ],
)
def test_the_first_failure_disables_by_its_kind(
    history: type[History], kind: Limit | Fault, hint: float | None, seconds: float
) -> None:
    assert history(policy=policy()).fail(kind, hint=hint).lasts() == seconds


@pytest.mark.parametrize("kind", [*Limit, *Fault])
@pytest.mark.parametrize("hint", [0, -5])
def test_an_absurd_hint_is_ignored(
    history: type[History], kind: Limit | Fault, hint: float
) -> None:
    pool = history().fail(kind, hint=hint)
    assert pool.state == history().fail(kind).state


@pytest.mark.parametrize(
    ("kind", "hint", "rate", "error", "seconds"),
    [
        (RATE, None, 1200, 15, 1200),
        (RATE, 1500, 1200, 15, 1500),
        (RATE, 4 * HOUR, 2 * HOUR, 15, 2 * HOUR),
        (QUOTA, None, 1200, 15, 1200),
        (UNPAID, None, 1200, 15, 1200),
        (BUDGET, 3, 1200, 15, 3),
        (TRANSIENT, None, 60, 600, 600),
        (Fault.AUTH, None, 60, 600, 600),
        (Fault.AUTH, 4 * HOUR, 60, 2 * HOUR, 2 * HOUR),
    ],
)
def test_no_cooldown_is_shorter_than_configured(
    history: type[History],
    kind: Limit | Fault,
    hint: float | None,
    rate: float,
    error: float,
    seconds: float,
) -> None:
    assert history(policy=policy(rate, error)).fail(kind, hint=hint).lasts() == seconds


@pytest.mark.parametrize(
    ("kinds", "error", "seconds"),
    [
        *[([kind] * 7, 15, [15, 30, 60, 120, 240, 300, 300]) for kind in GRAVE],
        ([Fault.AUTH] * 3, 200, [200, 300, 300]),
        ([Fault.AUTH] * 3, 400, [400, 400, 400]),
        ([Fault.AUTH, Fault.NOT_FOUND, Fault.PERSISTENT], 15, [15, 30, 60]),
        ([TRANSIENT] * 4, 15, [15, 15, 15, 15]),
        ([Fault.AUTH, TRANSIENT, Fault.AUTH], 15, [15, 15, 15]),
        ([RATE] * 3, 15, [60, 60, 60]),
        ([UNPAID, QUOTA, UNPAID], 15, [900, 900, 900]),
    ],
)
def test_failures_in_a_row_disable_for_longer(
    history: type[History], kinds: list[Limit | Fault], error: float, seconds: list[float]
) -> None:
    pool = history(policy=policy(error=error))
    lasted = []
    for kind in kinds:
        lasted.append(pool.fail(kind).lasts())
        pool.after(lasted[-1])
    assert lasted == seconds


def test_an_escalation_of_very_many_failures_stays_at_its_limit(
    history: type[History],
) -> None:
    pool = history(policy=policy(error=1))
    for _ in range(100):
        pool.after(300).fail(Fault.AUTH)
    assert pool.lasts() == 300


def test_an_escalation_doubles_twenty_times(history: type[History]) -> None:
    """So a cooldown of one microsecond grows to a second, and no further."""
    pool = history(policy=policy(error=1e-6))
    for _ in range(20):
        pool.after(1).fail(Fault.AUTH)
    assert pool.lasts() == 2**19 / 10**6
    for _ in range(3):
        pool.after(2).fail(Fault.AUTH)
        assert pool.lasts() == 2**20 / 10**6


def test_a_success_ends_a_row_of_failures(history: type[History]) -> None:
    pool = history().fail(Fault.AUTH).after(15).succeed()
    assert pool.fail(Fault.AUTH).lasts() == 15


def test_a_response_ends_probation_but_not_the_row(history: type[History]) -> None:
    pool = history().fail(Fault.AUTH).after(15)
    probe = pool.respond()
    assert not pool.state["a"].health.unproven
    assert pool.fail(Fault.AUTH, attempt=probe).lasts() == 30
    assert pool.state["a"].health.unproven


@pytest.mark.parametrize(("kind", "seconds"), [(Fault.AUTH, 15), (RATE, 60)])
def test_parallel_failures_of_one_outage_are_one(
    history: type[History], kind: Limit | Fault, seconds: float
) -> None:
    pool = history()
    attempts = [pool.start() for _ in range(6)]
    for attempt in attempts:
        pool.fail(kind, attempt=attempt)
    assert pool.lasts() == seconds
    assert pool.cooldown().failures == 1


def test_a_failure_that_arrives_late_counts_when_it_arrives(history: type[History]) -> None:
    pool = history()
    early, late = pool.start(), pool.start()
    pool.fail(RATE, attempt=early).after(40).fail(RATE, attempt=late)
    assert pool.lasts() == 60
    assert pool.cooldown().since == pool.now - timedelta(seconds=40)


def test_a_failure_after_the_end_of_a_cooldown_begins_a_new_one(
    history: type[History],
) -> None:
    pool = history()
    early, late = pool.start(), pool.start()
    pool.fail(Fault.AUTH, attempt=early).after(100).fail(Fault.AUTH, attempt=late)
    assert pool.lasts() == 15
    assert pool.cooldown().since == pool.now
    assert pool.cooldown().failures == 1


@pytest.mark.parametrize(
    ("first", "second", "hint"),
    [
        (RATE, RATE, 578),
        (TRANSIENT, TRANSIENT, 100),
        (QUOTA, RATE, None),
        (QUOTA, BUDGET, 3),
    ],
)
def test_a_second_failure_never_shortens_a_cooldown(
    history: type[History], first: Limit | Fault, second: Limit | Fault, hint: float | None
) -> None:
    pool = history()
    attempts = pool.start(), pool.start()
    pool.fail(first, attempt=attempts[0], hint=None if first is QUOTA else hint)
    until = pool.cooldown().until
    pool.after(1).fail(second, attempt=attempts[1], hint=None if first is second else hint)
    assert pool.cooldown().until == until


def test_a_permanent_cause_stays_while_its_cooldown_lasts(history: type[History]) -> None:
    pool = history()
    attempts = pool.start(), pool.start(), pool.start()
    pool.fail(Fault.AUTH, attempt=attempts[0]).fail(TRANSIENT, attempt=attempts[1], hint=99)
    assert (pool.cooldown().cause, pool.lasts()) == (Fault.AUTH, 99)
    pool.after(200).fail(TRANSIENT, attempt=attempts[2])
    assert pool.cooldown().cause is TRANSIENT


def test_a_failure_after_a_response_begins_probation_again(history: type[History]) -> None:
    pool = history().fail(QUOTA).after(-1)
    # With the clock set back the cooldown is over for now, so there can be an attempt.
    attempt = pool.respond()
    pool.after(2).fail(RATE, attempt=attempt)
    assert (pool.cooldown().cause, pool.cooldown().proven) == (QUOTA, False)


def test_a_permanent_cause_replaces_a_transient_one(history: type[History]) -> None:
    pool = history()
    attempts = pool.start(), pool.start()
    pool.fail(RATE, attempt=attempts[0], hint=HOUR).fail(QUOTA, attempt=attempts[1])
    assert (pool.cooldown().cause, pool.lasts()) == (QUOTA, HOUR)


def test_a_late_success_does_not_undo_a_later_limit(history: type[History]) -> None:
    pool = history()
    early, later = pool.start(), pool.start()
    pool.fail(RATE, attempt=later).after(1)
    before = pool.state["a"].health.limited
    pool.succeed(attempt=early)
    assert pool.state["a"].health.limited == before
    assert pool.lasts() == 59


def test_only_a_success_of_a_later_attempt_than_all_failures_clears(
    history: type[History],
) -> None:
    pool = history()
    limited, younger = pool.start(), pool.start()
    pool.fail(RATE, attempt=limited).succeed(attempt=younger)
    assert pool.lasts() == 60
    assert pool.succeed().lasts() == 0
    assert pool.state["a"].health.cooldowns == ()


def test_a_late_response_does_not_end_probation(history: type[History]) -> None:
    pool = history()
    attempts = pool.start(), pool.start(), pool.start()
    pool.fail(RATE, attempt=attempts[1]).after(60)
    for late in (attempts[0], attempts[2]):
        pool.respond(attempt=late)
        assert pool.state["a"].health.unproven


def test_a_response_of_a_last_resort_shortens_no_cooldown(history: type[History]) -> None:
    pool = history().fail(RATE).after(2)
    pool.respond()
    assert pool.lasts() == 58
    assert pool.state["a"].health.probed(pool.now)


def test_after_a_response_of_a_last_resort_there_is_no_probation(
    history: type[History],
) -> None:
    pool = history().fail(RATE).after(2)
    pool.respond()
    pool.after(58)
    assert not pool.state["a"].health.unproven
    assert not pool.state["a"].health.probed(pool.now)


def test_the_two_cooldowns_are_kept_apart(history: type[History]) -> None:
    pool = history()
    attempts = pool.start(), pool.start()
    pool.fail(RATE, attempt=attempts[0]).fail(TRANSIENT, attempt=attempts[1])
    health = pool.state["a"].health
    assert health.limited is not None
    assert health.broken is not None
    assert health.disabled_until == health.limited.until
    assert health.active_cooldown(pool.now) == health.limited
    pool.after(20)
    assert health.broken.until < pool.now < health.limited.until
    pool.respond()
    pool.after(40)
    pool.fail(TRANSIENT)
    assert pool.state["a"].health.limited != health.broken
    assert pool.lasts() == 15


def test_payment_and_quota_share_a_cooldown_but_payment_counts_as_failed(
    history: type[History],
) -> None:
    pool = history().fail(UNPAID)
    assert pool.state["a"].health.limited is not None
    assert pool.state["a"].health.broken is None
    assert (pool.state["a"].tally.failed, pool.state["a"].tally.rate_limited) == (1, 0)


def test_without_a_failure_nothing_is_disabled(history: type[History]) -> None:
    health = history().state["a"].health
    assert health.disabled_until is None
    assert health.active_cooldown(history().now) is None


@pytest.mark.parametrize(
    ("alias", "still"), [(None, []), ("a", ["b"]), ("stranger", ["a", "b"])]
)
def test_a_reset_enables(
    history: type[History], alias: str | None, still: list[str]
) -> None:
    pool = history("a", "b").fail(QUOTA, "a").fail(Fault.AUTH, "b")
    running = pool.start("a")
    pool.record(Reset(alias))
    assert [c.endpoint.alias for c in pool.state.candidates if c.health.cooldowns] == still
    assert pool.state["a"].health.under_way == (running,)


def test_a_failure_after_a_reset_counts_as_the_first(history: type[History]) -> None:
    pool = history().fail(Fault.AUTH).after(15).fail(Fault.AUTH).record(Reset())
    assert pool.fail(Fault.AUTH).lasts() == 15


def test_a_clock_set_back_ends_a_cooldown(history: type[History]) -> None:
    pool = history().fail(RATE)
    assert pool.after(-1).lasts() == 0
    assert pool.state["a"].health.unproven


def test_a_clock_set_back_does_not_lengthen_a_cooldown(history: type[History]) -> None:
    pool = history().fail(RATE).after(-HOUR).fail(RATE)
    assert pool.lasts() == 60


@pytest.mark.parametrize("kind", list(Refusal))
def test_a_rejected_request_changes_no_availability(
    history: type[History], kind: Refusal
) -> None:
    pool = history("a", "b").fail(RATE, "b")
    before = pool.state
    attempt = pool.start()
    pool.record(Rejected("a", attempt, kind))
    assert [c.health for c in pool.state.candidates] == [
        c.health for c in before.candidates
    ]
    assert pool.state["a"].tally.rejected == 1


def test_a_caller_that_leaves_changes_no_availability(history: type[History]) -> None:
    pool = history()
    health = pool.state["a"].health
    pool.cancel("a", pool.start())
    assert pool.state["a"].health == health
    assert pool.state["a"].tally.cancelled == 1


def ends(attempt: int, alias: str = "a") -> list[Outcome]:
    return [
        Succeeded(alias, attempt),
        RateLimited(alias, attempt),
        Failed(alias, attempt),
        Rejected(alias, attempt),
        Cancelled(alias, attempt),
        Responding(alias, attempt),
    ]


@pytest.mark.parametrize("second", ends(1))
def test_an_attempt_ends_once(history: type[History], second: Outcome) -> None:
    pool = history().succeed()
    before = pool.state
    assert pool.record(second).state is before


@pytest.mark.parametrize("outcome", [Started("x"), *ends(1, "x"), *ends(7)])
def test_an_outcome_of_an_unknown_endpoint_changes_nothing(
    history: type[History], outcome: Outcome
) -> None:
    pool = history()
    pool.start()
    before = pool.state
    assert pool.record(outcome).state is before


def test_attempts_are_numbered_and_the_modes_memory_is_kept(history: type[History]) -> None:
    pool = history("a", "b")
    assert [pool.start("a"), pool.start("b"), pool.start("a", {"turns": 3})] == [1, 2, 3]
    assert pool.state["a"].health.under_way == (1, 3)
    assert pool.state["a"].health.in_flight == 2
    assert pool.state.memory == {"turns": 3}
    assert pool.succeed("a", 1).state["a"].health.under_way == (3,)
    assert pool.state.last_used == "a"


def test_tokens_are_added_up(history: type[History]) -> None:
    pool = history()
    for _ in range(2):
        pool.record(Succeeded("a", pool.start(), 1000, 900, 50))
    tally = pool.state["a"].tally
    assert (tally.tokens_in, tally.tokens_cached, tally.tokens_out) == (2000, 1800, 100)


def test_the_time_to_first_content_is_a_moving_average(history: type[History]) -> None:
    pool = history()
    pool.record(Responding("a", pool.start(), timedelta(milliseconds=800)))
    assert pool.state["a"].tally.first_content == timedelta(milliseconds=800)
    pool.after(5).record(Succeeded("a", pool.start(), after=timedelta(milliseconds=1600)))
    assert pool.state["a"].tally.first_content == timedelta(milliseconds=900)
    assert pool.state["a"].tally.first_content_at == pool.now
    assert pool.state["a"].tally.latest_first_content == timedelta(milliseconds=1600)


def test_pins_follow_the_conversation_and_the_oldest_goes(
    history: type[History], noon: datetime
) -> None:
    pool = history("a", "b").succeed("a", conversation="first")
    for number in range(MOST_PINS - 1):
        pool.succeed("b", conversation=f"number {number}")
    assert MOST_PINS == len(pool.state.pins) == 256
    pool.after(1).succeed("b", conversation="first")
    assert len(pool.state.pins) == 256
    assert pool.state.pins[-1] == Pin("first", "b", noon + timedelta(seconds=1))
    pool.succeed("a", conversation="one more").succeed("b", conversation="one more")
    assert len(pool.state.pins) == 256
    assert "number 0" not in {pin.conversation for pin in pool.state.pins}
    assert [pin.conversation for pin in pool.state.pins[-2:]] == ["first", "one more"]


def test_a_pin_has_the_number_of_tokens_that_may_be_cached(
    history: type[History], noon: datetime
) -> None:
    pool = history()
    pool.record(Succeeded("a", pool.start(), 1000, 900, 50, conversation="one"))
    assert pool.state.pins == (Pin("one", "a", noon, 1050),)


def test_a_success_without_a_conversation_sets_no_pin(history: type[History]) -> None:
    assert history().succeed().state.pins == ()


@pytest.mark.parametrize("kind", [*Limit, *Fault])
def test_without_the_multiplexer_nothing_is_disabled(
    history: type[History], kind: Limit | Fault
) -> None:
    pool = history(policy=Policy(direct=True)).fail(kind)
    assert pool.state["a"].health.cooldowns == ()
    assert pool.state["a"].tally.ended == 1
