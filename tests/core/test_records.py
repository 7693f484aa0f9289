"""The records: their defaults, their repr, and the end of a cooldown."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from attrs import asdict

from muxcore.core.allowance import Demand
from muxcore.core.outcomes import Fault, Limit
from muxcore.core.protocol import Slot
from muxcore.core.records import Cooldown, Endpoint, Health, Picked, PickReason, Wire

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


def test_headers_of_the_config_are_not_shown() -> None:
    """They may hold a secret (rule 9), and records end up in messages and logs."""
    wire = Wire("https://models.example/v1", extra_headers=(("X-Token", "secret"),))
    assert "models.example" in repr(Endpoint("a", wire=wire))
    assert "secret" not in repr(Endpoint("a", wire=wire))


def test_the_modes_memory_is_not_shown() -> None:
    """It belongs to the mode and may be long."""
    picked = Picked(Endpoint("a"), PickReason.MODE, {"turns": list(range(1000))})
    assert "turns" not in repr(picked)


def test_a_slot_is_its_attempt_whatever_the_mode_remembers() -> None:
    slot = Slot(Endpoint("a"), 7, PickReason.MODE, {"turns": 1}, Demand(5))
    assert slot == Slot(Endpoint("a"), 7, PickReason.MODE)
    assert "turns" not in repr(slot)
    assert "Demand" not in repr(slot)


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
