"""`check_backend`: whether a backend keeps what the shell relies on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import product
from typing import Any, TypeVar, cast

from attrs import frozen
from hypothesis.strategies import SearchStrategy

from muxcore.assembling import Assembler
from muxcore.chat import Chat, Chunk, Reply
from muxcore.core.outcomes import Fault
from muxcore.core.records import Endpoint, Wire
from muxcore.plugins.backend import (
    Backend,
    BadReplyError,
    Failure,
    HttpResponse,
    ServerEvent,
)
from muxcore.shell.http.events import EventParser
from muxcore.testing import junk
from muxcore.testing.chats import CHATS
from muxcore.testing.faults import FaultyPluginError, search
from muxcore.testing.purity import Traced, run_untraced, trace
from muxcore.testing.samples import OPENAI_SAMPLES, Row, Sample, failure_table
from muxcore.testing.shapes import (
    End,
    fault_of_chunk,
    fault_of_end,
    fault_of_failure,
    fault_of_request,
)

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
ODD_EVENTS: SearchStrategy[str] = junk.ANSWERS.map(
    lambda answer: answer.body.decode("utf-8", "replace")
)


def check_backend(
    make: Callable[[], Backend],
    *,
    samples: Sequence[Sample] = OPENAI_SAMPLES,
    failures: Sequence[Row] | None = None,
    runs: int = 100,
) -> None:
    """Give a backend generated chats, every answer of the failure table, and cut streams.

    `make` is its factory. A dialect whose answers have a shape of their own brings `samples`
    of them, and `failures` if even its refusals do. Raise a `FaultyPluginError`, with the
    smallest case found, if the backend raises, is impure, misclassifies a refusal, accepts
    half an answer as a whole one, or sends what it should not.
    """
    checked = _CheckedBackend(make)
    # Fixed cases first: most faults show in milliseconds there, the search takes seconds.
    for row in failure_table() if failures is None else failures:
        checked.check_row(row)
    for status, body in product(junk.STATUSES, junk.BODIES):
        checked.check_junk(HttpResponse(status, {}, body))
    for sample in samples:
        checked.check_reply(sample)
        checked.check_stream(sample)
    for endpoint in ENDPOINTS:
        search(CHATS, lambda chat, at=endpoint: checked.check_request(at, chat), runs)  # type: ignore[misc]
    search(junk.ANSWERS, checked.check_junk, runs)
    for sample in samples:
        search(
            ODD_EVENTS,
            lambda data, of=sample: checked.check_odd_event(of, data),  # type: ignore[misc]
            runs,
        )


@frozen
class _Fed:
    """What a decoder made of one event. `error` is how it rejected the event, if it did."""

    event: ServerEvent
    chunks: list[Chunk]
    end: End
    error: BadReplyError | None = None


@frozen
class _Decoded:
    """What came of a stream: the reply so far, whether it is whole, and what was raised."""

    reply: Reply
    done: bool
    error: BadReplyError | None = None


class _CheckedBackend:
    """A backend under test. Two of it are asked everything, and each answer is judged."""

    def __init__(self, make: Callable[[], Backend]) -> None:
        self._backend = make()
        self._another = make()
        self._name = f"{type(self._backend).__module__}.{type(self._backend).__qualname__}"

    def check_request(self, endpoint: Endpoint, chat: Chat) -> None:
        before = copy.deepcopy(chat)
        case = f"request({endpoint.alias}, {chat!r})"
        # Only one gets the chat itself: what it changes there must not reach the other.
        given = iter((chat, copy.deepcopy(chat)))
        request = self._ask(lambda one: one.request(endpoint, next(given)), case)
        if chat != before:
            raise self._fault(case, "it changes the chat it was given")
        if fault := fault_of_request(request, endpoint):
            raise self._fault(case, fault)

    def check_row(self, row: Row) -> None:
        case = f"the failure table's {row.name}, {_describe_answer(row.answer)}"
        failure = self._classify(row.answer, case)
        if failure.kind not in row.kinds:
            expected = " or ".join(str(kind) for kind in row.kinds)
            text = f'it is classified as "{failure.kind}", expected "{expected}"'
            raise self._fault(case, text)

    def check_junk(self, answer: HttpResponse) -> None:
        """Check that it raises nothing but `BadReplyError`, whatever the bytes."""
        case = _describe_answer(answer)
        self._failure(answer, case)
        self._reply(HttpResponse(HTTPStatus.OK, answer.headers, answer.body), case)

    def check_reply(self, sample: Sample) -> None:
        """Decode a whole answer, and reject it when it is cut after any of its bytes."""
        case = f"the reply of the sample {sample.name!r}"
        reply = self._reply(HttpResponse(HTTPStatus.OK, {}, sample.reply), case)
        if isinstance(reply, BadReplyError):
            raise self._fault(case, f"it rejects it: {reply}")
        self._compare(sample, reply, case)
        for length in range(len(sample.reply)):
            part = sample.reply[:length]
            answer = HttpResponse(HTTPStatus.OK, {}, part)
            if isinstance(self._reply(answer, case), Reply):
                text = f"cut after {length} bytes, it is accepted as a whole answer"
                raise self._fault(f"{case}, {part[-60:]!r}", text)

    def check_stream(self, sample: Sample) -> None:
        """Cut a stream after every event, put an error there, and mix two streams.

        A cut within an event is the same case: the shell's parser keeps half events back.
        """
        case = f"the stream of the sample {sample.name!r}"
        events = _events(sample.stream)
        whole = self._decode(events, case)
        if whole.error is not None:
            raise self._fault(case, f"it rejects it: {whole.error}")
        if not whole.done:
            raise self._fault(case, "it is not `done` at its end")
        self._compare(sample, whole.reply, case)
        may_fail = True
        for count in range(len(events)):
            cut = self._decode(events[:count], f"{case}, cut after {count} events")
            if cut.done and cut.reply.message != whole.reply.message:
                text = f"it is `done` with {cut.reply.message!r}, but more was to come"
                raise self._fault(f"{case}, cut after {count} events", text)
            # A stream that is done may ignore what follows.
            may_fail = may_fail and not cut.done
            if may_fail:
                self._check_error_events(sample, events[:count])
        self._check_two_streams(sample, events, whole.reply)

    def check_odd_event(self, sample: Sample, data: str) -> None:
        """Check that it raises nothing but `BadReplyError`, whatever the event."""
        case = f"the sample {sample.name!r} with the event {data!r} in the middle"
        events = _events(sample.stream)
        middle = len(events) // 2
        self._decode([*events[:middle], ServerEvent(data), *events[middle:]], case)

    def _check_error_events(self, sample: Sample, before: Sequence[ServerEvent]) -> None:
        (error,) = _events(sample.error)
        for event, what in ((error, "error"), (CUT_EVENT, "cut")):
            case = (
                f"the sample {sample.name!r} with a {what} event after {len(before)} events"
            )
            if self._decode([*before, event], case).error is None:
                raise self._fault(case, f"{event.data!r} raises no BadReplyError")

    def _check_two_streams(
        self, sample: Sample, events: Sequence[ServerEvent], whole: Reply
    ) -> None:
        """Decode two streams of one backend at once: neither may affect the other."""
        streams = [(self._backend.stream(ENDPOINTS[0]), Assembler()) for _ in range(2)]
        for event in events:
            for decoder, assembler in streams:
                for chunk in decoder.feed(event):
                    assembler.add(chunk)
        if any(assembler.reply() != whole for _, assembler in streams):
            case = f"two streams of the sample {sample.name!r} at once"
            raise self._fault(case, "each differs from the same stream alone")

    def _decode(self, events: Sequence[ServerEvent], case: str) -> _Decoded:
        """Decode events up to the first that is rejected, and judge what comes of them."""
        result = self._ask(lambda one: _feed(one, events), case)
        if isinstance(result, BadReplyError):
            raise self._fault(case, f"making the decoder raises {result}")
        end, fed = result
        error = None
        assembler = Assembler()
        for each in fed:
            before, end, error = end, each.end, each.error
            for chunk in each.chunks:
                if fault := fault_of_chunk(chunk):
                    raise self._fault(f"{case}, {each.event!r}", fault)
                assembler.add(chunk)
            if error is None and (fault := fault_of_end(before, end)):
                raise self._fault(f"{case}, {each.event!r}", fault)
        return _Decoded(assembler.reply(), end[0] is True, error)

    def _classify(self, answer: HttpResponse, case: str) -> Failure:
        """Return the failure that the shell would get for this answer, and the way it does."""
        if answer.status != HTTPStatus.OK:
            return self._failure(answer, case)
        reply = self._reply(answer, case)
        if isinstance(reply, Reply):
            raise self._fault(case, f"it is accepted as an answer: {reply!r}")
        return reply.failure or Failure(Fault.TRANSIENT, message=str(reply))

    def _reply(self, answer: HttpResponse, case: str) -> Reply | BadReplyError:
        reply = self._ask(lambda one: one.reply(ENDPOINTS[0], answer), case)
        if isinstance(reply, BadReplyError):
            if reply.failure is not None:
                self._judge_failure(reply.failure, case)
        elif not isinstance(reply, Reply):
            raise self._fault(case, f"it returns {reply!r}, expected a Reply")
        return reply

    def _failure(self, answer: HttpResponse, case: str) -> Failure:
        return self._judge_failure(
            self._ask(lambda one: one.failure(answer, NOW), case), case
        )

    def _judge_failure(self, failure: object, case: str) -> Failure:
        if fault := fault_of_failure(failure):
            raise self._fault(case, fault)
        return cast("Failure", failure)

    def _compare(self, sample: Sample, reply: Reply, case: str) -> None:
        for name, value in sample.message.items():
            if reply.message.get(name) != value:
                text = f"its {name} is {reply.message.get(name)!r}, expected {value!r}"
                raise self._fault(case, text)
        if reply.finish_reason != sample.finish_reason:
            text = f"it finishes with {reply.finish_reason!r}"
            raise self._fault(case, f"{text}, expected {sample.finish_reason!r}")

    def _ask(self, ask: Callable[[Backend], T], case: str) -> T | BadReplyError:
        """Ask two backends and compare; return what the first returned, or its bad reply.

        Only the first runs under the hook: the second is there to be compared with.
        """
        first = trace(lambda: ask(self._backend))
        second = run_untraced(lambda: ask(self._another))
        if first.error is not None and not isinstance(first.error, BadReplyError):
            error = f"{type(first.error).__name__}: {first.error}"
            raise self._fault(case, f"it raises {error}")
        if first.effect:
            raise self._fault(case, f"it is impure: it {first.effect}")
        result, again = _describe_result(first), _describe_result(second)
        if result != again:
            text = f"asked again, it returns {again} instead of {result}"
            raise self._fault(case, f"it is impure: {text}")
        return first.error or cast("T", first.value)

    def _fault(self, case: str, text: str) -> FaultyPluginError:
        return FaultyPluginError(f"{self._name}: {text}\nwith {case}")


def _feed(backend: Backend, events: Sequence[ServerEvent]) -> tuple[End, list[_Fed]]:
    """Return the state of a new decoder, and what it made of each event."""
    decoder = backend.stream(ENDPOINTS[0])
    start = decoder.done, decoder.ended
    fed = []
    for event in events:
        chunks: list[Chunk] = []
        error = None
        try:
            # One by one: a generator may yield some before it raises.
            for chunk in decoder.feed(event):
                chunks.append(chunk)  # noqa: PERF402
        except BadReplyError as rejection:
            error = rejection
        fed.append(_Fed(event, chunks, (decoder.done, decoder.ended), error))
        if error is not None:
            break
    return start, fed


def _events(stream: bytes) -> list[ServerEvent]:
    return EventParser().feed(stream)


def _describe_result(traced: Traced[Any]) -> str:
    error = traced.error
    return repr(traced.value) if error is None else f"{type(error).__name__}: {error}"


def _describe_answer(answer: HttpResponse) -> str:
    headers = f" {dict(answer.headers)}" if answer.headers else ""
    return f"HTTP {answer.status}{headers} {answer.body!r}"
