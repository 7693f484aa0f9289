"""The bounds of a plausible hint, to the second."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from muxcore_backends.hints import LONGEST, hint

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def reset(value: str, now: datetime = NOON) -> timedelta | None:
    headers = {"x-ratelimit-reset": value, "x-ratelimit-remaining": "0"}
    return hint(headers, b"", now)


def test_a_hint_is_at_most_a_leap_year() -> None:
    year = timedelta(days=366)
    assert year == LONGEST
    seconds = year // timedelta(seconds=1)
    assert hint({"retry-after": f"{seconds}"}, b"", NOON) == year
    assert hint({"retry-after": f"{seconds + 1}"}, b"", NOON) is None


def test_from_a_thousand_million_on_a_number_is_a_moment() -> None:
    moment = datetime.fromtimestamp(10**9, UTC)
    before = moment - timedelta(seconds=40)
    assert reset("1000000000", before) == timedelta(seconds=40)
    assert hint({}, b'{"resets": 1000000000}', before) == timedelta(seconds=40)
    # Below, it is a length, and this one is absurd.
    assert reset("999999999", before) is None


def test_from_a_hundred_thousand_million_on_it_is_in_milliseconds() -> None:
    at = datetime.fromtimestamp(10**8, UTC)
    assert reset("100000000000", at - timedelta(seconds=7)) == timedelta(seconds=7)
    late = datetime.fromtimestamp(10**11 - 1, UTC)
    assert reset("99999999999", late - timedelta(seconds=7)) == timedelta(seconds=7)


def test_a_date_without_a_time_is_no_moment() -> None:
    assert reset("2026-03-01T12:00:09Z") == timedelta(seconds=9)
    assert reset("2026-03-02") is None
    assert reset("20260301T120009Z") is None
