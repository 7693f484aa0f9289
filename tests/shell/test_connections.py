"""Responses are read alike over new and over reused connections."""

from __future__ import annotations

import gzip
import io
import json
import socket
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

import pytest

from muxcore import PoolExhaustedError
from muxcore.chat import Usage
from muxcore.config import Key
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.shell.http.connections import Connections
from muxcore.standin import Answer, Model, Raw
from tests.waiting import PATIENCE

Make = Callable[..., Multiplexer]
Start = Callable[..., Future[Any]]

PING = [{"role": "user", "content": "ping"}]
FALLBACK = {"model": "beta", "is_fallback": True}


class Script:
    """Answers each request with the next of these bytes.

    It closes the connection after `leaves_after` requests.
    """

    def __init__(self, *answers: bytes, leaves_after: int | None = None) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        """The connections that carried a request."""
        self._leaves_after = leaves_after
        self._peer: socket.socket | None = None

    @contextmanager
    def serving(self) -> Generator[str]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=self._accept, args=(listener,))
            thread.start()
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            finally:
                self.answers = []
                if self._peer is not None:
                    with suppress(OSError):
                        self._peer.shutdown(socket.SHUT_RDWR)
                with suppress(OSError), socket.create_connection(listener.getsockname()):
                    pass
                thread.join()

    def _accept(self, listener: socket.socket) -> None:
        while self.answers:
            peer, _ = listener.accept()
            self._peer = peer
            with suppress(OSError), peer, peer.makefile("rb") as reader:
                self._serve(peer, reader)

    def _serve(self, peer: socket.socket, reader: io.BufferedReader) -> None:
        for number in count():
            if len(self.requests) == self._leaves_after:
                return
            request = _read(reader)
            if request is None or not self.answers:
                return
            self.connections += not number
            self.requests.append(request)
            answer = self.answers.pop(0)
            peer.sendall(answer)
            if b"close" in answer:
                return


def _read(reader: io.BufferedReader) -> bytes | None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = reader.readline()
        if not line:
            return None
        head += line
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head + reader.read(length)


