"""An attempt without a response is described in a few plain words."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
from collections.abc import Callable
from typing import Any, cast

import pytest
import requests
import urllib3
from attrs import evolve, frozen

from muxcore import PoolExhaustedError, RequestRejectedError, StreamInterruptedError
from muxcore.chat import Chunk, Usage
from muxcore.core.outcomes import CancelReason, Fault, Refusal
from muxcore.core.records import Endpoint
from muxcore.plugins.backend import BadReplyError, Failure, ServerEvent
from muxcore.plugins.backend import HttpResponse as Answered
from muxcore.shell.call import decoding
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.shell.http import fast_path as kept
from muxcore.shell.http import transport
from muxcore.shell.http.cancel_scope import CancelScope
from muxcore.standin import Answer, Model, Raw, StatusAnswer
from muxcore_backends.generic import Generic

Make = Callable[..., Multiplexer]

PING = [{"role": "user", "content": "ping"}]
POOL: Any = None
NEVER = 9e9


def fresh() -> CancelScope:
    return CancelScope(NEVER, NEVER)


def wrapped(error: Exception) -> Exception:
    """As requests and urllib3 do it: as a reason, an argument, a cause."""
    retried = urllib3.exceptions.MaxRetryError(POOL, "/", error)
    return requests.exceptions.ConnectionError(retried)


def caused(error: Exception) -> Exception:
    outer = urllib3.exceptions.NewConnectionError(POOL, "no")
    outer.__cause__ = error
    return wrapped(outer)


ERRORS: list[tuple[Exception, str]] = [
    (caused(ConnectionRefusedError()), "the connection was refused"),
    (caused(OSError("unreachable")), "it could not be connected to"),
    (
        wrapped(urllib3.exceptions.ConnectTimeoutError()),
        "it could not be connected to in time",
    ),
    (
        wrapped(
            urllib3.exceptions.NameResolutionError("host", POOL, socket.gaierror("no"))
        ),
        "its name could not be resolved",
    ),
    (
        requests.exceptions.ReadTimeout(
            urllib3.exceptions.ReadTimeoutError(POOL, "/", "Read timed out.")
        ),
        "it was silent for too long",
    ),
    (TimeoutError(), "it was silent for too long"),
    (requests.exceptions.SSLError(), "its certificate or TLS connection failed"),
    (
        urllib3.exceptions.ProtocolError("", http.client.RemoteDisconnected("")),
        "the connection was closed without an answer",
    ),
    (
        urllib3.exceptions.ProtocolError("", ConnectionResetError()),
        "the connection was reset",
    ),
    (urllib3.exceptions.IncompleteRead(3, 4), "the answer broke off"),
    (urllib3.exceptions.ProtocolError("odd"), "the connection broke off"),
    (urllib3.exceptions.DecodeError(), "its answer could not be decompressed"),
    (requests.exceptions.ProxyError(), "the proxy did not let it through"),
    (requests.exceptions.InvalidProxyURL(), "the address of its proxy makes no sense"),
    (
        requests.exceptions.InvalidSchema(),
        "its proxy is of a kind that this `requests` does not speak",
    ),
    (ValueError("sk-secret"), "no answer (ValueError)"),
    (OSError("sk-secret"), "no answer (OSError)"),
]


@pytest.mark.parametrize(("error", "text"), ERRORS, ids=[text for _, text in ERRORS])
def test_an_error_is_described_in_plain_words(error: Exception, text: str) -> None:
    assert transport._describe_failure(error, fresh()) == text


def test_a_cancelled_attempt_is_described_by_its_reason() -> None:
    scope = fresh()
    scope.cancel(CancelReason.CALL_TIME)
    assert (
        transport._describe_failure(ConnectionResetError(), scope)
        == "the call's time is over"
    )


def test_errors_that_refer_to_each_other_are_described() -> None:
    one, other = OSError(), OSError()
    one.__cause__, other.__cause__ = other, one
    assert transport._describe_failure(one, fresh()) == "no answer (OSError)"


@pytest.mark.parametrize(
    ("error", "idle"),
    [
        (ConnectionResetError(), True),
        (http.client.RemoteDisconnected(""), True),
        (BrokenPipeError(), True),
        (ssl.SSLEOFError(), True),
        (TimeoutError(), False),
        (ConnectionRefusedError(), False),
    ],
)
def test_a_close_of_an_idle_connection_is_recognised(
    error: Exception, *, idle: bool
) -> None:
    assert transport._closed_idle(wrapped(error)) is idle


def test_a_tls_error_on_the_fast_path_counts_as_closed_while_idle() -> None:
    with pytest.raises(urllib3.exceptions.SSLError) as caught:
        kept.raise_as_urllib3(ssl.SSLEOFError(), POOL)
    assert transport._closed_idle(caught.value)


def test_headers_are_read_by_lower_case_names(make: Make, alpha: Model) -> None:
    seen: list[Answered] = []

    class Looking(Generic):
        def failure(self, answer: Answered, now: Any) -> Failure:
            seen.append(answer)
            return super().failure(answer, now)

    alpha.default = StatusAnswer(503, {}, {"X-Odd-Case": "Yes"})
    multiplexer = make("alpha", max_wait_ms=0)
    multiplexer._runtime.members["alpha"].backend = Looking()
    with pytest.raises(PoolExhaustedError):
        multiplexer.complete(PING)
    assert seen[0].headers["x-odd-case"] == "Yes"
    assert "X-Odd-Case" not in list(seen[0].headers)


def test_a_response_is_bounded(
    make: Make, alpha: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "LARGEST_BODY", 1000)
    alpha.default = Answer("x" * 2000)
    with pytest.raises(PoolExhaustedError, match="the answer is longer than 1000 bytes"):
        make("alpha", max_wait_ms=0).complete(PING)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_compressed_response_is_read(make: Make, alpha: Model, coding: str) -> None:
    import gzip
    import zlib

    text = b'{"choices": [{"message": {"content": "small"}, "finish_reason": "stop"}]}'
    data = gzip.compress(text) if coding == "gzip" else zlib.compress(text)
    # Byte by byte: most of them decompress to nothing yet.
    pieces = tuple(data[i : i + 1] for i in range(len(data)))
    alpha.default = Raw(pieces, headers={"content-encoding": coding})
    assert make("alpha").complete(PING).text == "small"


def test_a_compressed_stream_is_read(make: Make, alpha: Model) -> None:
    import zlib

    events = (
        b'data: {"choices": [{"delta": {"content": "small"}}]}\n\n',
        b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n',
    )
    packer = zlib.compressobj()
    pieces = [packer.compress(e) + packer.flush(zlib.Z_SYNC_FLUSH) for e in events]
    alpha.default = Raw((*pieces, packer.flush()), headers={"content-encoding": "deflate"})
    with make("alpha").stream(PING) as stream:
        assert "".join(chunk.text for chunk in stream) == "small"


# Third-party backends may raise anything at any point.


@frozen
class Broken(Generic):
    """Raises in one of its methods."""

    where: str
    error: Exception

    def _raise(self, where: str) -> None:
        if where == self.where:
            raise self.error

    def request(self, endpoint: Endpoint, chat: Any) -> Any:
        self._raise("request")
        return super().request(endpoint, chat)

    def reply(self, endpoint: Endpoint, answer: Answered) -> Any:
        self._raise("reply")
        return super().reply(endpoint, answer)

    def failure(self, answer: Answered, now: Any) -> Failure:
        self._raise("failure")
        return super().failure(answer, now)

    def stream(self, endpoint: Endpoint) -> Any:
        self._raise("stream")
        decoder = super().stream(endpoint)
        outer = self

        class Feeding:
            done = False
            ended = False

            def feed(self, event: ServerEvent) -> tuple[Chunk, ...]:
                outer._raise("feed")
                return tuple(decoder.feed(event))

        return Feeding()


@pytest.mark.parametrize("where", ["reply", "failure", "feed", "stream"])
def test_a_backend_that_raises_is_named_and_passed_over(
    make: Make, alpha: Model, where: str
) -> None:
    if where == "failure":
        alpha.default = StatusAnswer(503)
    multiplexer = make("alpha", {"model": "beta", "is_fallback": True})
    multiplexer._runtime.members["alpha"].backend = Broken(where, LookupError("oops"))
    if where in {"feed", "stream"}:
        with multiplexer.stream(PING) as stream:
            list(stream)
        reply = stream.reply
    else:
        reply = multiplexer.complete(PING)
    assert reply.model == "beta"
    assert reply.attempts[0].outcome == "error"
    assert reply.attempts[0].message == "the backend generic raised LookupError: oops"
    assert multiplexer.status().models[0].in_flight == 0


def test_a_backend_may_raise_a_bad_reply_without_a_kind(make: Make, alpha: Model) -> None:
    for where in ("reply", "feed"):
        multiplexer = make("alpha", {"model": "beta", "is_fallback": True})
        multiplexer._runtime.members["alpha"].backend = Broken(where, BadReplyError("odd"))
        if where == "feed":
            with multiplexer.stream(PING) as stream:
                list(stream)
            reply = stream.reply
        else:
            reply = multiplexer.complete(PING)
        assert reply.attempts[0].message == "odd"
        assert reply.model == "beta"


def test_a_backend_whose_request_cannot_be_sent_is_named(make: Make) -> None:
    class Odd(Generic):
        def request(self, endpoint: Endpoint, chat: Any) -> Any:
            request = super().request(endpoint, chat)
            return evolve(request, headers=cast("Any", {"x-count": object()}))

    multiplexer = make("alpha", {"model": "beta", "is_fallback": True}, key="sk-canary-1")
    multiplexer._runtime.members["alpha"].backend = Odd()
    reply = multiplexer.complete(PING)
    assert reply.attempts[0].outcome == "error"
    assert reply.attempts[0].message == (
        "the request of the backend generic cannot be sent (TypeError)"
    )
    assert reply.model == "beta"


@pytest.mark.parametrize("streams", [False, True])
def test_a_prompt_that_was_read_by_half_is_a_warning(
    make: Make, alpha: Model, *, streams: bool
) -> None:
    class Local(Generic):
        def request(self, endpoint: Endpoint, chat: Any) -> Any:
            return evolve(super().request(endpoint, chat), prompt_tokens=1000)

    alpha.then(Answer("short", usage=Usage(120, 1)), Answer("whole", usage=Usage(990, 1)))
    multiplexer = make("alpha")
    multiplexer._runtime.members["alpha"].backend = Local()
    remarks = []
    for _ in range(2):
        if streams:
            with multiplexer.stream(PING) as stream:
                list(stream)
            reply = stream.reply
        else:
            reply = multiplexer.complete(PING)
        remarks.append(reply.attempts[0].rewrites)
    assert remarks[0][0].startswith("the server read only 120 of about 1000 tokens")
    assert remarks[1] == ()


def test_a_refused_mistral_key_may_mean_the_plan(make: Make, alpha: Model) -> None:
    alpha.default = StatusAnswer(401, {"detail": "Unauthorized"})
    multiplexer = make("alpha", key="sk-1", provider={"backend": "mistral"}, max_wait_ms=0)
    with pytest.raises(PoolExhaustedError) as caught:
        multiplexer.complete(PING)
    assert caught.value.attempts[0].message == (
        "Unauthorized; Mistral says the same of a plan that is spent (check STAND_IN_KEY)"
    )


def test_a_failure_without_a_message_is_reported_by_its_kind(
    make: Make, alpha: Model
) -> None:
    class Terse(Generic):
        def failure(self, answer: Answered, now: Any) -> Failure:
            kind = Refusal.REQUEST if answer.status == 400 else Fault.TRANSIENT
            return Failure(kind)

    multiplexer = make("alpha", max_wait_ms=0)
    multiplexer._runtime.members["alpha"].backend = Terse()
    alpha.then(StatusAnswer(400), StatusAnswer(500))
    with pytest.raises(RequestRejectedError) as refused:
        multiplexer.complete(PING)
    assert str(refused.value) == "alpha refused the request (request refused)"
    with pytest.raises(PoolExhaustedError) as failed:
        multiplexer.complete(PING)
    assert str(failed.value).endswith("\n  alpha: error")


def test_a_response_without_a_connection_is_closed() -> None:
    # As `requests` returns it without a connection.
    response = requests.Response()
    response.status_code = 200
    response.raw = urllib3.HTTPResponse(io.BytesIO(b""), preload_content=False)
    exchange = transport.Exchange(response, fresh())
    exchange.close(drain=True)
    assert list(exchange.headers) == []


def test_a_stream_is_bounded_as_whole_answers_are(
    make: Make, alpha: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "LARGEST_BODY", 1000)
    alpha.default = Answer("x" * 2000, pieces=100)
    multiplexer = make("alpha", max_wait_ms=0)
    with (
        multiplexer.stream(PING) as stream,
        pytest.raises(StreamInterruptedError, match="the answer is longer than 1000 bytes"),
    ):
        list(stream)
    assert len(stream.reply.text) < 1000
