"""The fast path over an idle connection reads what the standard library would."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from urllib3.exceptions import IncompleteRead, ProtocolError, ReadTimeoutError

from muxcore.plugins.backend import HttpResponse
from muxcore.shell.http.cancel_scope import CancelScope
from muxcore.shell.http.connections import Connections
from muxcore.shell.http.fast_path import (
    ChunkedReader,
    ContentLengthReader,
    FastResponse,
    Http10Reader,
    OutgoingRequest,
    RequestHead,
    Resumed,
    SimpleHead,
)
from muxcore.shell.http.transport import LowercaseHeaders
from tests.waiting import PATIENCE

Cuts = st.lists(st.integers(0, 400), max_size=8)


def chunked(pieces: list[bytes], *, trailer: bytes = b"", extension: bytes = b"") -> bytes:
    framed = b"".join(b"%x%s\r\n%s\r\n" % (len(p), extension, p) for p in pieces)
    return framed + b"0\r\n" + trailer + b"\r\n"


def cut_at(data: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes anywhere, into pieces that are not empty."""
    edges = sorted({0, len(data), *(place for place in places if 0 < place < len(data))})
    return [data[start:end] for start, end in pairwise(edges)]


@given(
    st.lists(st.binary(min_size=1, max_size=60), max_size=6),
    Cuts,
    st.sampled_from([b"", b"X-Sum: 1\r\n", b"A: b\r\nC: d\r\n"]),
    st.sampled_from([b"", b";name=value", b" ; x"]),
)
def test_chunks_are_read_however_they_are_cut(
    pieces: list[bytes], places: list[int], trailer: bytes, extension: bytes
) -> None:
    framing = ChunkedReader()
    body = b""
    for part in cut_at(chunked(pieces, trailer=trailer, extension=extension), places):
        assert not framing.ended
        body += framing.take(part)
    assert body == b"".join(pieces)
    assert framing.ended
    assert not framing.excess


@pytest.mark.parametrize(
    "data",
    [
        b"zz\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x5\r\nhello\r\n",
        b"1_0\r\n",
        b"5\r\nhelloX\r\n",
        b"5 hello\r\n",
        b"f" * 17 + b"\r\n",
    ],
)
def test_an_invalid_chunk_is_an_error_and_no_end(data: bytes) -> None:
    with pytest.raises(http.client.IncompleteRead):
        ChunkedReader().take(data)


def test_a_line_without_an_end_is_bounded() -> None:
    framing = ChunkedReader()
    for _ in range(16):
        framing.take(b"1" * 4096)
    with pytest.raises(http.client.LineTooLong):
        framing.take(b"1")


def test_incomplete_chunks_are_an_error() -> None:
    framing = ChunkedReader()
    assert framing.take(b"5\r\nhe") == b"he"
    with pytest.raises(http.client.IncompleteRead):
        framing.take(b"")


def test_data_after_the_last_chunk_is_noticed() -> None:
    framing = ChunkedReader()
    assert framing.take(b"1\r\nx\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n") == b"x"
    assert framing.ended
    assert framing.excess


@given(st.binary(max_size=100), Cuts)
def test_a_body_with_a_length_ends_at_its_length(body: bytes, places: list[int]) -> None:
    framing = ContentLengthReader(len(body))
    taken = b"".join(framing.take(part) for part in cut_at(body, places)) if body else b""
    assert (taken, framing.ended, framing.excess) == (body, True, False)


def test_a_body_shorter_or_longer_than_its_length_is_noticed() -> None:
    framing = ContentLengthReader(5)
    assert framing.take(b"hel") == b"hel"
    with pytest.raises(IncompleteRead):
        framing.take(b"")
    framing = ContentLengthReader(5)
    assert framing.take(b"hello and more") == b"hello"
    assert framing.ended
    assert framing.excess


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    framing = Http10Reader()
    assert framing.take(b"hello") == b"hello"
    assert not framing.ended
    assert framing.take(b"") == b""
    assert framing.ended


@contextlib.contextmanager
def holding(data: bytes) -> Iterator[socket.socket]:
    """A socket from which this data can be received."""
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        yield ours


def read_by_the_standard_library(data: bytes) -> http.client.HTTPResponse:
    with holding(data) as sock:
        response = http.client.HTTPResponse(sock, method="POST")
        response.begin()
        return response


NAMES = st.sampled_from(
    ["Content-Type", "x-request-id", "Server", "Connection", "Set-Cookie", "Retry-After"]
)
VALUES = st.sampled_from(["a", "close", "keep-alive", "a: b", "", "caf\xe9", "x" * 300])
LENGTHS = st.sampled_from(
    [
        [],
        [("Content-Length", "5")],
        [("content-length", "0")],
        [("Content-Length", "five")],
        [("Content-Length", "-5")],
        [("Content-Length", "5"), ("Content-Length", "5")],
        [("Transfer-Encoding", "chunked")],
        [("transfer-encoding", "Chunked")],
        [("Transfer-Encoding", "gzip, chunked")],
        [("Transfer-Encoding", "chunked"), ("Content-Length", "5")],
    ]
)


@given(
    st.sampled_from(["200 OK", "200", "429 Too Many Requests", "204 No Content", "500 "]),
    st.sampled_from(["HTTP/1.1", "HTTP/1.0"]),
    st.lists(st.tuples(NAMES, VALUES), max_size=5),
    LENGTHS,
)
def test_a_head_is_read_as_the_standard_library_reads_it(
    status: str, version: str, fields: list[tuple[str, str]], length: list[tuple[str, str]]
) -> None:
    lines = [
        f"{version} {status}",
        *(f"{name}: {value}" for name, value in fields + length),
    ]
    data = "\r\n".join([*lines, "", "hello"]).encode("latin-1")
    ours = SimpleHead.of(data)
    theirs = read_by_the_standard_library(data)
    if ours is None:
        return
    assert ours.status == theirs.status
    assert ours.ahead == b"hello"
    # The order in which repeated fields count is an accident of the e-mail parser.
    if len({value for name, value in fields if name == "Connection"}) < 2:
        assert (ours.chunked, ours.length, ours.closes) == (
            theirs.chunked,
            theirs.length,
            theirs.will_close,
        )
    first: dict[str, list[str]] = {}
    for name, value in theirs.headers.items():
        first.setdefault(name.lower(), []).append(value)
    assert ours.fields == {name: ", ".join(values) for name, values in first.items()}


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\n",
        b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
    ],
)
def test_a_head_that_is_not_simple_is_left_to_the_standard_library(head: bytes) -> None:
    assert SimpleHead.of(head) is None


def test_the_standard_library_reads_on_after_what_was_received() -> None:
    with holding(b" OK\r\nX: y\r\n\r\nhello") as sock:
        received: Any = Resumed(b"HTTP/1.1 200", sock)
        response = http.client.HTTPResponse(received, method="POST")
        response.begin()
        assert (response.status, response.headers["X"]) == (200, "y")
        assert response.read() == b"hello"


HEADERS = {"Content-Type": "application/json", "X": "y"}
HEAD = (
    b"POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nX: y\r\n"
    b"Content-Length: 3\r\n\r\n"
)


def test_a_request_is_repeated_with_another_body() -> None:
    written = RequestHead(OutgoingRequest("/v1", HEADERS, b"abc"), HEAD)
    again = written.with_body(OutgoingRequest("/v1", dict(HEADERS), b"hello"))
    assert again == HEAD.replace(b"Length: 3", b"Length: 5") + b"hello"


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("/v2", HEADERS),
        ("/v1", {**HEADERS, "X": "z"}),
        ("/v1", {**HEADERS, "Y": "y"}),
        ("/v1", {"Content-Type": "application/json"}),
    ],
)
def test_a_request_with_another_head_is_not_repeated(
    url: str, headers: dict[str, str]
) -> None:
    written = RequestHead(OutgoingRequest("/v1", HEADERS, b"abc"), HEAD)
    assert written.with_body(OutgoingRequest(url, headers, b"hello")) is None


def test_a_head_without_a_length_is_not_repeated() -> None:
    request = OutgoingRequest("/v1", {"Transfer-Encoding": "chunked"}, b"hello")
    head = b"POST /v1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert RequestHead(request, head).with_body(request) is None


