"""The records: their defaults, their repr, and the end of a cooldown."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from attrs import asdict, evolve

from muxcore.core.allowance import CachedPrompt, Demand, Headroom
from muxcore.core.outcomes import Fault, Limit, PickReason
from muxcore.core.protocol import Slot
from muxcore.core.records import (
    LARGE_GROWTH,
    Call,
    Candidate,
    Cooldown,
    Endpoint,
    Health,
    Picked,
    Pin,
    Tally,
    Wire,
)

if TYPE_CHECKING:
    from tests.core.conftest import History

DAY = timedelta(days=1)


def test_the_default_wire_is_plain_openai() -> None:
    """Authors of backends and their tests rely on these."""
    assert asdict(Wire()) == {
        "api_base": "",
        "key_variable": "",
        "extra_headers": (),
        "reasoning_field_name": "reasoning_content",
        "emits_finish_reason": True,
        "temperature": None,
        "top_p": None,
        "thinking": "off",
        "max_output_tokens": None,
        "supports_images": False,
        "capabilities": (),
    }


def test_the_default_endpoint_is_a_primary_without_limits_or_prices() -> None:
    assert asdict(Endpoint("a"), recurse=False) == {
        "alias": "a",
        "model": "",
        "provider": "",
        "weight": 1,
        "max_concurrent": None,
        "is_fallback": False,
        "context_window": None,
        "input_price": 0.0,
        "output_price": 0.0,
        "cached_input_price": None,
        "dialect": "generic",
        "wire": Wire(),
    }


def test_headers_of_the_config_are_not_shown() -> None:
    """They may hold a secret (rule 9), and records end up in messages and logs."""
    wire = Wire("https://models.example/v1", extra_headers=(("X-Token", "secret"),))
    assert "models.example" in repr(Endpoint("a", wire=wire))
    assert "secret" not in repr(Endpoint("a", wire=wire))


def test_the_modes_memory_is_not_shown() -> None:
    """It belongs to the mode and may be long."""
    turns = {"turns": list(range(1000))}
    picked = Picked(Endpoint("a"), PickReason.MODE, turns, Demand(5))
    assert "turns" not in repr(picked)
    assert "Demand" not in repr(picked)


def test_a_slot_is_its_attempt_whatever_the_mode_remembers() -> None:
    slot = Slot(Endpoint("a"), 7, PickReason.MODE, {"turns": 1}, Demand(5))
    assert slot == Slot(Endpoint("a"), 7, PickReason.MODE)
    assert "turns" not in repr(slot)
    assert "Demand" not in repr(slot)


def test_every_end_of_an_attempt_counts() -> None:
    tally = Tally(succeeded=1, rate_limited=2, failed=4, rejected=8, cancelled=16)
    assert tally.ended == 31


def test_an_answer_without_a_time_leaves_the_average(noon: datetime) -> None:
    assert Tally().first_contents(None, noon) == (None, None, None)
    times = Tally().first_contents(DAY, noon)
    assert times == (DAY, noon, DAY)


ROOM = Headroom(())
GROWN = 1_000 + LARGE_GROWTH


@pytest.mark.parametrize(
    ("prompt", "pin", "tally", "demand"),
    [
        (None, None, Tally(), Demand()),
        (1_000, None, Tally(), Demand(1_250, 1_250)),
        # An answer is expected to be as long as the average one.
        (None, None, Tally(succeeded=3, tokens_out=90), Demand(answer=30)),
        (None, None, Tally(failed=3), Demand()),
        # What the last call of the conversation had is cached where it was served.
        (None, ("a", 1_000), Tally(), Demand(GROWN, LARGE_GROWTH)),
        (None, ("b", 1_000), Tally(), Demand(GROWN, GROWN)),
        (10 * GROWN, ("a", 1_000), Tally(), Demand(10 * GROWN, 10 * GROWN - 1_000)),
        (1_000, ("a", 0), Tally(), Demand(1_250, 1_250)),
    ],
)
def test_what_a_call_is_expected_to_take(
    noon: datetime,
    prompt: int | None,
    pin: tuple[str, int] | None,
    tally: Tally,
    demand: Demand,
) -> None:
    call = Call(prompt_tokens=prompt)
    if pin is not None:
        call = evolve(call, pin=Pin("c", pin[0], noon, pin[1]))
    candidate = Candidate(Endpoint("a"), tally=tally, headroom=ROOM)
    assert candidate.demand(call, noon) == demand
    without = evolve(candidate, headroom=None)
    assert (without.demand(call, noon), without.has_room_at(call, noon)) == (None, noon)


@pytest.mark.parametrize(
    ("conversation", "tokens", "after", "cached"),
    [
        ("c", 800, 0, 800),
        ("c", 1_000, 299, 1_000),
        ("c", 800, 300, 0),  # the cache is cold
        ("c", 800, -1, 0),  # the clock was set back
        ("c", 1_001, 0, 0),  # compacted since
        ("other", 800, 0, 0),
    ],
)
def test_a_prompt_may_be_cached_where_an_earlier_call_of_its_conversation_was_served(
    noon: datetime, conversation: str, tokens: int, after: int, cached: int
) -> None:
    room = evolve(ROOM, prompts=(CachedPrompt(conversation, tokens, noon),))
    later = noon + timedelta(seconds=after)
    call = Call(conversation="c", pin=Pin("c", "b", later, 1_000))
    demand = Candidate(Endpoint("a"), headroom=room).demand(call, later)
    assert demand == Demand(GROWN, GROWN - cached)


# -- Cooldowns ------------------------------------------------------------------------------


def cooldown(cause: Limit | Fault, failures: int, since: datetime) -> Cooldown:
    return Cooldown(since, since + DAY, cause, newest=1, failures=failures, failed_at=since)


@pytest.mark.parametrize(
    ("cause", "failures", "seconds"),
    [
        (Limit.RATE, 1, 2),
        (Limit.RATE, 2, 4),
        (Limit.RATE, 12, 2**12),
        (Limit.RATE, 13, 2**13),
        # From here on the pause does not grow.
        (Limit.RATE, 14, 2**13),
        (Limit.RATE, 1_000_000, 2**13),
        (Fault.TRANSIENT, 9, 4),
        (Fault.TRANSIENT, 10, 12),
        (Fault.TRANSIENT, 1_000_000, 12),
    ],
)
def test_the_pause_before_a_last_resort_stops_growing(
    noon: datetime, cause: Limit | Fault, failures: int, seconds: int
) -> None:
    opens_at = cooldown(cause, failures, noon).opens_at
    assert opens_at == noon + timedelta(seconds=seconds)


def test_a_new_cooldown_is_unproven_and_unknown_to_others(noon: datetime) -> None:
    fresh = cooldown(Limit.RATE, 1, noon)
    assert (fresh.hint, fresh.proven, fresh.fact, fresh.unnumbered) == (None, False, 0, 0)


def test_a_probe_is_an_attempt_that_began_after_the_failure(
    history: type[History],
) -> None:
    """Rule 3: an attempt under way at the failure is no probe."""
    pool = history("a")
    first, second = pool.start(), pool.start()
    pool.fail(Limit.RATE, attempt=first).after(60)
    assert pool.state["a"].health.under_way == (second,)
    assert pool.state["a"].health.probed(pool.now) is False
    pool.start()
    assert pool.state["a"].health.probed(pool.now) is True


def test_without_an_attempt_under_way_there_is_no_probe(noon: datetime) -> None:
    health = Health(broken=cooldown(Fault.AUTH, 1, noon))
    assert health.probed(noon) is False