def completion(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()


def sized(text: str, *fields: str, status: str = "200 OK") -> bytes:
    body = completion(text)
    head = "\r\n".join([f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}"])
    return head.encode() + b"\r\n\r\n" + body


def chunked(
    text: str, size: int = 7, *, coding: str = "chunked", trailer: str = ""
) -> bytes:
    body = completion(text)
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n".encode()
    data = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + data + b"0\r\n" + trailer.encode() + b"\r\n"


CHUNKS_FOLLOW = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

WELL: dict[str, bytes] = {
    "sized": sized("well"),
    "without words for its status": sized("well", status="200"),
    "with odd words for its status": sized("well", status="200 Sûr, ça va"),
    "with many fields": sized("well", *(f"x-{n}: {n}" for n in range(90))),
    "with an empty field": sized("well", "x-empty:"),
    "with a field twice": sized("well", "x-a: 1", "X-A: 2"),
    "with white space around": sized("well", "x-a: \t 1 \t"),
    "with a folded field": sized("well", "x-a: 1\r\n  2"),
    "after an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n" + sized("well"),
    "after several interim answers": (
        b"HTTP/1.1 102 Processing\r\n\r\n"
        + 2 * b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
        + sized("well")
    ),
    "by an older protocol, closing": sized("well", "Connection: close").replace(
        b"HTTP/1.1", b"HTTP/1.0"
    ),
    "chunked": chunked("well"),
    "chunked, in capitals": chunked("well", coding="Chunked"),
    "chunked, by single bytes": chunked("well", 1),
    "chunked, as one": chunked("well", 4096),
    "chunked, with a trailer": chunked("well", trailer="x-sum: 1\r\n"),
    "closing": sized("well", "Connection: close"),
    "ended by closing": (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + completion("well")
    ),
}


@pytest.mark.parametrize("case", WELL)
def test_a_response_is_read_alike_over_a_new_and_an_idle_connection(
    make: Make, case: str
) -> None:
    script = Script(WELL[case], sized("warm"), WELL[case], sized("again"))
    with script.serving() as url:
        multiplexer = make("alpha", urls={"alpha": url})
        for text in ("well", "warm", "well", "again"):
            reply = multiplexer.complete(PING, timeout=PATIENCE)
            assert (reply.text, len(reply.attempts)) == (text, 1)
    # A connection that its server closes is not kept; all others are.
    assert script.connections == (3 if "closing" in case else 1)


def test_a_long_response_is_complete_over_an_idle_connection(make: Make) -> None:
    text = "é" * 100_000
    script = Script(sized("warm"), sized(text), chunked(text, 5000), sized("end"))
    with script.serving() as url:
        multiplexer = make("alpha", urls={"alpha": url})
        for expected in ("warm", text, text, "end"):
            assert multiplexer.complete(PING, timeout=PATIENCE).text == expected
    assert script.connections == 1


BROKEN: dict[str, bytes] = {
    "cut in the head": b"HTTP/1.1 200 OK\r\ncontent-le",
    "cut in a body of a length": sized("well")[:-5],
    "cut in a chunk": chunked("well")[:-20],
    "cut before the last chunk": chunked("well")[:-5],
    "a chunk without a size": CHUNKS_FOLLOW + b"zz\r\n",
    "a chunk that does not end": CHUNKS_FOLLOW + b"2\r\nabXX\r\n0\r\n\r\n",
    "an endless size": CHUNKS_FOLLOW + b"1" * 70_000,
    "no HTTP": b"hello\r\n\r\n",
}


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.HTTPWarning")
@pytest.mark.parametrize("over", ["new", "kept"])
@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_answer_is_a_failure(make: Make, case: str, over: str) -> None:
    warm = [sized("warm"), sized("warm")] if over == "kept" else []
    script = Script(*warm, BROKEN[case], b"never", leaves_after=len(warm) + 1)
    with script.serving() as url:
        multiplexer = make("alpha", FALLBACK, urls={"alpha": url})
        for _ in warm:
            multiplexer.complete(PING, timeout=PATIENCE)
        reply = multiplexer.complete(PING, timeout=PATIENCE)
        assert [attempt.outcome for attempt in reply.attempts] == ["error", "succeeded"]
        assert reply.attempts[0].message
    assert script.connections == 1


@pytest.mark.parametrize("first", [sized("one"), chunked("one")], ids=["sized", "chunked"])
def test_bytes_after_the_announced_length_are_not_read_as_the_next_response(
    make: Make, first: bytes
) -> None:
    script = Script(sized("warm"), first + sized("forged"), sized("two"))
    with script.serving() as url:
        multiplexer = make("alpha", urls={"alpha": url})
        for text in ("warm", "one", "two"):
            assert multiplexer.complete(PING, timeout=PATIENCE).text == text
    assert script.connections == 2


def test_each_request_equals_the_first_one_except_for_its_body(make: Make) -> None:
    script = Script(*[sized("well")] * 4)
    texts = ["a", "bb", "a much longer one", ""]
    with script.serving() as url:
        provider = {"extra_headers": {"X-Team": "blue"}}
        multiplexer = make(
            "alpha", urls={"alpha": url}, key="sk-canary-1", provider=provider
        )
        for text in texts:
            multiplexer.complete([{"role": "user", "content": text}], timeout=PATIENCE)
    heads = [request.partition(b"\r\n\r\n")[0].splitlines() for request in script.requests]
    bodies = [request.partition(b"\r\n\r\n")[2] for request in script.requests]
    for head, body in zip(heads, bodies, strict=True):
        assert b"Content-Length: %d" % len(body) in head
        assert b"Authorization: Bearer sk-canary-1" in head
        assert b"X-Team: blue" in head
        assert _without_length(head) == _without_length(heads[0])
    assert [json.loads(body)["messages"][0]["content"] for body in bodies] == texts
    assert script.connections == 1


def _without_length(head: list[bytes]) -> list[bytes]:
    return [line for line in head if not line.startswith(b"Content-Length")]


def test_a_new_key_replaces_the_old_one_in_the_request(make: Make) -> None:
    script = Script(*[sized("well")] * 3)
    with script.serving() as url:
        multiplexer = make("alpha", urls={"alpha": url}, key="sk-first-canary")
        multiplexer.complete(PING, timeout=PATIENCE)
        multiplexer._runtime.members["alpha"].key = Key("sk-second-canary")
        multiplexer.complete(PING, timeout=PATIENCE)
        multiplexer.complete(PING, timeout=PATIENCE)
    assert b"sk-first-canary" in script.requests[0]
    for request in script.requests[1:]:
        assert b"sk-second-canary" in request
        assert b"sk-first-canary" not in request
    assert script.connections == 1


def test_several_connections_closed_while_idle_are_not_a_failure(
    make: Make, start: Start, alpha: Model
) -> None:
    multiplexer = make("alpha")
    alpha.hold()
    calls = [start(multiplexer.complete, PING) for _ in range(3)]
    alpha.wait_for(lambda model: model.in_flight == 3)
    alpha.release()
    for call in calls:
        call.result()
    connections = multiplexer._runtime.members["alpha"].connections
    assert isinstance(connections, Connections)
    pool: Any = connections._adapter._pool
    idle = pool.pool._idle
    assert len(idle) == 3
    for connection in tuple(idle):
        # As if the server closed it at this moment: it looks open until data is sent.
        mine, other = socket.socketpair()
        other.close()
        connection.sock.close()
        connection.sock = Late(mine)
    reply = multiplexer.complete(PING, timeout=PATIENCE)
    assert [attempt.outcome for attempt in reply.attempts] == ["succeeded"]


class Late:
    """A socket whose end shows only after data was sent."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._live, self._peer = socket.socketpair()

    def fileno(self) -> int:
        return self._live.fileno()

    def close(self) -> None:
        for each in (self._sock, self._live, self._peer):
            each.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def test_a_stream_gives_an_idle_connection_back(make: Make, alpha: Model) -> None:
    alpha.default = Answer("one two three", usage=Usage(3, 4, 1))
    multiplexer = make("alpha")
    for _ in range(4):
        with multiplexer.stream(PING) as stream:
            assert "".join(chunk.text for chunk in stream) == "one two three"
        assert stream.reply.usage == Usage(3, 4, 1)
    assert len({request.connection for request in alpha.requests}) == 1


@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_an_encoded_response_over_an_idle_connection_is_decoded(
    make: Make, alpha: Model, coding: str
) -> None:
    body = completion("packed")
    data = gzip.compress(body) if coding == "gzip" else body
    multiplexer = make("alpha")
    multiplexer.complete(PING)
    alpha.default = Raw((data[:9], data[9:]), headers={"content-encoding": coding})
    for _ in range(2):
        assert multiplexer.complete(PING).text == "packed"


def test_a_refusal_over_an_idle_connection_has_its_status(make: Make) -> None:
    body = b'{"error": {"message": "slow down"}}'
    head = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\ncontent-length: %d\r\n\r\n"
    script = Script(sized("warm"), head % len(body) + body)
    with script.serving() as url:
        multiplexer = make("alpha", urls={"alpha": url}, max_wait_ms=0)
        multiplexer.complete(PING, timeout=PATIENCE)
        with pytest.raises(PoolExhaustedError) as caught:
            multiplexer.complete(PING, timeout=PATIENCE)
    assert caught.value.attempts[0].message == "slow down"
    cooldown = multiplexer.state["alpha"].health.limited
    assert cooldown is not None
    assert cooldown.hint is not None
    assert cooldown.hint.total_seconds() == 7
