"""What /mux shows (DESIGN.md §7)."""

from __future__ import annotations

import json
from datetime import timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from muxcore.core.allowance import Allowance, AllowanceKind, Demand
from muxcore.core.outcomes import (
    Cancelled,
    Fault,
    Limit,
    Rejected,
    Responding,
    Started,
    Succeeded,
)
from muxcore.core.records import Endpoint, Policy
from muxcore.core.status import status_of

if TYPE_CHECKING:
    from tests.core.conftest import History

LARGE = Endpoint("devstral-2", input_price=0.4, output_price=2.0, cached_input_price=0.0)
SMALL = Endpoint("devstral-small", is_fallback=True)


def sample(history: type[History]) -> History:
    """Return the pool whose text is in DESIGN.md."""
    pool = history(LARGE, SMALL, policy=Policy(timedelta(seconds=200)))
    for number in range(45):
        tokens = (1_200_000, 1_092_000, 34_000) if number == 0 else (0, 0, 0)
        pool.record(Succeeded("devstral-2", pool.start("devstral-2"), *tokens))
    attempts = pool.start("devstral-2"), pool.start("devstral-2")
    for attempt in attempts:
        pool.fail(Limit.RATE, "devstral-2", attempt)
    for _ in range(5):
        pool.succeed("devstral-small")
    return pool


def test_the_status_is_shown_as_this_text(history: type[History]) -> None:
    pool = sample(history)
    status = status_of(pool.state, "failover", pool.now, zone=timezone(timedelta(hours=2)))
    assert str(status) == (
        """## Multiplexer Status

**Mode:** failover
**Pool:** 1/2 models available

### Per-Model Statistics

**devstral-2**: 🔴 disabled until 14:03:20 (rate limited)
  - Success: 45 | Rate limited: 2 | Failed: 0 | Success rate: 96%
  - Tokens: 1.2M in (91% cached), 34k out | Cost: $0.11

**devstral-small**: 🟢 active
  - Success: 5 | Rate limited: 0 | Failed: 0 | Success rate: 100%
"""
    )


def test_the_status_shows_what_is_left_of_announced_limits(history: type[History]) -> None:
    """§13. Times are local; what calls under way are expected to take is off."""
    pool = history("a", "b")
    minute = pool.now + timedelta(seconds=60)
    announced = (
        Allowance(AllowanceKind.REQUESTS, 3, 50, minute),
        Allowance(AllowanceKind.TOKENS, 30_000, 450_000, minute),
        Allowance(AllowanceKind.OUTPUT_TOKENS, 7),
    )
    pool.record(Succeeded("a", pool.start(), allowances=announced))
    pool.record(Started("a", demand=Demand(12_000)))
    status = status_of(pool.state, "failover", pool.now, zone=timezone(timedelta(hours=2)))
    assert (
        "  - Left: 2 of 50 requests (full at 14:01:00), 18k of 450k tokens (full at"
        " 14:01:00), 7 output tokens (full at 14:01:00)\n"
    ) in str(status)
    assert status.to_json()["per_model"]["a"]["limits"][0] == {
        "kind": "requests",
        "left": 2,
        "limit": 50,
        "full_at": "2026-03-01T12:01:00+00:00",
    }
    pool.after(60 * 15)
    assert "Left" not in str(status_of(pool.state, "failover", pool.now))


