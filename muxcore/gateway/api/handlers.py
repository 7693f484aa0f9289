"""Answering one request on a connection."""

from __future__ import annotations

import sys
import traceback
import uuid
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, assert_never
from urllib.parse import parse_qs, quote

from attrs import frozen

from muxcore.chat import Json, Reply
from muxcore.errors import MultiplexerError
from muxcore.gateway.api import completions
from muxcore.gateway.api.authorization import JSON_TYPE, hosts_for, refused
from muxcore.gateway.api.completions import POOL, CompletionRequest, Frame
from muxcore.gateway.api.errors import error_body, error_response_of, unknown_model
from muxcore.gateway.api.receipts import Ledger, ServedCall, with_failed, with_served
from muxcore.gateway.api.routing import Asking, Route, patience_for, route_of
from muxcore.gateway.api.skill import asks_for_status
from muxcore.gateway.api.status_page import status_json, status_text
from muxcore.gateway.http.connection import ClientLeftError, Connection
from muxcore.gateway.http.selector import SelectorThread, monitoring_disconnect
from muxcore.gateway.http.wire import (
    CONTINUE,
    LAST_CHUNK,
    ErrorResponse,
    Head,
    RefusedError,
    chunk,
    head,
    parse_head,
)
from muxcore.shell import clock
from muxcore.shell.call import multiplexer as shell
from muxcore.shell.call.cancellation import Cancellation

if TYPE_CHECKING:
    from muxcore.gateway.reload import ReloadingPool

STREAM_TYPE = "text/event-stream"
MARKDOWN_TYPE = "text/markdown; charset=utf-8"
PLAIN_TYPE = "text/plain; charset=utf-8"

MEMBERS_OWN = frozenset({"reasoning_effort", "temperature", "top_p"})
"""Settings that a vibe takes from the entry of its active model. The model that serves has an
entry of its own, and may refuse those of another."""

LONGEST_SESSION = 256
NO_FIELDS: Mapping[str, str] = {}


@frozen(eq=False)
class Context:
    """What answering needs, shared by all connections of a server.

    `names` are further names for `model`, each of the pool (`POOL`) or of an alias.
    """

    pool: ReloadingPool
    token: str
    port: int
    names: Mapping[str, str]
    ledger: Ledger
    watcher: SelectorThread
    lease: Callable[[Connection], AbstractContextManager[None]]
    is_draining: Callable[[], bool]


def answer_one(connection: Connection, desk: Context) -> bool:
    """Answer the request that has begun; return whether the connection can have another."""
    try:
        request = parse_head(connection.read_head())
        address = connection.sock.getsockname()[0]
        refusal = refused(request, hosts_for(address, desk.port), desk.token)
        if refusal is not None:
            raise RefusedError(refusal)  # noqa: TRY301 - as those of the lines around
        route = _route(request)
        if request.length and "expect" in request.fields:
            connection.send(CONTINUE)
        body = connection.read_body(request.length)
    except RefusedError as error:
        # Where its body ends, or whether it will come, is not to be trusted any more.
        _send_refusal(_Response(connection, keeps_alive=False), error.refusal)
        connection.linger()
        return False
    keeps_alive = request.keeps_alive and not desk.is_draining()
    exchange = _Response(connection, keeps_alive=keeps_alive, is_modern=request.is_modern)
    try:
        _answer(exchange, request, route, body, desk)
    except RefusedError as error:
        _send_refusal(exchange, error.refusal)
    except ClientLeftError:
        raise
    except Exception:  # noqa: BLE001 - one request must not take the server down
        traceback.print_exc(file=sys.stderr)
        if exchange.has_begun:
            raise ClientLeftError from None
        _send_refusal(
            exchange, ErrorResponse(500, "The server has a fault.", "server_error")
        )
    return exchange.keeps_alive


