"""Spans are read back by the SDK's own exporter in memory."""

from __future__ import annotations

import pytest
import vibe_mux_observer_opentelemetry as plugin
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from muxcore import Multiplexer
from muxcore.standin import Model, StandInServer, rate_limited

PROMPT = [{"role": "user", "content": "canary-prompt"}]


def config(url: str) -> dict[str, object]:
    names = ("large", "small")
    return {
        "providers": [
            {"name": "lab", "api_base": url, "backend": "generic", "api_key_env_var": "KEY"}
        ],
        "models": [
            {"name": f"{name}-model", "provider": "lab", "alias": name} for name in names
        ],
        "multiplexer": {
            "enabled": True,
            "mode": "failover",
            "pool": [{"model": name} for name in names],
        },
    }


def test_a_call_is_a_span_with_a_child_for_each_attempt() -> None:
    exporter = InMemorySpanExporter()
    large = Model("large-model", rate_limited())
    with StandInServer([large, Model("small-model")]) as server:
        made = config(server.url)
        with Multiplexer.from_config(made, env={"KEY": "canary-key"}) as multiplexer:
            observer = plugin.OpenTelemetry(SimpleSpanProcessor(exporter))
            multiplexer.observe("opentelemetry", observer)
            reply = multiplexer.complete(PROMPT)
    failed, answered, call = exporter.get_finished_spans()
    assert (failed.name, answered.name, call.name) == (
        "chat large",
        "chat small",
        "vibe-mux call",
    )
    assert call.context is not None
    assert call.attributes is not None
    assert call.attributes[plugin.CALL_ID] == reply.call_id
    assert call.attributes[plugin.RESULT] == "served"
    for attempt in (failed, answered):
        assert attempt.parent is not None
        assert attempt.parent.span_id == call.context.span_id
        assert call.start_time <= attempt.start_time <= attempt.end_time <= call.end_time
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes is not None
    assert failed.attributes[plugin.ERROR] == "rate limited"
    assert answered.attributes is not None
    assert answered.attributes[plugin.PROVIDER] == "lab"
    assert answered.attributes[plugin.REQUESTED_MODEL] == "small-model"
    assert answered.attributes[plugin.TOKENS_OUT] == reply.usage.completion_tokens
    assert "canary" not in "".join(span.to_json() for span in (failed, answered, call))


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({}, 0),
        ({"OTEL_TRACES_EXPORTER": "console"}, 1),
        ({"OTEL_TRACES_EXPORTER": "none"}, 0),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}, 0),
        ({"OTEL_SERVICE_NAME": "x"}, 0),
    ],
)
def test_only_its_variables_switch_it_on(variables: dict[str, str], asked: int) -> None:
    processors = plugin.asked_for(variables)
    assert len(processors) == asked
    for processor in processors:
        assert isinstance(processor.span_exporter, ConsoleSpanExporter)
        processor.shutdown()
