"""`check_backend`: whether a backend keeps what the shell relies on."""

from __future__ import annotations

import copy
import json
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from attrs import frozen
from hypothesis import strategies as st

from muxcore.assembling import Assembler
from muxcore.chat import Chat, Chunk, Json, Reply
from muxcore.core.outcomes import Fault, Limit, Refusal
from muxcore.core.records import Endpoint, Wire
from muxcore.plugins.backend import (
    Backend,
    BadReplyError,
    Decoder,
    Failure,
    HttpRequest,
    HttpResponse,
    ServerEvent,
)
from muxcore.shell.http.events import EventParser
from muxcore.testing.chats import CHATS
from muxcore.testing.faults import FaultyPluginError, search
from muxcore.testing.purity import watch
from muxcore.testing.samples import OPENAI_SAMPLES, Row, Sample, failure_table

T = TypeVar("T")

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY_VARIABLE = "EXAMPLE_API_KEY"
ENDPOINTS = (
    Endpoint(
        "distant",
        "model-1",
        "example",
        wire=Wire("https://models.example/v1", KEY_VARIABLE, temperature=0.2),
    ),
    Endpoint("near", "model-2", "local", wire=Wire("http://127.0.0.1:8080/v1/")),
)
CUT_EVENT = ServerEvent('{"id": "1", "choices": [{"index": 0, "del')

STATUSES = (200, 302, 400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 503, 599)
JUNK = (
    b"",
    b"{",
    b"null",
    b"7",
    b'"text"',
    b"[]",
    b"[[{}]]",
    b"{}",
    b'{"error": null}',
    b'{"error": [7]}',
    b'{"error": {"message": 7, "code": {}}}',
    b'{"choices": {"0": 7}}',
    b"<html>\xff",
    b"\x00\x1b[31m\r\n",
)
ANSWERS = st.builds(
    HttpResponse,
    st.sampled_from(STATUSES),
    st.dictionaries(
        st.sampled_from(("retry-after", "retry-after-ms", "content-type", "x-odd")),
        st.sampled_from(
            ("", "3", "-1", "1e999", "nan", "Thu, 01 Jan 2026 00:00:09 GMT", "ÿ")
        ),
        max_size=2,
    ),
    st.binary(max_size=20)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(("error", "message", "code", "choices", "delta", "detail")),
                inner,
                max_size=3,
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
)
"""Answers that no server ought to give; some do."""


def check_backend(
    make: Callable[[], Backend],
    *,
    samples: Sequence[Sample] = OPENAI_SAMPLES,
    failures: Sequence[Row] | None = None,
    runs: int = 100,
) -> None:
    """Give a backend made-up chats, every answer of the failure table, and cut streams.

    `make` is its factory. A dialect whose answers have a shape of their own brings `samples`
    of them, and `failures` if even its refusals do. Raise a `FaultyPluginError`, with the
    smallest case found, if it raises, is impure, classifies a refusal as something else,
    takes half an answer for a whole one, or sends what it should not.
    """
    checked = _CheckedBackend(make)
    for endpoint in ENDPOINTS:
        search(CHATS, lambda chat, at=endpoint: checked.request(at, chat), runs)  # type: ignore[misc]
    for row in failure_table() if failures is None else failures:
        checked.row(row)
    for status, body in product(STATUSES, JUNK):
        checked.junk(HttpResponse(status, {}, body))
    search(ANSWERS, checked.junk, runs)
    for sample in samples:
        checked.whole(sample)
        checked.streamed(sample)
        search(
            ANSWERS.map(lambda answer: answer.body.decode("utf-8", "replace")),
            lambda data, after=sample: checked.odd_event(after, data),  # type: ignore[misc]
            runs,
        )


@frozen
class _Outcome:
    """What came of a stream: what had arrived, whether it is whole, and what was raised."""

    reply: Reply
    done: bool
    error: BadReplyError | None = None


