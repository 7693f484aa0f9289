"""What a provider announces to be left of one of its limits."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from attrs import frozen


class AllowanceKind(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input tokens"
    UNCACHED_INPUT_TOKENS = "uncached input tokens"
    OUTPUT_TOKENS = "output tokens"


@frozen
class Allowance:
    """How much of a limit is left, as one answer announced it.

    `limit` is the size of the bucket, at least 1 and at least `remaining`. `resets_at` is
    when it is full again; providers with a token bucket refill it continuously until then.
    `window` is the period that the limit applies to. Each is None where it is not announced.
    Kind and window together identify a limit: a provider may count tokens by the minute and
    by the month.
    """

    kind: AllowanceKind
    remaining: int
    limit: int | None = None
    resets_at: datetime | None = None
    window: timedelta | None = None
