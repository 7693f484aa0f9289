"""One attempt over HTTP: send, read, and tell what came of it. Nothing is decided here.

No exception of `requests` leaves this module: each carries the request, and with it the key.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from http.client import IncompleteRead, RemoteDisconnected
from typing import TYPE_CHECKING

import requests
import urllib3
from requests.cookies import RequestsCookieJar
from requests.structures import CaseInsensitiveDict

from muxcore.plugins.backend import HttpRequest, HttpResponse
from muxcore.shell.http.cancel_scope import CancelScope
from muxcore.shell.http.connections import Sender
from muxcore.shell.http.fast_path import FastResponse, Response

if TYPE_CHECKING:
    from muxcore.config import Key

LARGEST_BODY = 64 * 1024 * 1024
READ_SIZE = 65536
DRAIN_SECONDS = 0.01


class TransportError(Exception):
    """The attempt got no answer, or not all of it. Its text is for people, without secrets."""


class LowercaseHeaders(Mapping[str, str]):
    """Headers with their names in lower case. Most answers are never asked for any."""

    __slots__ = ("_headers",)

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        """Without regard to case, as those of requests and urllib3 are."""

    def __getitem__(self, name: str) -> str:
        return self._headers[name]

    def __iter__(self) -> Iterator[str]:
        return (name.lower() for name in self._headers)

    def __len__(self) -> int:
        return len(self._headers)

    def __repr__(self) -> str:
        return f"Lowered({dict(self)!r})"


class Exchange:
    """A request that was sent, and its answer with the body still to be read."""

    def __init__(self, response: Response, scope: CancelScope) -> None:
        self._response = response
        self._scope = scope
        self._peeked: list[bytes] = []

    @property
    def status(self) -> int:
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        response = self._response
        # The fast path has read their names in lower case.
        kept = isinstance(response, FastResponse)
        return response.headers if kept else LowercaseHeaders(response.headers)

    def peek(self) -> bytes:
        """Return the beginning of the body, up to what is more than white space."""
        for piece in self._read_pieces():
            self._peeked.append(piece)
            if not piece.isspace():
                break
        return b"".join(self._peeked)

    def pieces(self) -> Iterator[bytes]:
        """Give the body as it arrives: what is there, without waiting for more."""
        while self._peeked:
            yield self._peeked.pop(0)
        yield from self._read_pieces()

    def _read_pieces(self) -> Iterator[bytes]:
        read = self._response.raw.read1
        scope = self._scope
        while scope.reason is None:
            try:
                piece = read(READ_SIZE, decode_content=True)
            except ERRORS as error:
                told = _describe_failure(error, scope)
                break
            if piece:
                yield piece
                if self._is_read():
                    return
            elif scope.reason is None:
                return
        else:
            # A cut in a body without a length looks like its end.
            told = str(scope.reason)
        # Raised out here, so that its context is not the error with the request in it.
        raise TransportError(told)

    def _is_read(self) -> bool:
        """Whether all of an announced length has come: that saves asking for more."""
        raw = self._response.raw
        left = getattr(raw, "length_remaining", None)
        return left == 0 and "content-encoding" not in self._response.headers

    def answer(self) -> HttpResponse:
        """Read the whole body."""
        parts = []
        size = 0
        for piece in self.pieces():
            size += len(piece)
            if size > LARGEST_BODY:
                raise TransportError(f"the answer is longer than {LARGEST_BODY} bytes")
            parts.append(piece)
        # The connection is another call's from here on, and not to be cut with this one.
        self._scope.detach()
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        return HttpResponse(self.status, self.headers, body)

    def drain(self) -> None:
        """Read what little may follow a stream's last event, so that its connection is kept.

        Waits for a moment only: a server that keeps the stream open costs its connection.
        """
        connection = getattr(self._response.raw, "connection", None)
        sock = getattr(connection, "sock", None)
        if isinstance(sock, socket.socket):
            sock.settimeout(DRAIN_SECONDS)
        try:
            # One piece is enough for the end of a chunked body; more is not waited for.
            if self._response.raw.read1(READ_SIZE, decode_content=True):
                self._response.close()
        except ERRORS:
            self._response.close()

    def close(self) -> None:
        """Give the connection back if the body was read, else close it."""
        self._scope.detach()
        self._response.close()


def send(
    connections: Sender,
    request: HttpRequest,
    key: Key | None,
    timeout: tuple[float, float],
    scope: CancelScope,
) -> Exchange:
    """Make the request. Raise `TransportError` if no answer came.

    `timeout` is for connecting and for each silence, in seconds.
    """
    if scope.reason is not None:
        raise TransportError(str(scope.reason))
    response = _response(connections, request, key, timeout, scope)
    if isinstance(response, str):
        # Raised out here, so that neither its context nor a frame of its traceback holds
        # the request: that has the key in it.
        raise TransportError(response)
    return Exchange(response, scope)


def _response(
    connections: Sender,
    request: HttpRequest,
    key: Key | None,
    timeout: tuple[float, float],
    scope: CancelScope,
) -> Response | str:
    """Return the answer, or why there is none. The key is in the request while it is sent."""
    prepared = _prepared(request)
    name = None
    if key is not None and request.key_header is not None:
        name = request.key_header.name
        prepared.headers[name] = request.key_header.prefix + key.reveal()
    try:
        while True:
            try:
                return connections.send(prepared, timeout, scope)
            except BROKEN as error:
                # The server closed it while it was idle: that says nothing of the model. The
                # next may be such a one too, until there is none but a new one.
                if not scope.reused or scope.reason is not None or not _closed_idle(error):
                    raise
    except ERRORS as error:
        return _describe_failure(error, scope)
    except BaseException as error:  # noqa: BLE001 - it is raised again
        # An interrupt passes, without the frames below, which hold the key as it is sent.
        error.__cause__ = error.__context__ = None
        raise error.with_traceback(None)  # noqa: B904 - that would be a context again
    finally:
        if name is not None:
            # The answer keeps its request.
            del prepared.headers[name]


def _prepared(request: HttpRequest) -> requests.PreparedRequest:
    """Make the request as `requests` sends it, without what its `prepare` looks up anew."""
    prepared = requests.PreparedRequest()
    prepared.method = "POST"
    prepared.url = request.url
    prepared.headers = CaseInsensitiveDict(request.headers)
    prepared.headers["Content-Length"] = str(len(request.body))
    prepared.body = request.body
    prepared._cookies = RequestsCookieJar()  # type: ignore[attr-defined]  # noqa: SLF001 - as `prepare` does
    return prepared


ERRORS = (
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
    ValueError,
)
"""All that sending and reading may raise; `ValueError` is what urllib3 says of odd bytes."""


BROKEN = (
    requests.exceptions.ConnectionError,
    urllib3.exceptions.ProtocolError,
    urllib3.exceptions.SSLError,
)
"""How `requests` says that a connection broke; then urllib3, by the fast path."""


def _closed_idle(error: BaseException) -> bool:
    return any(isinstance(cause, CLOSED_IDLE) for cause in _causes(error))


CLOSED_IDLE = (
    # `RemoteDisconnected` is one of the first.
    ConnectionResetError,
    BrokenPipeError,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)


def _describe_failure(error: BaseException, scope: CancelScope) -> str:
    """Say in a few plain words why there is no answer."""
    if scope.reason is not None:
        return str(scope.reason)
    causes = tuple(_causes(error))
    for kinds, text in _DESCRIPTIONS:
        if any(isinstance(cause, kinds) for cause in causes):
            return text
    _, found, path = str(error).partition("invalid path: ")
    if found and type(error) is OSError:
        # `requests` says so of REQUESTS_CA_BUNDLE, and before anything is sent.
        return f"the certificates that the environment names are not there: {path}"
    return f"no answer ({type(error).__name__})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Give the error and what it wraps, the innermost last."""
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
    # What is seen as a kind of another in urllib3's eyes comes before that.
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
