"""Receipts: what the calls of one client cost, and what the pool has spared it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from attrs import evolve, field, frozen

from muxcore.chat import AttemptReport, Usage
from muxcore.core.records import PoolState

MOST_LABELS = 256

NO_INTERRUPTION = frozenset({"cancelled", "responding", "succeeded"})
"""Outcomes of an attempt that would not have interrupted the client."""


@frozen
class ServedCall:
    """A call that was served by the model `alias`, from `began` to `ended`."""

    alias: str
    attempts: tuple[AttemptReport, ...]
    usage: Usage
    began: datetime
    ended: datetime


@frozen
class Receipt:
    """The sum of a client's calls.

    `interruptions_avoided` counts the failed attempts that the client never saw.
    `refuted` counts by alias the requests which that model refused and another took.
    `waiting_saved` is how long its own model was disabled while others served its calls; calls
    that overlap count once.
    """

    calls: Mapping[str, int] = field(factory=dict[str, int])
    interruptions_avoided: int = 0
    refuted: Mapping[str, int] = field(factory=dict[str, int])
    failed: int = 0
    waiting_saved: timedelta = timedelta()
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    counted_until: datetime | None = None

    @property
    def cached_share(self) -> float:
        """Between 0 and 1; 0.0 when nothing was sent."""
        return self.tokens_cached / self.tokens_in if self.tokens_in else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "calls": dict(self.calls),
            "failed_calls": self.failed,
            "interruptions_avoided": self.interruptions_avoided,
            "refuted": dict(self.refuted),
            "waiting_saved_ms": self.waiting_saved // timedelta(milliseconds=1),
            "tokens_in": self.tokens_in,
            "tokens_cached": self.tokens_cached,
            "tokens_out": self.tokens_out,
            "cached_share": self.cached_share,
            "cost": self.cost,
        }


def with_served(receipt: Receipt, call: ServedCall, state: PoolState, own: str) -> Receipt:
    """Return the receipt with one more served call. `own` is the model used without a pool."""
    usage = call.usage
    spared = [
        attempt for attempt in call.attempts if attempt.outcome not in NO_INTERRUPTION
    ]
    saved, until = _waiting_saved(receipt, call, state, own)
    refuted = Counter(receipt.refuted)
    refuted.update(attempt.alias for attempt in spared if attempt.refuted_by)
    return evolve(
        receipt,
        calls={**receipt.calls, call.alias: receipt.calls.get(call.alias, 0) + 1},
        interruptions_avoided=receipt.interruptions_avoided + len(spared),
        refuted=refuted,
        waiting_saved=receipt.waiting_saved + saved,
        counted_until=until,
        tokens_in=receipt.tokens_in + (usage.prompt_tokens or 0),
        tokens_cached=receipt.tokens_cached + (usage.cached_tokens or 0),
        tokens_out=receipt.tokens_out + (usage.completion_tokens or 0),
        cost=receipt.cost + _cost(call, state),
    )


def with_failed(receipt: Receipt) -> Receipt:
    return evolve(receipt, failed=receipt.failed + 1)


def _waiting_saved(
    receipt: Receipt, call: ServedCall, state: PoolState, own: str
) -> tuple[timedelta, datetime | None]:
    candidate = state.find(own)
    cooldown = None if candidate is None else candidate.health.active_cooldown(call.ended)
    if cooldown is None or call.alias == own:
        return timedelta(), receipt.counted_until
    since = max(call.began, cooldown.since, receipt.counted_until or call.began)
    return max(timedelta(), cooldown.until - since), max(since, cooldown.until)


def _cost(call: ServedCall, state: PoolState) -> float:
    candidate = state.find(call.alias)
    if candidate is None:
        return 0.0
    usage = call.usage
    return candidate.endpoint.cost_of(
        usage.prompt_tokens or 0, usage.cached_tokens or 0, usage.completion_tokens or 0
    )


class Ledger:
    """The receipts of all clients, by label, and their sum. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sum = Receipt()
        self._receipts: dict[str, Receipt] = {}

    def add(self, label: str, change: Callable[[Receipt], Receipt]) -> None:
        with self._lock:
            self._sum = change(self._sum)
            if label:
                # The newest is last, so that the oldest can be forgotten.
                self._receipts[label] = change(self._receipts.pop(label, Receipt()))
                while len(self._receipts) > MOST_LABELS:
                    del self._receipts[next(iter(self._receipts))]

    def receipt(self, label: str = "") -> Receipt:
        """Return the receipt of one client, or of all clients without a label."""
        with self._lock:
            return self._receipts.get(label, Receipt()) if label else self._sum
