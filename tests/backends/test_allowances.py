"""Allowances: the headers of each provider, as it sends them; absurd values are ignored."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxcore.core.allowance import Allowance, AllowanceKind
from muxcore_backends.allowances import FAMILIES, LARGEST, MONTH, allowances
from muxcore_backends.hints import LONGEST

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
REQUESTS, TOKENS = AllowanceKind.REQUESTS, AllowanceKind.TOKENS
INPUT, OUTPUT = AllowanceKind.INPUT_TOKENS, AllowanceKind.OUTPUT_TOKENS
UNCACHED = AllowanceKind.UNCACHED_INPUT_TOKENS
Headers = dict[str, str]


def left(
    kind: AllowanceKind,
    remaining: int,
    limit: int | None = None,
    resets_in: float | None = None,
    window: timedelta | None = None,
) -> Allowance:
    resets_at = None if resets_in is None else NOW + timedelta(seconds=resets_in)
    return Allowance(kind, remaining, limit, resets_at, window)


PROVIDERS: dict[str, tuple[Headers, list[Allowance]]] = {
    "OpenAI": (
        {
            "x-ratelimit-limit-requests": "5000",
            "x-ratelimit-limit-tokens": "160000",
            "x-ratelimit-limit-tokens_usage_based": "160000",
            "x-ratelimit-remaining-requests": "4999",
            "x-ratelimit-remaining-tokens": "159976",
            "x-ratelimit-remaining-tokens_usage_based": "159976",
            "x-ratelimit-reset-requests": "12ms",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        [left(REQUESTS, 4999, 5000, 0.012), left(TOKENS, 159_976, 160_000, 360)],
    ),
    "OpenAI, requests of a day": (
        {
            "x-ratelimit-limit-requests": "200",
            "x-ratelimit-remaining-requests": "198",
            "x-ratelimit-reset-requests": "11m32.334s",
        },
        [left(REQUESTS, 198, 200, 692.334)],
    ),
    "Azure": (
        {"x-ratelimit-remaining-tokens": "19913", "x-ratelimit-remaining-requests": "19"},
        [left(REQUESTS, 19), left(TOKENS, 19_913)],
    ),
    "Azure, with seconds": (
        {
            "x-ratelimit-limit-tokens": "50000",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "42",
        },
        [left(TOKENS, 0, 50_000, 42)],
    ),
    "Azure, of a limit that it does not measure": (
        {
            "x-ratelimit-limit-tokens": "-1",
            "x-ratelimit-remaining-tokens": "-1",
            "x-ratelimit-reset-tokens": "0",
        },
        [],
    ),
    "Groq": (
        {
            "x-ratelimit-limit-requests": "14400",
            "x-ratelimit-limit-tokens": "18000",
            "x-ratelimit-remaining-requests": "14370",
            "x-ratelimit-remaining-tokens": "17997",
            "x-ratelimit-reset-requests": "2m59.56s",
            "x-ratelimit-reset-tokens": "7.66s",
        },
        [left(REQUESTS, 14_370, 14_400, 179.56), left(TOKENS, 17_997, 18_000, 7.66)],
    ),
    "Cerebras": (
        {
            "x-ratelimit-limit-requests-day": "1000000000",
            "x-ratelimit-limit-tokens-minute": "1000000000",
            "x-ratelimit-remaining-requests-day": "999997455",
            "x-ratelimit-remaining-tokens-minute": "999998298",
            "x-ratelimit-reset-requests-day": "33011.382867097855",
            "x-ratelimit-reset-tokens-minute": "11.382867097854614",
        },
        [
            left(REQUESTS, 999_997_455, 10**9, 33011.382867, DAY),
            left(TOKENS, 999_998_298, 10**9, 11.382867, MINUTE),
        ],
    ),
    "SambaNova": (
        {
            "x-ratelimit-limit-requests-day": "1500",
            "x-ratelimit-remaining-requests-day": "1497",
            "x-ratelimit-reset-requests-day": "4h17m",
        },
        [left(REQUESTS, 1497, 1500, 15_420, DAY)],
    ),
    "Mistral": (
        {
            "x-ratelimit-limit-req-minute": "60",
            "x-ratelimit-limit-tokens-minute": "50000",
            "x-ratelimit-limit-tokens-month": "4000000",
            "x-ratelimit-remaining-req-minute": "59",
            "x-ratelimit-remaining-tokens-minute": "47196",
            "x-ratelimit-remaining-tokens-month": "3950246",
            "x-ratelimit-tokens-query-cost": "2804",
        },
        [
            left(TOKENS, 47_196, 50_000, None, MINUTE),
            left(REQUESTS, 59, 60, None, MINUTE),
            left(TOKENS, 3_950_246, 4_000_000, None, MONTH),
        ],
    ),
    "Mistral, of a key without any allowance": (
        {"x-ratelimit-limit-req-minute": "0", "x-ratelimit-remaining-req-minute": "0"},
        [],
    ),
    "Mistral, earlier": (
        {
            "ratelimitbysize-limit": "500000",
            "ratelimitbysize-remaining": "499900",
            "ratelimitbysize-reset": "28",
            "x-ratelimitbysize-limit-minute": "500000",
            "x-ratelimitbysize-remaining-minute": "499900",
            "x-ratelimitbysize-limit-month": "1000000000",
            "x-ratelimitbysize-remaining-month": "999000000",
        },
        [
            left(TOKENS, 499_900, 500_000, 28, MINUTE),
            left(TOKENS, 999_000_000, 10**9, None, MONTH),
        ],
    ),
    "Anthropic": (
        {
            "date": "Tue, 24 Nov 2026 12:00:00 GMT",
            "anthropic-ratelimit-requests-limit": "1000",
            "anthropic-ratelimit-requests-remaining": "999",
            "anthropic-ratelimit-requests-reset": "2026-11-24T11:59:59Z",
            "anthropic-ratelimit-tokens-limit": "96000",
            "anthropic-ratelimit-tokens-remaining": "90000",
            "anthropic-ratelimit-tokens-reset": "2026-11-24T12:00:04Z",
            "anthropic-ratelimit-input-tokens-limit": "80000",
            "anthropic-ratelimit-input-tokens-remaining": "75000",
            "anthropic-ratelimit-input-tokens-reset": "2026-11-24T12:00:04Z",
            "anthropic-ratelimit-output-tokens-limit": "16000",
            "anthropic-ratelimit-output-tokens-remaining": "15000",
            "anthropic-ratelimit-output-tokens-reset": "2026-11-24T13:00:03+01:00",
        },
        [
            left(REQUESTS, 999, 1000),
            left(AllowanceKind.UNCACHED_TOKENS, 90_000, 96_000, 4),
            left(UNCACHED, 75_000, 80_000, 4),
            left(OUTPUT, 15_000, 16_000, 3),
        ],
    ),
    "Together": (
        {
            "x-ratelimit-limit": "60",
            "x-ratelimit-remaining": "57",
            "x-ratelimit-reset": "1",
            "x-tokenlimit-limit": "100000",
            "x-tokenlimit-remaining": "98500",
        },
        [left(REQUESTS, 57, 60, 1), left(TOKENS, 98_500, 100_000)],
    ),
    "OpenRouter": (
        {
            "X-RateLimit-Limit": "20",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": str(int(NOW.timestamp() * 1000) + 30_500),
        },
        [left(REQUESTS, 0, 20, 30.5)],
    ),
    "Fireworks": (
        {
            "x-ratelimit-limit-tokens-prompt": "7200000",
            "x-ratelimit-remaining-tokens-prompt": "7193993",
            "x-ratelimit-limit-tokens-cache-adjusted-prompt": "1800000",
            "x-ratelimit-remaining-tokens-cache-adjusted-prompt": "1799000",
            "x-ratelimit-limit-tokens-generated": "72000",
            "x-ratelimit-remaining-tokens-generated": "69338",
            "x-ratelimit-over-limit": "no",
        },
        [
            left(INPUT, 7_193_993, 7_200_000, None, MINUTE),
            left(UNCACHED, 1_799_000, 1_800_000, None, MINUTE),
            left(OUTPUT, 69_338, 72_000, None, MINUTE),
        ],
    ),
    "DigitalOcean": (
        {
            "x-ratelimit-limit-tokens-per-minute": "20000",
            "x-ratelimit-remaining-tokens-per-minute": "0",
            "x-ratelimit-reset-tokens-per-minute": str(int(NOW.timestamp()) + 9),
        },
        [left(TOKENS, 0, 20_000, 9, MINUTE)],
    ),
    "a server that announces nothing": ({"content-type": "application/json"}, []),
}


@pytest.mark.parametrize(("headers", "expected"), PROVIDERS.values(), ids=PROVIDERS)
def test_the_headers_of_each_provider_are_read(
    headers: Headers, expected: list[Allowance]
) -> None:
    assert list(allowances(headers, NOW)) == expected
    shouted = {name.upper(): value for name, value in reversed(headers.items())}
    assert list(allowances(shouted, NOW)) == expected


def requests(**fields: str) -> tuple[Allowance, ...]:
    """Read the headers of one limit of requests: remaining, limit, reset."""
    headers = {f"x-ratelimit-{name}-requests": value for name, value in fields.items()}
    return allowances(headers, NOW)


@pytest.mark.parametrize(
    "remaining",
    [
        *("", "-1", "many", "nan", "inf", "1e3", "1_000", "0x10", "٣", "5, 5"),
        "9" * 5000,
        str(LARGEST + 1),
    ],
)
def test_an_absurd_count_is_ignored(remaining: str) -> None:
    assert requests(remaining=remaining) == ()
    assert requests(remaining="0", limit=remaining) == ()


def test_a_count_is_read_with_blanks_around_it_and_rounded_down() -> None:
    assert requests(remaining=" 7 ", limit="10") == (left(REQUESTS, 7, 10),)
    assert requests(remaining="7.9", limit="10.0") == (left(REQUESTS, 7, 10),)
    assert requests(remaining=str(LARGEST)) == (left(REQUESTS, LARGEST),)


def test_no_more_can_be_left_than_the_limit() -> None:
    assert requests(remaining="11", limit="10") == ()
    assert requests(remaining="10", limit="10") == (left(REQUESTS, 10, 10),)


def test_a_limit_alone_announces_nothing() -> None:
    assert requests(limit="10", reset="6s") == ()


@pytest.mark.parametrize("reset", ["", "0", "-5", "soon", "367d", "2026-11-24T11:59:00Z"])
def test_an_absurd_reset_is_ignored(reset: str) -> None:
    assert requests(remaining="3", limit="10", reset=reset) == (left(REQUESTS, 3, 10),)


def test_a_reset_beyond_the_window_of_its_limit_is_ignored() -> None:
    def tokens(reset: str) -> tuple[Allowance, ...]:
        headers = {
            "x-ratelimit-remaining-tokens-minute": "3",
            "x-ratelimit-reset-tokens-minute": reset,
        }
        return allowances(headers, NOW)

    assert tokens("61") == (left(TOKENS, 3, None, None, MINUTE),)
    assert tokens("60") == (left(TOKENS, 3, None, 60, MINUTE),)


def test_a_moment_is_compared_with_the_clock_of_the_server() -> None:
    headers = {
        # Three minutes ahead of ours.
        "date": "Tue, 24 Nov 2026 12:03:00 GMT",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-11-24T12:03:08Z",
    }
    assert allowances(headers, NOW) == (left(REQUESTS, 0, None, 8),)
    junk = {**headers, "date": "today"}
    assert allowances(junk, NOW) == (left(REQUESTS, 0, None, 188),)


def test_each_limit_is_read_once() -> None:
    headers = {
        "x-ratelimit-remaining": "1",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-remaining-requests-day": "3",
    }
    assert allowances(headers, NOW) == (left(REQUESTS, 2), left(REQUESTS, 3, window=DAY))


def test_each_family_has_its_own_headers() -> None:
    for part in ("remaining", "limit"):
        names = [getattr(family, part) for family in FAMILIES]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[a-z-]+", name) and part in name for name in names)


NAMES = [
    name for family in FAMILIES for name in (family.remaining, family.limit, family.reset)
]
VALUES = (
    st.text(max_size=12)
    | st.integers(-2, 2 * LARGEST).map(str)
    | st.floats().map(str)
    | st.datetimes().map(lambda moment: f"{moment.isoformat()}Z")
    | st.timedeltas().map(lambda length: f"{length.days}d{length.seconds}s")
)


@given(st.dictionaries(st.sampled_from([*NAMES, "date"]), VALUES, max_size=9))
def test_any_headers_give_plausible_allowances(headers: Headers) -> None:
    found = allowances(headers, NOW)
    assert len({(one.kind, one.window) for one in found}) == len(found)
    for one in found:
        assert 0 <= one.remaining <= LARGEST
        assert one.limit is None or max(1, one.remaining) <= one.limit <= LARGEST
        if one.resets_at is not None:
            assert NOW < one.resets_at <= NOW + (one.window or LONGEST)
