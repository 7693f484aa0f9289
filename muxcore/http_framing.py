"""Writes HTTP/1.1 heads and chunks as bytes, for the gateway and the stand-in models. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

LAST_CHUNK = b"0\r\n\r\n"


def head(status: int, fields: Mapping[str, str]) -> bytes:
    """Write a status line and fields, with the empty line that ends them."""
    lines = [f"HTTP/1.1 {status} {_phrase(status)}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Frame one piece of a body of unknown length. Nothing is written for an empty piece."""
    # A chunk of length 0 ends the body.
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
