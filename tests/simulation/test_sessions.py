"""A slice of the sessions; `python -m muxcore.testing.simulate --sessions 1000` runs all."""

from __future__ import annotations

import pytest

from muxcore.core.outcomes import Fault, Limit
from muxcore.testing.simulation.reports import describe_sessions, describe_storms, is_kept
from muxcore.testing.simulation.sessions import (
    Retries,
    Storm,
    bare,
    pooled,
    script_of,
    session_results,
    storm,
)
from muxcore.testing.simulation.worlds import SECOND


def test_sessions_finish_through_the_pool_in_time() -> None:
    results = session_results(range(25))
    assert is_kept(results), describe_sessions(results)
    # Otherwise the sessions would prove nothing.
    assert any(one.finished is None for result in results for one in result.bare)


@pytest.mark.unmeasured
def test_sessions_finish_although_models_refuse_what_others_take() -> None:
    """Rules 6 and 11: no single model could finish them all."""
    results = session_results(range(25), refusals=True)
    assert all(result.pool.finished is not None for result in results)
    assert any(result.best is None for result in results)


def test_bare_vibe_repeats_a_failed_call_about_18_times_in_five_minutes() -> None:
    script = script_of(0)
    retries, now, requests = Retries(script, 0, 0), 0, 1
    while (again := retries.next(now, None)) is not None:
        assert now < again <= now + 30 * SECOND
        now, requests = again, requests + 1
    assert 16 <= requests <= 20
    assert now <= 300 * SECOND


def test_vibe_gives_up_at_once_if_retry_after_is_longer_than_its_budget() -> None:
    assert Retries(script_of(0), 0, 0).next(0, 301) is None
    assert Retries(script_of(0), 0, 0).next(0, 7) == 7 * SECOND


def test_a_session_is_the_same_every_time() -> None:
    script = script_of(3)
    assert pooled(script) == pooled(script)
    assert bare(script, script.models[0]) == bare(script, script.models[0])


@pytest.mark.unmeasured
@pytest.mark.parametrize("callers", [1, 8])
@pytest.mark.parametrize("models", [1, 3])
@pytest.mark.parametrize(
    ("kind", "hint"),
    [(Fault.TRANSIENT, None), (Limit.RATE, None), (Limit.RATE, 5 * SECOND)],
)
def test_no_provider_sees_more_than_twice_what_bare_vibe_would_send(
    callers: int, models: int, kind: Fault | Limit, hint: int | None
) -> None:
    result: Storm = storm(callers, models, kind, hint)
    assert result.is_within, describe_storms([result])
    # A first attempt is never denied.
    assert min(result.each) >= 1
