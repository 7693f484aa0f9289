"""HTTP/1.1 as bytes: reading the head of a request, writing those of answers. Pure.

One rule stands for all the ways in which two readers may take one request for two: what is
not exactly as the standard says is refused, and the connection with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http.client import responses
from typing import NoReturn

from attrs import field, frozen

LARGEST_HEAD = 32 * 1024
MOST_FIELDS = 100
LONGEST_TARGET = 4096
END_OF_HEAD = b"\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

_REQUEST_LINE = re.compile(rb"([A-Za-z]{1,20}) ([!-~]+) HTTP/([0-9]\.[0-9])")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t -~\x80-\xff]*)")
_DIGITS = re.compile(r"[0-9]{1,12}")

ONLY_ONCE = frozenset(
    {
        "authorization",
        "content-length",
        "content-type",
        "expect",
        "host",
        "origin",
        "transfer-encoding",
    }
)
"""Fields that decide about a request: were they there twice, who knows which one counts."""


@frozen
class ErrorResponse:
    """An answer that is an error. `fields` are added to its head."""

    status: int
    message: str
    kind: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    fields: Mapping[str, str] = field(factory=dict[str, str])


@frozen
class Head:
    """The head of a request. `fields` have names in lower case."""

    method: str
    target: str
    is_modern: bool
    # The token is in here.
    fields: Mapping[str, str] = field(repr=False)
    length: int = 0

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
    """The request goes no further; `refusal` is the answer."""

    def __init__(self, refusal: ErrorResponse) -> None:
        self.refusal = refusal
        super().__init__(refusal.message)


def parse_head(data: bytes) -> Head:
    """Read a head, without the empty line that ends it. Raise `RefusedError`."""
    first, *lines = data.split(b"\r\n")
    method, target, version = _request_line(first)
    if len(lines) > MOST_FIELDS:
        _refuse(431, f"There are more than {MOST_FIELDS} header fields.")
    fields = _fields(lines)
    return Head(method, target, version == "1.1", fields, _length(fields))


def _request_line(line: bytes) -> tuple[str, str, str]:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        _refuse(400, "The request line is malformed.")
    method, target, version = (part.decode("ascii") for part in match.groups())
    if version not in {"1.0", "1.1"}:
        _refuse(505, "Only HTTP/1.1 is spoken here.")
    if len(target) > LONGEST_TARGET:
        _refuse(414, "The path is too long.")
    if not target.startswith("/"):
        _refuse(400, "The request line must have a path, as this is no proxy.")
    return method, target, version


def _fields(lines: list[bytes]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            _refuse(400, "A header field is malformed.")
        name = match[1].decode("ascii").lower()
        value = match[2].strip(b" \t").decode("latin-1")
        if name not in fields:
            fields[name] = value
        elif name in ONLY_ONCE:
            _refuse(400, f"The header field {name} is there twice.")
        else:
            fields[name] += f", {value}"
    return fields


def _length(fields: Mapping[str, str]) -> int:
    """Return the length of the body. No other way of telling where it ends is taken."""
    if "transfer-encoding" in fields:
        if "content-length" in fields:
            _refuse(400, "Content-Length and Transfer-Encoding exclude each other.")
        _refuse(411, "Send the body in one piece, with a Content-Length.")
    text = fields.get("content-length", "0")
    if _DIGITS.fullmatch(text) is None:
        _refuse(400, "The Content-Length is no number.")
    return int(text)


def _refuse(status: int, message: str) -> NoReturn:
    raise RefusedError(ErrorResponse(status, message))


def head(status: int, fields: Mapping[str, str]) -> bytes:
    """Write a status line and fields, with the empty line that ends them."""
    lines = [f"HTTP/1.1 {status} {responses.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Frame a piece of a body of unknown length; an empty one would end it."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
