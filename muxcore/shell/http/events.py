"""Parse server-sent events from bytes that are cut anywhere (WHATWG HTML, section 9.2).

A pure incremental parser. An event is complete when the empty line after it has arrived, so a
stream that breaks off never yields half an event. Call `end` only after a clean end.
"""

from __future__ import annotations

from muxcore.plugins.backend import ServerEvent

LARGEST_BODY = 64 * 1024 * 1024
"""The most bytes of one answer, whole or streamed."""

LONGEST_EVENT = 16 * 1024 * 1024
"""In bytes. The longest answers of today's models are far below."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLongError(Exception):
    """A line or an event is longer than any real answer."""


class EventParser:
    """Takes bytes as they arrive, and returns the events that they complete."""

    __slots__ = (
        "_at_start",
        "_data",
        "_event",
        "_held",
        "_incomplete",
        "_parts",
        "_skip_newline",
    )

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        """The pieces of the incomplete last line, so that a long one is not copied each time."""
        self._incomplete = 0
        self._data: list[bytes] = []
        self._held = 0
        """The size of `_data` with the field names, so that empty lines count too."""
        self._event = b""
        self._skip_newline = False
        self._at_start = True

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Return the events that `data` completes; raise `EventTooLongError`."""
        events, data = self._take_plain(data)
        if not data:
            return events
        data = self._newlines(data)
        self._incomplete += len(data)
        if self._incomplete + self._held > LONGEST_EVENT:
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
        self._incomplete = len(rest)
        return events

    def end(self) -> list[ServerEvent]:
        """Return the last event, if the stream ended without the empty line after it.

        Some proxies trim that line. The caller must check that the event is not cut.
        """
        rest, self._parts = b"".join(self._parts), []
        if self._at_start:
            rest = rest.removeprefix(BYTE_ORDER_MARK)
        if rest:
            self._take(rest)
        return [self._complete()] if self._data else []

    def _take_plain(self, data: bytes) -> tuple[list[ServerEvent], bytes]:
        """Return the events of `data` if all have one line, and the rest.

        Nearly all events are of this form. They take half of the time this way.
        """
        end = data.rfind(b"\n\n")
        if end < 0 or self._data or self._event or self._skip_newline or b"\r" in data:
            return [], data
        plain = b"".join((*self._parts, data[:end]))
        before, *texts = f"\n\n{plain.decode('utf-8', 'replace')}".split("\n\ndata:")
        if before or plain.count(b"\n") != 2 * (len(texts) - 1):
            return [], data
        self._parts, self._incomplete, self._at_start = [], 0, False
        return [ServerEvent(text.removeprefix(" ")) for text in texts], data[end + 2 :]

    def _newlines(self, data: bytes) -> bytes:
        """Replace every line end by a line feed, also one that was cut in two."""
        if self._skip_newline and data:
            # The line feed of a CR LF whose CR came before.
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
