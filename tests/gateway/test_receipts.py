from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from muxcore.chat import AttemptReport, Usage
from muxcore.core.outcomes import Limit
from muxcore.core.records import Candidate, Cooldown, Endpoint, Health, PoolState
from muxcore.gateway.api.receipts import (
    MOST_LABELS,
    Ledger,
    Receipt,
    ServedCall,
    with_failed,
    with_served,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def state(until: float | None = None) -> PoolState:
    cooldown = None
    if until is not None:
        cooldown = Cooldown(at(0), at(until), Limit.RATE, 1, 1, at(0))
    own = Endpoint("own", input_price=2.0, output_price=10.0, cached_input_price=0.2)
    return PoolState(
        (Candidate(own, Health(limited=cooldown)), Candidate(Endpoint("other")))
    )


def served(
    alias: str, began: float, ended: float, *outcomes: str, **usage: int
) -> ServedCall:
    attempts = tuple(AttemptReport("own", outcome) for outcome in outcomes)
    last = AttemptReport(alias, "succeeded")
    return ServedCall(alias, (*attempts, last), Usage(**usage), at(began), at(ended))


def test_calls_tokens_and_cost_are_summed() -> None:
    tokens = {"prompt_tokens": 1000, "completion_tokens": 100, "cached_tokens": 500}
    receipt = Receipt()
    for alias in ("own", "own", "other", "gone"):
        receipt = with_served(receipt, served(alias, 0, 1, **tokens), state(), "own")
    assert receipt.calls == {"own": 2, "other": 1, "gone": 1}
    assert (receipt.tokens_in, receipt.tokens_cached, receipt.tokens_out) == (
        4000,
        2000,
        400,
    )
    assert receipt.cached_share == 0.5
    assert receipt.cost == pytest.approx(2 * (500 * 2 + 500 * 0.2 + 100 * 10) / 1e6)


def test_interruptions_avoided_are_the_failed_attempts_the_client_never_saw() -> None:
    call = served("other", 0, 1, "rate limited", "error", "cancelled")
    receipt = with_served(Receipt(), call, state(), "own")
    assert receipt.interruptions_avoided == 2


def test_waiting_saved_counts_each_moment_once() -> None:
    receipt = with_served(Receipt(), served("other", 10, 12), state(60), "own")
    assert receipt.waiting_saved == timedelta(seconds=50)
    receipt = with_served(receipt, served("other", 20, 25), state(60), "own")
    assert receipt.waiting_saved == timedelta(seconds=50)
    # The cooldown has become longer: only what was not yet counted is new.
    receipt = with_served(receipt, served("other", 30, 35), state(90), "own")
    assert receipt.waiting_saved == timedelta(seconds=80)
    receipt = with_served(receipt, served("other", 100, 101), state(90), "own")
    assert receipt.waiting_saved == timedelta(seconds=80)
    receipt = with_served(receipt, served("other", 200, 201), state(230), "own")
    assert receipt.waiting_saved == timedelta(seconds=110)


def test_no_waiting_is_saved_when_the_own_model_serves_or_is_available() -> None:
    receipt = with_served(Receipt(), served("own", 10, 12), state(60), "own")
    receipt = with_served(receipt, served("other", 10, 12), state(), "own")
    receipt = with_served(receipt, served("other", 10, 12), state(60), "gone")
    assert receipt.waiting_saved == timedelta()


def test_a_refusal_that_another_model_took_is_counted_for_the_refuser() -> None:
    attempts = (
        AttemptReport("a", "request refused", refuted_by="b"),
        AttemptReport("b", "succeeded"),
    )
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    call = ServedCall("b", attempts, Usage(), moment, moment)
    state = PoolState.of(Endpoint("a"), Endpoint("b"))
    receipt = with_served(with_served(Receipt(), call, state, "a"), call, state, "a")
    assert receipt.refuted == {"a": 2}


def test_a_receipt_as_json() -> None:
    receipt = Receipt(refuted={"mine": 1}, waiting_saved=timedelta(seconds=1.5))
    assert with_failed(receipt).to_json() == {
        "calls": {},
        "failed_calls": 1,
        "refuted": {"mine": 1},
        "interruptions_avoided": 0,
        "waiting_saved_ms": 1500,
        "tokens_in": 0,
        "tokens_cached": 0,
        "tokens_out": 0,
        "cached_share": 0.0,
        "cost": 0.0,
    }


def test_a_ledger_keeps_a_receipt_for_each_label_and_the_sum() -> None:
    ledger = Ledger()
    for label in ("a", "a", "b", ""):
        ledger.add(label, with_failed)
    assert ledger.receipt("a").failed == 2
    assert ledger.receipt("b").failed == 1
    assert ledger.receipt("c") == Receipt()
    assert ledger.receipt().failed == 4


def test_a_ledger_drops_the_least_recently_used_label() -> None:
    ledger = Ledger()
    for label in ("old", "used", *map(str, range(MOST_LABELS - 2)), "used", "new"):
        ledger.add(label, with_failed)
    assert ledger.receipt("old").failed == 0
    assert ledger.receipt("used").failed == 2
    assert ledger.receipt().failed == MOST_LABELS + 2
