"""What `/mux` shows: a record made from the state, as text for people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, tzinfo
from types import MappingProxyType
from typing import Any

from attrs import frozen

from muxcore.core.records import Candidate, PoolState
from muxcore.text import printable, short_count

TITLE = "## Multiplexer Status"
NO_TOTALS: Mapping[str, Totals] = MappingProxyType({})
ACTIVE, PROBATION, DISABLED = "🟢", "🟡", "🔴"


@frozen
class LimitLeft:
    """What is left of a limit that a model announces; `full_at` (UTC) is when it is full."""

    kind: str
    left: int
    limit: int | None
    full_at: datetime | None


@frozen
class Totals:
    """What the journals count for one model, in all runs since they began."""

    since: datetime
    succeeded: int
    rate_limited: int
    failed: int


@frozen
class ModelStatus:
    """One model's part. `disabled_until` (UTC) and `cause` describe a cooldown under way.

    `refuted_count` is how many of the rejected requests another model took.
    """

    alias: str
    success_count: int
    rate_limit_count: int
    fail_count: int
    rejected_count: int
    cancelled_count: int
    in_flight: int
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    cost: float
    priced: bool
    first_content: timedelta | None
    is_fallback: bool
    on_probation: bool
    disabled_until: datetime | None
    cause: str
    refuted_count: int
    limits: tuple[LimitLeft, ...]
    totals: Totals | None

    @property
    def is_disabled(self) -> bool:
        return self.disabled_until is not None

    @property
    def total_requests(self) -> int:
        return self.success_count + self.rate_limit_count + self.fail_count

    @property
    def success_rate(self) -> float:
        """Between 0 and 1; 0.0 when there were no requests."""
        return self.success_count / self.total_requests if self.total_requests else 0.0


@frozen
class Status:
    """The pool as it stands. `str()` of it is the text of `/mux`, with times in `zone`."""

    enabled: bool
    mode: str
    models: tuple[ModelStatus, ...]
    last_used_model: str | None
    zone: tzinfo | None = None
    notices: tuple[str, ...] = ()

    @property
    def models_available(self) -> int:
        return sum(not model.is_disabled for model in self.models)

    def __str__(self) -> str:
        lines = [
            TITLE,
            "",
            f"**Mode:** {printable(self.mode)}",
            f"**Pool:** {self.models_available}/{len(self.models)} models available",
            "",
        ]
        for notice in self.notices:
            lines += [f"> {printable(notice)}", ""]
        lines += ["### Per-Model Statistics", ""]
        for model in self.models:
            lines += [*self._model_lines(model), ""]
        return "\n".join(lines)

    def _model_lines(self, model: ModelStatus) -> list[str]:
        # Without a request, there is no rate to show.
        rate = f" | Success rate: {model.success_rate:.0%}" if model.total_requests else ""
        lines = [
            f"**{printable(model.alias)}**: {self._standing(model)}",
            (
                f"  - Success: {model.success_count}"
                f" | Rate limited: {model.rate_limit_count}"
                f" | Failed: {model.fail_count}{rate}"
            ),
        ]
        if (totals := model.totals) is not None:
            since = totals.since.astimezone(self.zone)
            lines.append(
                f"  - Since {since:%Y-%m-%d}: Success: {totals.succeeded}"
                f" | Rate limited: {totals.rate_limited} | Failed: {totals.failed}"
            )
        if model.refuted_count:
            lines.append(f"  - Refused, but taken by another model: {model.refuted_count}")
        if model.tokens_in or model.tokens_out:
            cached = model.tokens_cached / model.tokens_in if model.tokens_in else 0.0
            line = (
                f"  - Tokens: {short_count(model.tokens_in)} in ({cached:.0%} cached),"
                f" {short_count(model.tokens_out)} out"
            )
            if model.priced:
                line += f" | Cost: ${model.cost:.2f}"
            lines.append(line)
        if model.limits:
            left = ", ".join(self._limit_text(limit) for limit in model.limits)
            lines.append(f"  - Left: {left}")
        return lines

    def _limit_text(self, limit: LimitLeft) -> str:
        of = "" if limit.limit is None else f" of {short_count(limit.limit)}"
        text = f"{short_count(limit.left)}{of} {limit.kind}"
        if limit.full_at is None:
            return text
        return f"{text} (full at {limit.full_at.astimezone(self.zone):%H:%M:%S})"

    def _standing(self, model: ModelStatus) -> str:
        if model.disabled_until is not None:
            until = model.disabled_until.astimezone(self.zone)
            return f"{DISABLED} disabled until {until:%H:%M:%S} ({model.cause})"
        if model.on_probation:
            return f"{PROBATION} on probation"
        return f"{ACTIVE} active"

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain JSON values; moments as ISO 8601 in UTC."""
        return {
            "enabled": self.enabled,
            "mode": self.mode,
            "models_in_pool": len(self.models),
            "models_available": self.models_available,
            "models_disabled": len(self.models) - self.models_available,
            "last_used_model": self.last_used_model,
            "notices": list(self.notices),
            "per_model": {model.alias: _model_json(model) for model in self.models},
        }


