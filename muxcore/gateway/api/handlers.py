"""Handle one request on a connection: read it, route it, and send the response.

Each resource of the server has its handler here. Calls go to the multiplexer of
`Context.pool`; parsing and rendering are in `front_doors`, `errors` and `status_page`.
"""

from __future__ import annotations

import sys
import traceback
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, NoReturn, assert_never
from urllib.parse import parse_qs, quote

from attrs import evolve, frozen

from muxcore.chat import Chat, Json, Reply
from muxcore.config.definitions import VIBES_TEMPERATURE, known_as
from muxcore.config.records import UnseenImages
from muxcore.errors import MultiplexerError
from muxcore.gateway.access import POOL
from muxcore.gateway.api.authorization import (
    JSON_TYPE,
    LARGEST_BODY,
    OPEN_PATHS,
    check_request,
    hosts_for,
)
from muxcore.gateway.api.errors import (
    error_response_of,
    keys_are_refused,
    refused_keys,
    unknown_model,
    unknown_path,
)
from muxcore.gateway.api.images import refuse_unseen
from muxcore.gateway.api.listing import listing, model_card
from muxcore.gateway.api.receipts import Ledger, ServedCall, with_failed, with_served
from muxcore.gateway.api.routing import (
    Resource,
    Route,
    front_door_of,
    patience_for,
    route_of,
    session_of,
)
from muxcore.gateway.api.session_thinking import with_session_thinking
from muxcore.gateway.api.skill import asks_for_status, reply_of, without_status
from muxcore.gateway.api.status_page import status_text
from muxcore.gateway.api.views import view_of
from muxcore.gateway.front_doors import completions
from muxcore.gateway.front_doors.door import (
    ClientRequest,
    FrontDoor,
    Stamp,
    StreamEncoder,
    as_json,
)
from muxcore.gateway.http.connection import ClientLeftError, Connection
from muxcore.gateway.http.leases import Leases
from muxcore.gateway.http.selector import SelectorThread, monitoring_disconnect
from muxcore.gateway.http.wire import (
    CONTINUE,
    ErrorResponse,
    Head,
    RefusedError,
    decoded,
    parse_head,
)
from muxcore.gateway.proof import keys_fingerprint, server_proof
from muxcore.http_framing import LAST_CHUNK, chunk, head
from muxcore.observers.metrics import Metrics
from muxcore.shell import clock
from muxcore.shell.call.arguments import CallOptions
from muxcore.shell.call.cancellation import Cancellation
from muxcore.shell.call.facts import estimated_tokens
from muxcore.shell.call.multiplexer import Multiplexer

if TYPE_CHECKING:
    from muxcore.gateway.reload import ReloadingPool

STREAM_TYPE = "text/event-stream"
PLAIN_TYPE = "text/plain; charset=utf-8"

MEMBERS_OWN = frozenset({"reasoning_effort", "top_p"})
"""With the temperature, the settings that a vibe takes from the entry of its active model. They
are dropped, because the model that serves uses those of its own entry, and may reject others."""

LONGEST_NONCE = 64
NO_FIELDS: Mapping[str, str] = {}


@frozen(eq=False)
class Context:
    """What the handlers share, for all connections of a server.

    `hosts` are further values of `Host`, with any port or the one that they name. `names` maps
    further names for `model` to the pool (`POOL`) or to an alias.
    """

    pool: ReloadingPool
    token: str
    port: int
    hosts: frozenset[str]
    names: Mapping[str, str]
    ledger: Ledger
    metrics: Metrics
    selector: SelectorThread
    leases: Leases
    hold_lease: Callable[
        [Connection, str, Callable[[bytes], None]], AbstractContextManager[None]
    ]
    is_draining: Callable[[], bool]


