"""Server-sent events out of bytes, however these are cut (WHATWG HTML, section 9.2).

A pure incremental parser: an event counts when the empty line after it has arrived, so a
stream that breaks off never gives half an event. `end` is for a stream that ends cleanly.
"""

from __future__ import annotations

import re

from muxcore.plugins.backend import ServerEvent

LARGEST_BODY = 64 * 1024 * 1024
"""Bytes of one answer, whole or streamed."""

LONGEST_EVENT = 16 * 1024 * 1024
"""Bytes; the longest answers of today's models are far below."""

_PLAIN_EVENTS = re.compile(rb"(?:data:[^\r\n]*\n\n)+")
_DATA = re.compile(r"data: ?([^\n]*)\n\n")

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLongError(Exception):
    """A line or an event is longer than any answer would be."""


class EventParser:
    """Feed it bytes as they arrive; it gives the events that they complete."""

    __slots__ = (
        "_at_start",
        "_data",
        "_event",
        "_held",
        "_parts",
        "_skip_newline",
        "_unended",
    )

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        """The line that is not yet ended, in pieces, so that a long one costs no copies."""
        self._unended = 0
        self._data: list[bytes] = []
        self._held = 0
        """The size of `_data`, where every line counts, an empty one too."""
        self._event = b""
        self._skip_newline = False
        self._at_start = True

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Return the events that `data` completes; raise `EventTooLongError`."""
        events, data = self._take_plain(data)
        if not data:
            return events
        data = self._newlines(data)
        self._unended += len(data)
        if self._unended + self._held > LONGEST_EVENT:
            raise EventTooLongError(f"an event of more than {LONGEST_EVENT} bytes")
        if b"\n" not in data:
            self._parts.append(data)
            return events
        if self._parts:
            self._parts.append(data)
            data = b"".join(self._parts)
        *lines, rest = data.split(b"\n")
        self._parts = [rest] if rest else []
        if self._at_start:
            self._at_start = False
            lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
        for line in lines:
            if line:
                self._take(line)
            elif self._data:
                events.append(self._complete())
            else:
                self._event = b""
        self._unended = len(rest)
        return events

    def end(self) -> list[ServerEvent]:
        """Return the event that the end of the stream left without its empty line.

        Some proxies trim it. Whether the event is whole is for the caller to judge.
        """
        rest, self._parts = b"".join(self._parts), []
        if self._at_start:
            rest = rest.removeprefix(BYTE_ORDER_MARK)
        if rest:
            self._take(rest)
        return [self._complete()] if self._data else []

    def _take_plain(self, data: bytes) -> tuple[list[ServerEvent], bytes]:
        """Take what `data` begins with of whole events of one line; return the rest too.

        Nearly all that comes is such an event, and takes half of the time this way.
        """
        if self._parts or self._data or self._event or self._skip_newline or self._at_start:
            return [], data
        plain = _PLAIN_EVENTS.match(data)
        if plain is None:
            return [], data
        texts = _DATA.findall(plain[0].decode("utf-8", "replace"))
        return [ServerEvent(text) for text in texts], data[plain.end() :]

    def _newlines(self, data: bytes) -> bytes:
        """End every line with a line feed, however its end was cut."""
        if self._skip_newline and data:
            # The line feed of a CR LF that was cut in two.
            self._skip_newline = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._skip_newline = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def _take(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            self._held += len(line)
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._held += len(line)
            self._data.append(b"")
        elif name == b"event":
            self._event = value.removeprefix(b" ")

    def _complete(self) -> ServerEvent:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        event = self._event
        self._data = []
        self._held = 0
        self._event = b""
        return ServerEvent(
            data.decode("utf-8", "replace"),
            event.decode("utf-8", "replace") if event else "message",
        )
