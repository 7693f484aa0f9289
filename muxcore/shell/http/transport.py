"""Send one request over HTTP, read its response, and describe a failure in a few words.

It decides nothing. No exception of `requests` leaves this module, because each holds the
request, and with it the key.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from http.client import IncompleteRead, RemoteDisconnected
from typing import TYPE_CHECKING

import requests
import urllib3

from muxcore.core.outcomes import CancelReason
from muxcore.plugins.backend import HttpRequest, HttpResponse
from muxcore.plugins.catalogue import version
from muxcore.shell.http.cancel_scope import CancelScope
from muxcore.shell.http.connections import Sender
from muxcore.shell.http.events import LARGEST_BODY
from muxcore.shell.http.fast_path import FastResponse, OutgoingRequest, Response
from muxcore.shell.importing import is_lacking, is_short_of_descriptors

if TYPE_CHECKING:
    from muxcore.config import Key

READ_SIZE = 65536
USER_AGENT = f"vibe-mux/{version()}"
"""The firewalls of some providers refuse the name of an HTTP library."""
DRAIN_SECONDS = 0.01


class TransportError(Exception):
    """There is no response, or only a part of one. The text is for people, without secrets."""


class LowercaseHeaders(Mapping[str, str]):
    """Headers with their names in lower case, converted on use: most are never read."""

    __slots__ = ("_headers",)

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        """A mapping that ignores case, as those of requests and urllib3 do."""

    def __getitem__(self, name: str) -> str:
        return self._headers[name]

    def __iter__(self) -> Iterator[str]:
        return (name.lower() for name in self._headers)

    def __len__(self) -> int:
        return len(self._headers)

    def __repr__(self) -> str:
        return f"LowercaseHeaders({dict(self)!r})"


class Exchange:
    """A request that was sent, and its response with an unread body."""

    def __init__(self, response: Response, scope: CancelScope) -> None:
        self._response = response
        self._scope = scope
        self._ended = False
        self._peeked: list[bytes] = []

    @property
    def status(self) -> int:
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        response = self._response
        is_lowercase = isinstance(response, FastResponse)
        return response.headers if is_lowercase else LowercaseHeaders(response.headers)

    def peek(self) -> bytes:
        """Return the beginning of the body, up to the first piece that is not white space."""
        while piece := self._receive():
            self._peeked.append(piece)
            if not piece.isspace():
                break
        return b"".join(self._peeked)

    def read(self) -> bytes:
        """Wait for data and return what has arrived of the body; b"" at the end.

        Raise `TransportError` if the body breaks off.
        """
        return self._peeked.pop(0) if self._peeked else self._receive()

    def _receive(self) -> bytes:
        piece, failure = b"", self._scope.reason and str(self._scope.reason)
        if failure is None and not self._ended:
            try:
                piece = self._response.raw.read1(READ_SIZE, decode_content=True)
            except ERRORS as error:
                failure = _describe_failure(error, self._scope)
            else:
                self._ended = not piece or self._is_read()
                if not piece and self._scope.reason is not None:
                    # A shutdown looks like the end of a body without a length.
                    failure = str(self._scope.reason)
        if failure is not None:
            # Raised outside the `except`, so that its context does not hold the request.
            raise TransportError(failure)
        return piece

    def _is_read(self) -> bool:
        """Whether a body of known length is complete, which saves one more read."""
        raw = self._response.raw
        left = getattr(raw, "length_remaining", None)
        return left == 0 and "content-encoding" not in self._response.headers

    def read_response(self) -> HttpResponse:
        """Read the whole body. Raise `TransportError` if it is cut or too long."""
        parts = []
        size = 0
        while piece := self.read():
            size += len(piece)
            if size > LARGEST_BODY:
                raise TransportError(f"the answer is longer than {LARGEST_BODY} bytes")
            parts.append(piece)
        # From now on another call may use the connection, and must not be cancelled with this one.
        self._scope.detach()
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        return HttpResponse(self.status, self.headers, body)

    def limit_silence(self, seconds: float) -> None:
        """From now on, wait at most so long for the next bytes of the body."""
        if (sock := self._socket()) is not None:
            sock.settimeout(seconds)

    def _socket(self) -> socket.socket | None:
        connection = getattr(self._response.raw, "connection", None)
        sock = getattr(connection, "sock", None)
        return sock if isinstance(sock, socket.socket) else None

    def _drain(self) -> None:
        """Read the rest after the last event of a stream, so that the connection is kept.

        Waits only for a moment. If the server keeps the stream open, the connection is closed.
        """
        self.limit_silence(DRAIN_SECONDS)
        try:
            # One piece is enough for the end of a chunked body.
            if self._response.raw.read1(READ_SIZE, decode_content=True):
                self._response.close()
        except ERRORS:
            self._response.close()

    def close(self, *, drain: bool = False) -> None:
        """Give the connection back if the body is read, else close it.

        `drain` reads the rest first; use it after the last event of a stream.
        """
        if drain:
            self._drain()
        self._scope.detach()
        self._response.close()


def send(
    connections: Sender,
    request: HttpRequest,
    key: Key | None,
    timeout: tuple[float, float],
    scope: CancelScope,
) -> Exchange | TransportError:
    """Send the request; return the exchange, or the error to raise if there is no response.

    `timeout` is for connecting and for each silence, in seconds. The error is returned, so
    that neither its context nor a frame of its traceback holds the request with the key.
    """
    if scope.reason is not None:
        return TransportError(str(scope.reason))
    headers = {"User-Agent": USER_AGENT, **request.headers}
    name = ""
    if key is not None and request.key_header is not None:
        name = request.key_header.name
        # It comes last: of two fields that differ only in case, the later counts.
        headers.pop(name, None)
        headers[name] = request.key_header.prefix + key.reveal()
    outgoing = OutgoingRequest(request.url, headers, request.body, name)
    try:
        while True:
            try:
                return Exchange(connections.send(outgoing, timeout, scope), scope)
            except BROKEN as error:
                # The server closed the idle connection, which says nothing about the model.
                # The next one may be closed too; the last is a new one.
                if not scope.reused or scope.reason is not None or not _closed_idle(error):
                    raise
    except ERRORS as error:
        if any(map(is_lacking, _causes(error))) or is_short_of_descriptors():
            # The machine lacks something: every other attempt would fail too.
            scope.cancel(CancelReason.LACKING)
        return TransportError(_describe_failure(error, scope))
    except BaseException as error:  # noqa: BLE001 - it is raised again
        # An interrupt: raise it without the frames below, which hold the key.
        error.__cause__ = error.__context__ = None
        raise error.with_traceback(None)  # noqa: B904 - a cause would bring them back
    finally:
        # The frame of this function may be seen in a traceback.
        headers.clear()


ERRORS = (
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
    ValueError,
)
"""What sending and reading may raise; urllib3 raises `ValueError` for invalid bytes."""


BROKEN = (
    requests.exceptions.ConnectionError,
    urllib3.exceptions.ProtocolError,
    urllib3.exceptions.SSLError,
)
"""What `requests`, or urllib3 on the fast path, raises for a broken connection."""


def _closed_idle(error: BaseException) -> bool:
    return any(isinstance(cause, CLOSED_IDLE) for cause in _causes(error))


CLOSED_IDLE = (
    # `RemoteDisconnected` is a subclass of the first.
    ConnectionResetError,
    BrokenPipeError,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)


def _describe_failure(error: BaseException, scope: CancelScope) -> str:
    """Describe in a few plain words why there is no response."""
    if scope.reason is not None:
        return str(scope.reason)
    causes = tuple(_causes(error))
    for kinds, text in _DESCRIPTIONS:
        if any(isinstance(cause, kinds) for cause in causes):
            return text
    _, found, path = str(error).partition("invalid path: ")
    if found and type(error) is OSError:
        # From `requests`, for REQUESTS_CA_BUNDLE, before anything is sent.
        return f"the certificates that the environment names are not there: {path}"
    return f"no answer ({type(error).__name__})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and the errors that it wraps, the innermost last."""
    seen: set[int] = set()
    todo: list[object] = [error]
    while todo:
        cause = todo.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            todo += [getattr(cause, "reason", None), *cause.args]
            todo += [cause.__cause__, cause.__context__]


_DESCRIPTIONS: tuple[
    tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...
] = (
    # Subclasses first.
    (urllib3.exceptions.NameResolutionError, "its name could not be resolved"),
    (requests.exceptions.ProxyError, "the proxy did not let it through"),
    (requests.exceptions.SSLError, "its certificate or TLS connection failed"),
    (ConnectionRefusedError, "the connection was refused"),
    (urllib3.exceptions.NewConnectionError, "it could not be connected to"),
    (urllib3.exceptions.ConnectTimeoutError, "it could not be connected to in time"),
    ((urllib3.exceptions.ReadTimeoutError, TimeoutError), "it was silent for too long"),
    (RemoteDisconnected, "the connection was closed without an answer"),
    (ConnectionResetError, "the connection was reset"),
    (IncompleteRead, "the answer broke off"),
    (urllib3.exceptions.ProtocolError, "the connection broke off"),
    (urllib3.exceptions.DecodeError, "its answer could not be decompressed"),
    (requests.exceptions.InvalidProxyURL, "the address of its proxy makes no sense"),
    (
        requests.exceptions.InvalidSchema,
        "its proxy is of a kind that this `requests` does not speak",
    ),
)
