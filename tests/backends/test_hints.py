"""How long a server asks clients to wait: every form, in order; junk is ignored."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from muxcore_backends.hints import LONGEST, hint

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
Headers = dict[str, str]

READ: list[tuple[Headers, float | None]] = [
    ({}, None),
    ({"retry-after": "33"}, 33),
    ({"retry-after": " 33 "}, 33),
    ({"retry-after": "0.5"}, 0.5),
    ({"retry-after": ".5"}, 0.5),
    ({"retry-after": "2."}, 2),
    ({"retry-after": "2m30s"}, 150),
    ({"retry-after-ms": "1500"}, 1.5),
    ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
    ({"retry-after-ms": "soon", "retry-after": "2"}, 2),
    ({"retry-after-ms": "0", "retry-after": "2"}, 2),
    ({"retry-after": "Tue, 24 Nov 2026 12:00:30 GMT"}, 30),
    ({"retry-after": "Tuesday, 24-Nov-26 12:00:30 GMT"}, 30),
    ({"retry-after": "Tue Nov 24 12:00:30 2026"}, 30),
    ({"retry-after": "Tue, 24 Nov 2026 13:00:30 +0100"}, 30),
    ({"retry-after": "2026-11-24T12:01:40Z"}, 100),
    ({"retry-after": "1795521630"}, 30),
    ({"retry-after": "Tue, 24 Nov 2026 11:59:30 GMT"}, None),
    ({"retry-after": "Tue, 24 Nov 2099 12:00:30 GMT"}, None),
    ({"retry-after": "Tue, 99 Nov 2026 12:00:30 GMT"}, None),
    # Junk.
    ({"retry-after": ""}, None),
    ({"retry-after": "-5"}, None),
    ({"retry-after": "0"}, None),
    ({"retry-after": "0.0000000001"}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "NaN"}, None),
    ({"retry-after": "inf"}, None),
    ({"retry-after": "Infinity"}, None),
    ({"retry-after": "1_0"}, None),
    ({"retry-after": "1e3"}, None),
    ({"retry-after": "0x10"}, None),
    ({"retry-after": "٣"}, None),
    ({"retry-after": "9" * 12}, None),
    ({"retry-after": "9" * 5000}, None),
    ({"retry-after": "5, 5"}, None),
    ({"retry-after": "soon"}, None),
    # Reset headers count when their own bucket is empty.
    ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "0"}, 360),
    ({"x-ratelimit-reset-requests": "12ms", "x-ratelimit-remaining-requests": "0"}, 0.012),
    ({"x-ratelimit-reset-tokens": "7.66s", "x-ratelimit-remaining-tokens": "0"}, 7.66),
    ({"x-ratelimit-reset-tokens": "1h2m3s", "x-ratelimit-remaining-tokens": "0"}, 3723),
    ({"x-ratelimit-reset-tokens": "1D", "x-ratelimit-remaining-tokens": " 0.0 "}, 86400),
    ({"x-ratelimit-reset-tokens": "1s5ms", "x-ratelimit-remaining-tokens": "00"}, 1.005),
    ({"x-ratelimit-reset-tokens": "7.66s", "x-ratelimit-remaining-tokens": "1"}, None),
    ({"x-ratelimit-reset-tokens": "7.66s", "x-ratelimit-remaining-requests": "0"}, None),
    ({"x-ratelimit-reset-tokens": "7.66s", "x-ratelimit-remaining-tokens": "-1"}, None),
    ({"x-ratelimit-reset-tokens": "7.66s"}, None),
    ({"x-ratelimit-reset-tokens": "", "x-ratelimit-remaining-tokens": "0"}, None),
    ({"x-ratelimit-reset-tokens": "0s", "x-ratelimit-remaining-tokens": "0"}, None),
    ({"x-ratelimit-reset-tokens": "s", "x-ratelimit-remaining-tokens": "0"}, None),
    (
        {
            "x-ratelimit-reset-tokens": "999999999999999d",
            "x-ratelimit-remaining-tokens": "0",
        },
        None,
    ),
    (
        {
            "x-ratelimit-reset-requests-day": "33011.38",
            "x-ratelimit-remaining-requests-day": "0",
        },
        33011.38,
    ),
    ({"ratelimit-reset": "50", "ratelimit-remaining": "0"}, 50),
    ({"ratelimitbysize-reset": "38", "ratelimitbysize-remaining": "0"}, 38),
    ({"x-ratelimit-reset": "1795521630", "x-ratelimit-remaining": "0"}, 30),
    ({"x-ratelimit-reset": "1795521630000", "x-ratelimit-remaining": "0"}, 30),
    ({"x-ratelimit-reset": "1795521000", "x-ratelimit-remaining": "0"}, None),
    ({"x-ratelimit-reset": "999999999999999", "x-ratelimit-remaining": "0"}, None),
    ({"x-ratelimit-reset": "99999999", "x-ratelimit-remaining": "0"}, None),
    (
        {
            "anthropic-ratelimit-requests-reset": "2026-11-24T12:01:40Z",
            "anthropic-ratelimit-requests-remaining": "0",
        },
        100,
    ),
    (
        {
            "anthropic-ratelimit-tokens-reset": "2026-11-24T13:01:40.5+01:00",
            "anthropic-ratelimit-tokens-remaining": "0",
        },
        100.5,
    ),
    ({"x-ratelimit-reset": "2026-11-24 12:01:40", "x-ratelimit-remaining": "0"}, 100),
    ({"x-ratelimit-reset": "2026-11-24T99:01:40Z", "x-ratelimit-remaining": "0"}, None),
    (
        {"x-ratelimit-reset": "0001-01-01T00:00:00+23:59", "x-ratelimit-remaining": "0"},
        None,
    ),
    # One header for all buckets, in the forms of the IETF's drafts.
    ({"ratelimit": "limit=100, remaining=0, reset=50"}, 50),
    ({"ratelimit": '"default";r=0;t=30'}, 30),
    ({"ratelimit": '"minute";r=0;t=30, "hour";r=0;t=900, "day";r=7;t=80000'}, 900),
    ({"ratelimit": '"default";r=50;t=30'}, None),
    ({"ratelimit": "limit=100, remaining=10, reset=50"}, None),
    # The bucket that takes longest decides; a full one has no say.
    (
        {
            "x-ratelimit-reset-requests": "6m0s",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-tokens": "1s",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-images": "9h",
            "x-ratelimit-remaining-images": "5",
        },
        360,
    ),
    (
        {
            "retry-after": "2",
            "x-ratelimit-reset-requests": "6m0s",
            "x-ratelimit-remaining-requests": "0",
        },
        2,
    ),
    ({"x-reset": "5", "x-remaining": "0"}, None),
    ({"x-ratelimit-preset": "5", "x-ratelimit-premaining": "0"}, None),
]


@pytest.mark.parametrize(("headers", "seconds"), READ)
def test_hints_in_headers_are_read(headers: Headers, seconds: float | None) -> None:
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert hint(headers, b"", NOW) == expected


DELAYS: list[tuple[bytes, float | None]] = [
    (b'{"retryDelay": "58s"}', 58),
    (b'{"retryDelay":"58.812s"}', 58.812),
    (b'{"error": {"details": [{}, {"@type": "x", "retryDelay" : "1m2s"}]}}', 62),
    (b'[{"error": {"details": [{"retryDelay": "3s"}]}}]', 3),
    (b'{"retryDelay": "0s"}', None),
    (b'{"retryDelay": "-3s"}', None),
    (b'{"retryDelay": "soon"}', None),
    (b'{"retryDelay": ""}', None),
    (b'{"retryDelay": 58}', 58),
    (json.dumps({"input": '{"retryDelay": "58s"}'}).encode(), None),
    # Another server's error, quoted where errors stand.
    (json.dumps({"error": {"message": '[{"retryDelay": "26s"}]'}}).encode(), 26),
    (json.dumps({"metadata": {"raw": '{"retry_after": 7}'}}).encode(), 7),
    (json.dumps({"message": '{"retry_after": 7'}).encode(), None),
    # Any member that speaks of a retry or a reset, whatever its unit.
    (b'{"error": {"resets_in_seconds": 2400}}', 2400),
    (b'{"error": {"resets_at": 1795521640}}', 40),
    (b'{"error": {"resets_at": 1795521640, "resets_in_seconds": 39.5}}', 40),
    (b'{"resetsAt": "2026-11-24T12:00:40Z"}', 40),
    (b'{"retry_after": 7}', 7),
    (b'{"retry_after_ms": 2500}', 2.5),
    (b'{"retryAfterMinutes": 2}', 120),
    (b'{"retry_in_min": 2}', 120),
    (b'{"retry_in_mins": 2}', 120),
    (b'{"retry_in_millis": 2500}', 2.5),
    (b'{"retry_in_milliseconds": 2500}', 2.5),
    (b'{"retry_after": "Tue, 24 Nov 2026 12:00:30 GMT"}', 30),
    (b'{"quotaResetDelay": "1h0m5s"}', 3605),
    (b'{"retry_after": 3, "resets_at": 1795599999}', 3),
    (b'{"metadata": {"headers": {"X-RateLimit-Reset": "1795521640000"}}}', 40),
    (b'{"headers": {"X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "40"}}', None),
    (b'{"headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "40"}}', 40),
    # Names of something else, and values that cannot be meant.
    (b'{"retries": 3, "retry_count": 3, "max_retry": 3, "retryable": 1}', None),
    (b'{"retry_attempt": 3, "retry_attempts": 3, "retries_until_reset": 3}', None),
    (b'{"retry_after": true, "reset": null, "resets_at": [5]}', None),
    (b'{"retry_after": -5, "resets_at": 5e30, "reset_in": 1e9}', None),
    (b'{"retry_after": "soon", "retry_in": 5, "retry_at": null}', 5),
    (b'{"preset": 5, "asset": 6}', None),
    (b'{"retry_after": 5', None),
    # Nested up to eight levels.
    *(
        (
            b"%b{%b}%b" % (opening * n, b'"retry_after": 5', closing * n),
            5 if n <= 8 else None,
        )
        for opening, closing in ((b'{"x": ', b"}"), (b"[", b"]"))
        for n in (0, 1, 8, 9)
    ),
]


@pytest.mark.parametrize(("body", "seconds"), DELAYS)
def test_hints_in_bodies_are_read(body: bytes, seconds: float | None) -> None:
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert hint({}, body, NOW) == expected


WORDS: list[tuple[str, float | None]] = [
    ("Please wait 300 seconds before trying again.", 300),
    ("Please try again in 7.66s. Need more tokens?", 7.66),
    ("Please try again in 20s. Limit: 10 / 60s", 20),
    ("Please try again in 6m0s", 360),
    ("try again in 120ms", 0.12),
    ("Retry after 1 hour and 5 minutes", 3900),
    ("Retry after 1 hour, 5 minutes", 3900),
    ("resets in 2 days", 172_800),
    ("请在 30 秒后重试", 30),
    ("请等待5分钟", 300),
    # A moment with its time zone. Without one it may be hours off.
    ("5-hour usage limit reached (0/0 used), resets at 2026-11-24T12:40:00Z (2056)", 2400),
    ("It will reset at 2026-11-24 20:30:00 +0800 CST.", 1800),
    ("Remaining: 0. Limit resets at: 2026-11-24 12:01:00 UTC", 60),
    ("Try again at 2026-11-24T12:05:00.5+00:00.", 300.5),
    ("You will regain access on 2026-11-25 at 00:00 UTC.", 43_200),
    ("At 2026-11-24 11:59:59 UTC: please retry in 20s", 20),
    ("From 2026-11-24 12:01 UTC to 2026-11-24 12:02 UTC", 120),
    ("It was reset at 2026-11-24 11:00 UTC", None),
    ("It will reset at 2026-11-24 99:00 UTC", None),
    ("Your limit will reset at 2026-11-24 20:40:00", None),
    ("Your limit will reset at 2026-11-24 20:40:00 UTC+8", None),
    # The only numbers are one time, in any language.
    ("Zu viele Anfragen. Bitte in 90 Sekunden noch einmal.", 90),
    ("Trop de requêtes, réessayez dans 1 minute et 30 secondes", 90),
    ("Demasiadas solicitudes. Inténtelo de nuevo en 2 minutos.", 120),
    ("Troppe richieste: riprova tra 20 secondi", 20),
    ("Слишком много запросов. Повторите через 90 секунд.", 90),
    ("リクエストが多すぎます。90秒後に再試行してください。", 90),
    ("요청이 너무 많습니다. 90초 후 다시 시도하세요", 90),
    ("访问量过大 1小时后再试", 3600),
    ("Fehler 429: bitte 2 Stunden Geduld", 7200),
    ("Noch 3 Tage", 3 * 86_400),
    ("Noch 1 Stunde und 5 Minuten", 3900),
    ("Faltan 1 hora y 5 minutos", 3900),
    ("Ancora 1 ora e 5 minuti", 3900),
    ("Осталось 1 час и 5 минут", 3900),
    *((f"1{hour} 5{minute}", 3900) for hour, minute in (("h", "m"), ("시간", "분"))),
    *((f"2{day} 3{second}", 2 * 86_400 + 3) for day, second in (("d", "s"), ("일", "초"))),
    # A limit has two numbers; some numbers are no time.
    ("Limit: 20 Anfragen pro 300 Sekunden", None),
    ("Höchstens 300 Anfragen", None),
    ("In 300 Sekunden nur 20 Anfragen", None),
    ("Modell 7b ist überlastet", None),
    ("Limited to 50 requests per 60 seconds", None),
    ("retry 3 times", None),
    ("wait", None),
    ("try again in 0s", None),
]


@pytest.mark.parametrize(("message", "seconds"), WORDS)
def test_hints_in_messages_are_read(message: str, seconds: float | None) -> None:
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert hint({}, b"", NOW, message) == expected


def test_a_bucket_that_names_its_status_is_empty_unless_that_allows() -> None:
    reset = {"anthropic-ratelimit-unified-reset": "1795521640"}
    for status, seconds in (("rejected", 40), ("allowed", None), ("allowed_warning", None)):
        said = {**reset, "anthropic-ratelimit-unified-status": status}
        expected = None if seconds is None else timedelta(seconds=seconds)
        assert hint(said, b"", NOW) == expected
    assert hint(reset, b"", NOW) is None


def test_retry_after_counts_before_the_body_and_the_body_before_a_reset() -> None:
    body = b'{"retryDelay": "58s"}'
    reset = {"x-ratelimit-reset": "99", "x-ratelimit-remaining": "0"}
    assert hint({"retry-after": "2", **reset}, body, NOW) == timedelta(seconds=2)
    assert hint({"retry-after": "-2", **reset}, body, NOW) == timedelta(seconds=58)
    assert hint(reset, b"{}", NOW) == timedelta(seconds=99)


@pytest.mark.parametrize(
    "headers",
    [
        {"retry-after": "Tue, 24 Nov 2026 12:00:30 GMT"},
        {"x-ratelimit-reset": "1795521630", "x-ratelimit-remaining": "0"},
        {"x-ratelimit-reset": "2026-11-24T12:01:40Z", "x-ratelimit-remaining": "0"},
    ],
)
def test_a_moment_is_ignored_without_now(headers: Headers) -> None:
    assert hint(headers, b"", None) is None


NAMES = st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset"])
VALUES = (
    st.text()
    | st.integers().map(str)
    | st.floats().map(str)
    | st.from_regex(r"\A[0-9.]{0,20}(d|h|m|s|ms)?[0-9.]{0,20}(s|ms)?\Z")
    | st.from_regex(
        r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{5,12}(Z|[+-][0-9]{2}:[0-9]{2})\Z"
    )
    | st.from_regex(
        r"\A[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{1,9} \S*\Z"
    )
)


@given(st.dictionaries(NAMES, VALUES), st.binary(), st.datetimes(timezones=st.just(UTC)))
@example({"retry-after": "Mon, 01 Jan 0001 00:00:00 +2359"}, b"", NOW)
@example({"retry-after": "Fri, 31 Dec 9999 23:59:59 -2359"}, b"", NOW)
@example({"retry-after": "x" * 100_000}, b"", NOW)
@example({"x-ratelimit-reset": "99999999999"}, b"", NOW)
def test_no_header_raises_an_error(headers: Headers, body: bytes, now: datetime) -> None:
    for moment in (now, None):
        found = hint({**headers, "x-ratelimit-remaining": "0"}, body, moment)
        assert found is None or timedelta() < found <= LONGEST


@given(st.text(max_size=50))
def test_no_retry_delay_raises_an_error(delay: str) -> None:
    found = hint({}, json.dumps({"retryDelay": delay}).encode(), NOW)
    assert found is None or timedelta() < found <= LONGEST
