from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from muxcore.chat import AttemptReport
from muxcore.core.outcomes import Fault, Limit
from muxcore.core.records import Candidate, Cooldown, Endpoint, Health, PoolState
from muxcore.core.status import Status, status_of
from muxcore.errors import (
    MultiplexerError,
    PoolExhaustedError,
    RequestRejectedError,
    StrategyError,
)
from muxcore.gateway.api.errors import error_response_of, unknown_model
from muxcore.gateway.front_doors.completions import error_body

NOW = datetime(2026, 1, 2, 14, 0, 0, tzinfo=UTC)


def status(**causes: Limit | Fault | None) -> Status:
    candidates = []
    for alias, cause in causes.items():
        cooldown = None
        if cause is not None:
            cooldown = Cooldown(NOW, NOW + timedelta(seconds=60), cause, 1, 1, NOW)
        candidates.append(Candidate(Endpoint(alias), Health(limited=cooldown)))
    return status_of(PoolState(tuple(candidates)), "failover", NOW, zone=UTC)


def exhausted(*outcomes: str, retry_in: float | None = None) -> PoolExhaustedError:
    attempts = [AttemptReport("a", outcome) for outcome in outcomes]
    retry_at = None if retry_in is None else NOW + timedelta(seconds=retry_in)
    return PoolExhaustedError("no model could serve the call", attempts, retry_at)


@pytest.mark.parametrize(
    ("outcomes", "causes", "only", "expected"),
    [
        (("rate limited",), {}, None, 429),
        (("quota spent", "error"), {}, None, 429),
        (("budget in use",), {}, None, 429),
        (("error", "key refused"), {}, None, 503),
        ((), {}, None, 503),
        ((), {"a": Limit.RATE, "b": None}, None, 429),
        ((), {"a": Fault.TRANSIENT, "b": None}, None, 503),
        ((), {"a": Limit.RATE, "b": Fault.AUTH}, "b", 503),
        ((), {"a": Limit.RATE, "b": Fault.AUTH}, "a", 429),
    ],
)
def test_an_exhausted_pool_is_a_429_if_any_model_is_limited_else_a_503(
    outcomes: tuple[str, ...],
    causes: dict[str, Limit | Fault | None],
    only: str | None,
    expected: int,
) -> None:
    refusal = error_response_of(exhausted(*outcomes), status(**causes), NOW, only)
    assert refusal.status == expected
    kind = {429: "rate_limit_error", 503: "server_error"}
    assert error_body(refusal)["error"]["type"] == kind[expected]


@pytest.mark.parametrize(
    ("seconds", "header"),
    [(None, None), (0.2, "1"), (7.0, "7"), (7.001, "8"), (0.0, "1"), (-5.0, "1")],
)
def test_retry_after_is_whole_seconds_and_never_too_early(
    seconds: float | None, header: str | None
) -> None:
    error = exhausted("rate limited", retry_in=seconds)
    assert error_response_of(error, status(), NOW).fields.get("Retry-After") == header


@pytest.mark.parametrize(("seconds", "retries"), [(60, None), (61, "false")])
def test_clients_that_would_not_wait_as_long_are_told_not_to_ask_again(
    seconds: float, retries: str | None
) -> None:
    """Past a minute the official ones ask again at once, several times."""
    fields = error_response_of(exhausted(retry_in=seconds), status(), NOW).fields
    assert fields.get("X-Should-Retry") == retries


def test_the_message_begins_with_the_limited_models() -> None:
    message = error_response_of(
        exhausted(), status(devstral=Limit.RATE, ok=None), NOW
    ).message
    assert message == "devstral: rate limited until 14:01:00; no model could serve the call"


@pytest.mark.parametrize(
    ("given", "expected"),
    [(400, 400), (413, 413), (422, 422), (None, 400), (403, 400), (429, 400), (500, 400)],
)
def test_a_rejected_request_keeps_a_status_that_blames_the_request(
    given: int | None, expected: int
) -> None:
    error = RequestRejectedError("no", [AttemptReport("a", "request refused")], given)
    refusal = error_response_of(error, status(), NOW)
    assert (refusal.status, refusal.code) == (expected, None)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ("prompt too long", "context_length_exceeded"),
        ("content filtered", "content_filter"),
    ],
)
def test_known_rejections_have_openais_code(outcome: str, code: str) -> None:
    error = RequestRejectedError("no", [AttemptReport("a", outcome)], 500)
    assert error_response_of(error, status(), NOW).code == code


def test_errors_of_the_server() -> None:
    assert error_response_of(RequestRejectedError("no"), status(), NOW).status == 400
    assert error_response_of(StrategyError("odd"), status(), NOW).status == 500
    assert error_response_of(MultiplexerError("closed"), status(), NOW).status == 503


def test_an_unknown_model_is_a_404_that_lists_the_known_ones() -> None:
    refusal = unknown_model("gpt\x1b", ["mux", "a"])
    assert refusal.status == 404
    assert error_body(refusal) == {
        "error": {
            "message": "There is no model 'gpt' here; known are mux, a.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }
