from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxcore.gateway.http.wire import (
    LARGEST_HEAD,
    ChunkedBody,
    Head,
    RefusedError,
    parse_head,
)
from muxcore.http_framing import chunk, head

GOOD = b"POST /v1/chat/completions?x=1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\nContent-Length: 12"


def test_a_head_is_read() -> None:
    read = parse_head(GOOD)
    assert (read.method, read.path, read.query) == ("POST", "/v1/chat/completions", "x=1")
    assert read.fields == {"host": "127.0.0.1:1", "content-length": "12"}
    assert read.length == 12
    assert read.keeps_alive


def test_the_token_is_not_in_its_repr() -> None:
    assert "secret" not in repr(parse_head(GOOD + b"\r\nAuthorization: Bearer secret"))


@pytest.mark.parametrize(
    ("line", "keeps_alive"),
    [
        (b"GET / HTTP/1.1", True),
        (b"GET / HTTP/1.0", False),
        (b"GET / HTTP/1.1\r\nConnection: close", False),
        (b"GET / HTTP/1.1\r\nConnection: keep-alive, Close", False),
        (b"GET / HTTP/1.1\r\nConnection: keep-alive", True),
    ],
)
def test_the_connection_is_kept_alive_as_the_head_says(
    line: bytes, keeps_alive: bool
) -> None:
    assert parse_head(line).keeps_alive is keeps_alive


def test_repeated_fields_are_joined() -> None:
    read = parse_head(b"GET / HTTP/1.1\r\nAccept: a\r\naccept:b\r\nX: \t c d \t")
    assert read.fields == {"accept": "a, b", "x": "c d"}


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET / HTTP/11", 400),
        (b"GET / HTTP/2.0", 505),
        (b"GET / HTTP/1.2", 505),
        (b"G\x00T / HTTP/1.1", 400),
        (b"GET /\xff HTTP/1.1", 400),
        (b"GET http://127.0.0.1/ HTTP/1.1", 400),
        (b"OPTIONS * HTTP/1.1", 400),
        (b"CONNECT host:443 HTTP/1.1", 400),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1", 414),
        (b"GET / HTTP/1.1\nHost: a", 400),
        (b"GET / HTTP/1.1\r\nHost : a", 400),
        (b"GET / HTTP/1.1\r\n Host: a", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n b", 400),
        (b"GET / HTTP/1.1\r\nHost", 400),
        (b"GET / HTTP/1.1\r\n: a", 400),
        (b"GET / HTTP/1.1\r\nX: a\x00b", 400),
        (b"GET / HTTP/1.1\r\nX: a\nY: b", 400),
        (b"GET / HTTP/1.1\r\nX: a\rY: b", 400),
        (b"GET / HTTP/1.1\r\nX(: a", 400),
        (b"GET / HTTP/1.1\r\n" + b"\r\n".join([b"X: a"] * 101), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHOST: b", 400),
        (b"GET / HTTP/1.1\r\nAuthorization: a\r\nAuthorization: b", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3, 3", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: +3", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -3", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 0x3", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3_0", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: \xb2", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1e3", 400),
        (b"POST / HTTP/1.1\r\nContent-Length:", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 9999999999999", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: identity", 501),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked", 501),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: a\r\nTransfer-Encoding: b", 400),
        (b"POST / HTTP/1.1\r\nTransfer_Encoding : chunked", 400),
    ],
)
def test_a_malformed_head_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(RefusedError) as caught:
        parse_head(data)
    assert caught.value.response.status == status


def chunked(body: bytes, sizes: list[int], extra: bytes = b"") -> bytes:
    data, at = b"", 0
    for size in sizes:
        piece = body[at : at + size]
        at += size
        if piece:
            data += b"%x%s\r\n%s\r\n" % (len(piece), extra, piece)
    if at < len(body):
        data += b"%X\r\n%s\r\n" % (len(body) - at, body[at:])
    return data + b"0\r\n\r\n"


def test_a_body_in_chunks_has_no_length() -> None:
    assert parse_head(b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked").length is None


@given(
    st.binary(max_size=300),
    st.lists(st.integers(1, 40), max_size=9),
    st.sampled_from([b"", b";a=b", b" ; x"]),
    st.integers(1, 50),
    st.binary(max_size=20),
)
def test_a_body_in_chunks_is_read_however_its_bytes_arrive(
    body: bytes, sizes: list[int], extra: bytes, step: int, rest: bytes
) -> None:
    reader = ChunkedBody(300)
    data = chunked(body, sizes, extra) + rest
    for at in range(0, len(data), step):
        if reader.feed(data[at : at + step]):
            assert reader.body == body
            assert rest.startswith(reader.rest)
            return
    pytest.fail("the body never ended")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"x\r\n", 400),
        (b"-1\r\n", 400),
        (b"0x1\r\na\r\n", 400),
        (b"1_0\r\n", 400),
        (b"\r\n", 400),
        (b"1\na\r\n", 400),
        (b"1\r\nab\r\n", 400),
        (b"2\r\na\r\n0\r\n", 400),
        (b"1" * 5000, 400),
        (b"0\r\n" + b"X: y\r\n" * 9000, 400),
        (b"b\r\n", 413),
        (b"6\r\nabcdef\r\n5\r\n", 413),
    ],
)
def test_malformed_chunks_are_refused(data: bytes, status: int) -> None:
    with pytest.raises(RefusedError) as caught:
        ChunkedBody(10).feed(data)
    assert caught.value.response.status == status


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    with contextlib.suppress(RefusedError):
        assert isinstance(parse_head(b"GET / HTTP/1.1\r\n" + data), Head)


@given(
    st.dictionaries(
        st.from_regex(r"x-[a-z]{1,9}", fullmatch=True),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20),
        max_size=5,
    )
)
def test_fields_survive_a_round_trip(fields: dict[str, str]) -> None:
    written = head(200, fields).partition(b"\r\n")[2].removesuffix(b"\r\n\r\n")
    data = b"GET / HTTP/1.1" + (b"\r\n" + written.removesuffix(b"\r\n") if fields else b"")
    assert parse_head(data).fields == fields


def test_heads_and_chunks_are_written() -> None:
    assert head(200, {"A": "b"}) == b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"
    assert head(599, {}) == b"HTTP/1.1 599 Unknown\r\n\r\n"
    assert chunk(b"0123456789abcdef") == b"10\r\n0123456789abcdef\r\n"
    assert chunk(b"") == b""
    assert LARGEST_HEAD == 32768
