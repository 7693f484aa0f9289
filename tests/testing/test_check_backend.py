"""`check_backend` finds each kind of fault that a backend may have, and passes the built-in ones."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from muxcore.chat import Chat, Chunk, Reply
from muxcore.core.outcomes import Fault, Limit
from muxcore.core.records import Endpoint
from muxcore.plugins.backend import (
    BadReplyError,
    Decoder,
    Failure,
    HttpRequest,
    HttpResponse,
    ServerEvent,
)
from muxcore.plugins.catalogue import built_in
from muxcore.testing import (
    OPENAI_SAMPLES,
    FaultyPluginError,
    Sample,
    check_backend,
    failure_table,
)
from muxcore_backends.generic import Generic
from muxcore_backends.streaming import GenericDecoder

BACKENDS = {name: entry.factory for name, entry in built_in().backends.items()}


def anthropic(
    message: dict[str, Any],
    reason: str,
    block: dict[str, Any],
    begins: dict[str, Any],
    *deltas: dict[str, Any],
) -> Sample:
    """Make a sample in Anthropic's dialect, of one block that is streamed in pieces."""
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m"}
    usage = {"input_tokens": 9, "output_tokens": 3}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**head, "content": [], "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {**block, **begins}},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage},
        {"type": "message_stop"},
    ]
    error = {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "Overloaded"},
    }
    *stream, failed = (
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        for event in [*events, error]
    )
    reply = {**head, "content": [block], "stop_reason": reason, "usage": usage}
    return Sample(
        str(block["type"]),
        json.dumps(reply).encode(),
        b"".join(stream),
        message,
        {"end_turn": "stop", "tool_use": "tool_calls"}[reason],
        failed,
    )


def responses(message: dict[str, Any], item: dict[str, Any], **delta: str) -> Sample:
    """Make a sample in the Responses API, of one item that is streamed in two pieces."""
    head = {"id": "resp_1", "object": "response", "model": "m", "status": "completed"}
    usage = {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}
    ((kind, text),) = delta.items()
    reply = {**head, "output": [item], "usage": usage}
    at = {"output_index": 0, "item_id": "1"}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**head, "output": []}},
        {"type": "response.output_item.added", **at, "item": {**item, "arguments": ""}},
        {"type": f"response.{kind}.delta", **at, "delta": text[:3]},
        {"type": f"response.{kind}.delta", **at, "delta": text[3:]},
        {"type": "response.output_item.done", **at, "item": item},
        {"type": "response.completed", "response": reply},
    ]
    error = {"code": "server_error", "message": "Overloaded"}
    failed = {"type": "response.failed", "response": {**head, "error": error}}
    *stream, last = (
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        for event in [*events, failed]
    )
    reason = "tool_calls" if "tool_calls" in message else "stop"
    return Sample(
        str(item["type"]),
        json.dumps(reply).encode(),
        b"".join(stream),
        message,
        reason,
        last,
    )


FUNCTION = {"name": "list", "arguments": '{"path": "a"}'}
SAMPLES = {
    "anthropic": [
        anthropic(
            {"role": "assistant", "content": "Hello"},
            "end_turn",
            {"type": "text", "text": "Hello"},
            {"text": ""},
            {"type": "text_delta", "text": "Hel"},
            {"type": "text_delta", "text": "lo"},
        ),
        anthropic(
            {"tool_calls": [{"id": "toolu_1", "type": "function", "function": FUNCTION}]},
            "tool_use",
            {"type": "tool_use", "id": "toolu_1", "name": "list", "input": {"path": "a"}},
            {"input": {}},
            {"type": "input_json_delta", "partial_json": '{"path": '},
            {"type": "input_json_delta", "partial_json": '"a"}'},
        ),
    ],
    "openai-responses": [
        responses(
            {"role": "assistant", "content": "Hello"},
            {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]},
            output_text="Hello",
        ),
        responses(
            {"tool_calls": [{"id": "call_1", "type": "function", "function": FUNCTION}]},
            {"type": "function_call", "call_id": "call_1", **FUNCTION},
            function_call_arguments=FUNCTION["arguments"],
        ),
    ],
}


