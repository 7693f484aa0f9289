"""`/metrics`, read by Prometheus' own parser."""

from __future__ import annotations

from collections.abc import Callable

import requests
from prometheus_client.parser import text_string_to_metric_families as parsed

from muxcore.core.outcomes import Cancelled
from muxcore.core.records import PoolState
from muxcore.observers.metrics import Metrics
from muxcore.shell import clock
from muxcore.standin import rate_limited
from tests.gateway.conftest import Served
from tests.waiting import wait_until


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return each sample by its name and the values of its labels, in the order of their names."""
    return {
        (one.name, *(one.labels[name] for name in sorted(one.labels))): one.value
        for family in parsed(text)
        for one in family.samples
    }


def metrics(served: Served) -> str:
    answer = served.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return answer.text


def test_calls_attempts_tokens_and_times_are_counted(
    serve: Callable[..., Served],
) -> None:
    served = serve()
    served.large.then(rate_limited())
    for _ in range(3):
        served.ask(model="mux", messages=[{"role": "user", "content": "canary"}])
    wait_until(
        lambda: samples(metrics(served)).get(("vibe_mux_calls_total", "served")) == 3
    )
    text = metrics(served)
    found = samples(text)
    assert found["vibe_mux_attempts_total", "large", "rate"] == 1
    assert found["vibe_mux_attempts_total", "small", "answered"] == 3
    assert found["vibe_mux_call_duration_seconds_count",] == 3
    assert found["vibe_mux_call_duration_seconds_bucket", "+Inf"] == 3
    assert found["vibe_mux_first_content_seconds_count", "small"] == 3
    assert found["vibe_mux_tokens_total", "input", "small"] > 0
    assert found["vibe_mux_in_flight", "small"] == 0
    assert 0 < found["vibe_mux_disabled_seconds", "large"] <= 60
    assert "canary" not in text
    assert served.gateway.token not in text


def test_it_needs_the_token(serve: Callable[..., Served]) -> None:
    served = serve()
    address = f"{served.gateway.url}/metrics"
    assert requests.get(address, timeout=10).status_code == 401


def test_every_family_has_its_type_and_a_name_by_the_conventions() -> None:
    for family in parsed(Metrics().text(PoolState.of(), clock.now())):
        assert family.name.startswith("vibe_mux_")
        assert family.documentation.endswith(".")
        assert family.type in {"counter", "gauge", "histogram"}
        assert family.type != "gauge" or not family.name.endswith("_total")


def test_labels_are_written_as_the_form_demands() -> None:
    metrics, now = Metrics(), clock.now()

    odd = 'a"b\\c\nd'
    metrics.observe(now, Cancelled(odd, 1), PoolState.of(), PoolState.of())
    found = samples(metrics.text(PoolState.of(), now))
    assert found["vibe_mux_attempts_total", odd, "cancelled"] == 1