class Server:
    """Answers each request on one connection with the next of the given bytes."""

    def __init__(self, *answers: bytes) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._answers:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                while self._answers and (request := connection.recv(65536)):
                    self.requests.append(request)
                    answer = self._answers.pop(0)
                    connection.sendall(answer)
                    if b"close" in answer or answer.endswith(b"<cut>"):
                        break

    def close(self) -> None:
        with contextlib.suppress(OSError):
            # Closing alone does not end a thread's `accept`.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[Server, Connections]]]:
    made: list[tuple[Server, Connections]] = []

    def serve(*answers: bytes) -> tuple[Server, Connections]:
        server = Server(*answers)
        made.append((server, Connections(server.url, 2, loopback=True)))
        return made[-1]

    yield serve
    for server, connections in made:
        connections.close()
        server.close()


def ask(connections: Connections, url: str, **headers: str) -> Any:
    request = OutgoingRequest(url, headers, b"hello")
    return connections.send(request, (5.0, 0.5), CancelScope(1e12, 1e12))


def body_of(response: Any) -> bytes:
    body = b""
    while piece := response.raw.read1(65536, decode_content=True):
        body += piece
    response.close()
    return body


SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nworld"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked([b"wor", b"ld"])
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nworld"

Serve = Callable[..., tuple[Server, Connections]]


@pytest.mark.parametrize("answer", [SIZED, CHUNKS])
def test_an_idle_connection_repeats_the_same_bytes(serve: Serve, answer: bytes) -> None:
    server, connections = serve(answer, answer, answer)
    for count in range(3):
        response = ask(connections, server.url)
        assert isinstance(response, FastResponse) == (count > 0)
        assert body_of(response) == b"world"
    assert server.connections == 1
    assert len(set(server.requests)) == 1


def test_other_headers_take_the_ordinary_path_once(serve: Serve) -> None:
    server, connections = serve(*[SIZED] * 4)
    kinds = []
    for key in ("one", "one", "two", "two"):
        response = ask(connections, server.url, Authorization=key)
        kinds.append(isinstance(response, FastResponse))
        assert body_of(response) == b"world"
    assert kinds == [False, True, False, True]
    assert server.connections == 1
    assert [b"two" in request for request in server.requests] == [False, False, True, True]


def test_a_body_that_ends_with_its_connection_closes_it(serve: Serve) -> None:
    server, connections = serve(SIZED, CLOSING, SIZED)
    assert [body_of(ask(connections, server.url)) for _ in range(3)] == [b"world"] * 3
    assert server.connections == 2


def test_bytes_after_the_announced_length_close_the_connection(serve: Serve) -> None:
    server, connections = serve(SIZED, SIZED + b" and more", SIZED)
    assert [body_of(ask(connections, server.url)) for _ in range(3)] == [b"world"] * 3
    assert server.connections == 2


@pytest.mark.parametrize(
    "broken",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nworld<cut>",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\nworld<cut>",
    ],
)
def test_an_incomplete_body_is_an_error(serve: Serve, broken: bytes) -> None:
    server, connections = serve(SIZED, broken)
    body_of(ask(connections, server.url))
    response = ask(connections, server.url)
    with pytest.raises(ProtocolError):
        body_of(response)


def test_silence_in_a_body_is_a_timeout(serve: Serve) -> None:
    # One more, so that it stays.
    server, connections = serve(SIZED, SIZED[:-2], SIZED)
    body_of(ask(connections, server.url))
    response = ask(connections, server.url)
    with pytest.raises(ReadTimeoutError):
        body_of(response)


def test_a_compressed_body_is_left_to_urllib3(serve: Serve) -> None:
    import gzip

    packed = gzip.compress(b"world")
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    answer = head.encode() + packed
    server, connections = serve(answer, answer, answer)
    assert [body_of(ask(connections, server.url)) for _ in range(3)] == [b"world"] * 3
    assert server.connections == 1


def test_a_mock_in_place_of_requests_is_not_bypassed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, connections = serve(SIZED)
    body_of(ask(connections, server.url))
    mocked = requests.Response()
    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", lambda *_, **__: mocked)
    assert ask(connections, server.url) is mocked


def test_lowercase_headers_are_a_mapping() -> None:
    headers = LowercaseHeaders(
        requests.structures.CaseInsensitiveDict({"X-One": "1", "Two": "2"})
    )
    assert headers == {"x-one": "1", "two": "2"}
    assert headers.get("x-one") == "1"
    assert headers.get("three") is None
    assert len(headers) == 2
    assert "1" in repr(headers)
    assert HttpResponse(200, headers, b"").headers == headers