def test_the_status_is_shown_as_this_json(history: type[History]) -> None:
    pool = sample(history)
    shown = status_of(pool.state, "failover", pool.now, notices=("late",)).to_json()
    assert json.loads(json.dumps(shown)) == shown
    assert shown == {
        "enabled": True,
        "mode": "failover",
        "models_in_pool": 2,
        "models_available": 1,
        "models_disabled": 1,
        "last_used_model": "devstral-small",
        "notices": ["late"],
        "per_model": {
            "devstral-2": {
                "success_count": 45,
                "rate_limit_count": 2,
                "fail_count": 0,
                "rejected_count": 0,
                "refuted_count": 0,
                "cancelled_count": 0,
                "total_requests": 47,
                "success_rate": 45 / 47,
                "is_fallback": False,
                "is_disabled": True,
                "disabled_until": "2026-03-01T12:03:20+00:00",
                "disabled_for": "rate limited",
                "on_probation": False,
                "in_flight": 0,
                "tokens_in": 1_200_000,
                "tokens_cached": 1_092_000,
                "tokens_out": 34_000,
                "cost": pytest.approx(0.1112),
                "limits": [],
                "first_content_ms": None,
            },
            "devstral-small": {
                "success_count": 5,
                "rate_limit_count": 0,
                "fail_count": 0,
                "rejected_count": 0,
                "refuted_count": 0,
                "cancelled_count": 0,
                "total_requests": 5,
                "success_rate": 1.0,
                "is_fallback": True,
                "is_disabled": False,
                "disabled_until": None,
                "disabled_for": "",
                "on_probation": False,
                "in_flight": 0,
                "tokens_in": 0,
                "tokens_cached": 0,
                "tokens_out": 0,
                "cost": 0.0,
                "limits": [],
                "first_content_ms": None,
            },
        },
    }


def test_an_unused_pool_has_a_status(history: type[History]) -> None:
    pool = history("a")
    status = status_of(pool.state, "single", pool.now, enabled=False)
    assert "Failed: 0\n" in str(status)
    assert status.to_json()["per_model"]["a"]["success_rate"] == 0.0
    assert status.to_json()["enabled"] is False
    assert status.to_json()["last_used_model"] is None


def test_rejected_and_cancelled_attempts_do_not_count_in_the_success_rate(
    history: type[History],
) -> None:
    pool = history("a").succeed()
    pool.record(Rejected("a", pool.start())).record(Cancelled("a", pool.start()))
    pool.start()
    (model,) = status_of(pool.state, "single", pool.now).models
    assert (model.total_requests, model.success_rate, model.in_flight) == (1, 1.0, 1)
    assert (model.rejected_count, model.cancelled_count) == (1, 1)


def test_failures_and_limits_count_in_the_success_rate(history: type[History]) -> None:
    pool = history("a").succeed().succeed().succeed()
    pool.fail(Limit.RATE).fail(Fault.TRANSIENT).fail(Fault.AUTH)
    (model,) = status_of(pool.state, "single", pool.now).models
    assert (model.success_count, model.rate_limit_count, model.fail_count) == (3, 1, 2)
    assert (model.total_requests, model.success_rate) == (6, 0.5)


def test_a_model_that_is_not_disabled_is_available(history: type[History]) -> None:
    pool = history("a", "b", "c", "d").fail(Limit.RATE, "b").fail(Fault.AUTH, "c")
    # After its time it is on probation, and may be used.
    status = status_of(pool.after(15).state, "failover", pool.now)
    assert "**Pool:** 3/4 models available\n" in str(status)
    assert (status.to_json()["models_available"], status.to_json()["models_disabled"]) == (
        3,
        1,
    )


@pytest.mark.parametrize(
    ("kind", "standing"),
    [
        (Limit.RATE, "🔴 disabled until 12:01:00 (rate limited)"),
        (Limit.QUOTA, "🔴 disabled until 12:15:00 (quota spent)"),
        (Limit.BUDGET, "🔴 disabled until 12:01:00 (budget in use)"),
        (Fault.TRANSIENT, "🔴 disabled until 12:00:15 (error)"),
        (Fault.PERSISTENT, "🔴 disabled until 12:00:15 (persistent error)"),
        (Fault.AUTH, "🔴 disabled until 12:00:15 (key refused)"),
        (Fault.NOT_FOUND, "🔴 disabled until 12:00:15 (model not found)"),
        (Fault.UNPAID, "🔴 disabled until 12:15:00 (payment required)"),
    ],
)
def test_the_status_shows_why_a_model_is_disabled(
    history: type[History], kind: Limit | Fault, standing: str
) -> None:
    pool = history("a").fail(kind)
    zone = timezone(timedelta())
    assert f"**a**: {standing}\n" in str(status_of(pool.state, "m", pool.now, zone=zone))
    pool.after(pool.lasts())
    assert "**a**: 🟡 on probation\n" in str(status_of(pool.state, "m", pool.now))
    pool.succeed()
    assert "**a**: 🟢 active\n" in str(status_of(pool.state, "m", pool.now))


