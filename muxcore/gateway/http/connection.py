"""One client's connection: reading within limits of size and time, writing, ending."""

from __future__ import annotations

import contextlib
import socket

from attrs import frozen

from muxcore.gateway.http.wire import END_OF_HEAD, LARGEST_HEAD, ErrorResponse, RefusedError
from muxcore.shell import clock

PIECE = 256 * 1024
LONGEST_WAIT = 1_000_000.0
"""Seconds; a socket cannot be told to wait for much longer."""


@frozen
class Patience:
    """For how long a client is waited for, in seconds.

    `idle` is between two requests; `head` and `body` are for the whole of either, however
    it drips; `send` is for one piece of an answer that the client does not take.
    """

    idle: float = 75.0
    head: float = 10.0
    body: float = 60.0
    send: float = 60.0
    linger: float = 2.0


class ClientLeftError(Exception):
    """The client has gone, or is to be treated as if it had."""


class Connection:
    """Belongs to one thread; others may only `wake` it."""

    def __init__(self, sock: socket.socket, patience: Patience) -> None:
        self.sock = sock
        self._patience = patience
        self._buffer = b""
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def wait(self) -> None:
        """Wait for the next request to begin."""
        if not self._buffer:
            try:
                self._buffer = self._received(clock.elapsed() + self._patience.idle)
            except RefusedError:
                raise ClientLeftError from None

    def wait_for_end(self) -> None:
        """Wait until the client leaves. What it sends until then means nothing."""
        self.sock.settimeout(LONGEST_WAIT)
        with contextlib.suppress(OSError):
            while self.sock.recv(PIECE):
                pass

    def read_head(self) -> bytes:
        """Read a head, without the empty line that ends it."""
        until = clock.elapsed() + self._patience.head
        searched = 0
        while (end := self._buffer.find(END_OF_HEAD, searched)) < 0:
            searched = max(0, len(self._buffer) - len(END_OF_HEAD) + 1)
            self._expect_small(len(self._buffer))
            self._buffer += self._received(until)
        self._expect_small(end)
        head = self._buffer[:end]
        self._buffer = self._buffer[end + len(END_OF_HEAD) :]
        return head

    def read_body(self, length: int) -> bytes:
        until = clock.elapsed() + self._patience.body
        pieces = [self._buffer[:length]]
        self._buffer = self._buffer[length:]
        missing = length - len(pieces[0])
        while missing:
            pieces.append(self._received(until, missing))
            missing -= len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def send(self, data: bytes) -> None:
        self.sock.settimeout(self._patience.send)
        try:
            self.sock.sendall(data)
        except OSError:
            raise ClientLeftError from None

    def linger(self) -> None:
        """Take in what the client is still sending, so that it can read what was sent to it.

        Closing a socket with something unread in it tells the client that all was lost.
        """
        until = clock.elapsed() + self._patience.linger
        with contextlib.suppress(OSError, RefusedError, ClientLeftError):
            self.sock.shutdown(socket.SHUT_WR)
            while True:
                self._received(until)

    def wake(self) -> None:
        """Make whatever its thread waits for end now."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.wake()
        self.sock.close()

    def _received(self, until: float, most: int = PIECE) -> bytes:
        try:
            self.sock.settimeout(_left(until))
            data = self.sock.recv(min(most, PIECE))
        except TimeoutError:
            raise RefusedError(
                ErrorResponse(408, "The request took too long to arrive.")
            ) from None
        except OSError:
            raise ClientLeftError from None
        if not data:
            raise ClientLeftError
        return data

    def _expect_small(self, size: int) -> None:
        if size > LARGEST_HEAD:
            text = f"The head is longer than {LARGEST_HEAD} bytes."
            raise RefusedError(ErrorResponse(431, text))


def _left(until: float) -> float:
    """Return the seconds that are left; to a socket, none of them would mean: do not wait."""
    left = until - clock.elapsed()
    if left <= 0:
        raise TimeoutError
    return left