class _Response:
    """An answer being given."""

    def __init__(
        self, connection: Connection, *, keeps_alive: bool, is_modern: bool = True
    ) -> None:
        self.connection = connection
        self.keeps_alive = keeps_alive
        self.has_begun = False
        self._is_modern = is_modern

    def send(
        self,
        body: bytes,
        content_type: str = JSON_TYPE,
        status: int = 200,
        fields: Mapping[str, str] = NO_FIELDS,
    ) -> None:
        """Send a whole answer."""
        own = {"Content-Type": content_type, "Content-Length": str(len(body)), **fields}
        self._begin(status, own, body)

    def begin(
        self, content_type: str, first: bytes = b"", fields: Mapping[str, str] = NO_FIELDS
    ) -> None:
        """Send the head of an answer whose length nobody knows, and its first piece."""
        own = {"Content-Type": content_type, "Cache-Control": "no-store", **fields}
        if self._is_modern:
            own["Transfer-Encoding"] = "chunked"
        else:
            self.keeps_alive = False
        self._begin(200, own, self._framed(first))

    def go_on(self, piece: bytes) -> None:
        self.connection.send(self._framed(piece))

    def end(self, piece: bytes = b"") -> None:
        last = LAST_CHUNK if self._is_modern else b""
        self.connection.send(self._framed(piece) + last)

    def _framed(self, piece: bytes) -> bytes:
        return chunk(piece) if self._is_modern else piece

    def _begin(self, status: int, fields: Mapping[str, str], body: bytes) -> None:
        self.has_begun = True
        connection = {} if self.keeps_alive else {"Connection": "close"}
        self.connection.send(head(status, {**fields, **connection}) + body)


def _route(request: Head) -> Route:
    route = route_of(request.path)
    if route is None:
        raise RefusedError(ErrorResponse(404, "There is nothing here.", code="not_found"))
    if route.method != request.method:
        allowed = {"Allow": route.method}
        raise RefusedError(
            ErrorResponse(405, f"Only {route.method} is answered.", fields=allowed)
        )
    return route


def _answer(
    exchange: _Response, request: Head, route: Route, body: bytes, desk: Context
) -> None:
    match route.asking:
        case Asking.CHAT:
            left_out = MEMBERS_OWN if route.label else ()
            asked = completions.read_request(body, left_out)
            if asks_for_status(asked.chat.messages):
                _show(exchange, asked, desk)
            else:
                _Call(exchange, request, route, asked, desk).make()
        case Asking.MODELS:
            exchange.send(completions.as_json(_models(route.model, desk)))
        case Asking.STATUS:
            _send_status(exchange, request, desk)
        case Asking.HEALTH:
            exchange.send(completions.as_json({"status": "ok"}))
        case Asking.RECEIPT:
            label = "".join(parse_qs(request.query).get("label", []))
            exchange.send(completions.as_json(desk.ledger.receipt(label).to_json()))
        case Asking.LEASE:
            with desk.lease(exchange.connection):
                exchange.begin(PLAIN_TYPE, b"held\n")
                exchange.connection.wait_for_end()
            raise ClientLeftError
        case _ as never:
            assert_never(never)


def _send_refusal(exchange: _Response, refusal: ErrorResponse) -> None:
    body = completions.as_json(error_body(refusal))
    exchange.send(body, JSON_TYPE, refusal.status, refusal.fields)


def _send_status(exchange: _Response, request: Head, desk: Context) -> None:
    named = parse_qs(request.query).get("format")
    accepted = request.fields.get("accept", "")
    status, off = desk.pool.status(), desk.pool.off
    if named == ["json"] or (named is None and JSON_TYPE in accepted):
        exchange.send(completions.as_json(status_json(status, off)))
    else:
        exchange.send(status_text(status, off).encode(), MARKDOWN_TYPE)


def _show(exchange: _Response, asked: CompletionRequest, desk: Context) -> None:
    """Answer `/mux`: no model is called."""
    reply, chunks = completions.said_by_server(
        status_text(desk.pool.status(), desk.pool.off)
    )
    frame = _frame(asked)
    if not asked.streams:
        exchange.send(completions.as_json(frame.whole(reply)))
        return
    pieces = completions.events(iter(chunks), frame, wants_usage=asked.wants_usage)
    exchange.begin(STREAM_TYPE)
    exchange.end(b"".join(pieces) + completions.DONE)


def _frame(asked: CompletionRequest) -> Frame:
    return Frame(f"chatcmpl-{uuid.uuid4().hex}", _seconds(), asked.model)


