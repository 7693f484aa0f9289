"""Read HTTP/1.1 requests."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import HTTPException, parse_headers
from io import BufferedReader

from attrs import frozen

LONGEST_LINE = 65_536


@frozen
class Request:
    """A request. The names of `headers` are in lower case."""

    method: str
    path: str
    version: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_modern(self) -> bool:
        return self.version == "HTTP/1.1"

    @property
    def keeps_alive(self) -> bool:
        return self.is_modern and self.headers.get("connection", "").lower() != "close"


@frozen
class Unreadable:
    reason: str


def read_request(reader: BufferedReader) -> Request | Unreadable | None:
    """Read the next request; None if there is no more, or if the client left in the middle."""
    try:
        return _read(reader)
    except OSError:
        return None
    except (HTTPException, ValueError) as error:
        return Unreadable(f"{type(error).__name__}: {error}")


def _read(reader: BufferedReader) -> Request | None:
    line = reader.readline(LONGEST_LINE)
    if not line:
        return None
    method, path, version = line.decode("latin-1").split()
    fields = parse_headers(reader)
    headers = {name.lower(): value for name, value in fields.items()}
    if "transfer-encoding" in headers:
        raise ValueError("a chunked request is not understood")
    length = int(headers.get("content-length", "0"))
    body = reader.read(max(0, length))
    if len(body) < length:
        return None
    return Request(method, path, version, headers, body)
