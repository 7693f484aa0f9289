"""Asking again over a connection that is kept: the fast path under `requests`.

A call over a connection that has served before does what `urllib3` and `http.client` do, with
their detours left out: a third of the cost of a whole call. Whatever is out of the ordinary
is left to them: connecting, proxies, another URL or other headers than the last time, and an
answer whose head is not a plain one that has arrived whole.
"""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from urllib3 import HTTPHeaderDict, HTTPResponse
from urllib3.exceptions import ProtocolError, ReadTimeoutError, SSLError
from urllib3.util.connection import is_connection_dropped

LENGTH = "Content-Length"


class Written:
    """The head of a request as `http.client` checked and wrote it, for any length of body.

    It holds the key, as the connection's own buffer did; so it has no repr that shows it.
    """

    __slots__ = ("_after", "_before", "_fields", "_url")

    def __init__(self, url: str, headers: Mapping[str, str], head: bytes) -> None:
        self._url = url
        self._fields = _fields(headers)
        length = f"\r\n{LENGTH}: {headers.get(LENGTH)}\r\n".encode("latin-1")
        self._before, found, self._after = head.partition(length)
        if not found:
            # Not one that could be written again.
            self._url = ""

    def again(self, url: str, headers: Mapping[str, str], body: bytes) -> bytes | None:
        """Return the whole request with this body; None if its head is another."""
        if url != self._url or _fields(headers) != self._fields:
            return None
        length = b"\r\nContent-Length: %d\r\n" % len(body)
        return b"".join((self._before, length, self._after, body))


def _fields(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [field for field in headers.items() if field[0] != LENGTH]


_PLAIN_HEAD = re.compile(
    rb"HTTP/1\.1 (200|[45]\d\d)(?: ([^\r\n]*))?\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*\r\n)+)\r\n"
)
_FIELD = re.compile(r"([^:\r\n]+):[ \t]*([^\r\n]*)\r\n")


class PlainResponse(http.client.HTTPResponse):
    """`http.client`'s response, which reads a plain head without a parser for e-mail.

    That parser took a fifth of a whole call.
    """

    def begin(self) -> None:
        if not self._begin_plainly():
            super().begin()

    def _begin_plainly(self) -> bool:
        # What is only looked at can still be read by the standard library.
        head = _PLAIN_HEAD.match(self.fp.peek())
        if head is None:
            return False
        fields = HTTPHeaderDict(_FIELD.findall(head[3].decode("latin-1")))
        coding, length = fields.get("transfer-encoding"), fields.get("content-length")
        if length is None:
            chunked = coding is not None
            if chunked and coding.lower() != "chunked":
                return False
        elif coding is None and length.isdecimal():
            chunked = False
        else:
            return False
        self.fp.read(head.end())
        self.version = 11
        self.code = self.status = int(head[1])
        self.reason = (head[2] or b"").decode("latin-1").strip()
        self.headers = self.msg = fields
        self.chunked, self.chunk_left = chunked, None
        self.length = None if length is None else int(length)
        closes = "close" in (fields.get("connection") or "").lower()
        self.will_close = closes or (length is None and not chunked)
        return True


class AskingAgain:
    """Mixed into a connection of urllib3: repeats the last request with another body."""

    sock: Any = None
    _written: Written | None = None

    def again(self, url: str, headers: Mapping[str, str], body: bytes) -> bytes | None:
        """Return the request, if it is the last one but for its body, and may be sent."""
        if self._written is None or is_connection_dropped(self):  # type: ignore[arg-type]
            return None
        return self._written.again(url, headers, body)

    def ask_again(self, request: bytes) -> PlainResponse:
        """Send what `again` returned, and read the head of the answer."""
        answer: PlainResponse | None = None
        try:
            # As in urllib3: a server that reads no further may have answered all the same.
            with suppress(BrokenPipeError, ConnectionResetError):
                self.send(request)  # type: ignore[attr-defined]
            answer = PlainResponse(self.sock, method="POST")
            answer.begin()
            if answer.will_close:
                self.close()  # type: ignore[attr-defined]
        except BaseException:
            if answer is not None:
                answer.close()
            self.close()  # type: ignore[attr-defined]
            raise
        return answer

    def __del__(self) -> None:
        # An interrupt may leave it to nobody, just taken from the idle ones.
        if self.sock is not None:
            self.close()  # type: ignore[attr-defined]


class Response(Protocol):
    """What is read of an answer: one of `requests`' has it, and one of the fast path."""

    status_code: int
    raw: Any

    @property
    def headers(self) -> Mapping[str, str]: ...
    def close(self) -> None: ...


class KeptResponse:
    """An answer by the fast path."""

    __slots__ = ("headers", "raw", "status_code")

    def __init__(self, raw: HTTPResponse) -> None:
        self.status_code = raw.status
        self.headers: Mapping[str, str] = raw.headers
        self.raw = raw

    def close(self) -> None:
        self.raw.close()


def asked_again(pool: Any, connection: Any, request: bytes) -> KeptResponse:
    """Send what the connection's `again` returned. Raise what urllib3 raises."""
    try:
        answer = connection.ask_again(request)
    except TimeoutError:
        raise ReadTimeoutError(pool, "", "Read timed out.") from None
    except ssl.SSLError as error:
        raise SSLError(error) from error
    except (http.client.HTTPException, OSError) as error:
        raise ProtocolError("Connection aborted.", error) from error
    return KeptResponse(
        HTTPResponse(
            answer,
            headers=answer.headers,
            status=answer.status,
            version=answer.version,
            reason=answer.reason,
            preload_content=False,
            decode_content=False,
            original_response=answer,
            pool=pool,
            connection=connection,
            request_method="POST",
        )
    )
