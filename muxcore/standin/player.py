"""Play a behaviour on a connection: one match over the closed union."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from http import HTTPStatus
from itertools import count
from typing import assert_never

from attrs import define

from muxcore import http_framing
from muxcore.http_framing import LAST_CHUNK, chunk
from muxcore.standin import render
from muxcore.standin.connection import ClientConnection, ClientGoneError, StoppedError
from muxcore.standin.model import Visit
from muxcore.standin.render import JSON_TYPE, STREAM_TYPE, RenderedBody
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


def play_visit(
    visit: Visit, connection: ClientConnection, *, keeps_alive: bool, may_chunk: bool
) -> bool:
    """Play a visit. Return whether the connection can serve another request."""
    response = ScriptedResponse(connection, visit, keeps_alive, may_chunk)
    try:
        behaviour = visit.play(visit.received) if callable(visit.play) else visit.play
        if visit.is_held:
            connection.wait(gate=visit.gate)
        _play(behaviour, response)
    except ClientGoneError:
        visit.end(Ending.LEFT)
        return False
    except StoppedError:
        visit.end(Ending.STOPPED)
        return False
    except BaseException:
        # A mistake in a test's script: the exception ends this thread.
        visit.end(Ending.FAILED)
        raise
    return response.keeps_alive


@define
class ScriptedResponse:
    """A response under way: its head, its framing and its end."""

    connection: ClientConnection
    visit: Visit
    keeps_alive: bool
    may_chunk: bool
    frame: Callable[[bytes], bytes] = bytes
    last_frame: bytes = b""

    def body(self, answer: Answer) -> RenderedBody:
        return render.body(answer, self.visit.model.label, self.visit.received)

    def unfinished(self, answer: Answer, *, says_done: bool) -> RenderedBody:
        label, received = self.visit.model.label, self.visit.received
        return render.unfinished(answer, label, received, says_done=says_done)

    @property
    def content_type(self) -> str:
        return STREAM_TYPE if self.visit.received.streams else JSON_TYPE

    def head(
        self,
        content_type: str,
        length: int | None = None,
        status: int = HTTPStatus.OK,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> bytes:
        """Choose the framing of the body, and write the head without its empty line."""
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

    def open(self, body: RenderedBody) -> None:
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

        The visit ends first: a client that has read the end finds `in_flight` reduced.
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


def _play(behaviour: Behaviour, response: ScriptedResponse) -> None:  # noqa: C901, PLR0912
    match behaviour:
        case Answer():
            _play_body(response, response.body(behaviour), behaviour.delay)
        case EndWithoutFinish(says_done, answer):
            body = response.unfinished(answer, says_done=says_done)
            _play_body(response, body, answer.delay)
        case StatusAnswer(status, content, headers):
            _play_status(response, status, content, headers)
        case ConnectionClosed():
            response.break_off()
        case ConnectionReset():
            response.break_off(Break.RESET)
        case Silence():
            response.await_release()
            response.break_off()
        case HeadersOnly():
            response.connection.send(response.head(response.content_type) + b"\r\n")
            response.await_release()
            response.break_off()
        case Drip():
            _play_drip(response, behaviour)
        case Raw(pieces, delay, status, headers):
            head = response.head(response.content_type, None, status, headers)
            response.connection.send(head + b"\r\n")
            response.send_apart(pieces[:-1], delay)
            response.end(b"".join(pieces[-1:]))
        case Delivery(pieces, delay):
            response.send_apart(pieces, delay)
            response.break_off()
        case Cut(after, how, answer):
            _begin(response, answer, after)
            response.break_off(how)
        case Stall(after, answer):
            body = _begin(response, answer, after)
            response.await_release()
            response.send_apart(body.contents[after:], answer.delay)
            response.end(body.closing)
        case ErrorEvent(error, after, answer) if response.visit.received.streams:
            _begin(response, answer, after)
            response.end(render.event({"error": error}))
        case ErrorEvent(error):
            _play_status(response, HTTPStatus.OK, {"error": error}, NO_HEADERS)
        case Hang(gate, then):
            response.connection.wait(gate=gate)
            _play(then, response)
        case Delayed(by, then):
            response.connection.wait(by.total_seconds())
            _play(then, response)
        case _ as never:
            assert_never(never)


def _play_body(response: ScriptedResponse, body: RenderedBody, delay: timedelta) -> None:
    if body.length is not None and not delay:
        head = response.head(body.content_type, body.length)
        response.end(b"".join([head, b"\r\n", *body.contents, body.closing]))
        return
    response.open(body)
    response.send_apart(body.contents, delay)
    response.end(body.closing)


def _begin(response: ScriptedResponse, answer: Answer, after: int) -> RenderedBody:
    body = response.body(answer)
    response.open(body)
    response.send_apart(body.contents[:after], answer.delay)
    return body


def _play_status(
    response: ScriptedResponse, status: int, content: object, headers: Mapping[str, str]
) -> None:
    match content:
        case bytes():
            data = content
        case str():
            data = content.encode()
        case _:
            data = render.as_json(content)
    head = response.head(JSON_TYPE, len(data), status, headers)
    response.end(head + b"\r\n" + data)


def _play_drip(response: ScriptedResponse, drip: Drip) -> None:
    body = response.body(drip.answer)
    # Its length is unknown, whatever the content.
    head = response.head(body.content_type)
    if drip.what is Dripping.HEADERS:
        response.connection.send(head)
        for number in _drips(response, drip):
            response.connection.send(b"x-drip: %d\r\n" % number)
        response.connection.send(b"\r\n")
    else:
        response.connection.send(head + b"\r\n")
        drop = COMMENT if response.visit.received.streams else BLANK
        for _ in _drips(response, drip):
            response.send(drop)
    response.send(body.opening)
    response.send_apart(body.contents, drip.answer.delay)
    response.end(body.closing)


def _drips(response: ScriptedResponse, drip: Drip) -> Iterator[int]:
    gate = response.visit.gate
    for number in count() if drip.count is None else range(drip.count):
        if gate.is_open:
            return
        yield number
        response.connection.wait(drip.interval.total_seconds(), gate)
