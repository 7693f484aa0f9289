"""A faster way to repeat a request: the same head with another body, on an idle connection.

It sends and reads bytes on the socket as `urllib3` and `http.client` would, without their
detours, which are a third of the cost of a whole call. It leaves everything unusual to them:
connecting, proxies, another URL or other headers than last time, and a response whose head is
not simple or has not arrived as a whole. `connections` decides when to use it.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self

from attrs import define, field
from urllib3 import HTTPHeaderDict, HTTPResponse
from urllib3.exceptions import IncompleteRead, ProtocolError, ReadTimeoutError, SSLError
from urllib3.util.connection import is_connection_dropped

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from urllib3 import HTTPConnectionPool
    from urllib3.connection import HTTPConnection as ConnectionBase
else:
    # At run time a mixin: `_HTTPConnection` and `_HTTPSConnection` have bases of their own.
    ConnectionBase = object

RECEIVED_AT_ONCE = 65536
"""In bytes; a head is much smaller."""


@define(eq=False)
class OutgoingRequest:
    """A POST to be sent. Its `headers` hold the key, under `key_header`, but no length."""

    url: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    key_header: str = ""


class RequestHead:
    """The head of a request as `http.client` wrote it, to be sent with other bodies.

    It holds the key, as the connection's buffer does, so its repr does not show it.
    """

    __slots__ = ("_after", "_before", "_headers", "_url")

    def __init__(self, request: OutgoingRequest, head: bytes) -> None:
        self._url = request.url
        self._headers = dict(request.headers)
        self._before, found, self._after = head.partition(_length(request.body))
        if not found:
            # Without that line the head cannot be reused: no URL equals this one.
            self._url = ""

    def with_body(self, request: OutgoingRequest) -> bytes | None:
        """Return the bytes of this request, or None if its URL or headers differ."""
        if request.url != self._url or request.headers != self._headers:
            return None
        body = request.body
        return b"".join((self._before, _length(body), self._after, body))


def _length(body: bytes) -> bytes:
    return b"\r\nContent-Length: %d\r\n" % len(body)


_PLAIN_HEAD = re.compile(
    rb"HTTP/1\.1 (200|[45]\d\d)(?: [^\r\n]*)?\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[^\r\n\0]*+\r\n)++)\r\n"
)


class FinalResponse(http.client.HTTPResponse):
    """The response of `http.client`, which skips every interim response.

    `http.client` skips only a 100; caches also send 103 (RFC 9110, section 15.2).
    """

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        if HTTPStatus.SWITCHING_PROTOCOLS < status < HTTPStatus.OK:
            status = HTTPStatus.CONTINUE
        return version, status, reason


@define
class SimpleHead:
    """The head of a response that needs no e-mail parser: that takes a fifth of a whole call.

    Names in `fields` are in lower case, repeated fields are joined.
    """

    status: int
    fields: dict[str, str]
    length: int | None
    chunked: bool
    closes: bool
    ahead: bytes
    """What has come of the body with the head."""

    @classmethod
    def of(cls, received: bytes) -> Self | None:
        """Return the head that these bytes begin with, or None if they hold no simple one.

        Its fields must make the length of the body clear, and the body must not be compressed.
        """
        head = _PLAIN_HEAD.match(received)
        if head is None:
            return None
        fields: dict[str, str] = {}
        *lines, _ = head[2].decode("latin-1").split("\r\n")
        for line in lines:
            name, _, value = line.partition(":")
            name, value = name.lower(), value.lstrip(" \t")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        coding, length = fields.get("transfer-encoding"), fields.get("content-length")
        if "content-encoding" in fields:
            return None
        closes = "close" in fields.get("connection", "").lower()
        chunked = coding is not None
        status, ahead = int(head[1]), received[head.end() :]
        if length is None and (coding is None or coding.lower() == "chunked"):
            return cls(status, fields, None, chunked, closes or not chunked, ahead)
        if length is not None and not chunked and length.isdecimal():
            return cls(status, fields, int(length), chunked, closes, ahead)
        return None


class Resumed(io.RawIOBase):
    """A socket from which some bytes were received, for `http.client` to read them again."""

    def __init__(self, received: bytes, sock: socket.socket) -> None:
        self._received = io.BytesIO(received)
        self._rest = sock.makefile("rb", buffering=0)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        return self._received.readinto(buffer) or self._rest.readinto(buffer)

    def close(self) -> None:
        self._rest.close()
        super().close()


class ContentLengthReader:
    """The framing of a body with a Content-Length."""

    excess = False

    def __init__(self, left: int) -> None:
        self._left = left
        self.ended = not left

    def take(self, data: bytes) -> bytes:
        """Return the part of `data` that belongs to the body. Empty `data` is the end."""
        if not data:
            raise IncompleteRead(0, self._left)
        self.excess = len(data) > self._left
        body = data[: self._left] if self.excess else data
        self._left -= len(body)
        self.ended = not self._left
        return body


class Http10Reader:
    """The framing of a body that ends with its connection."""

    excess = ended = False

    def take(self, data: bytes) -> bytes:
        self.ended = not data
        return data


_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
LONGEST_LINE = 65536


class ChunkedReader:
    """The framing of a body in chunks. Takes all chunks that have arrived at once."""

    def __init__(self) -> None:
        self.ended = False
        self._rest = b""
        """An incomplete line."""
        self._left = 0
        self._is_closing = False
        """Whether the line end after a chunk has not arrived."""
        self._is_trailing = False

    @property
    def excess(self) -> bool:
        return bool(self._rest)

    def take(self, data: bytes) -> bytes:
        if not data:
            raise http.client.IncompleteRead(b"")
        if self._rest:
            data = self._rest + data
        pieces, at = [], 0
        while not self.ended:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
                # The line end nearly always arrives with the chunk.
                if data.startswith(b"\r\n", at):
                    at += 2
                else:
                    self._is_closing = True
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                break
            self._take_line(data[at:end])
            at = end + 2
        self._rest = data[at:]
        if len(self._rest) > LONGEST_LINE:
            raise http.client.LineTooLong("chunk size")
        return b"".join(pieces)

    def _take_line(self, line: bytes) -> None:
        if self._is_trailing:
            self.ended = not line
        elif self._is_closing:
            if line:
                raise http.client.IncompleteRead(b"")
            self._is_closing = False
        else:
            size = _SIZE.fullmatch(line)
            if size is None:
                raise http.client.IncompleteRead(b"")
            self._left = int(size[1], 16)
            self._is_trailing = not self._left


class Body:
    """The body of a response with a simple head, in place of urllib3's response.

    That takes two thirds of the time of reading a stream. This one reads from the socket, and
    takes all chunks that have arrived at once.
    """

    length_remaining: int | None = None
    """0 at the end, as in urllib3."""

    def __init__(
        self,
        head: SimpleHead,
        pool: HTTPConnectionPool,
        connection: Repeatable,
    ) -> None:
        self.connection: Repeatable | None = connection
        self._pool = pool
        self._receive = connection.sock.recv
        self._held = head.ahead
        self._closes = head.closes
        self._framing: ContentLengthReader | Http10Reader | ChunkedReader
        if head.chunked:
            self._framing = ChunkedReader()
        elif head.length is None:
            self._framing = Http10Reader()
        else:
            self._framing = ContentLengthReader(head.length)

    def read1(self, size: int, decode_content: bool | None = None) -> bytes:  # noqa: ARG002, FBT001 - urllib3's
        """Wait for data and return what has arrived; b"" at the end."""
        framing = self._framing
        try:
            body = b""
            while not (body or framing.ended):
                held, self._held = self._held, b""
                body = framing.take(held or self._receive(size))
            if framing.ended:
                self._end()
        except BaseException as error:  # noqa: BLE001 - it is raised again
            self.close()
            raise_as_urllib3(error, self._pool)
        return body

    def close(self) -> None:
        """Close the connection, if this body still has it: after its end, another call may."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def _end(self) -> None:
        self.length_remaining = 0
        if self._closes or self._framing.excess or self._pool.pool is None:
            self.close()
        elif self.connection is not None:
            connection, self.connection = self.connection, None
            self._pool.pool.put(connection)