def test_the_cooldown_that_ends_last_is_shown(history: type[History]) -> None:
    pool = history("a")
    attempts = pool.start(), pool.start()
    pool.fail(Fault.AUTH, attempt=attempts[0]).fail(Limit.RATE, attempt=attempts[1])
    (model,) = status_of(pool.state, "m", pool.now).models
    assert model.cause == "rate limited"
    assert model.disabled_until == pool.now + timedelta(seconds=60)


@pytest.mark.parametrize(
    ("tokens", "shown"),
    [
        (1, "1"),
        (999, "999"),
        (1_000, "1k"),
        (1_240, "1.2k"),
        (9_960, "10k"),
        (10_000, "10k"),
        (10_400, "10k"),
        (10_600, "11k"),
        (34_499, "34k"),
        (999_499, "999k"),
        (999_500, "1M"),
        (1_200_000, "1.2M"),
        (12_345_678, "12M"),
    ],
)
def test_tokens_are_shown_in_thousands_and_millions(
    history: type[History], tokens: int, shown: str
) -> None:
    pool = history("a")
    pool.record(Succeeded("a", pool.start(), 0, 0, tokens))
    assert f"0 in (0% cached), {shown} out\n" in str(status_of(pool.state, "m", pool.now))


def test_costs_count_cached_tokens_at_their_own_price(history: type[History]) -> None:
    same = Endpoint("same", input_price=4.0, output_price=8.0)
    pool = history(
        evolve(same, alias="own", cached_input_price=1.0),
        same,
        "free",
    )
    for alias in ("own", "same", "free"):
        pool.record(Succeeded(alias, pool.start(alias), 1_000_000, 500_000, 500_000))
    costs = [model.cost for model in status_of(pool.state, "m", pool.now).models]
    assert costs == [6.5, 8.0, 0.0]
    text = str(status_of(pool.state, "m", pool.now))
    assert text.count("| Cost: $") == 2


@pytest.mark.parametrize(
    ("prices", "shown"),
    [((0.0, 0.0), ""), ((4.0, 0.0), " | Cost: $4.00"), ((0.0, 8.0), " | Cost: $8.00")],
)
def test_costs_are_shown_if_one_price_is_known(
    history: type[History], prices: tuple[float, float], shown: str
) -> None:
    pool = history(Endpoint("a", input_price=prices[0], output_price=prices[1]))
    pool.record(Succeeded("a", pool.start(), 1_000_000, 0, 1_000_000))
    line = f"  - Tokens: 1M in (0% cached), 1M out{shown}\n"
    assert line in str(status_of(pool.state, "m", pool.now))


def test_the_time_to_first_content_is_in_the_json(history: type[History]) -> None:
    pool = history("a")
    pool.record(Responding("a", pool.start(), timedelta(milliseconds=12.5)))
    (model,) = status_of(pool.state, "m", pool.now).to_json()["per_model"].values()
    assert model["first_content_ms"] == 12.5


def test_control_characters_from_outside_are_stripped(history: type[History]) -> None:
    pool = history("a\x1b[2J\u202eb\r\n")
    text = str(status_of(pool.state, "m\x07", pool.now, notices=("look\x9b here",)))
    assert "**ab**: 🟢 active\n" in text
    assert "**Mode:** m\n" in text
    assert "> look here\n\n### Per-Model" in text
    assert all(character.isprintable() or character == "\n" for character in text)


def test_times_are_local_without_a_zone(history: type[History]) -> None:
    pool = history("a").fail(Limit.RATE)
    local = (pool.now + timedelta(seconds=60)).astimezone()
    assert f"disabled until {local:%H:%M:%S}" in str(status_of(pool.state, "m", pool.now))
