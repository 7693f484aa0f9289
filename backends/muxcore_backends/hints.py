"""Read how long a server asks clients to wait, from the headers and body of its refusal.

In order: `retry-after-ms`, `Retry-After`, members of the body whose names speak of a retry or
a reset, the reset headers of the buckets that are empty, and the message, which names a moment
or a length. What is junk, zero, negative, past or absurdly long is ignored. Nothing here raises,
whatever the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from muxcore import jsontext
from muxcore_backends.complaints import INSIDE, SAID_IN, plain, quoted

LONGEST = timedelta(days=366)
"""The longest plausible hint: that of a yearly quota."""

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
MOMENT_WITH_ZONE = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})(?:t| at | )"
    r"(?P<time>[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?) ?"
    r"(?P<zone>z|utc|gmt|[+-][0-9]{2}:?[0-9]{2})(?![a-z0-9+-])"
)
"""A moment in a message, in lower case. Without its time zone it could be hours off."""
EMPTY_BUCKETS = re.compile(
    r"(?<![a-z])r(?:emaining)? ?= ?0 ?[;,] ?(?:t|reset) ?= ?(?P<seconds>[0-9]{1,9})"
)
"""The seconds of each empty bucket in the `RateLimit` header, in the forms of the IETF's drafts."""
SPEAKS_OF_TIME = re.compile(rb"retry|reset", re.IGNORECASE)
NAME_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
COUNTS = frozenset({"count", "max", "retries", "attempts", "attempt"})
"""Parts of names whose number counts something, and is no time."""
MAY_QUOTE = frozenset({*SAID_IN, *INSIDE})
MILLISECONDS = frozenset({"ms", "millis", "milliseconds"})
MINUTES = frozenset({"min", "mins", "minutes"})
DEEPEST = 8
MOST_MEMBERS = 64

UNITS = {
    "ms": r"ms|milli(?:s|seconds?)",
    "seconds": r"s|sec|se[ckg][ou]n[a-z]*|сек\w*|秒|초",
    "minutes": r"m|min[a-z]*|мин\w*|分钟?|분",
    "hours": r"h|hrs?|hours?|heures?|h?or[ae]s?|stunden?|час\w*|小时|時間|시간",
    "days": r"d|days?|tag(?:en?)?|jours?|d[ií]as?|дн\w*|天|日|일",
}
"""The units of time, in the languages in which servers speak."""
AMOUNT = re.compile(
    r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,9})?) ?"
    "(?:"
    + "|".join(rf"(?P<{unit}>{words})" for unit, words in UNITS.items())
    + ")"
    + r"(?![a-z])"
)
AND = frozenset({"", ",", "and", "und", "et", "y", "e", "и"})
WAIT = re.compile(
    r"(?:wait|again|retry|resets?|available|请在|请等待)(?: (?:in|after|for|at least|about"
    r"|approximately|another|again|until)){0,3} ?(?P<amounts>[0-9][^\n]{0,60})"
)
"""Words before a time to wait. Other numbers of a message are limits ("50 requests per 60
seconds")."""
NUMBERS = re.compile(r"[^0-9]*(?:429[^0-9]+)?(?P<amounts>[0-9].*)", re.DOTALL)
"""The part of a message with numbers. If they are one time and nothing else, that is the time to
wait, in whatever language: a limit has two numbers."""
RESET = re.compile(r"(?<![a-z])reset(?![a-z])")

UNIX_SECONDS_FROM = 10**9
"""From here on, a reset header's number is a moment (2001 or later), below a duration."""
UNIX_MILLISECONDS_FROM = 10**11


def hint(
    headers: Mapping[str, str], body: bytes, now: datetime | None, message: str = ""
) -> timedelta | None:
    """Return how long the server asks clients to wait; None if it does not say.

    The names of `headers` are in lower case; `message` is that of the body. Without `now`, a
    moment is ignored.
    """
    return (
        retry_after(headers, now)
        or _in_body(body, now)
        or _resets(headers, now)
        or _in_words(message.lower(), now)
    )


def retry_after(headers: Mapping[str, str], now: datetime | None) -> timedelta | None:
    """Return the length in `retry-after-ms` or `Retry-After`."""
    milliseconds = headers.get("retry-after-ms")
    if milliseconds is not None:
        found = _sane(plain_number(milliseconds), timedelta(milliseconds=1))
        if found is not None:
            return found
    value = headers.get("retry-after")
    if value is None:
        return None
    return _delay(value, now)