def handle_request(connection: Connection, context: Context) -> bool:
    """Handle the request that has begun; return whether the connection stays open."""
    door = completions.FRONT_DOOR
    try:
        request = parse_head(connection.read_head())
        door = front_door_of(request.path)
        address = connection.sock.getsockname()[0]
        hosts = hosts_for(address, context.port) | context.hosts
        check_request(request, hosts, context.token)
        connection.is_authorized |= request.path not in OPEN_PATHS
        route = _route(request)
        if request.length != 0 and "expect" in request.fields:
            connection.send(CONTINUE)
        body = decoded(
            connection.read_body(request.length, LARGEST_BODY),
            request.fields.get("content-encoding", ""),
            LARGEST_BODY,
        )
    except RefusedError as error:
        # The end of its body is unknown, so the connection cannot be used again.
        _send_error(_Response(connection, door, keeps_alive=False), error.response)
        connection.linger()
        return False
    keeps_alive = request.keeps_alive and not context.is_draining()
    response = _Response(
        connection,
        door,
        keeps_alive=keeps_alive,
        is_modern=request.is_modern,
        is_head=request.method == "HEAD",
    )
    try:
        _handle(response, request, route, body, context)
    except RefusedError as error:
        _send_error(response, error.response)
    except ClientLeftError:
        raise
    except Exception:  # noqa: BLE001 - one request must not take the server down
        traceback.print_exc(file=sys.stderr)
        if response.has_begun:
            raise ClientLeftError from None
        _send_error(
            response,
            ErrorResponse(
                HTTPStatus.INTERNAL_SERVER_ERROR, "The server has a fault.", "server_error"
            ),
        )
    return response.keeps_alive


class _Response:
    """The response to one request, as it is sent."""

    def __init__(
        self,
        connection: Connection,
        door: FrontDoor,
        *,
        keeps_alive: bool,
        is_modern: bool = True,
        is_head: bool = False,
    ) -> None:
        self.connection = connection
        self.door = door
        self.keeps_alive = keeps_alive
        self.has_begun = False
        self._is_modern = is_modern
        self._is_head = is_head

    def send(
        self,
        body: bytes,
        content_type: str = JSON_TYPE,
        status: int = HTTPStatus.OK,
        fields: Mapping[str, str] = NO_FIELDS,
    ) -> None:
        """Send a whole response."""
        own = {"Content-Type": content_type, "Content-Length": str(len(body)), **fields}
        self._begin(status, own, body)

    def begin(
        self, content_type: str, first: bytes = b"", fields: Mapping[str, str] = NO_FIELDS
    ) -> None:
        """Send the head of a response of unknown length, and the first piece of its body."""
        own = {"Content-Type": content_type, "Cache-Control": "no-store", **fields}
        if self._is_modern:
            own["Transfer-Encoding"] = "chunked"
        else:
            self.keeps_alive = False
        self._begin(HTTPStatus.OK, own, self._framed(first))

    def write(self, piece: bytes) -> None:
        self.connection.send(self._framed(piece))

    def end(self, piece: bytes = b"") -> None:
        last = LAST_CHUNK if self._is_modern else b""
        self.connection.send(self._framed(piece) + last)

    def _framed(self, piece: bytes) -> bytes:
        return chunk(piece) if self._is_modern else piece

    def _begin(self, status: int, fields: Mapping[str, str], body: bytes) -> None:
        self.has_begun = True
        connection = {} if self.keeps_alive else {"Connection": "close"}
        sent = b"" if self._is_head else body
        self.connection.send(head(status, {**fields, **connection}) + sent)


def _route(request: Head) -> Route:
    route = route_of(request.path)
    if route is None:
        raise RefusedError(unknown_path(request))
    if request.method not in route.methods:
        allowed = ", ".join(route.methods)
        raise RefusedError(
            ErrorResponse(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"Only {allowed} is answered.",
                fields={"Allow": allowed},
            )
        )
    return route


def _handle(
    response: _Response, request: Head, route: Route, body: bytes, context: Context
) -> None:
    match route.resource:
        case Resource.CHAT | Resource.RESPONSES | Resource.MESSAGES:
            _handle_call(response, request, route, body, context)
        case Resource.COUNT_TOKENS:
            tokens = estimated_tokens(response.door.read(body).chat)
            response.send(as_json({"input_tokens": tokens}))
        case Resource.MODELS:
            response.send(as_json(_models(route.model, request.fields, context)))
        case Resource.STATUS | Resource.METRICS | Resource.PAGE as view:
            response.send(*view_of(view, request, context.pool, context.metrics))
        case Resource.HEALTH:
            response.send(as_json({"status": "ok"}))
        case Resource.RECEIPT:
            receipt = context.ledger.receipt(_value(request, "label"))
            response.send(as_json(receipt.to_json()))
        case Resource.LEASE:
            _hold_lease(response, request, context)
        case Resource.PROOF:
            address = response.connection.sock.getsockname()[0]
            nonce = _value(request, "nonce")[:LONGEST_NONCE]
            proof = server_proof(context.token, address, context.port, nonce)
            response.send(as_json({"proof": proof}))
        case _ as never:
            assert_never(never)