@pytest.mark.unmeasured
@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("runs", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_the_built_in_backends_pass(name: str, runs: int) -> None:
    samples = SAMPLES.get(name, OPENAI_SAMPLES)
    check_backend(BACKENDS[name], samples=samples, runs=runs)


def fault_found(make: Callable[[], Any], **more: Any) -> str:
    with pytest.raises(FaultyPluginError) as caught:
        check_backend(make, **{"runs": 40, **more})
    return str(caught.value)


# --- requests ------------------------------------------------------------------------------


def changed(record: Any, **fields: Any) -> Any:
    """Change a record's fields to what its types forbid."""
    return evolve(record, **fields)


def requesting(change: Callable[[Endpoint, Chat, HttpRequest], Any]) -> Callable[[], Any]:
    class Planted(Generic):
        def request(self, endpoint: Endpoint, chat: Chat) -> Any:
            return change(endpoint, chat, super().request(endpoint, chat))

    return Planted


def with_a_message(endpoint: Endpoint, chat: Chat, request: HttpRequest) -> HttpRequest:
    chat.messages.append({"role": "user", "content": "more"})  # type: ignore[attr-defined]
    return request


REQUESTS: dict[str, tuple[Callable[[Endpoint, Chat, HttpRequest], Any], str]] = {
    "raises": (
        lambda e, c, r: c.messages[9],
        "it raises IndexError: list index out of range",
    ),
    "changes the chat": (with_a_message, "it changes the chat it was given"),
    "no request": (lambda e, c, r: None, "it returns None, expected an HttpRequest"),
    "another host": (
        lambda e, c, r: evolve(r, url="https://elsewhere.example/v1"),
        "it goes to https://elsewhere.example/v1, not to the endpoint's own host",
    ),
    "in clear": (
        lambda e, c, r: evolve(r, url=r.url.replace("https", "http")),
        "it goes to http://models.example/v1/chat/completions, not to",
    ),
    "text": (lambda e, c, r: changed(r, body="{}"), "its body is a str, expected bytes"),
    "a number": (
        lambda e, c, r: changed(r, headers={"x": 1}),
        "its header 'x': 1 is not text",
    ),
    "a line end": (
        lambda e, c, r: evolve(r, headers={"x": "a\r\nb: c"}),
        "its header 'x': 'a\\r\\nb: c' has control characters",
    ),
    "a key": (
        lambda e, c, r: evolve(r, headers={"authorization": "Bearer x"}),
        "it sets the header Authorization, which the shell sets",
    ),
    "the time": (
        lambda e, c, r: evolve(r, headers={"x": str(time.time())}),
        "it is impure: it reads the clock (time.time)",
    ),
}


@pytest.mark.parametrize(("change", "fault"), REQUESTS.values(), ids=REQUESTS)
def test_a_faulty_request_is_found(change: Any, fault: str) -> None:
    assert fault in fault_found(requesting(change), samples=[], failures=[])


def test_a_backend_with_a_count_of_its_own_is_impure() -> None:
    made: list[object] = []

    class Planted(Generic):
        def request(self, endpoint: Endpoint, chat: Chat) -> HttpRequest:
            made.append(chat)
            return evolve(super().request(endpoint, chat), headers={"x": str(len(made))})

    text = fault_found(Planted)
    assert "it is impure: asked again, it returns HttpRequest(" in text
    assert "with request(distant, Chat(" in text


# --- answers -------------------------------------------------------------------------------


def failing(change: Callable[[HttpResponse, Failure], Any]) -> Callable[[], Any]:
    class Planted(Generic):
        def failure(self, answer: HttpResponse, now: datetime) -> Any:
            return change(answer, super().failure(answer, now))

    return Planted


def junk_raises(answer: HttpResponse, failure: Failure) -> Failure:
    return json.loads(answer.body)["error"] if answer.status == 599 else failure


FAILURES: dict[str, tuple[Callable[[HttpResponse, Failure], Any], str]] = {
    "a quota for a rate": (
        lambda a, f: evolve(f, kind=Limit.RATE) if f.kind is Limit.QUOTA else f,
        'it is classified as "rate limited", expected "quota spent"',
    ),
    "all transient": (lambda a, f: Failure(Fault.TRANSIENT), 'it is classified as "error"'),
    "no failure": (lambda a, f: None, "it returns None, expected a Failure"),
    "no kind": (
        lambda a, f: changed(f, kind="error"),
        "its kind is 'error', expected a Kind",
    ),
    "a hint in the past": (
        lambda a, f: evolve(f, hint=timedelta(seconds=-1)),
        "expected a timedelta of zero or more",
    ),
    "a hint in seconds": (lambda a, f: changed(f, hint=3.0), "its hint is 3.0"),
    "a message in colours": (
        lambda a, f: evolve(f, message="\x1b[31mred"),
        "has control characters",
    ),
    "junk raises": (junk_raises, "it raises "),
}


@pytest.mark.parametrize(("change", "fault"), FAILURES.values(), ids=FAILURES)
def test_a_faulty_failure_is_found(change: Any, fault: str) -> None:
    assert fault in fault_found(failing(change), runs=100)


def replying(
    change: Callable[[HttpResponse, Callable[[], Reply]], Any],
) -> Callable[[], Any]:
    class Planted(Generic):
        def reply(self, endpoint: Endpoint, answer: HttpResponse) -> Any:
            whole = super().reply
            return change(answer, lambda: whole(endpoint, answer))

    return Planted


def half(answer: HttpResponse, reply: Callable[[], Reply]) -> Reply:
    try:
        return reply()
    except BadReplyError:
        if answer.body.startswith(b'{"id": "chatcmpl-1"'):
            return Reply({"role": "assistant", "content": "half"})
        raise


def without_failure(answer: HttpResponse, reply: Callable[[], Reply]) -> Reply:
    try:
        return reply()
    except BadReplyError as error:
        raise BadReplyError(str(error)) from None


REPLIES: dict[str, tuple[Callable[[HttpResponse, Callable[[], Reply]], Any], str]] = {
    "no error": (
        lambda a, r: Reply({"role": "assistant"}),
        "it is accepted as an answer: Reply(",
    ),
    "raw": (lambda a, r: r() and {}, "it returns {}, expected a Reply"),
    "refuses": (
        lambda a, r: r() and (_ for _ in ()).throw(BadReplyError("no")),
        "it rejects it: no",
    ),
    "half": (half, "it is accepted as a whole answer"),
    "other words": (
        lambda a, r: evolve(r(), message={"role": "assistant", "content": "x"}),
        "its content is 'x', expected 'Grüße, 世界 👋'",
    ),
    "another end": (
        lambda a, r: evolve(r(), finish_reason="length"),
        "it finishes with 'length', expected 'stop'",
    ),
    "no words for a refusal": (without_failure, 'it is classified as "error", expected'),
}


@pytest.mark.parametrize(("change", "fault"), REPLIES.values(), ids=REPLIES)
def test_a_faulty_reply_is_found(change: Any, fault: str) -> None:
    assert fault in fault_found(replying(change))


# --- streams -------------------------------------------------------------------------------


def decoding(decoder: type[GenericDecoder]) -> Callable[[], Any]:
    class Planted(Generic):
        def stream(self, endpoint: Endpoint) -> Decoder:
            return decoder(endpoint.wire)

    return Planted


class Swallows(GenericDecoder):
    def feed(self, event: ServerEvent) -> tuple[Chunk, ...]:
        try:
            return super().feed(event)
        except BadReplyError:
            return ()


class Trusts(GenericDecoder):
    done = True


class Doubts(GenericDecoder):
    done = False


class AnswersWithText(GenericDecoder):
    done = "yes"  # type: ignore[assignment]


class Forgets(GenericDecoder):
    """`done` at the finish reason, but not after it."""

    def feed(self, event: ServerEvent) -> tuple[Chunk, ...]:
        self._finished = False
        return super().feed(event)


class Refuses(GenericDecoder):
    def feed(self, event: ServerEvent) -> tuple[Chunk, ...]:
        raise BadReplyError("not today")


class Raises(GenericDecoder):
    def feed(self, event: ServerEvent) -> tuple[Chunk, ...]:
        json.loads(event.data) if event.data != "[DONE]" else None
        return super().feed(event)


def giving(raw: Any) -> type[GenericDecoder]:
    class Gives(GenericDecoder):
        def feed(self, event: ServerEvent) -> Any:
            list(super().feed(event))
            return [raw if not isinstance(raw, dict) else Chunk(raw)]

    return Gives


def with_delta(**delta: Any) -> type[GenericDecoder]:
    return giving({"choices": [{"delta": delta}]})


class Doubles(GenericDecoder):
    def feed(self, event: ServerEvent) -> tuple[Chunk, ...]:
        return super().feed(event) * 2


STREAMS: dict[str, tuple[type[GenericDecoder], str]] = {
    "swallows errors": (Swallows, "raises no BadReplyError"),
    "takes any end for the end": (Trusts, "but more was to come"),
    "never done": (Doubts, "it is not `done` at its end"),
    "done is text": (AnswersWithText, "its `done` is 'yes', expected True or False"),
    "done is withdrawn": (Forgets, "its `done` was True before, and is False again"),
    "refuses": (Refuses, "it rejects it: not today"),
    "raises what it should not": (Raises, "it raises JSONDecodeError"),
    "yields everything twice": (Doubles, "its content is 'GrüGrüße"),
    "no chunk": (giving("text"), "it yields 'text', expected a Chunk"),
    "no choices": (giving({"id": "1"}), "it yields a chunk without a list of choices"),
    "no delta": (giving({"choices": [{}]}), "it yields a choice without a delta"),
    "text that is a list": (
        with_delta(content=["a"]),
        "it yields a delta whose content is not text",
    ),
    "no list": (
        with_delta(tool_calls={"a": 1}),
        "it yields tool calls that are not a list",
    ),
    "no index": (
        with_delta(tool_calls=[{"function": {}}]),
        "without an index or a function",
    ),
    "no piece": (with_delta(tool_calls=["a"]), "a tool call that is not an object"),
    "no arguments": (
        with_delta(tool_calls=[{"index": 0, "function": {"arguments": {}}}]),
        "it yields a tool call whose arguments are not text",
    ),
}


@pytest.mark.parametrize(("decoder", "fault"), STREAMS.values(), ids=STREAMS)
def test_a_faulty_stream_is_found(decoder: type[GenericDecoder], fault: str) -> None:
    assert fault in fault_found(decoding(decoder), failures=[])


def test_a_decoder_that_shares_state_with_another_is_found() -> None:
    last: list[Any] = []

    class Forgetful(GenericDecoder):
        """Leaves out repeated chunks, but remembers them across streams."""

        def feed(self, event: ServerEvent) -> tuple[Chunk, ...]:
            chunks = tuple(chunk for chunk in super().feed(event) if chunk not in last)
            last[:] = chunks
            return chunks

    class Planted(Generic):
        def stream(self, endpoint: Endpoint) -> Decoder:
            last.clear()
            return Forgetful(endpoint.wire)

    assert "each differs from the same stream alone" in fault_found(Planted)


def test_a_decoder_that_cannot_be_made_is_found() -> None:
    class Planted(Generic):
        def stream(self, endpoint: Endpoint) -> Decoder:
            raise BadReplyError("no streams here")

    assert "making the decoder raises no streams here" in fault_found(Planted)


# --- samples -------------------------------------------------------------------------------


def test_a_dialect_may_have_its_own_samples() -> None:
    sample = OPENAI_SAMPLES[0]
    check_backend(Generic, samples=[sample], failures=[], runs=10)
    # A stream whose last event completes it.
    short = sample.stream.rpartition(b"\n\ndata: {")[0] + b"\n\n"
    check_backend(Generic, samples=[evolve(sample, stream=short)], failures=[], runs=10)
    wrong = evolve(sample, message={"content": "something else"})
    assert "expected 'something else'" in fault_found(Generic, samples=[wrong], failures=[])
    silent = evolve(sample, error=b'data: {"choices": [], "sorry": true}\n\n')
    assert "raises no BadReplyError" in fault_found(Generic, samples=[silent], failures=[])


def test_the_failure_table_holds_every_recorded_answer() -> None:
    """Every recorded answer is a row, with the same bytes."""
    file = Path(__file__).parents[1] / "backends" / "failure_examples.json"
    rows = {row.name: row for row in failure_table()}
    for example in json.loads(file.read_text("utf-8")):
        answer = rows[example["id"]].answer
        body = example["body"]
        raw = body if isinstance(body, str) else json.dumps(body)
        assert answer == HttpResponse(example["status"], example["headers"], raw.encode())
    assert len(rows) > 50
    assert all(row.kinds for row in rows.values())


def test_the_samples_are_named() -> None:
    assert [sample.name for sample in OPENAI_SAMPLES] == ["text", "reasoning", "tool calls"]
    assert isinstance(OPENAI_SAMPLES[0], Sample)
