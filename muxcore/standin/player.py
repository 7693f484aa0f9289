"""Acting out a behaviour on a connection: one match over the closed union."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from itertools import count
from typing import assert_never

from attrs import define

from muxcore import http_framing
from muxcore.http_framing import LAST_CHUNK, chunk
from muxcore.standin import render as rendering
from muxcore.standin.connection import ClientConnection, ClientGoneError, StoppedError
from muxcore.standin.model import Visit
from muxcore.standin.render import JSON_TYPE, STREAM_TYPE, Body
from muxcore.standin.script import (
    Answer,
    Behaviour,
    Break,
    ConnectionClosed,
    ConnectionReset,
    Cut,
    Delayed,
    Delivery,
    Drip,
    Dripping,
    Ending,
    EndWithoutFinish,
    ErrorEvent,
    Framing,
    Hang,
    HeadersOnly,
    Raw,
    Silence,
    Stall,
    StatusAnswer,
)

NO_HEADERS: Mapping[str, str] = {}
COMMENT = b": keep-alive\n\n"
BLANK = b" "


def perform(
    visit: Visit, connection: ClientConnection, *, keeps_alive: bool, may_chunk: bool
) -> bool:
    """Do what the script says. Return whether the connection can serve another request."""
    exchange = Performance(connection, visit, keeps_alive, may_chunk)
    try:
        behaviour = visit.play(visit.received) if callable(visit.play) else visit.play
        if visit.is_held:
            connection.wait(gate=visit.gate)
        _play(behaviour, exchange)
    except ClientGoneError:
        visit.end(Ending.LEFT)
        return False
    except StoppedError:
        visit.end(Ending.STOPPED)
        return False
    except BaseException:
        # A mistake in a test's own script: its thread dies of it, loudly.
        visit.end(Ending.FAILED)
        raise
    return exchange.keeps_alive


@define
class Performance:
    """The response being given."""

    connection: ClientConnection
    visit: Visit
    keeps_alive: bool
    may_chunk: bool
    frame: Callable[[bytes], bytes] = bytes
    last_frame: bytes = b""

    def body(self, answer: Answer) -> Body:
        return rendering.body(answer, self.visit.model.label, self.visit.received)

    def unfinished(self, answer: Answer, *, says_done: bool) -> Body:
        label, received = self.visit.model.label, self.visit.received
        return rendering.unfinished(answer, label, received, says_done=says_done)

    @property
    def content_type(self) -> str:
        return STREAM_TYPE if self.visit.received.streams else JSON_TYPE

    def head(
        self,
        content_type: str,
        length: int | None = None,
        status: int = 200,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> bytes:
        """Decide how the body's end is told, and write the head without its empty line."""
        fields = {"content-type": content_type}
        if length is not None:
            fields["content-length"] = str(length)
        elif self.may_chunk and self.visit.model.framing is Framing.CHUNKED:
            fields["transfer-encoding"] = "chunked"
            self.frame, self.last_frame = chunk, LAST_CHUNK
        else:
            self.keeps_alive = False
        if not self.keeps_alive:
            fields["connection"] = "close"
        own = {name.lower(): value for name, value in headers.items()}
        return http_framing.head(status, fields | own).removesuffix(b"\r\n")

    def open(self, body: Body) -> None:
        head = self.head(body.content_type, body.length)
        self.connection.send(head + b"\r\n" + self.frame(body.opening))

    def send(self, data: bytes) -> None:
        self.connection.send(self.frame(data))

    def send_apart(self, pieces: Iterable[bytes], delay: timedelta) -> None:
        for piece in pieces:
            self.send(piece)
            if delay:
                self.connection.wait(delay.total_seconds())

    def end(self, data: bytes = b"") -> None:
        """Send the last of the body, as one write.

        The visit ends before: who has read the end finds the request counted out.
        """
        self.visit.end(Ending.SERVED)
        self.connection.send(self.frame(data) + self.last_frame)

    def break_off(self, how: Break = Break.CLOSE) -> None:
        self.keeps_alive = False
        if how is Break.RESET:
            self.connection.reset_on_close()
        self.visit.end(Ending.BROKEN)

    def await_release(self) -> None:
        self.connection.wait(gate=self.visit.gate)


