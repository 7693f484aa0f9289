"""Reads the head of an HTTP/1.1 request, and a body in chunks, strictly. Pure.

One rule against request smuggling, where two readers see different requests in the same bytes:
whatever is not exactly as the standard says is refused, and the connection is closed.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import NoReturn

from attrs import field, frozen

LARGEST_HEAD = 32 * 1024
MOST_FIELDS = 100
LONGEST_TARGET = 4096
END_OF_LINE = b"\r\n"
END_OF_HEAD = b"\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_REQUEST_LINE = re.compile(rb"([A-Za-z]{1,20}) ([!-~]+) HTTP/([0-9]\.[0-9])")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t -~\x80-\xff]*)")
_DIGITS = re.compile(r"[0-9]{1,12}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,12})(?:[ \t]*;[\t -~\x80-\xff]*)?")

GZIP = 16
"""What zlib adds to the size of its window for this format."""

ONLY_ONCE = frozenset(
    {
        "authorization",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "origin",
        "transfer-encoding",
        "x-api-key",
    }
)
"""Fields that decide how a request is read: a repeated one would be ambiguous."""


@frozen
class ErrorResponse:
    """A response that is an error. `fields` are added to its head."""

    status: int
    message: str
    kind: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    fields: Mapping[str, str] = field(factory=dict[str, str])


@frozen
class Head:
    """The head of a request. The names of `fields` are in lower case.

    `length` is that of the body in bytes, None for a body in chunks.
    """

    method: str
    target: str
    is_modern: bool
    # It holds the token.
    fields: Mapping[str, str] = field(repr=False)
    length: int | None = 0

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def keeps_alive(self) -> bool:
        named = self.fields.get("connection", "").lower()
        return self.is_modern and "close" not in (n.strip() for n in named.split(","))


class RefusedError(Exception):
    """The request is refused with `response`."""

    def __init__(self, response: ErrorResponse) -> None:
        self.response = response
        super().__init__(response.message)


def parse_head(data: bytes) -> Head:
    """Read a head, without the empty line that ends it. Raise `RefusedError`."""
    first, *lines = data.split(b"\r\n")
    method, target, version = _request_line(first)
    if len(lines) > MOST_FIELDS:
        _refuse(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"There are more than {MOST_FIELDS} header fields.",
        )
    fields = _fields(lines)
    return Head(method, target, version == "1.1", fields, _length(fields))


def _request_line(line: bytes) -> tuple[str, str, str]:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        _refuse(HTTPStatus.BAD_REQUEST, "The request line is malformed.")
    method, target, version = (part.decode("ascii") for part in match.groups())
    if version not in {"1.0", "1.1"}:
        _refuse(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "Only HTTP/1.1 is spoken here.")
    if len(target) > LONGEST_TARGET:
        _refuse(HTTPStatus.REQUEST_URI_TOO_LONG, "The path is too long.")
    if not target.startswith("/"):
        _refuse(
            HTTPStatus.BAD_REQUEST,
            "The request line must have a path, as this is no proxy.",
        )
    return method, target, version


def _fields(lines: list[bytes]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            _refuse(HTTPStatus.BAD_REQUEST, "A header field is malformed.")
        name = match[1].decode("ascii").lower()
        value = match[2].strip(b" \t").decode("latin-1")
        if name not in fields:
            fields[name] = value
        elif name in ONLY_ONCE:
            _refuse(HTTPStatus.BAD_REQUEST, f"The header field {name} is there twice.")
        else:
            fields[name] += f", {value}"
    return fields


class ChunkedBody:
    """A body in chunks, taken out of the bytes as they arrive (RFC 9112, section 7.1).

    Extensions and trailers are dropped. Whatever else is not exactly as the standard says is
    refused, and so is a body of more than `largest` bytes.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._buffer = bytearray()
        self._body = bytearray()
        self._missing = 0
        """Bytes of the present chunk, of which none has been taken yet."""
        self._trailing = False
        self._overhead = 0

    def feed(self, data: bytes) -> bool:
        """Take more bytes; return whether the body is whole. Raise `RefusedError`."""
        self._buffer += data
        while True:
            if self._missing:
                if not self._take_chunk():
                    return False
            elif (line := self._take_line()) is None:
                return False
            elif self._trailing:
                if not line:
                    return True
            else:
                self._missing = self._size(line)
                self._trailing = not self._missing

    @property
    def body(self) -> bytes:
        return bytes(self._body)

    @property
    def rest(self) -> bytes:
        """What has arrived after the body."""
        return bytes(self._buffer)

    def _take_chunk(self) -> bool:
        end = self._missing + len(END_OF_LINE)
        if len(self._buffer) < end:
            return False
        if self._buffer[self._missing : end] != END_OF_LINE:
            _refuse(HTTPStatus.BAD_REQUEST, "A chunk is not as long as it says.")
        self._body += self._buffer[: self._missing]
        del self._buffer[:end]
        self._missing = 0
        return True

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(END_OF_LINE, 0, LONGEST_TARGET)
        if end < 0:
            if len(self._buffer) >= LONGEST_TARGET:
                _refuse(HTTPStatus.BAD_REQUEST, "A line between the chunks is too long.")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + len(END_OF_LINE)]
        if self._trailing:
            self._overhead += end
            if self._overhead > LARGEST_HEAD:
                _refuse(HTTPStatus.BAD_REQUEST, "The trailers are too long.")
        return line

    def _size(self, line: bytes) -> int:
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            _refuse(HTTPStatus.BAD_REQUEST, "The size of a chunk is no number.")
        size = int(match[1], 16)
        if len(self._body) + size > self._largest:
            _refuse(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"The body is longer than {self._largest} bytes.",
            )
        return size


def decoded(body: bytes, coding: str, largest: int) -> bytes:
    """Undo the Content-Encoding of a body, of `largest` bytes at most. Raise `RefusedError`."""
    match coding.lower():
        case "" | "identity":
            return body
        case "gzip" | "x-gzip":
            return _unzipped(body, largest)
        case _:
            text = "The only Content-Encoding here is gzip."
            status, accepted = (
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                {"Accept-Encoding": "gzip"},
            )
            raise RefusedError(ErrorResponse(status, text, fields=accepted))


def _unzipped(body: bytes, largest: int) -> bytes:
    unzip = zlib.decompressobj(zlib.MAX_WBITS | GZIP)
    try:
        whole = unzip.decompress(body, largest + 1)
    except zlib.error:
        _refuse(HTTPStatus.BAD_REQUEST, "The body is not valid gzip.")
    if len(whole) > largest:
        _refuse(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is longer than {largest} bytes."
        )
    if not unzip.eof or unzip.unused_data:
        _refuse(HTTPStatus.BAD_REQUEST, "The body is not one whole gzip.")
    return whole


def _length(fields: Mapping[str, str]) -> int | None:
    """Return the length of the body, None for a body in chunks."""
    coding = fields.get("transfer-encoding")
    if coding is not None:
        if "content-length" in fields:
            _refuse(
                HTTPStatus.BAD_REQUEST,
                "Content-Length and Transfer-Encoding exclude each other.",
            )
        if coding.lower() != "chunked":
            _refuse(
                HTTPStatus.NOT_IMPLEMENTED, "The only Transfer-Encoding here is chunked."
            )
        return None
    text = fields.get("content-length", "0")
    if _DIGITS.fullmatch(text) is None:
        _refuse(HTTPStatus.BAD_REQUEST, "The Content-Length is no number.")
    return int(text)


def _refuse(status: int, message: str) -> NoReturn:
    raise RefusedError(ErrorResponse(status, message))