def _in_body(body: bytes, now: datetime | None) -> timedelta | None:
    """Return the length in members of the body: of a retry, else of a reset.

    Text that quotes JSON is searched where another server's error may stand, and only there.
    """
    if not SPEAKS_OF_TIME.search(body):
        return None
    try:
        found = list(_lengths(jsontext.decode(body), now, DEEPEST))[:MOST_MEMBERS]
    except (ValueError, RecursionError):
        return None
    retries = [length for is_retry, length in found if is_retry]
    return max(retries or [length for _, length in found], default=None)


def _lengths(
    value: object, now: datetime | None, depth: int
) -> Iterator[tuple[bool, timedelta]]:
    """Yield each length in a member, and whether the member is about a retry."""
    if isinstance(value, list) and depth:
        for item in value[:MOST_MEMBERS]:
            yield from _lengths(item, now, depth - 1)
    if not isinstance(value, dict):
        return
    lowered = {name.lower(): said for name, said in value.items() if isinstance(said, str)}
    for name, told in value.items():
        said = _opened(name, told)
        if isinstance(said, dict | list):
            if depth:
                yield from _lengths(said, now, depth - 1)
            continue
        parts = {part.lower() for part in NAME_PARTS.findall(name)}
        if not parts.isdisjoint(COUNTS) or parts.isdisjoint({"retry", "reset", "resets"}):
            continue
        if "reset" in parts and not _is_empty(lowered, name.lower(), unknown=True):
            continue
        length = _length_of(said, parts, now)
        if length is not None:
            yield "retry" in parts, length


def _opened(name: str, said: object) -> object:
    """Return what a text quotes, if it is another server's error; else the value itself."""
    if isinstance(said, str) and plain(name) in MAY_QUOTE:
        return quoted(said) or said
    return said


def _length_of(said: object, parts: set[str], now: datetime | None) -> timedelta | None:
    text = str(said)
    number = plain_number(text)
    if number is None or number >= UNIX_SECONDS_FROM:
        return _delay(text, now)
    unit = timedelta(seconds=1)
    if parts & MILLISECONDS:
        unit = timedelta(milliseconds=1)
    elif parts & MINUTES:
        unit = timedelta(minutes=1)
    return _sane(number, unit)


def _in_words(message: str, now: datetime | None) -> timedelta | None:
    """Read "resets at 2026-11-24 12:40 UTC", "try again in 6m0s", "wait 1 hour and 5 minutes"."""
    moments = (_moment_in(match) for match in MOMENT_WITH_ZONE.finditer(message))
    untils = [until for moment in moments if (until := _until(moment, now))]
    if untils:
        return max(untils)
    said = WAIT.search(message)
    if said is not None:
        length, _ = _first_amount(said["amounts"])
    elif (said := NUMBERS.match(message)) is None:
        return None
    else:
        length, rest = _first_amount(said["amounts"])
        if any(character.isdecimal() for character in rest):
            return None
    return _bounded(length)


def _moment_in(match: re.Match[str]) -> datetime | None:
    zone = "+00:00" if match["zone"].isalpha() else match["zone"]
    return _moment(f"{match['date']}T{match['time']}{zone}")


def _first_amount(text: str) -> tuple[timedelta, str]:
    """Return the time with which a text begins, and the rest of the text."""
    length, end = timedelta(), 0
    for amount in AMOUNT.finditer(text):
        # "in 20s. Limit: 10 per 60s" ends with the 20.
        if text[end : amount.start()].strip() not in AND:
            break
        end = amount.end()
        number = float(amount["number"])
        unit = next(unit for unit in UNITS if amount[unit])
        length += timedelta(**{"milliseconds" if unit == "ms" else unit: number})
    return length, text[end:]


def _resets(headers: Mapping[str, str], now: datetime | None) -> timedelta | None:
    """Return when the last of the empty buckets is full again."""
    found = [
        reset_delay(bucket["seconds"], now)
        for bucket in EMPTY_BUCKETS.finditer(headers.get("ratelimit", ""))
    ]
    found += [
        reset_delay(value, now)
        for name, value in headers.items()
        if "limit" in name and _is_empty(headers, name)
    ]
    return max((reset for reset in found if reset is not None), default=None)


def _is_empty(headers: Mapping[str, str], name: str, *, unknown: bool = False) -> bool:
    """Whether `name` is the reset header of a bucket that is empty.

    Its remaining count is 0, or its status is not "allowed…", as Anthropic's is. Return
    `unknown` if it has neither.
    """
    remaining, resets = RESET.subn("remaining", name)
    if resets != 1:
        return unknown
    status = headers.get(RESET.sub("status", name), "").strip().lower()
    if remaining in headers:
        return ZERO.fullmatch(headers[remaining].strip()) is not None
    return not status.startswith("allowed") if status else unknown


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


def _delay(text: str, now: datetime | None) -> timedelta | None:
    return reset_delay(text, now) or _until(http_date(text), now)


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
