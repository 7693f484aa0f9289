"""Fuzz the parsers of streams, headers and bodies: `python -m tests.fuzzing.fuzz`.

Inputs are made out of real ones, by cutting, joining, flipping and repeating, and by the words
that the parsers look for. Where Python reports new lines and branches (3.12 and
later), an input that reaches any is kept, and more are made of it. Everything comes from the
seed, so that what was found is found again.

What is looked for: an exception that is not the parser's own, a result outside of its bounds,
another result for the same bytes cut elsewhere, and an input that takes too long.
"""

from __future__ import annotations

import argparse
import json
import os
import random  # noqa: TID251 - made from a seed, and nowhere else
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeAlias

from attrs import define, field, frozen

from muxcore import jsontext
from muxcore.assembling import MOST_TOKENS, Assembler
from muxcore.chat import Chunk, Reply
from muxcore.core.outcomes import Fault, Limit, Refusal
from muxcore.core.records import Endpoint, Wire
from muxcore.plugins.backend import BadReplyError, Failure, HttpResponse, ServerEvent
from muxcore.shell.call.answer_form import LastFinish, failure_of
from muxcore.shell.http.events import EventParser, EventTooLongError
from muxcore_backends import hints
from muxcore_backends.generic import Generic
from muxcore_backends.mistral import Mistral

EXAMPLES = Path(__file__).parent.parent / "backends" / "failure_examples.json"
INPUTS = 1_000_000
TOO_LONG = 0.25
"""Seconds; the slowest honest input takes some milliseconds."""
LONGEST = 20_000
MOST_KEPT = 3000
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OWN_FILES = ("muxcore/", "muxcore_backends/")

BACKENDS = (Generic(), Mistral())
ENDPOINTS = (
    Endpoint("a", "model"),
    Endpoint("b", "model", wire=Wire(emits_finish_reason=False)),
    Endpoint("c", "model", wire=Wire(reasoning_field_name="reasoning")),
)
STATUSES = (200, 201, 302, 400, 401, 402, 403, 404, 408, 413, 422, 429, 498, 500, 503, 529)

Check: TypeAlias = Callable[[bytes, random.Random], None]


class Found(Exception):  # noqa: N818 - it is what is looked for
    """An input that a parser does not stand."""


def demand(truth: object, text: str) -> None:
    if not truth:
        raise Found(text)


# -- The parsers, each with what must hold -----------------------------------------------------


def check_stream(data: bytes, dice: random.Random) -> None:
    """Bytes to events to chunks to a reply, however the bytes are cut."""
    try:
        whole = _events(data, [])
        cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.randint(1, 6)))
        demand(_events(data, cuts) == whole, f"other events when cut at {cuts}")
    except EventTooLongError:
        return
    endpoint, backend = dice.choice(ENDPOINTS), dice.choice(BACKENDS)
    decoder, assembler = backend.stream(endpoint), Assembler()
    finished = False
    finish = LastFinish()
    passed: list[Chunk] = []
    try:
        for event in whole:
            for chunk in decoder.feed(event):
                demand(isinstance(chunk.text, str), "a chunk whose text is none")
                demand(chunk.commits in {True, False}, "a chunk that cannot say")
                finished = finished or bool(chunk.finish_reason)
                assembler.add(chunk)
                passed += finish.pass_on(chunk)
        passed += finish.end()
        ended = [c.raw["choices"][0]["index"] for c in passed if c.finish_reason]
        demand(bool(ended) == finished, "a finish reason is lost")
        alone = all(ended.count(index) == 1 for index in ended)
        demand(alone, "two finish reasons for one choice")
    except BadReplyError as error:
        _check_failure(error.failure)
    demand(not decoder.done or finished or not endpoint.wire.emits_finish_reason, "done?")
    _check_reply(assembler.reply())


def _events(data: bytes, cuts: Sequence[int]) -> list[ServerEvent]:
    parser, events, before = EventParser(), [], 0
    for cut in (*cuts, len(data)):
        events += parser.feed(data[before:cut])
        before = cut
    return [*events, *parser.end()]


