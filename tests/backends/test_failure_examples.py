"""Every example of facts/failure_examples.json gets its class and its cooldown."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from muxcore.core.folding.cooldowns import cooldown_length
from muxcore.core.outcomes import Failed, Fault, Kind, Limit, RateLimited, Refusal
from muxcore.core.records import Endpoint, Policy
from muxcore.plugins.backend import BadReplyError, Failure, HttpResponse
from muxcore_backends.generic import Generic

NOW = datetime(2026, 11, 24, tzinfo=UTC)
EXAMPLES = json.loads((Path(__file__).parent / "failure_examples.json").read_text("utf-8"))
CLASSES: dict[str, frozenset[Kind]] = {
    "rate_limited": frozenset(Limit),
    "transient": frozenset({Fault.TRANSIENT}),
    "persistent": frozenset({Fault.PERSISTENT, Fault.NOT_FOUND, Fault.UNPAID}),
    "auth": frozenset({Fault.AUTH}),
    "request_fault": frozenset(Refusal),
}
RATE, ERROR, QUOTA = timedelta(seconds=60), timedelta(seconds=15), timedelta(minutes=15)
COOLDOWNS = {
    "rate_limit": RATE,
    "persistent": ERROR,
    "persistent,escalating": ERROR,
    "quota": QUOTA,
    "max(rate_limit,hint 578s)": timedelta(seconds=578),
    "max(rate_limit,hint)": RATE,
    "max(rate_limit,hint 1.5s)": RATE,
    "hint": timedelta(seconds=3),
}


def failure_of(example: dict[str, Any]) -> Failure:
    body = example["body"]
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    answer = HttpResponse(example["status"], example["headers"], raw)
    if answer.status != 200:
        return Generic().failure(answer, NOW)
    with pytest.raises(BadReplyError) as caught:
        Generic().reply(Endpoint("a"), answer)
    assert caught.value.failure is not None
    return caught.value.failure


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["id"])
def test_each_recorded_failure_is_classified(example: dict[str, Any]) -> None:
    failure = failure_of(example)
    assert failure.kind in CLASSES[example["want_class"]]
    assert failure.message
    match failure.kind:
        case Refusal():
            assert example["want_cooldown"] == "none"
            return
        case Limit():
            outcome: RateLimited | Failed = RateLimited("a", 1, failure.kind, failure.hint)
        case Fault():
            outcome = Failed("a", 1, failure.kind, failure.hint)
    assert cooldown_length(Policy(), outcome, 1) == COOLDOWNS[example["want_cooldown"]]
    if example["want_cooldown"].endswith("escalating"):
        assert cooldown_length(Policy(), outcome, 2) == 2 * ERROR


def test_windows_are_learnt_from_the_examples() -> None:
    windows = {
        example["id"]: failure.window
        for example in EXAMPLES
        if (failure := failure_of(example)).window
    }
    assert windows == {
        "openai-429-request-too-large-for-tpm": 30_000,
        "vllm-400-flat": 32_768,
        "llamacpp-400-context": 4_096,
    }