def status_of(
    state: PoolState,
    mode: str,
    now: datetime,
    *,
    enabled: bool = True,
    zone: tzinfo | None = None,
    notices: tuple[str, ...] = (),
    totals: Mapping[str, Totals] = NO_TOTALS,
) -> Status:
    """Return the status at `now`."""
    models = tuple(
        _model_status(candidate, now, totals.get(candidate.endpoint.alias))
        for candidate in state.candidates
    )
    return Status(enabled, mode, models, state.last_used, zone, notices)


def _model_status(
    candidate: Candidate, now: datetime, totals: Totals | None
) -> ModelStatus:
    endpoint, health, tally = candidate.endpoint, candidate.health, candidate.tally
    cooldown = health.active_cooldown(now)
    return ModelStatus(
        alias=endpoint.alias,
        success_count=tally.succeeded,
        rate_limit_count=tally.rate_limited,
        fail_count=tally.failed,
        rejected_count=tally.rejected,
        cancelled_count=tally.cancelled,
        in_flight=health.in_flight,
        tokens_in=tally.tokens_in,
        tokens_cached=tally.tokens_cached,
        tokens_out=tally.tokens_out,
        cost=candidate.cost,
        priced=bool(endpoint.input_price or endpoint.output_price),
        first_content=tally.first_content,
        is_fallback=endpoint.is_fallback,
        on_probation=cooldown is None and health.unproven,
        disabled_until=None if cooldown is None else cooldown.until,
        cause="" if cooldown is None else str(cooldown.cause),
        refuted_count=tally.refuted,
        limits=_limits(candidate, now),
        totals=totals,
    )


def _limits(candidate: Candidate, now: datetime) -> tuple[LimitLeft, ...]:
    headroom = candidate.headroom
    if headroom is None:
        return ()
    found = []
    for announcement in headroom.trusted(now):
        allowance, left = announcement.allowance, headroom.left(announcement, now)
        full_at = announcement.resets_at if announcement.resets_at > now else None
        if left is not None:
            found.append(LimitLeft(str(allowance.kind), left, allowance.limit, full_at))
    return tuple(found)


def _totals_json(totals: Totals | None) -> dict[str, Any]:
    if totals is None:
        return {}
    counts = {
        "since": totals.since.isoformat(),
        "success_count": totals.succeeded,
        "rate_limit_count": totals.rate_limited,
        "fail_count": totals.failed,
    }
    return {"since_beginning": counts}


def _model_json(model: ModelStatus) -> dict[str, Any]:
    first = model.first_content
    until = model.disabled_until
    return {
        "success_count": model.success_count,
        "rate_limit_count": model.rate_limit_count,
        "fail_count": model.fail_count,
        "rejected_count": model.rejected_count,
        "refuted_count": model.refuted_count,
        "cancelled_count": model.cancelled_count,
        "total_requests": model.total_requests,
        "success_rate": model.success_rate,
        "is_fallback": model.is_fallback,
        "is_disabled": model.is_disabled,
        "disabled_until": None if until is None else until.isoformat(),
        "disabled_for": model.cause,
        "on_probation": model.on_probation,
        "in_flight": model.in_flight,
        "tokens_in": model.tokens_in,
        "tokens_cached": model.tokens_cached,
        "tokens_out": model.tokens_out,
        "cost": model.cost,
        "limits": [_limit_json(limit) for limit in model.limits],
        "first_content_ms": None if first is None else first / timedelta(milliseconds=1),
        **_totals_json(model.totals),
    }


def _limit_json(limit: LimitLeft) -> dict[str, Any]:
    full_at = None if limit.full_at is None else limit.full_at.isoformat()
    return {
        "kind": limit.kind,
        "left": limit.left,
        "limit": limit.limit,
        "full_at": full_at,
    }