def check_reply(data: bytes, dice: random.Random) -> None:
    """The body of a whole answer, or of what pretends to be one."""
    backend, endpoint = dice.choice(BACKENDS), dice.choice(ENDPOINTS)
    try:
        reply = backend.reply(endpoint, HttpResponse(200, {}, data))
    except BadReplyError as error:
        _check_failure(error.failure)
    else:
        _check_reply(reply)


def _check_reply(reply: Reply) -> None:
    demand(isinstance(reply.text, str), "a reply whose text is none")
    usage = reply.usage
    for count in (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens):
        known = type(count) is int and 0 <= count <= MOST_TOKENS
        demand(count is None or known, f"a usage of {count!r}")
    for call in reply.tool_calls:
        demand(isinstance(call["function"]["arguments"], str), "arguments that are no text")
    identities = [call["id"] for call in reply.tool_calls]
    demand(len(set(identities)) == len(identities), "two calls under one id")
    jsontext.encode(reply.message)
    failure_of(reply)


def check_failure(data: bytes, dice: random.Random) -> None:
    """The status, headers and body of a refusal."""
    status = dice.choice(STATUSES)
    headers = _headers(data[: len(data) // 2], dice) if dice.random() < 0.3 else {}
    failure = dice.choice(BACKENDS).failure(HttpResponse(status, headers, data), NOW)
    _check_failure(failure)


def _check_failure(failure: Failure | None) -> None:
    if failure is None:
        return
    demand(isinstance(failure.kind, Limit | Fault | Refusal), f"a kind of {failure.kind!r}")
    demand(failure.window is None or 0 < failure.window <= 10**9, "a window without bounds")
    message = failure.message
    demand(len(message) <= 1000, "a message without end")
    demand(message.isprintable(), f"a message that steers terminals: {message!r}")
    demand("\n" not in message, "a message of several lines")
    _check_hint(failure.hint)


def check_headers(data: bytes, dice: random.Random) -> None:
    """Headers that may say how long to wait."""
    headers = _headers(data, dice)
    now = NOW if dice.random() < 0.9 else None
    words = data.decode("utf-8", "replace")
    _check_hint(hints.hint(headers, data, now, words))
    _check_hint(hints.retry_after(headers, now))


def _check_hint(hint: timedelta | None) -> None:
    demand(hint is None or timedelta() < hint <= hints.LONGEST, f"a hint of {hint}")


HEADERS = (
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-reset-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset",
    "x-ratelimit-remaining",
    "anthropic-ratelimit-tokens-reset",
    "anthropic-ratelimit-tokens-remaining",
    "x-should-retry",
    "location",
)


def _headers(data: bytes, dice: random.Random) -> dict[str, str]:
    lines = data.decode("latin-1").split("\n")
    headers = {}
    for line in lines[:8]:
        name, colon, value = line.partition(":")
        known = dice.choice(HEADERS)
        headers[name.lower() if colon and dice.random() < 0.5 else known] = value or line
        if "reset" in known:
            headers[known.replace("reset", "remaining")] = "0"
    return headers


TARGETS: dict[str, Check] = {
    "streams": check_stream,
    "replies": check_reply,
    "failures": check_failure,
    "headers": check_headers,
}

# -- Inputs ---------------------------------------------------------------------------------------

WORDS = (
    *(b"data: ", b"data:", b"event: error\n", b"\n\n", b"\r\n\r\n", b"\r", b": ping\n\n"),
    *(
        b"id: 1\n",
        b"retry: 10\n",
        b"[DONE]",
        b"data: [DONE]\n\n",
        b"\xef\xbb\xbf",
        b"\xf0\x9f",
    ),
    *(
        b"\x00",
        b"\x1b[31m",
        b"\x1b]0;x\x07",
        b"\xe2\x80\xae",
        b"\\ud800",
        b"\\u0000",
        b"NaN",
    ),
    *(
        b"null",
        b"true",
        b"[]",
        b"{}",
        b'""',
        b"-1",
        b"1e999",
        b"9" * 30,
        b"[" * 200,
        b"{" * 50,
    ),
    *(b'"choices"', b'"delta"', b'"content"', b'"tool_calls"', b'"function"', b'"index"'),
    *(
        b'"finish_reason"',
        b'"usage"',
        b'"prompt_tokens"',
        b'"x_groq"',
        b'"function_call"',
        b'"native_finish_reason"',
        b'"resets_at"',
        b'"error"',
        b'"message"',
        b'"code"',
    ),
    *(b'"arguments"', b'"reasoning_content"', b'"type"', b'"text"', b'"thinking"', b'"id"'),
    *(
        b"retry-after: ",
        b"Retry-After",
        b'"retryDelay": "',
        b"58s",
        b"6m0s",
        b"12ms",
        b"1e3",
    ),
    *(
        b"Wed, 21 Oct 2026 07:28:00 GMT",
        b"2026-03-01T12:00:30Z",
        b"+99:99",
        b"0.0.0",
        b"inf",
    ),
    *(
        b"maximum context length is 4096 tokens",
        b"insufficient_quota",
        b"jinja",
        b"out of memory",
    ),
    *(
        b"capacity exceeded",
        b"credit balance",
        b"limit 10, requested 20",
        b"model 'x' not found",
        b"please wait 300 seconds",
    ),
    *(
        b"<html><title>",
        b"<script>",
        b"&#x1b;",
        b"<" * 300,
        b"resource_exhausted",
        b"perday",
    ),
)

STREAMS = [
    b"".join(pieces)
    for pieces in (
        (
            b'data: {"id":"c1","choices":[{"index":0,"delta":{"role":"assistant",',
            b'"content":"Hi"}}]}\n\n',
            b'data: {"choices":[{"delta":{"content":" there"},"finish_reason":"stop"}]}\n\n',
            b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n',
            b"data: [DONE]\n\n",
        ),
        (
            b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a",',
            b'"type":"function","function":{"name":"f","arguments":"{\\"x\\""}}]}}]}\r\n\r\n',
            b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":',
            b'{"arguments":":1}"}}]}}]}\r\n\r\n',
            b'data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}\r\n\r\n',
        ),
        (
            b'event: error\ndata: {"error":{"message":"overloaded",',
            b'"type":"overloaded_error"}}\n\n',
        ),
        (
            b'data: {"choices":[{"delta":{"content":[{"type":"text","text":"a"},',
            b'{"type":"thinking","thinking":[{"type":"text","text":"b"}]}]}}]}\n\n',
        ),
        (b": comment\ndata\ndata: \ndata:x\n\n",),
    )
]
REPLIES = [
    b"".join(pieces)
    for pieces in (
        (
            b'{"id":"c1","choices":[{"index":0,"message":{"role":"assistant",',
            b'"content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,',
            b'"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":3}}}',
        ),
        (
            b'{"choices":[{"message":{"content":null,"tool_calls":[{"id":"a",',
            b'"type":"function","function":{"name":"f","arguments":{"x":1}}}]},',
            b'"finish_reason":"tool_calls"}]}',
        ),
        (b'{"error":{"message":"Rate limit reached","code":429}}',),
    )
]


def seeds_of(target: str) -> list[bytes]:
    """Return the real inputs that all others are made of."""
    refusals = [
        (example.get("body") or "")
        if isinstance(example.get("body"), str)
        else json.dumps(example.get("body"))
        for example in _examples()
    ]
    if target == "streams":
        return [*STREAMS]
    if target == "replies":
        return [*REPLIES, *(text.encode() for text in refusals)]
    if target == "failures":
        return [text.encode() for text in refusals]
    headers = [
        "\n".join(f"{name}: {value}" for name, value in (e.get("headers") or {}).items())
        for e in _examples()
    ]
    return [text.encode() for text in headers if text] + [b"retry-after: 7", b"x-a: 6m0s"]


def _examples() -> list[dict[str, Any]]:
    examples = json.loads(EXAMPLES.read_text())
    return list(examples if isinstance(examples, list) else examples["examples"])


def changed(data: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """Change an input in one to four ways."""
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data) + 1)
        end = min(len(data), at + dice.choice([1, 2, 5, 20, 100]))
        match dice.randrange(8):
            case 0:
                data = data[:at] + dice.choice(WORDS) + data[at:]
            case 1:
                data = data[:at] + dice.choice(WORDS) + data[end:]
            case 2:
                data = data[:at] + data[end:]
            case 3:
                data = data[:at]
            case 4:
                data = data[:at] + data[at:end] * dice.choice([2, 3, 50]) + data[end:]
            case 5:
                other = dice.choice(others)
                data = data[:at] + other[dice.randrange(len(other) + 1) :]
            case 6 if data:
                at %= len(data)
                flipped = data[at] ^ (1 << dice.randrange(8))
                data = data[:at] + bytes([flipped]) + data[at + 1 :]
            case _:
                data = data[:at] + dice.randbytes(dice.randint(1, 4)) + data[at:]
    return data[:LONGEST]


# -- What is new -----------------------------------------------------------------------------------


@define
class Coverage:
    """Counts the lines and branches of our own code that were reached for the first time."""

    new: int = 0
    total: int = field(default=0)

    def see(self, *place: Any) -> Any:
        if any(name in place[0].co_filename for name in OWN_FILES):
            self.new += 1
            self.total += 1
        # Each place is reported once: after that it costs nothing.
        return sys.monitoring.DISABLE  # type: ignore[attr-defined,unused-ignore]


@contextmanager
def covered() -> Iterator[Coverage]:
    """Watch for places that are new, where Python can."""
    coverage = Coverage()
    monitoring = getattr(sys, "monitoring", None)
    tool = 4
    if monitoring is None or monitoring.get_tool(tool) is not None:
        yield coverage
        return
    events = monitoring.events
    monitoring.use_tool_id(tool, "fuzz")
    watched = [events.LINE, getattr(events, "BRANCH", 0)]
    for event in filter(None, watched):
        monitoring.register_callback(tool, event, coverage.see)
    monitoring.set_events(tool, sum(watched))
    # What a run before this one has seen is new again.
    monitoring.restart_events()
    try:
        yield coverage
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)


