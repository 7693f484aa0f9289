"""Server-sent events, however the bytes are cut."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from time import process_time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from muxcore.plugins.backend import ServerEvent
from muxcore.shell.http import events
from muxcore.shell.http.events import EventParser, EventTooLongError

BOM = b"\xef\xbb\xbf"


def parsed(pieces: Iterable[bytes]) -> list[ServerEvent]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def one(data: str, event: str = "message") -> list[ServerEvent]:
    return [ServerEvent(data, event)]


CASES: dict[str, tuple[bytes, list[ServerEvent]]] = {
    "one": (b"data: a\n\n", one("a")),
    "without a space": (b"data:a\n\n", one("a")),
    "one space alone is taken off": (b"data:  a \n\n", one(" a ")),
    "two lines": (b"data: a\ndata: b\n\n", one("a\nb")),
    "an empty line of data": (b"data\ndata:\ndata: \n\n", one("\n\n")),
    "an empty event": (b"data\n\n", one("")),
    "CR LF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [*one("a"), *one("b")]),
    "CR": (b"data: a\r\rdata: b\r\r", [*one("a"), *one("b")]),
    "all kinds of ends": (b"data: a\rdata: b\ndata: c\r\n\n", one("a\nb\nc")),
    "LF CR is two ends": (b"data: a\n\rdata: b\n\r", [*one("a"), *one("b")]),
    "a byte order mark": (BOM + b"data: a\n\n", one("a")),
    "only the first is one": (BOM + BOM + b"data: a\n\ndata: b\n\n", one("b")),
    "none in the middle": (b"data: a\n\n" + BOM + b"data: b\n\n", one("a")),
    "comments": (b": hi\n\n:\n\ndata: a\n: b\n\n", one("a")),
    "named": (b"event: error\ndata: a\n\n", one("a", "error")),
    "the last name counts": (b"event: x\nevent: y\ndata: a\n\n", one("a", "y")),
    "a name is for one event": (
        b"event: x\ndata: a\n\ndata: b\n\n",
        [*one("a", "x"), *one("b")],
    ),
    "a name without data is forgotten": (b"event: x\n\ndata: a\n\n", one("a")),
    "an empty name is none": (b"event:\ndata: a\n\n", one("a")),
    "others are left alone": (
        b"id: 1\nretry: 2\ndatax: b\n data: c\ndata: a\n\n",
        one("a"),
    ),
    "a colon in data": (b"data: a: b\n\n", one("a: b")),
    "not ended": (b"data: a\n\ndata: b\n", one("a")),
    "cut in a line": (b"data: a\n\ndata: b", one("a")),
    "an end by CR alone": (b"data: a\n\r", one("a")),
    "UTF-8": ("data: é€😀\n\n".encode(), one("é€😀")),
    "bad UTF-8": (b"data: \xff\xc3\n\n", one("��")),
    "a line separator of Unicode is none here": (
        "data: a\u2028b\u0085c\x0bd\n\n".encode(),
        one("a\u2028b\u0085c\x0bd"),
    ),
    "a null": (b"data: \0\n\n", one("\0")),
    "nothing": (b"", []),
    "only ends": (b"\n\r\n\r\n\n\r", []),
}


@pytest.mark.parametrize("case", CASES)
def test_the_bytes_may_be_cut_anywhere(case: str) -> None:
    data, expected = CASES[case]
    assert parsed([data]) == expected
    assert parsed(data[i : i + 1] for i in range(len(data))) == expected
    for first in range(len(data) + 1):
        assert parsed([data[:first], data[first:]]) == expected
        for second in range(first, len(data) + 1):
            assert parsed([data[:first], data[first:second], data[second:]]) == expected


def by_the_book(data: bytes) -> list[ServerEvent]:
    """The algorithm of the standard, over complete bytes."""
    data = data.removeprefix(BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found: list[ServerEvent] = []
    lines: list[bytes] = []
    name = b""
    # Text after the last line end is no line.
    for line in data.split(b"\n")[:-1]:
        if not line:
            if lines:
                text = b"\n".join(lines).decode("utf-8", "replace")
                found.append(
                    ServerEvent(text, name.decode("utf-8", "replace") or "message")
                )
            lines, name = [], b""
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value
    return found


ALPHABET = [
    b"data", b":", b" ", b"\n", b"\r", b"\r\n", b"event", b"a", BOM, "é".encode(),
    b"\xc3", b"id", b"data: x\n\n", b"\n\n",
]  # fmt: skip


@given(
    st.lists(st.sampled_from(ALPHABET), max_size=30).map(b"".join),
    st.lists(st.integers(0, 60), max_size=8),
)
@example(b"data: a\r\n\r\n", [7, 8, 8, 9])
@example(BOM + b"data: a\n\n", [1, 2])
def test_it_reads_as_the_standard_does_however_the_bytes_are_cut(
    data: bytes, scopes: list[int]
) -> None:
    places = [0, *sorted(min(scope, len(data)) for scope in scopes), len(data)]
    pieces = [data[start:end] for start, end in pairwise(places)]
    assert b"".join(pieces) == data
    assert parsed(pieces) == by_the_book(data)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_are_read(data: bytes, size: int) -> None:
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    assert parsed(pieces) == by_the_book(data)


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(events, "LONGEST_EVENT", 1000)
    return 1000


@pytest.mark.parametrize(
    "piece",
    [b"data: " + b"x" * 90, b"data: " + b"x" * 90 + b"\n", b"data\n", b"data:\n", b": x"],
    ids=["a line", "many lines", "empty data", "empty data with a colon", "a comment"],
)
def test_an_event_is_bounded(bound: int, piece: bytes) -> None:
    parser = EventParser()

    def feed() -> None:
        for _ in range(bound):
            assert parser.feed(piece) == []

    with pytest.raises(EventTooLongError, match="an event of more than 1000 bytes"):
        feed()


def test_a_stream_is_not_bounded(bound: int) -> None:
    parser = EventParser()
    for _ in range(50):
        # Comments and complete events do not count.
        assert parser.feed(b": x\n" + b"data: " + b"x" * 900 + b"\n\n")
        assert parser.feed(b": keep-alive\n" * 9) == []


@pytest.mark.unmeasured
@pytest.mark.parametrize(("size", "count"), [(1, 10_000), (4096, 200)])
def test_its_time_is_linear(size: int, count: int) -> None:
    def cost(count: int) -> float:
        piece = b"x" * size
        best = 9e9
        for _ in range(3):
            parser = EventParser()
            began = process_time()
            parser.feed(b"data: ")
            for _ in range(count):
                parser.feed(piece)
            assert len(parser.feed(b"\n\n")[0].data) == count * size
            best = min(best, process_time() - began)
        return best

    # Twenty times the length: quadratic time would be four hundred times as much.
    assert cost(20 * count) < 150 * max(cost(count), 0.0005)