def _handle_call(
    response: _Response, request: Head, route: Route, body: bytes, context: Context
) -> None:
    client_request = response.door.read(body)
    if asks_for_status(client_request.chat.messages):
        _answer_mux(response, client_request, context)
        return
    # This reloads a changed config: the whole call is of one version of it.
    multiplexer = context.pool.multiplexer
    if route.label:
        client_request = with_session_thinking(client_request, multiplexer.state)
        chat = _without_own_settings(client_request.chat, is_vibes=route.is_vibes)
        client_request = evolve(client_request, chat=chat)
    client_request = evolve(client_request, chat=without_status(client_request.chat))
    _Call(response, request, route, client_request, context, multiplexer).run()


def _without_own_settings(chat: Chat, *, is_vibes: bool) -> Chat:
    extra = {name: value for name, value in chat.extra.items() if name not in MEMBERS_OWN}
    usual = VIBES_TEMPERATURE if is_vibes else None
    return evolve(chat, temperature=None, usual_temperature=usual, extra=extra)


def _value(request: Head, name: str) -> str:
    """Return a value of the query, or "" if it has none."""
    return "".join(parse_qs(request.query).get(name, []))


def _hold_lease(response: _Response, request: Head, context: Context) -> NoReturn:
    """Hold a lease until the client leaves; refuse a client with other keys."""
    keys = _value(request, "keys")
    if keys and keys != _keys_fingerprint(context):
        text = "The keys of this server are not those of the client."
        raise RefusedError(ErrorResponse(HTTPStatus.CONFLICT, text))
    label = _value(request, "label")
    begin = partial(response.begin, PLAIN_TYPE)
    with context.hold_lease(response.connection, label, begin):
        response.connection.wait_for_end()
    raise ClientLeftError


def _keys_fingerprint(context: Context) -> str:
    # This reloads a changed config or `.env`.
    _ = context.pool.multiplexer
    return keys_fingerprint(context.token, context.pool.config.keys)


def _send_error(response: _Response, error: ErrorResponse) -> None:
    body = as_json(response.door.error(error))
    response.send(body, JSON_TYPE, error.status, error.fields)


def _answer_mux(
    response: _Response, client_request: ClientRequest, context: Context
) -> None:
    """Answer `/mux` without calling a model."""
    text = status_text(context.pool.status(), context.pool.off)
    reply, chunks = reply_of(text)
    if not client_request.chat.stream:
        response.send(as_json(response.door.whole(client_request, _stamp(), reply)))
        return
    encoder = response.door.stream(client_request, _stamp())
    response.begin(STREAM_TYPE)
    response.end(b"".join(map(encoder.feed, chunks)) + encoder.end())


def _stamp() -> Stamp:
    return Stamp(uuid.uuid4().hex, _seconds())


def _seconds() -> int:
    return int(clock.now().timestamp())


def _aliases(multiplexer: Multiplexer) -> tuple[str, ...]:
    candidates = multiplexer.state.candidates
    return tuple(candidate.endpoint.alias for candidate in candidates)


def _known(multiplexer: Multiplexer, context: Context) -> tuple[str, ...]:
    """Return all valid values of `model`: the pool, its aliases, and further names."""
    return tuple(dict.fromkeys((POOL, *_aliases(multiplexer), *context.names)))


def _models(name: str | None, fields: Mapping[str, str], context: Context) -> Json:
    known = _known(context.pool.multiplexer, context)
    if name is None:
        return listing(known, _seconds(), fields)
    if name not in known:
        raise RefusedError(unknown_model(name, known))
    return model_card(name, _seconds(), fields)


