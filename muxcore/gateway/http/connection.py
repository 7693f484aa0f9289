"""The connection of one client: reads and writes within limits of size and time."""

from __future__ import annotations

import contextlib
import socket
from http import HTTPStatus

from attrs import frozen

from muxcore.gateway.http.wire import (
    END_OF_HEAD,
    LARGEST_HEAD,
    ChunkedBody,
    ErrorResponse,
    RefusedError,
)
from muxcore.shell import clock

PIECE = 256 * 1024


@frozen
class ClientTimeouts:
    """How long the server waits for a client, in seconds.

    `fresh` is the wait for a request until one had the token, `idle` the wait after that; `head`
    and `body` are for the whole of either, however slowly it arrives; `send` is for one piece of
    a response that the client does not read; `linger` is for what a client still sends after a
    refusal.
    """

    fresh: float = 10.0
    idle: float = 75.0
    head: float = 10.0
    body: float = 60.0
    send: float = 60.0
    linger: float = 2.0


class ClientLeftError(Exception):
    """The client has left, or the server gives it up."""


class Connection:
    """Used by one thread; other threads may only `wake` it."""

    def __init__(self, sock: socket.socket, timeouts: ClientTimeouts) -> None:
        self.sock = sock
        self.is_authorized = False
        """Whether a request with the token has come."""
        self.is_woken = False
        self._timeouts = timeouts
        self._buffer = b""
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def wait(self) -> None:
        """Wait for the next request to begin: for a short time until one had the token."""
        if not self._buffer:
            seconds = self._timeouts.idle if self.is_authorized else self._timeouts.fresh
            try:
                self._buffer = self._receive(clock.elapsed() + seconds)
            except RefusedError:
                raise ClientLeftError from None

    def wait_for_end(self) -> None:
        """Wait until the client leaves. What it sends until then is ignored."""
        self.sock.settimeout(clock.LONGEST_SLEEP)
        with contextlib.suppress(OSError):
            while self.sock.recv(PIECE):
                pass

    def read_head(self) -> bytes:
        """Read a head, without the empty line that ends it."""
        until = clock.elapsed() + self._timeouts.head
        searched = 0
        while (end := self._buffer.find(END_OF_HEAD, searched)) < 0:
            searched = max(0, len(self._buffer) - len(END_OF_HEAD) + 1)
            self._expect_small(len(self._buffer))
            self._buffer += self._receive(until)
        self._expect_small(end)
        head = self._buffer[:end]
        self._buffer = self._buffer[end + len(END_OF_HEAD) :]
        return head

    def read_body(self, length: int | None, largest: int) -> bytes:
        """Read a body of this length; None is a body in chunks, of `largest` bytes at most."""
        until = clock.elapsed() + self._timeouts.body
        if length is None:
            return self._read_chunks(until, largest)
        pieces = [self._buffer[:length]]
        self._buffer = self._buffer[length:]
        missing = length - len(pieces[0])
        while missing:
            pieces.append(self._receive(until, missing))
            missing -= len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_chunks(self, until: float, largest: int) -> bytes:
        chunked = ChunkedBody(largest)
        is_whole = chunked.feed(self._buffer)
        while not is_whole:
            is_whole = chunked.feed(self._receive(until))
        self._buffer = chunked.rest
        return chunked.body

    def send(self, data: bytes) -> None:
        if self.sock.gettimeout() != self._timeouts.send:
            # A system call, which not every piece of a stream needs.
            self.sock.settimeout(self._timeouts.send)
        try:
            self.sock.sendall(data)
        except OSError:
            raise ClientLeftError from None

    def send_now(self, data: bytes) -> None:
        """Send a few bytes, from any thread, without waiting; give the client up if that fails."""
        try:
            with self.sock.dup() as copy:
                copy.settimeout(0)
                copy.send(data)
        except OSError:
            self.wake()

    def linger(self) -> None:
        """Read what the client is still sending, so that it can read the response.

        Closing a socket with unread data resets the connection, and the response is lost.
        """
        until = clock.elapsed() + self._timeouts.linger
        with contextlib.suppress(OSError, RefusedError, ClientLeftError):
            self.sock.shutdown(socket.SHUT_WR)
            while True:
                self._receive(until)

    def wake(self) -> None:
        """End whatever its thread is waiting for."""
        self.is_woken = True
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.wake()
        self.sock.close()

    def _receive(self, until: float, most: int = PIECE) -> bytes:
        try:
            self.sock.settimeout(_left(until))
            data = self.sock.recv(min(most, PIECE))
        except TimeoutError:
            raise RefusedError(
                ErrorResponse(
                    HTTPStatus.REQUEST_TIMEOUT, "The request took too long to arrive."
                )
            ) from None
        except OSError:
            raise ClientLeftError from None
        if not data:
            raise ClientLeftError
        return data

    def _expect_small(self, size: int) -> None:
        if size > LARGEST_HEAD:
            text = f"The head is longer than {LARGEST_HEAD} bytes."
            raise RefusedError(
                ErrorResponse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text)
            )


def _left(until: float) -> float:
    """Return the seconds left. Raise `TimeoutError` at 0, which to a socket means non-blocking."""
    left = until - clock.elapsed()
    if left <= 0:
        raise TimeoutError
    return left