def _seconds() -> int:
    return int(clock.now().timestamp())


def _aliases(desk: Context) -> tuple[str, ...]:
    candidates = desk.pool.multiplexer.state.candidates
    return tuple(candidate.endpoint.alias for candidate in candidates)


def _known(desk: Context) -> Collection[str]:
    """Return all that `model` may be: the pool, its aliases, and the names given to them."""
    return dict.fromkeys((POOL, *_aliases(desk), *desk.names))


def _models(name: str | None, desk: Context) -> Json:
    known = _known(desk)
    if name is None:
        return completions.models(known, _seconds())
    if name not in known:
        raise RefusedError(unknown_model(name, known))
    return completions.model(name, _seconds())


@frozen(eq=False)
class _Call:
    """One call through the pool, for the client of one request."""

    exchange: _Response
    request: Head
    route: Route
    asked: CompletionRequest
    desk: Context

    def make(self) -> None:
        multiplexer = self.desk.pool.multiplexer
        only = self._only()
        cancellation = Cancellation()
        session = self.request.fields.get("x-affinity", "")[:LONGEST_SESSION] or None
        user_agent = self.request.fields.get("user-agent", "")
        patience = patience_for(self.route, user_agent)
        asked = shell.CallOptions(session, None, only, cancellation, patience)
        give = self._give_in_chunks if self.asked.streams else self._give_whole
        try:
            give(multiplexer, asked, cancellation)
        except MultiplexerError as error:
            if cancellation.cancelled:
                raise ClientLeftError from None
            self.desk.ledger.add(self.route.label, with_failed)
            if self.exchange.has_begun:
                # After the first bytes there is no honest end but none at all.
                raise ClientLeftError from None
            now = clock.now()
            refusal = error_response_of(error, multiplexer.status(), now, only)
            _send_refusal(self.exchange, refusal)

    def _give_whole(
        self,
        multiplexer: shell.Multiplexer,
        asked: shell.CallOptions,
        cancellation: Cancellation,
    ) -> None:
        began = clock.now()
        with self._departing(cancellation):
            reply = multiplexer.answer(self.asked.chat, asked)
        self._count(multiplexer, reply, began)
        body = completions.as_json(_frame(self.asked).whole(reply))
        self.exchange.send(body, fields=_answered_by(reply))

    def _give_in_chunks(
        self,
        multiplexer: shell.Multiplexer,
        asked: shell.CallOptions,
        cancellation: Cancellation,
    ) -> None:
        began = clock.now()
        with (
            self._departing(cancellation),
            multiplexer.answer_in_chunks(self.asked.chat, asked) as stream,
        ):
            frame, wants_usage = _frame(self.asked), self.asked.wants_usage
            pieces = completions.events(stream, frame, wants_usage=wants_usage)
            fields = _answered_by(stream.reply)
            self.exchange.begin(STREAM_TYPE, next(pieces, b""), fields)
            for piece in pieces:
                self.exchange.go_on(piece)
        self._count(multiplexer, stream.reply, began)
        self.exchange.end(completions.DONE)

    def _departing(self, cancellation: Cancellation) -> AbstractContextManager[None]:
        sock = self.exchange.connection.sock
        return monitoring_disconnect(self.desk.watcher, sock, cancellation.cancel)

    def _only(self) -> str | None:
        """Return the alias that is asked alone, None for the pool."""
        if self.route.pooled:
            return None
        name = self.asked.model if self.route.only is None else self.route.only
        name = self.desk.names.get(name, name)
        if name == POOL:
            return None
        if name not in _aliases(self.desk):
            raise RefusedError(unknown_model(name, _known(self.desk)))
        return name

    def _count(self, multiplexer: shell.Multiplexer, reply: Reply, began: datetime) -> None:
        served = ServedCall(reply.model, reply.attempts, reply.usage, began, clock.now())
        state, own = multiplexer.state, self.desk.pool.own_model
        add = partial(with_served, call=served, state=state, own=own)
        self.desk.ledger.add(self.route.label, add)


def _answered_by(reply: Reply) -> dict[str, str]:
    return {"X-Mux-Model": quote(reply.model)}
