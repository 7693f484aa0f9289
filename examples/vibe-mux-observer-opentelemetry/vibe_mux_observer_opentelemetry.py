"""An observer of vibe-mux which makes OpenTelemetry spans, without any content.

It is off unless OpenTelemetry's own variables ask for traces.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanProcessor

from muxcore import hookimpl
from muxcore.core.entries import CallResult
from muxcore.observers.calls import CallObserver

if TYPE_CHECKING:
    from muxcore import PoolState
    from muxcore.explaining.steps import ModelAnswered
    from muxcore.explaining.story import Story

CONVENTIONS = "1.44.0"
"""The version of the semantic conventions that the names are of: they change."""
SCHEMA = f"https://opentelemetry.io/schemas/{CONVENTIONS}"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUESTED_MODEL = "gen_ai.request.model"
TOKENS_IN = "gen_ai.usage.input_tokens"
TOKENS_CACHED = "gen_ai.usage.cache_read.input_tokens"
TOKENS_OUT = "gen_ai.usage.output_tokens"
FIRST_CONTENT = "gen_ai.response.time_to_first_chunk"
ERROR = "error.type"

CALL_ID, MODE, RESULT = "vibe_mux.call_id", "vibe_mux.mode", "vibe_mux.result"
ALIAS, COST = "vibe_mux.alias", "vibe_mux.cost_dollars"
"""What the conventions have no name for."""

ASKING = (
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
)
"""Traces are asked for where one of these is set."""


class OpenTelemetry(CallObserver):
    """A span for each call, and a child for each attempt."""

    def __init__(self, processor: SpanProcessor | None = None) -> None:
        """Export by `processor`; without one, as the variables of OpenTelemetry say."""
        processors = asked_for(os.environ) if processor is None else [processor]
        self._provider = TracerProvider(resource=Resource.create(), shutdown_on_exit=False)
        for each in processors:
            self._provider.add_span_processor(each)
        self._tracer = self._provider.get_tracer("vibe-mux", schema_url=SCHEMA)
        super().__init__(self._trace if processors else lambda _story, _state: None)

    def close(self) -> None:
        self._provider.shutdown()

    def _trace(self, story: Story, state: PoolState) -> None:
        call = self._tracer.start_span(
            "vibe-mux call",
            start_time=nanoseconds(story.began),
            attributes={CALL_ID: story.call_id, MODE: story.mode},
        )
        within = trace.set_span_in_context(call)
        for answer in story.answers:
            attempt = self._tracer.start_span(
                f"chat {answer.alias}",
                context=within,
                kind=trace.SpanKind.CLIENT,
                start_time=nanoseconds(answer.at - answer.took),
                attributes=attributes_of(answer, state),
            )
            if not is_answer(answer):
                attempt.set_status(trace.StatusCode.ERROR)
            attempt.end(nanoseconds(answer.at))
        if story.result is not None:
            call.set_attribute(RESULT, str(story.result.value))
            if story.result is CallResult.EXHAUSTED:
                call.set_status(trace.StatusCode.ERROR)
        call.end(nanoseconds(story.ended or story.began))


def attributes_of(
    answer: ModelAnswered, state: PoolState
) -> Mapping[str, str | int | float]:
    """Return what is known of an attempt, by the names of the conventions."""
    found: dict[str, str | int | float] = {OPERATION: "chat", ALIAS: answer.alias}
    if (candidate := state.find(answer.alias)) is not None:
        found |= {
            PROVIDER: candidate.endpoint.provider,
            REQUESTED_MODEL: candidate.endpoint.model,
        }
    if not is_answer(answer):
        return {**found, ERROR: answer.outcome}
    found |= {TOKENS_IN: answer.tokens_in, TOKENS_OUT: answer.tokens_out}
    found |= {TOKENS_CACHED: answer.tokens_cached, COST: answer.cost}
    if answer.first_content is not None:
        found[FIRST_CONTENT] = answer.first_content.total_seconds()
    return found


def is_answer(answer: ModelAnswered) -> bool:
    return answer.outcome == "answered"


def nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1000


def asked_for(variables: Mapping[str, str]) -> list[SpanProcessor]:
    """Return the processors that OpenTelemetry's variables name; none if they ask for none."""
    asks = any(variables.get(name) for name in ASKING)
    if not asks or variables.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return []
    names = variables.get("OTEL_TRACES_EXPORTER") or "otlp"
    return [
        BatchSpanProcessor(point.load()())
        for name in names.split(",")
        if name.strip() != "none"
        for point in entry_points(group="opentelemetry_traces_exporter", name=name.strip())
    ]


def opentelemetry() -> OpenTelemetry:
    """OpenTelemetry spans, if its variables ask for them."""
    return OpenTelemetry()


@hookimpl
def vibe_mux_register_observers(register: Callable[..., None]) -> None:
    register("opentelemetry", opentelemetry)
