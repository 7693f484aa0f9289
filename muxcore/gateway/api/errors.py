"""What the library raises, as an answer of OpenAI's shape. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection
from datetime import datetime

from muxcore.chat import AttemptReport, Json
from muxcore.core.outcomes import Limit
from muxcore.core.outcomes import Refusal as Refused
from muxcore.core.status import ModelStatus, Status
from muxcore.core.text import printable
from muxcore.errors import (
    MultiplexerError,
    PoolExhaustedError,
    RequestRejectedError,
    StrategyError,
)
from muxcore.gateway.http.wire import ErrorResponse

LIMITS = frozenset(str(limit) for limit in Limit)
PASSED_ON = frozenset({400, 413, 422})
"""What a model may say of the request itself; its other words for that would be taken for
something else here: a 403 for a wrong token, a 429 for a limit."""

CODES = {
    str(Refused.TOO_LONG): "context_length_exceeded",
    str(Refused.FILTERED): "content_filter",
}


def error_response_of(
    error: MultiplexerError, status: Status, now: datetime, only: str | None = None
) -> ErrorResponse:
    """Return the answer that tells of this error. `only` is the alias that was asked alone."""
    match error:
        case RequestRejectedError():
            code = error.status if error.status in PASSED_ON else 400
            outcome = error.attempts[-1].outcome if error.attempts else ""
            return ErrorResponse(code, str(error), code=CODES.get(outcome))
        case PoolExhaustedError():
            return _exhausted(error, status, now, only)
        case StrategyError():
            return ErrorResponse(500, str(error), "server_error", "mode_failed")
        case _:
            return ErrorResponse(503, str(error), "server_error", "unavailable")


def _exhausted(
    error: PoolExhaustedError, status: Status, now: datetime, only: str | None
) -> ErrorResponse:
    disabled = [
        model
        for model in status.models
        if model.is_disabled and only in {None, model.alias}
    ]
    fields = {}
    if error.retry_at is not None:
        # A client that comes too early has made a call for nothing.
        seconds = math.ceil(max(0.0, (error.retry_at - now).total_seconds()))
        fields["Retry-After"] = str(max(1, seconds))
    message = _describe(error, disabled, status)
    if _is_limited(error.attempts, disabled):
        return ErrorResponse(
            429, message, "rate_limit_error", "rate_limit_exceeded", fields=fields
        )
    return ErrorResponse(503, message, "server_error", "pool_exhausted", fields=fields)


def _is_limited(
    attempts: Collection[AttemptReport], disabled: Collection[ModelStatus]
) -> bool:
    causes = {attempt.outcome for attempt in attempts} | {model.cause for model in disabled}
    return not causes.isdisjoint(LIMITS)


def _describe(
    error: PoolExhaustedError, disabled: Collection[ModelStatus], status: Status
) -> str:
    """Say first what people need to know: who is limited, and until when."""
    lines = [
        f"{printable(m.alias)}: {m.cause} until {m.disabled_until.astimezone(status.zone):%H:%M:%S}"
        for m in disabled
        if m.disabled_until is not None
    ]
    return "; ".join([*lines, str(error)])


def error_body(refusal: ErrorResponse) -> Json:
    return {
        "error": {
            "message": refusal.message,
            "type": refusal.kind,
            "param": refusal.param,
            "code": refusal.code,
        }
    }


def unknown_model(name: str, known: Collection[str]) -> ErrorResponse:
    return ErrorResponse(
        404,
        f"There is no model {printable(name)!r} here; known are {', '.join(known)}.",
        code="model_not_found",
        param="model",
    )
