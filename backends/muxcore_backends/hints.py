"""How long a server asks to be left alone: read out of the headers and body of its refusal.

In order: `retry-after-ms`, `Retry-After`, Gemini's `retryDelay`, and the reset headers of
the buckets that are empty. What is junk, zero, negative, past or absurdly long is passed
over, as if it had not been said. Nothing here raises, whatever the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

LONGEST = timedelta(days=366)
"""Nobody means more than this: quotas of a year are the longest there are."""

# `float` would take "nan", "1_000", digits of any script, and numbers of any length.
NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15}")
ZERO = re.compile(r"0{1,15}(?:\.0{0,15})?")
DURATION = re.compile(
    r"(?:(?P<days>{0})d)?(?:(?P<hours>{0})h)?(?:(?P<minutes>{0})m(?!s))?"
    r"(?:(?P<seconds>{0})s)?(?:(?P<milliseconds>{0})ms)?".replace("{0}", NUMBER.pattern)
)
MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]{5,30}(?:[Zz]|[+-][0-9:]{4,6})?"
)
RETRY_DELAY = re.compile(rb'"retryDelay"\s{0,9}:\s{0,9}"([ -~]{1,40})"')
RESET = re.compile(r"(?<![a-z])reset(?![a-z])")

UNIX_SECONDS_FROM = 10**9
"""From here on, a reset header's number is a moment (2001 or later), below a duration."""
UNIX_MILLISECONDS_FROM = 10**11


def hint(headers: Mapping[str, str], body: bytes, now: datetime | None) -> timedelta | None:
    """Return how long the server asks to be left alone; None if it does not say.

    The names of `headers` are in lower case. Without `now`, a moment says nothing.
    """
    return retry_after(headers, now) or _retry_delay(body) or _resets(headers, now)


def retry_after(headers: Mapping[str, str], now: datetime | None) -> timedelta | None:
    """Return what `retry-after-ms` and `Retry-After` say."""
    milliseconds = headers.get("retry-after-ms")
    if milliseconds is not None:
        found = _sane(plain_number(milliseconds), timedelta(milliseconds=1))
        if found is not None:
            return found
    value = headers.get("retry-after")
    if value is None:
        return None
    return _sane(plain_number(value), timedelta(seconds=1)) or _until(http_date(value), now)


def _retry_delay(body: bytes) -> timedelta | None:
    """Return what Google's `RetryInfo` says. The first one counts, wherever it lies.

    A quoted one, in a message that repeats another's JSON, has its quotes escaped.
    """
    match = RETRY_DELAY.search(body)
    return None if match is None else _duration(match[1].decode("ascii"))


def _resets(headers: Mapping[str, str], now: datetime | None) -> timedelta | None:
    """Return when the last of the empty buckets is full again."""
    found = [
        reset_delay(value, now)
        for name, value in headers.items()
        if "limit" in name and _is_empty(headers, name)
    ]
    return max((reset for reset in found if reset is not None), default=None)


def _is_empty(headers: Mapping[str, str], name: str) -> bool:
    """Whether `name` is the reset header of a bucket whose remaining count is 0."""
    sibling, resets = RESET.subn("remaining", name)
    return resets == 1 and ZERO.fullmatch(headers.get(sibling, "").strip()) is not None


def reset_delay(value: str, now: datetime | None) -> timedelta | None:
    value = value.strip()
    number = plain_number(value)
    if number is None:
        return _duration(value) or _until(_moment(value), now)
    if number < UNIX_SECONDS_FROM:
        return _sane(number, timedelta(seconds=1))
    scale = 1000 if number >= UNIX_MILLISECONDS_FROM else 1
    try:
        return _until(datetime.fromtimestamp(number / scale, UTC), now)
    except (ValueError, OverflowError, OSError):
        return None


def plain_number(text: str) -> float | None:
    text = text.strip()
    return float(text) if NUMBER.fullmatch(text) else None


def _duration(text: str) -> timedelta | None:
    """Read "6m0s", "12ms", "7.66s", "1d2h"."""
    match = DURATION.fullmatch(text.strip().lower())
    if match is None:
        return None
    parts = {unit: float(value) for unit, value in match.groupdict("0").items()}
    try:
        return _bounded(timedelta(**parts))
    except OverflowError:
        return None


def http_date(text: str) -> datetime | None:
    """Read the three forms of an HTTP date."""
    # As rare as it is slow to import, with `socket` and `random`.
    from email.utils import parsedate_to_datetime  # noqa: PLC0415

    try:
        return _aware(parsedate_to_datetime(text))
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _moment(text: str) -> datetime | None:
    """Read a moment as RFC 3339 writes it."""
    if MOMENT.fullmatch(text) is None:
        return None
    try:
        return _aware(datetime.fromisoformat(text.upper()))
    except ValueError:
        return None


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _until(moment: datetime | None, now: datetime | None) -> timedelta | None:
    return None if moment is None or now is None else _bounded(moment - now)


def _sane(number: float | None, unit: timedelta) -> timedelta | None:
    if number is None or number > LONGEST / unit:
        return None
    return _bounded(number * unit)


def _bounded(length: timedelta) -> timedelta | None:
    return length if timedelta() < length <= LONGEST else None