@frozen(eq=False)
class _Call:
    """One call through the pool, on behalf of the client of one request."""

    response: _Response
    request: Head
    route: Route
    client_request: ClientRequest
    context: Context
    multiplexer: Multiplexer

    def run(self) -> None:
        """Send the answer, or the error as the API that was called writes it."""
        only = self._single_alias()
        self._refuse_unseen_images(only)
        cancellation = Cancellation()
        session = session_of(self.request.fields)
        user_agent = self.request.fields.get("user-agent", "")
        patience = patience_for(self.route, user_agent)
        options = CallOptions(session, None, only, cancellation, patience)
        encoder = self.response.door.stream(self.client_request, _stamp())
        respond = (
            partial(self._stream, encoder)
            if self.client_request.chat.stream
            else self._complete
        )
        try:
            with self.context.leases.call(self.route.label):
                respond(options, cancellation)
        except MultiplexerError as error:
            if cancellation.cancelled:
                raise ClientLeftError from None
            self.context.ledger.add(self.route.label, with_failed)
            now = clock.now()
            status = self.multiplexer.status()
            response = error_response_of(error, status, now, only)
            if self.response.has_begun:
                if not self.route.is_vibes:
                    # Vibe knows no such event.
                    self.response.write(encoder.fail(response))
                # A broken stream must not end like a complete one: cut the connection.
                raise ClientLeftError from None
            if self.route.label and keys_are_refused(error, status, only):
                # A vibe repeats a 503 for minutes, which mends no key.
                response = refused_keys(self.multiplexer.state, only)
            if error.call_id:
                fields = {**response.fields, "X-Mux-Call": error.call_id}
                response = evolve(response, fields=fields)
            _send_error(self.response, response)

    def _complete(self, options: CallOptions, cancellation: Cancellation) -> None:
        began = clock.now()
        with self._cancelling_on_disconnect(cancellation):
            reply = self.multiplexer.answer(self.client_request.chat, options)
        self._record(reply, began)
        whole = self.response.door.whole(self.client_request, _stamp(), reply)
        self.response.send(as_json(whole), fields=_call_fields(reply))

    def _stream(
        self, encoder: StreamEncoder, options: CallOptions, cancellation: Cancellation
    ) -> None:
        began = clock.now()
        with (
            self._cancelling_on_disconnect(cancellation),
            self.multiplexer.answer_in_chunks(self.client_request.chat, options) as stream,
        ):
            fields = _call_fields(stream.reply)
            pieces = filter(None, map(encoder.feed, stream))
            self.response.begin(STREAM_TYPE, next(pieces, b""), fields)
            for piece in pieces:
                self.response.write(piece)
        self._record(stream.reply, began)
        self.response.end(encoder.end())

    def _cancelling_on_disconnect(
        self, cancellation: Cancellation
    ) -> AbstractContextManager[None]:
        sock = self.response.connection.sock
        return monitoring_disconnect(self.context.selector, sock, cancellation.cancel)

    def _single_alias(self) -> str | None:
        """Return the alias of the one model to ask, None for the pool."""
        if self.route.pooled:
            return None
        name = self.client_request.model if self.route.only is None else self.route.only
        aliases = _aliases(self.multiplexer)
        name = known_as(self.context.names.get(name, name), aliases)
        if name == POOL:
            return None
        if self.route.label and self.route.only is None and name not in aliases:
            # An agent asks for the models of its own provider, for a title or a summary.
            return None
        endpoints = (c.endpoint for c in self.multiplexer.state.candidates)
        of_this_name = [e.alias for e in endpoints if e.model == name]
        if name not in aliases and len(of_this_name) == 1:
            return of_this_name[0]
        if name not in aliases:
            raise RefusedError(unknown_model(name, _known(self.multiplexer, self.context)))
        return name

    def _refuse_unseen_images(self, only: str | None) -> None:
        # Vibe reads from the entries what its models can see.
        leaves_out = self.context.pool.config.unseen_images is UnseenImages.LEAVE_OUT
        if not (self.route.is_vibes or leaves_out):
            endpoints = [c.endpoint for c in self.multiplexer.state.candidates]
            asked = [e for e in endpoints if only in {None, e.alias}]
            refuse_unseen(self.client_request.chat, asked)

    def _record(self, reply: Reply, began: datetime) -> None:
        served = ServedCall(reply.model, reply.attempts, reply.usage, began, clock.now())
        state, own = self.multiplexer.state, self.context.pool.own_model
        add = partial(with_served, call=served, state=state, own=own)
        try:
            self.context.ledger.add(self.route.label, add)
        except Exception:  # noqa: BLE001 - a receipt must not cost the answer
            traceback.print_exc(file=sys.stderr)


def _call_fields(reply: Reply) -> dict[str, str]:
    return {"X-Mux-Model": quote(reply.model), "X-Mux-Call": reply.call_id}
