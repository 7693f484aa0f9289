"""A client's connection: send, and wait until a time or a gate, or until the client leaves."""

from __future__ import annotations

import math
import selectors
import socket
import struct
from contextlib import suppress

from muxcore.standin.clock import monotonic
from muxcore.standin.gate import Gate

# l_onoff and l_linger: close at once, with an RST.
_LINGER_ZERO = struct.pack("ii", 1, 0)


class ClientGoneError(Exception):
    """The client has closed the connection."""


class StoppedError(Exception):
    """The server stops."""


class ClientConnection:
    """Belongs to one thread; others may `ring` and `stop` it."""

    def __init__(self, peer: socket.socket, number: int) -> None:
        self.number = number
        self.reader = peer.makefile("rb")
        self._peer = peer
        self._is_stopping = False
        self._bell, self._button = socket.socketpair()
        self._button.settimeout(0)
        # macOS refuses it if the client has left already; the next read finds that out.
        with suppress(OSError):
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        try:
            self._peer.sendall(data)
        except OSError:
            raise self._reason() from None

    def wait(self, seconds: float = math.inf, gate: Gate | None = None) -> None:
        """Wait until the time is over or the gate opens; raise if the client leaves."""
        gate = gate or Gate()
        until = monotonic() + seconds
        with selectors.DefaultSelector() as selector, gate.ringing(self.ring):
            selector.register(self._bell, selectors.EVENT_READ)
            selector.register(self._peer, selectors.EVENT_READ)
            while not gate.is_open and (left := until - monotonic()) > 0:
                events = selector.select(None if math.isinf(left) else left)
                if not events:
                    # The time is over, even if a test has frozen the clock.
                    return
                ready = [key.fileobj for key, _ in events]
                is_readable = self._peer in ready
                if self._is_stopping or (is_readable and self._is_at_end()):
                    raise self._reason()
                if is_readable:
                    # The next request is here early, and hides the end of the connection.
                    selector.unregister(self._peer)
                if self._bell in ready:
                    self._bell.recv(64)

    def ring(self) -> None:
        # A full buffer wakes the waiter already; on a closed connection there is none.
        with suppress(OSError):
            self._button.send(b"!")

    def stop(self) -> None:
        """End what this connection's thread is doing."""
        self._is_stopping = True
        self.ring()
        with suppress(OSError):
            self._peer.shutdown(socket.SHUT_RDWR)

    def reset_on_close(self) -> None:
        with suppress(OSError):
            self._peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)

    def close(self) -> None:
        # The reader first: while it is open, closing the socket sends nothing.
        for each in (self.reader, self._peer, self._bell, self._button):
            each.close()

    def _is_at_end(self) -> bool:
        try:
            return not self._peer.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _reason(self) -> ClientGoneError | StoppedError:
        return StoppedError() if self._is_stopping else ClientGoneError()