class _CheckedBackend:
    """A backend under test: each thing is asked of it twice, and each answer judged."""

    def __init__(self, make: Callable[[], Backend]) -> None:
        self._backend = make()
        self._another = make()
        self._name = f"{type(self._backend).__module__}.{type(self._backend).__qualname__}"

    def request(self, endpoint: Endpoint, chat: Chat) -> None:
        before = copy.deepcopy(chat)
        case = f"request({endpoint.alias}, {chat!r})"
        # Only one is given the chat itself: the other must not suffer from what that does.
        given = iter((chat, copy.deepcopy(chat)))
        request = self._ask(lambda one: one.request(endpoint, next(given)), case)
        if chat != before:
            raise self._fault(case, "it changes the chat it was given")
        if not isinstance(request, HttpRequest):
            raise self._fault(case, f"it returns {request!r}, expected an HttpRequest")
        if fault := _fault_of_request(request, endpoint):
            raise self._fault(case, fault)

    def row(self, row: Row) -> None:
        case = f"the failure table's {row.name}, {_describe_attempt(row.answer)}"
        failure = self._failure(row.answer, case)
        if failure.kind not in row.kinds:
            expected = " or ".join(str(kind) for kind in row.kinds)
            text = f'it is taken for "{failure.kind}", expected "{expected}"'
            raise self._fault(case, text)

    def junk(self, answer: HttpResponse) -> None:
        """See that no bytes make it raise what it should not."""
        case = _describe_attempt(answer)
        self._judged(self._ask(lambda one: one.failure(answer, NOW), case), case)
        self._reply(HttpResponse(200, answer.headers, answer.body), case)

    def whole(self, sample: Sample) -> None:
        case = f"the reply of the sample {sample.name!r}"
        reply = self._reply(HttpResponse(200, {}, sample.reply), case)
        if isinstance(reply, BadReplyError):
            raise self._fault(case, f"it refuses it: {reply}")
        self._expect(sample, reply, case)
        for length in range(len(sample.reply)):
            part = sample.reply[:length]
            if isinstance(self._reply(HttpResponse(200, {}, part), case), Reply):
                text = f"cut after {length} bytes, it is taken for a whole answer"
                raise self._fault(f"{case}, {part[-60:]!r}", text)

    def streamed(self, sample: Sample) -> None:
        """Cut a stream after every event, put an error there, and mix two streams.

        One that is cut within an event comes to the same: the shell's parser keeps half ones.
        """
        case = f"the stream of the sample {sample.name!r}"
        whole = self._feed(self._events(sample.stream), case)
        if whole.error is not None:
            raise self._fault(case, f"it refuses it: {whole.error}")
        if not whole.done:
            raise self._fault(case, "it is not `done` at its end")
        self._expect(sample, whole.reply, case)
        events = self._events(sample.stream)
        self._never_whole_too_soon(sample, events, whole.reply)
        self._told_of_errors(sample, events)
        self._apart(sample, events, whole.reply)

    def odd_event(self, sample: Sample, data: str) -> None:
        """See that no event makes it raise what it should not."""
        case = f"the sample {sample.name!r} with the event {data!r} in the middle"
        events = self._events(sample.stream)
        middle = len(events) // 2
        self._feed([*events[:middle], ServerEvent(data), *events[middle:]], case)

    def _never_whole_too_soon(
        self, sample: Sample, events: Sequence[ServerEvent], whole: Reply
    ) -> None:
        for count in range(len(events)):
            case = f"the stream of the sample {sample.name!r}, cut after {count} events"
            cut = self._feed(events[:count], case)
            if cut.done and cut.reply.message != whole.message:
                text = f"it is `done` with {cut.reply.message!r}, but more was to come"
                raise self._fault(case, text)

    def _told_of_errors(self, sample: Sample, events: Sequence[ServerEvent]) -> None:
        (error,) = self._events(sample.error)
        for count in range(len(events)):
            if self._feed(events[:count], "").done:
                break
            for event, what in ((error, "error"), (CUT_EVENT, "cut")):
                case = (
                    f"the sample {sample.name!r} with a {what} event after {count} events"
                )
                if self._feed([*events[:count], event], case).error is None:
                    raise self._fault(case, f"{event.data!r} raises no BadReplyError")

    def _apart(self, sample: Sample, events: Sequence[ServerEvent], whole: Reply) -> None:
        """Decode two streams of one backend at once: neither may show in the other."""
        streams = [(self._backend.stream(ENDPOINTS[0]), Assembler()) for _ in range(2)]
        for event in events:
            for decoder, assembler in streams:
                for chunk in decoder.feed(event):
                    assembler.add(chunk)
        if any(assembler.reply() != whole for _, assembler in streams):
            case = f"two streams of the sample {sample.name!r} at once"
            raise self._fault(case, "what comes of one differs from what comes of it alone")

    def _feed(self, events: Sequence[ServerEvent], case: str) -> _Outcome:
        """Decode events, up to the first that raises; judge all that comes of them."""
        outcome = self._ask(lambda one: self._decode(one, events, case), case)
        if isinstance(outcome, BadReplyError):
            # Cannot be: `_decode` catches it.
            raise self._fault(case, f"making the decoder raises {outcome}")
        return outcome

    def _decode(
        self, backend: Backend, events: Sequence[ServerEvent], case: str
    ) -> _Outcome:
        decoder = backend.stream(ENDPOINTS[0])
        assembler = Assembler()
        for event in events:
            before = decoder.done, decoder.ended
            try:
                for chunk in decoder.feed(event):
                    if fault := _fault_of_chunk(chunk):
                        raise self._fault(f"{case}, {event!r}", fault)
                    assembler.add(chunk)
            except BadReplyError as error:
                return _Outcome(assembler.reply(), decoder.done, error)
            if fault := _fault_of_end(before, decoder):
                raise self._fault(f"{case}, {event!r}", fault)
        return _Outcome(assembler.reply(), decoder.done)

    def _failure(self, answer: HttpResponse, case: str) -> Failure:
        """Return what the shell would make of this answer, by the way that it would go."""
        if answer.status != 200:  # noqa: PLR2004
            return self._judged(self._ask(lambda one: one.failure(answer, NOW), case), case)
        reply = self._reply(answer, case)
        if isinstance(reply, Reply):
            raise self._fault(case, f"it is taken for an answer: {reply!r}")
        return reply.failure or Failure(Fault.TRANSIENT, message=str(reply))

    def _reply(self, answer: HttpResponse, case: str) -> Reply | BadReplyError:
        reply = self._ask(lambda one: one.reply(ENDPOINTS[0], answer), case)
        if isinstance(reply, BadReplyError):
            if reply.failure is not None:
                self._judged(reply.failure, case)
        elif not isinstance(reply, Reply):
            raise self._fault(case, f"it returns {reply!r}, expected a Reply")
        return reply

    def _judged(self, failure: object, case: str) -> Failure:
        if not isinstance(failure, Failure):
            raise self._fault(case, f"it returns {failure!r}, expected a Failure")
        if not isinstance(failure.kind, Limit | Fault | Refusal):
            raise self._fault(case, f"its kind is {failure.kind!r}, expected a Kind")
        hint = failure.hint
        if hint is not None and not (isinstance(hint, timedelta) and hint >= timedelta()):
            raise self._fault(case, f"its hint is {hint!r}, expected a time from now on")
        if _steers(failure.message):
            text = f"its message is {failure.message!r}, which is not fit to be shown"
            raise self._fault(case, text)
        return failure

    def _expect(self, sample: Sample, reply: Reply, case: str) -> None:
        for name, value in sample.message.items():
            if reply.message.get(name) != value:
                text = f"its {name} is {reply.message.get(name)!r}, expected {value!r}"
                raise self._fault(case, text)
        if reply.finish_reason != sample.finish_reason:
            text = f"it finishes with {reply.finish_reason!r}"
            raise self._fault(case, f"{text}, expected {sample.finish_reason!r}")

    def _ask(self, ask: Callable[[Backend], T], case: str) -> T | BadReplyError:
        """Ask twice, of two backends, and compare; return what it gave, or a bad reply."""
        watched = watch(lambda: ask(self._backend))
        again = watch(lambda: ask(self._another))
        if isinstance(watched.error, FaultyPluginError):
            raise watched.error
        if watched.error is not None and not isinstance(watched.error, BadReplyError):
            error = f"{type(watched.error).__name__}: {watched.error}"
            raise self._fault(case, f"it raises {error}")
        if watched.effect:
            raise self._fault(case, f"it is impure: it {watched.effect}")
        if _describe_outcome(watched) != _describe_outcome(again):
            text = f"asked again, it gives {_describe_outcome(again)} instead of {_describe_outcome(watched)}"
            raise self._fault(case, f"it is impure: {text}")
        return watched.error or cast("T", watched.value)

    def _events(self, stream: bytes) -> list[ServerEvent]:
        return EventParser().feed(stream)

    def _fault(self, case: str, text: str) -> FaultyPluginError:
        return FaultyPluginError(f"{self._name}: {text}\nwith {case}")


