"""Turns errors of the library into error responses, which each front door writes. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection
from datetime import datetime
from http import HTTPStatus

from attrs import evolve

from muxcore.chat import AttemptReport
from muxcore.core.outcomes import Fault, Limit, Refusal
from muxcore.core.records import PoolState
from muxcore.core.status import ModelStatus, Status
from muxcore.errors import (
    MultiplexerError,
    PoolExhaustedError,
    RequestRejectedError,
    StrategyError,
)
from muxcore.gateway.api.routing import FRONT_DOORS
from muxcore.gateway.http.wire import ErrorResponse, Head
from muxcore.text import printable

LIMITS = frozenset(str(limit) for limit in Limit)
PASSED_ON = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)
"""Statuses of a model's refusal that the client sees as they are. Any other would mean
something else here: a 403 a wrong token, a 429 a limit."""

LONGEST_HEEDED_SECONDS = 60
"""The official clients do not wait longer: they would ask again at once, several times, unless they
are told not to."""

REFUSALS = frozenset(str(refusal) for refusal in Refusal)
CODES = {
    str(Refusal.TOO_LONG): "context_length_exceeded",
    str(Refusal.FILTERED): "content_filter",
}


def error_response_of(
    error: MultiplexerError, status: Status, now: datetime, only: str | None = None
) -> ErrorResponse:
    """Return the response for this error. `only` is the alias of a call to one model."""
    match error:
        case RequestRejectedError(retry_at=None):
            code = error.status if error.status in PASSED_ON else HTTPStatus.BAD_REQUEST
            refusals = (a.outcome for a in error.attempts if a.outcome in REFUSALS)
            return ErrorResponse(code, str(error), code=CODES.get(next(refusals, "")))
        case RequestRejectedError(retry_at=retry_at):
            # Whether the request is at fault is not known yet: the client is to ask again.
            message = f"{error}; another model may take it when it is available again"
            response = _server_error(
                HTTPStatus.SERVICE_UNAVAILABLE, message, "no_second_opinion"
            )
            return evolve(response, fields=_retry_after(retry_at, now))
        case PoolExhaustedError():
            return _exhausted(error, status, now, only)
        case StrategyError():
            return _server_error(
                HTTPStatus.INTERNAL_SERVER_ERROR, str(error), "mode_failed"
            )
        case _:
            return _server_error(HTTPStatus.SERVICE_UNAVAILABLE, str(error), "unavailable")


def keys_are_refused(error: MultiplexerError, status: Status, only: str | None) -> bool:
    """Whether every model that the call could ask has refused its key."""
    asked = [model for model in status.models if only in {None, model.alias}]
    return isinstance(error, PoolExhaustedError) and all(
        model.is_disabled and model.cause == Fault.AUTH for model in asked
    )


def refused_keys(state: PoolState, only: str | None) -> ErrorResponse:
    """Return a response that ends the turn at once, and names the variables to check.

    It is no 401, as vibe would name the variable of the gateway's own token.
    """
    of_models = [
        f"{printable(e.wire.key_variable) or 'its provider, which names none'}"
        f" ({printable(e.alias)})"
        for e in (candidate.endpoint for candidate in state.candidates)
        if only in {None, e.alias}
    ]
    text = f"Invalid API key: check {', '.join(of_models)}, then `vibe-mux check`"
    return ErrorResponse(HTTPStatus.BAD_REQUEST, text, code="invalid_api_key")


def _server_error(status: int, message: str, code: str) -> ErrorResponse:
    return ErrorResponse(status, message, "server_error", code)


def _exhausted(
    error: PoolExhaustedError, status: Status, now: datetime, only: str | None
) -> ErrorResponse:
    disabled = [
        model
        for model in status.models
        if model.is_disabled and only in {None, model.alias}
    ]
    fields = _retry_after(error.retry_at, now)
    message = _describe(error, disabled, status)
    if _is_limited(error.attempts, disabled):
        return ErrorResponse(
            HTTPStatus.TOO_MANY_REQUESTS,
            message,
            "rate_limit_error",
            "rate_limit_exceeded",
            fields=fields,
        )
    return evolve(
        _server_error(HTTPStatus.SERVICE_UNAVAILABLE, message, "pool_exhausted"),
        fields=fields,
    )


def _retry_after(retry_at: datetime | None, now: datetime) -> dict[str, str]:
    if retry_at is None:
        return {}
    # Rounded up: a client that retries too early makes a call for nothing.
    seconds = math.ceil(max(0.0, (retry_at - now).total_seconds()))
    fields = {"Retry-After": str(max(1, seconds))}
    if seconds > LONGEST_HEEDED_SECONDS:
        fields["X-Should-Retry"] = "false"
    return fields


def _is_limited(
    attempts: Collection[AttemptReport], disabled: Collection[ModelStatus]
) -> bool:
    causes = {attempt.outcome for attempt in attempts} | {model.cause for model in disabled}
    return not causes.isdisjoint(LIMITS)


def _describe(
    error: PoolExhaustedError, disabled: Collection[ModelStatus], status: Status
) -> str:
    """Begin with what people need to know: which models are limited, and until when."""
    lines = [
        f"{printable(m.alias)}: {m.cause} until {m.disabled_until.astimezone(status.zone):%H:%M:%S}"
        for m in disabled
        if m.disabled_until is not None
    ]
    return "; ".join([*lines, str(error)])


def unknown_path(request: Head) -> ErrorResponse:
    base = f"http://{printable(request.fields.get('host', ''))}"
    served = ", ".join(f"/v1/{resource}" for resource in FRONT_DOORS)
    text = (
        f"There is nothing at {printable(request.path)}. POST is served at {served}, GET at"
        f" /v1/models and /status. The base URL is {base}/v1; for Anthropic's clients, {base}."
    )
    return ErrorResponse(HTTPStatus.NOT_FOUND, text, code="not_found")


def unknown_model(name: str, known: Collection[str]) -> ErrorResponse:
    return ErrorResponse(
        HTTPStatus.NOT_FOUND,
        f"There is no model {printable(name)!r} here; known are {', '.join(known)}.",
        code="model_not_found",
        param="model",
    )