# -- Going through them -----------------------------------------------------------------------------


@frozen
class Result:
    """What came of some inputs."""

    target: str
    inputs: int
    kept: int
    places: int
    slowest: float
    found: tuple[str, ...]


def fuzz(target: str, inputs: int, seed: int) -> Result:
    """Go through so many inputs for this parser."""
    dice = random.Random(f"{target} {seed}")
    check, corpus = TARGETS[target], seeds_of(target)
    slowest = 0.0
    found: list[str] = []
    with covered() as coverage:
        for _ in range(inputs):
            data = changed(dice.choice(corpus), corpus, dice)
            state = dice.getstate() if len(found) < 5 else None
            began = time.perf_counter()
            try:
                check(data, dice)
            except Exception as error:  # noqa: BLE001 - any is what is looked for
                if state is not None:
                    found.append(f"{target}: {type(error).__name__}: {error}: {data!r}")
            taken = time.perf_counter() - began
            if taken > TOO_LONG and _is_slow(check, data):
                found.append(f"{target}: {taken:.2f} s: {data!r}")
            slowest = max(slowest, taken)
            if coverage.new and len(corpus) < MOST_KEPT:
                corpus.append(data)
            coverage.new = 0
    return Result(target, inputs, len(corpus), coverage.total, slowest, tuple(found))