def _describe_outcome(watched: Any) -> str:
    error = watched.error
    return repr(watched.value) if error is None else f"{type(error).__name__}: {error}"


def _fault_of_request(request: HttpRequest, endpoint: Endpoint) -> str:
    """Say what of a request must not be sent; "" if nothing."""
    own, asked = urlsplit(endpoint.wire.api_base), urlsplit(request.url)
    if (own.scheme, own.netloc) != (asked.scheme, asked.netloc):
        return f"it goes to {request.url}, not to the endpoint's own host"
    if not isinstance(request.body, bytes):
        return f"its body is a {type(request.body).__name__}, expected bytes"
    for name, value in request.headers.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            return f"its header {name!r}: {value!r} is no text"
        if _steers(name + value):
            return f"its header {name!r}: {value!r} cannot be sent"
    names = {name.lower() for name in request.headers}
    key_header = request.key_header
    if key_header is not None and key_header.name.lower() in names:
        return f"it fills the header {key_header.name}, which is the shell's to fill"
    return ""


def _steers(text: str) -> bool:
    """Whether it holds what ends lines, or steers terminals."""
    return any(unicodedata.category(character) in {"Cc", "Cs"} for character in text)


def _fault_of_chunk(chunk: object) -> str:
    """Say what is wrong with the shape of a chunk; "" if nothing."""
    if not isinstance(chunk, Chunk):
        return f"it gives {chunk!r}, expected a Chunk"
    choices = chunk.raw.get("choices")
    if not isinstance(choices, list):
        return f"it gives a chunk without a list of choices: {chunk.raw!r}"
    for choice in choices:
        if not isinstance(choice, dict) or not isinstance(choice.get("delta"), dict):
            return f"it gives a choice without a delta: {chunk.raw!r}"
    return _fault_of_deltas(choices)


