"""Read the allowances that an answer announces in its headers. Pure.

No header raises an error, and absurd values are ignored. A count must be a plain number:
Azure sends -1 for a limit that it does not measure. It must not be above `LARGEST`, and no
more may be left than the limit allows. A limit of zero is ignored: it never refills, so
waiting for it is pointless, and the answer's status says what is wrong.
A reset that is past, more than a year away or beyond the limit's own window counts as not
announced; what is left is believed all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from attrs import frozen

from muxcore.core.allowance import Allowance, AllowanceKind
from muxcore_backends.hints import http_date, plain_number, reset_delay

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
WINDOWS = {"minute": MINUTE, "hour": timedelta(hours=1), "day": DAY}
MONTH = timedelta(days=31)
"""The longest one: a month's limit is full again after that at the latest."""

LARGEST = 10**12
"""Tokens or requests. No provider allows as many; the numbers of an overflow are larger."""

REQUESTS = AllowanceKind.REQUESTS
TOKENS = AllowanceKind.TOKENS
INPUT_TOKENS = AllowanceKind.INPUT_TOKENS
UNCACHED_INPUT_TOKENS = AllowanceKind.UNCACHED_INPUT_TOKENS
UNCACHED_TOKENS = AllowanceKind.UNCACHED_TOKENS
OUTPUT_TOKENS = AllowanceKind.OUTPUT_TOKENS


@frozen
class HeaderFamily:
    """The names of the three headers of one limit, and what the limit counts."""

    remaining: str
    limit: str
    reset: str
    kind: AllowanceKind
    window: timedelta | None


def _family(
    names: str, kind: AllowanceKind, window: timedelta | None = None, reset: str = ""
) -> HeaderFamily:
    """Make a family from names with {} for the three words, or with a separate reset."""
    remaining, limit = names.format("remaining"), names.format("limit")
    return HeaderFamily(remaining, limit, reset or names.format("reset"), kind, window)


FAMILIES: tuple[HeaderFamily, ...] = (
    # OpenAI: developers.openai.com/api/docs/guides/rate-limits. Resets are durations ("6m0s").
    # Azure OpenAI, with seconds: learn.microsoft.com/en-us/answers/questions/5625878.
    # Groq, where requests are those of a day: console.groq.com/docs/rate-limits. The names do
    # not say the window, so none is assumed.
    _family("x-ratelimit-{}-requests", REQUESTS),
    _family("x-ratelimit-{}-tokens", TOKENS),
    # Cerebras: inference-docs.cerebras.ai/support/rate-limits. Resets are fractional seconds.
    # SambaNova's requests of a day: docs.sambanova.ai/docs/en/models/rate-limits. Mistral's
    # tokens of a minute have the same name.
    *(
        _family(f"x-ratelimit-{{}}-{name}-{window}", kind, length)
        for name, kind in (("requests", REQUESTS), ("tokens", TOKENS))
        for window, length in WINDOWS.items()
    ),
    # Mistral in 2026, without resets: no page documents them; from answers of api.mistral.ai
    # that several clients recorded.
    _family("x-ratelimit-{}-req-minute", REQUESTS, MINUTE),
    _family("x-ratelimit-{}-tokens-month", TOKENS, MONTH),
    # Mistral in 2024 and 2025: recorded by the tests of tidyllm (CRAN) and Prism (PHP). The
    # reset, in seconds, is the minute's.
    _family("x-ratelimitbysize-{}-minute", TOKENS, MINUTE, reset="ratelimitbysize-reset"),
    _family("x-ratelimitbysize-{}-month", TOKENS, MONTH),
    _family("ratelimitbysize-{}", TOKENS, MINUTE),
    # Anthropic: platform.claude.com/docs/en/api/rate-limits; docs.aws.amazon.com/
    # claude-platform/latest/userguide/rate-limits.html. Resets are moments (RFC 3339). What a
    # cache serves does not count.
    _family("anthropic-ratelimit-requests-{}", REQUESTS),
    _family("anthropic-ratelimit-tokens-{}", UNCACHED_TOKENS),
    _family("anthropic-ratelimit-input-tokens-{}", UNCACHED_INPUT_TOKENS),
    _family("anthropic-ratelimit-output-tokens-{}", OUTPUT_TOKENS),
    # Together: support.together.ai/en/articles/8988956-rate-limits. Resets are seconds.
    # Its tokens are not documented; from answers that clients recorded.
    # OpenRouter, on refusals: openrouter.ai/docs/api-reference/limits. Unix milliseconds.
    _family("x-ratelimit-{}", REQUESTS),
    _family("x-tokenlimit-{}", TOKENS),
    # Fireworks, without resets, a minute each: docs.fireworks.ai/serverless/rate-limits. The
    # cache-adjusted ones are from answers that clients recorded.
    _family("x-ratelimit-{}-tokens-prompt", INPUT_TOKENS, MINUTE),
    _family("x-ratelimit-{}-tokens-cache-adjusted-prompt", UNCACHED_INPUT_TOKENS, MINUTE),
    _family("x-ratelimit-{}-tokens-generated", OUTPUT_TOKENS, MINUTE),
    # DigitalOcean: docs.digitalocean.com/products/inference/reference/
    # quota-specific-response-headers. Resets are Unix seconds.
    _family("x-ratelimit-{}-tokens-per-minute", TOKENS, MINUTE),
    _family("x-ratelimit-{}-tokens-per-day", TOKENS, DAY),
)
"""The headers that providers send, with their sources. The first wins for the same limit."""


def allowances(headers: Mapping[str, str], now: datetime) -> tuple[Allowance, ...]:
    """Return what the headers announce to be left, at most one for each kind and window.

    The names of `headers` may be in any case. `now` is when the answer arrived.
    """
    # For nearly every answer of a local server, this is all.
    if "limit" not in "\n".join(headers).lower():
        return ()
    fields = {name.lower(): value for name, value in headers.items()}
    found: dict[tuple[AllowanceKind, timedelta | None], Allowance] = {}
    # By the table and not by the headers, whose order is the server's.
    for family in FAMILIES:
        if family.remaining in fields:
            allowance = _read(family, fields, now)
            if allowance is not None:
                found.setdefault((family.kind, family.window), allowance)
    return tuple(found.values())


def _read(
    family: HeaderFamily, fields: Mapping[str, str], now: datetime
) -> Allowance | None:
    remaining = _count(fields[family.remaining])
    if remaining is None:
        return None
    announced = fields.get(family.limit)
    limit = None if announced is None else _count(announced)
    if announced is not None and (not limit or remaining > limit):
        return None
    resets_at = _resets_at(family, fields, now)
    return Allowance(family.kind, remaining, limit, resets_at, family.window)


def _count(text: str) -> int | None:
    """Read a count, rounded down: some servers send fractions."""
    value = plain_number(text)
    return int(value) if value is not None and value <= LARGEST else None


def _resets_at(
    family: HeaderFamily, fields: Mapping[str, str], now: datetime
) -> datetime | None:
    text = fields.get(family.reset)
    if text is None:
        return None
    delay = reset_delay(text, None)
    if delay is None:
        # Perhaps a moment: by the server's clock, as the answer's date is.
        date = fields.get("date")
        delay = reset_delay(text, (date and http_date(date)) or now)
    if delay is None or (family.window is not None and delay > family.window):
        return None
    return now + delay