def raise_as_urllib3(error: BaseException, pool: HTTPConnectionPool) -> NoReturn:
    """Raise the error that urllib3 would raise."""
    if isinstance(error, TimeoutError):
        raise ReadTimeoutError(pool, "", "Read timed out.") from None
    if isinstance(error, ssl.SSLError):
        raise SSLError(error) from error
    if isinstance(error, http.client.HTTPException | OSError):
        raise ProtocolError(f"Connection broken: {error!r}", error) from error
    raise error


class Repeatable(ConnectionBase):
    """A mixin for connections of urllib3: repeats the last request with another body."""

    sock: Any = None
    _last_head: RequestHead | None = None

    def repeated(self, request: OutgoingRequest) -> bytes | None:
        """Return the bytes of this request, or None if the last was of another kind."""
        if self._last_head is None or is_connection_dropped(self):
            return None
        return self._last_head.with_body(request)

    def prepare(self) -> None:
        """Make the connection ready for another request."""

    def resend(self, request: bytes) -> SimpleHead | FinalResponse:
        """Send what `repeated` returned, and read the head of the response."""
        response: FinalResponse | None = None
        try:
            # As in urllib3: a server that stops reading may still have responded.
            with suppress(BrokenPipeError, ConnectionResetError):
                self.send(request)
            received = self.sock.recv(RECEIVED_AT_ONCE)
            head = SimpleHead.of(received)
            if head is not None:
                return head
            response = FinalResponse(Resumed(received, self.sock), method="POST")  # type: ignore[arg-type]  # all that it calls is `makefile`
            response.begin()
        except BaseException:
            if response is not None:
                response.close()
            self.close()
            raise
        return response

    def __del__(self) -> None:
        # After an interrupt, nothing may refer to a connection just taken from the idle ones.
        if self.sock is not None:
            self.close()