def _play(behaviour: Behaviour, exchange: Performance) -> None:  # noqa: C901, PLR0912
    match behaviour:
        case Answer():
            _play_body(exchange, exchange.body(behaviour), behaviour.delay)
        case EndWithoutFinish(says_done, answer):
            body = exchange.unfinished(answer, says_done=says_done)
            _play_body(exchange, body, answer.delay)
        case StatusAnswer(status, content, headers):
            _play_status(exchange, status, content, headers)
        case ConnectionClosed():
            exchange.break_off()
        case ConnectionReset():
            exchange.break_off(Break.RESET)
        case Silence():
            exchange.await_release()
            exchange.break_off()
        case HeadersOnly():
            exchange.connection.send(exchange.head(exchange.content_type) + b"\r\n")
            exchange.await_release()
            exchange.break_off()
        case Drip():
            _play_drip(exchange, behaviour)
        case Raw(pieces, delay, status, headers):
            head = exchange.head(exchange.content_type, None, status, headers)
            exchange.connection.send(head + b"\r\n")
            exchange.send_apart(pieces[:-1], delay)
            exchange.end(b"".join(pieces[-1:]))
        case Delivery(pieces, delay):
            exchange.send_apart(pieces, delay)
            exchange.break_off()
        case Cut(after, how, answer):
            _begin(exchange, answer, after)
            exchange.break_off(how)
        case Stall(after, answer):
            body = _begin(exchange, answer, after)
            exchange.await_release()
            exchange.send_apart(body.contents[after:], answer.delay)
            exchange.end(body.closing)
        case ErrorEvent(error, after, answer) if exchange.visit.received.streams:
            _begin(exchange, answer, after)
            exchange.end(rendering.event({"error": error}))
        case ErrorEvent(error):
            _play_status(exchange, 200, {"error": error}, NO_HEADERS)
        case Hang(gate, then):
            exchange.connection.wait(gate=gate)
            _play(then, exchange)
        case Delayed(by, then):
            exchange.connection.wait(by.total_seconds())
            _play(then, exchange)
        case _ as never:
            assert_never(never)


def _play_body(exchange: Performance, body: Body, delay: timedelta) -> None:
    if body.length is not None and not delay:
        head = exchange.head(body.content_type, body.length)
        exchange.end(b"".join([head, b"\r\n", *body.contents, body.closing]))
        return
    exchange.open(body)
    exchange.send_apart(body.contents, delay)
    exchange.end(body.closing)


def _begin(exchange: Performance, answer: Answer, after: int) -> Body:
    body = exchange.body(answer)
    exchange.open(body)
    exchange.send_apart(body.contents[:after], answer.delay)
    return body


def _play_status(
    exchange: Performance, status: int, content: object, headers: Mapping[str, str]
) -> None:
    match content:
        case bytes():
            data = content
        case str():
            data = content.encode()
        case _:
            data = rendering.as_json(content)
    head = exchange.head(JSON_TYPE, len(data), status, headers)
    exchange.end(head + b"\r\n" + data)


def _play_drip(exchange: Performance, drip: Drip) -> None:
    body = exchange.body(drip.answer)
    # Its length is not known beforehand, whatever the content.
    head = exchange.head(body.content_type)
    if drip.what is Dripping.HEADERS:
        exchange.connection.send(head)
        for number in _drips(exchange, drip):
            exchange.connection.send(b"x-drip: %d\r\n" % number)
        exchange.connection.send(b"\r\n")
    else:
        exchange.connection.send(head + b"\r\n")
        drop = COMMENT if exchange.visit.received.streams else BLANK
        for _ in _drips(exchange, drip):
            exchange.send(drop)
    exchange.send(body.opening)
    exchange.send_apart(body.contents, drip.answer.delay)
    exchange.end(body.closing)


def _drips(exchange: Performance, drip: Drip) -> Iterator[int]:
    gate = exchange.visit.gate
    for number in count() if drip.count is None else range(drip.count):
        if gate.is_open:
            return
        yield number
        exchange.connection.wait(drip.interval.total_seconds(), gate)