def _fault_of_deltas(choices: Sequence[Json]) -> str:
    for delta in (choice["delta"] for choice in choices):
        for name in ("content", "reasoning_content"):
            if not isinstance(delta.get(name), str | None):
                return f"it gives a delta whose {name} is no text: {delta!r}"
        if fault := _fault_of_calls(delta.get("tool_calls")):
            return f"{fault}: {delta!r}"
    return ""


def _fault_of_calls(calls: object) -> str:
    if calls is None:
        return ""
    if not isinstance(calls, list):
        return "it gives tool calls that are no list"
    for call in calls:
        function = call.get("function")
        if not isinstance(call.get("index"), int) or not isinstance(function, dict):
            return "it gives a piece of a tool call without an index or a function"
        if not isinstance(function.get("arguments"), str | None):
            return "it gives a tool call whose arguments are no text"
    return ""


def _fault_of_end(before: tuple[object, object], decoder: Decoder) -> str:
    after = decoder.done, decoder.ended
    for name, earlier, later in zip(("done", "ended"), before, after, strict=True):
        if type(later) is not bool:
            return f"its `{name}` is {later!r}, expected True or False"
        if earlier and not later:
            return f"its `{name}` was True before, and is False again"
    return ""


def _describe_attempt(answer: HttpResponse) -> str:
    headers = f" {dict(answer.headers)}" if answer.headers else ""
    return f"HTTP {answer.status}{headers} {answer.body!r}"