class RawBody(Protocol):
    """The part of a body that is used here: urllib3's responses have it, and `Body`."""

    def read1(self, size: int, /, *, decode_content: bool) -> bytes: ...

    def close(self) -> None: ...


class Response(Protocol):
    """The part of a response that is used here: `requests.Response` has it, and `FastResponse`."""

    status_code: int

    @property
    def raw(self) -> RawBody: ...

    @property
    def headers(self) -> Mapping[str, str]: ...
    def close(self) -> None: ...


class FastResponse:
    """A response by the fast path."""

    __slots__ = ("headers", "raw", "status_code")

    def __init__(self, status: int, headers: Mapping[str, str], raw: RawBody) -> None:
        self.status_code = status
        self.headers = headers
        self.raw = raw

    def close(self) -> None:
        self.raw.close()


def resend(
    pool: HTTPConnectionPool, connection: Repeatable, request: bytes
) -> FastResponse:
    """Send what the connection's `repeated` returned. Raise the errors of urllib3."""
    try:
        connection.prepare()
        response = connection.resend(request)
    except BaseException as error:  # noqa: BLE001 - it is raised again
        raise_as_urllib3(error, pool)
    if isinstance(response, SimpleHead):
        body = Body(response, pool, connection)
        return FastResponse(response.status, response.fields, body)
    # As items: urllib3 cannot read the headers of the standard library.
    headers = HTTPHeaderDict(response.headers.items())
    raw = HTTPResponse(
        response,
        headers=headers,
        status=response.status,
        version=response.version,
        reason=response.reason,
        preload_content=False,
        decode_content=False,
        original_response=response,
        pool=pool,
        connection=connection,
        request_method="POST",
    )
    if response.will_close:
        connection.close()
    return FastResponse(response.status, headers, raw)
