"""Asks a server that runs for its status, a receipt or a lease.

Not with `requests`: nothing here goes through a proxy, and it imports next to nothing. The
token is sent only after the server has proven that it knows it: the port of a server that died
may be another user's now.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from collections.abc import Generator
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlencode

from muxcore.errors import MultiplexerError
from muxcore.gateway.discovery import Server
from muxcore.gateway.proof import same, server_proof
from muxcore.shell import clock

ASK_SECONDS = 5.0
"""For one whole request: connecting, the proof and the answer."""

LARGEST_ANSWER = 4 * 1024 * 1024
END_OF_HEAD = b"\r\n\r\n"
PIECE = 64 * 1024

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([0-9]{3})")
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,9})\r\n", re.IGNORECASE)


class NotReachableError(MultiplexerError):
    """No server that proves itself answers where one should be."""


class RefusedByServerError(NotReachableError):
    """The server answered with another status than 200."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def ask(server: Server, path: str) -> str:
    """Return the server's answer to a GET. Raise `NotReachableError`."""
    with connected(server, ASK_SECONDS) as channel:
        channel.prove()
        return channel.get(path).decode("utf-8", "replace")


def ask_json(server: Server, path: str) -> Any:
    """Return the server's JSON answer to a GET. Raise `NotReachableError`, `ValueError`."""
    return json.loads(ask(server, path))


@contextlib.contextmanager
def connected(server: Server, seconds: float) -> Generator[Channel]:
    """Connect; all that is asked in the block has `seconds`. Raise `NotReachableError`."""
    try:
        with Channel(server, seconds) as channel:
            yield channel
    except OSError as error:
        kind = type(error).__name__
        text = f"no server answers at port {server.port} ({kind})"
        raise NotReachableError(text) from None


class Channel:
    """A connection to a server. Raises `OSError` when it breaks, or its time is over."""

    def __init__(self, server: Server, seconds: float) -> None:
        self.server = server
        self._until = clock.elapsed() + seconds
        self._buffer = b""
        self.sock = socket.create_connection((server.host, server.port), seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def prove(self) -> None:
        """Have the server prove that it knows its token. Raise `NotReachableError`."""
        server, nonce = self.server, os.urandom(16).hex()
        self.send(f"/proof?nonce={nonce}", token=False)
        try:
            given = str(json.loads(self._answer())["proof"])
        except (RefusedByServerError, ValueError, KeyError, TypeError):
            given = ""
        if not same(given, server_proof(server.token, server.host, server.port, nonce)):
            text = f"what listens at port {server.port} is not the server of this config"
            raise NotReachableError(text)

    def get(self, path: str) -> bytes:
        """Return the body of the answer to a GET. Raise `RefusedByServerError`."""
        self.send(path)
        return self._answer()

    def send(self, path: str, *, token: bool = True) -> None:
        """Send a GET, with the token unless `token` is false."""
        lines = [f"GET {path} HTTP/1.1", f"Host: {self.server.authority}"]
        if token:
            lines.append(f"Authorization: Bearer {self.server.token}")
        self.sock.settimeout(self._left())
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))

    def read_head(self) -> bytes:
        """Read the head of an answer. Raise `RefusedByServerError` if it is not a 200."""
        while END_OF_HEAD not in self._buffer:
            self._receive()
        head, _, self._buffer = self._buffer.partition(END_OF_HEAD)
        match = _STATUS_LINE.match(head)
        status = 0 if match is None else int(match[1])
        if status != HTTPStatus.OK:
            text = f"the server at port {self.server.port} answered {status}"
            raise RefusedByServerError(text, status)
        return head

    def release(self) -> tuple[socket.socket, bytes]:
        """Return a copy of the socket, without a time limit, and what was read too much."""
        copy = self.sock.dup()
        copy.settimeout(None)
        return copy, self._buffer

    def _answer(self) -> bytes:
        match = _LENGTH.search(self.read_head() + b"\r\n")
        length = 0 if match is None else int(match[1])
        if length > LARGEST_ANSWER:
            raise ConnectionError("too long an answer")
        while len(self._buffer) < length:
            self._receive()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return body

    def _receive(self) -> None:
        self.sock.settimeout(self._left())
        data = self.sock.recv(PIECE)
        if not data or len(self._buffer) > LARGEST_ANSWER:
            raise ConnectionError("no whole answer")
        self._buffer += data

    def _left(self) -> float:
        if (left := self._until - clock.elapsed()) <= 0:
            raise TimeoutError
        return left


def lease_path(label: str, fingerprint: str) -> str:
    """Return the path of a lease for a `run` that has this label and these keys."""
    return f"/lease?{urlencode({'label': label, 'keys': fingerprint})}"