def _is_slow(check: Check, data: bytes) -> bool:
    """Whether it is the input, and not a busy machine, that took so long."""
    times = []
    for _ in range(3):
        began = time.thread_time()
        with suppress(Exception):
            check(data, random.Random(0))
        times.append(time.thread_time() - began)
    return min(times) > TOO_LONG


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("tests.fuzzing.fuzz", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--inputs", type=int, default=INPUTS, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args(arguments)
    rounds = 4 * asked.processes
    each = -(-asked.inputs // (rounds * len(TARGETS)))
    work = [(t, each, asked.seed * 1000 + n) for n in range(rounds) for t in TARGETS]
    began = time.perf_counter()
    with ProcessPoolExecutor(asked.processes, get_context("spawn")) as pool:
        results = list(pool.map(fuzz, *zip(*work, strict=True)))
    for target in TARGETS:
        ones = [result for result in results if result.target == target]
        print(
            f"{target}: {sum(one.inputs for one in ones):,} inputs,"
            f" up to {max(one.kept for one in ones)} kept of"
            f" {max(one.places for one in ones)} places reached,"
            f" the slowest {max(one.slowest for one in ones) * 1000:.1f} ms"
        )
    found = [text for result in results for text in result.found]
    print(f"{time.perf_counter() - began:.0f} s; found: {len(found)}")
    for text in found[:20]:
        print(text[:2000])
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
