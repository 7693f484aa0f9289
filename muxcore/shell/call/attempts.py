"""Make one attempt: encode the request, send it, decode the response, classify failures."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus
from itertools import islice
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from attrs import evolve, frozen

from muxcore.chat import Chat, Reply
from muxcore.core.allowance import Allowance
from muxcore.core.outcomes import (
    Cancelled,
    CancelReason,
    Failed,
    Fault,
    Limit,
    RateLimited,
    Refusal,
    Rejected,
    Responding,
    Succeeded,
)
from muxcore.core.protocol import Attempt, Slot
from muxcore.core.records import Call, Endpoint
from muxcore.errors import MultiplexerError
from muxcore.plugins.backend import (
    BadReplyError,
    Failure,
    HttpRequest,
    HttpResponse,
)
from muxcore.shell import clock
from muxcore.shell.call.answer_form import events_of, failure_of, looks_whole
from muxcore.shell.call.arguments import check_encodable
from muxcore.shell.call.decoding import BrokenAnswerError, StreamDecoder, broken, broken_by
from muxcore.shell.call.member import Member
from muxcore.shell.call.reports import truncated_prompt_warning
from muxcore.shell.http.cancel_scope import CancelScope
from muxcore.shell.http.transport import Exchange, TransportError, send
from muxcore.shell.importing import is_lacking

HEARTBEAT_SILENCE = 90.0
"""Seconds. A server that reads a long prompt may be silent for the whole of `read_timeout_ms`.
Once it has sent a comment, it sends one every few seconds (llama.cpp: 30), so this long a
silence is a dead server."""
MOST_EMPTY_CHUNKS = 10_000
"""A stream without content is ended after this many chunks."""

T = TypeVar("T")
Opened: TypeAlias = tuple[Exchange, StreamDecoder]
"""A stream at its first content, or at its end if it has none."""


class Answered(NamedTuple, Generic[T]):
    """An attempt with an answer: a `Reply`, or a stream at its first content."""

    outcome: Responding | Succeeded
    answer: T
    member: Member
    slot: Slot
    scope: CancelScope
    rewrites: tuple[str, ...] = ()


@frozen(eq=False)
class Unanswered:
    """An attempt without an answer; `status` is the HTTP status, if a server sent one."""

    outcome: RateLimited | Failed | Rejected | Cancelled
    rewrites: tuple[str, ...] = ()
    status: int | None = None


def complete(
    member: Member, step: Attempt, chat: Chat, scope: CancelScope
) -> Answered[Reply] | Unanswered:
    """Make an attempt that asks for a whole answer."""
    slot, began = step.slot, clock.elapsed()
    request: HttpRequest | None = None
    exchange: Exchange | None = None
    try:
        request = _encode(member, chat)
        exchange = _send(member, request, scope)
        reply = _checked(_decode(member, exchange.read_response()), exchange.status)
    except (BrokenAnswerError, TransportError) as error:
        return _unanswered(error, member, slot, request, scope, exchange)
    finally:
        # Before the slot is given back, or the server would see one call too many.
        if exchange is not None:
            exchange.close()
    after = timedelta(seconds=clock.elapsed() - began)
    outcome = succeeded(step.call, slot, reply, after, _allowances(member, exchange))
    warnings = truncated_prompt_warning(request.prompt_tokens, reply.usage)
    return Answered(outcome, reply, member, slot, scope, (*request.rewrites, *warnings))


def open_stream(
    member: Member, step: Attempt, chat: Chat, scope: CancelScope
) -> Answered[Opened] | Unanswered:
    """Make an attempt that streams, up to its first content."""
    slot, began = step.slot, clock.elapsed()
    request: HttpRequest | None = None
    exchange: Exchange | None = None
    try:
        request = _encode(member, chat)
        exchange = _send(member, request, scope)
        decoder = _stream_decoder(member, exchange)
        decoder.prompt_tokens = request.prompt_tokens
        has_content = _read_to_content(exchange, decoder, member)
        if not has_content:
            _checked(decoder.reply(), exchange.status)
    except (BrokenAnswerError, TransportError) as error:
        if exchange is not None:
            exchange.close()
        return _unanswered(error, member, slot, request, scope, exchange)
    except BaseException:
        # An interrupt: no caller will read the response.
        if exchange is not None:
            exchange.close()
        raise
    after = timedelta(seconds=clock.elapsed() - began)
    allowances = _allowances(member, exchange)
    outcome: Responding | Succeeded
    if has_content:
        outcome = Responding(slot.endpoint.alias, slot.attempt, after, allowances)
    else:
        exchange.close(drain=decoder.ended)
        outcome = succeeded(step.call, slot, decoder.reply(), after, allowances)
    return Answered(outcome, (exchange, decoder), member, slot, scope, request.rewrites)


def read_more(exchange: Exchange, decoder: StreamDecoder) -> bool:
    """Decode what has arrived of a stream, waiting for it; return False at the end.

    Raise `TransportError` or `BrokenAnswerError` when it breaks.
    """
    if decoder.ended:
        return False
    try:
        data = exchange.read()
    except TransportError:
        decoder.flush()
        raise
    if data:
        decoder.feed(data)
    else:
        decoder.end()
    return bool(data or decoder.chunks)


def succeeded(
    call: Call,
    slot: Slot,
    reply: Reply,
    after: timedelta | None = None,
    allowances: tuple[Allowance, ...] = (),
) -> Succeeded:
    """Return the outcome of a whole answer to an attempt of this call."""
    return Succeeded(
        slot.endpoint.alias,
        slot.attempt,
        tokens_in=reply.usage.prompt_tokens or 0,
        tokens_cached=reply.usage.cached_tokens or 0,
        tokens_out=reply.usage.completion_tokens or 0,
        after=after,
        conversation=call.conversation,
        new_turn=call.new_turn,
        refusers=call.refusers,
        allowances=allowances,
    )


def _allowances(member: Member, exchange: Exchange | None) -> tuple[Allowance, ...]:
    """Return what the answer, if there is one, announces to be left of its limits."""
    reader = member.limit_reader
    if exchange is None or reader is None:
        return ()
    try:
        found = tuple(reader.allowances(exchange.headers, clock.now()))
    except Exception:  # noqa: BLE001 - a third party's backend may raise anything
        return ()
    return found if all(isinstance(one, Allowance) for one in found) else ()


def _encode(member: Member, chat: Chat) -> HttpRequest:
    try:
        return member.backend.request(_thinking_as_asked(member.endpoint, chat), chat)
    except Exception as error:  # noqa: BLE001 - a third party's backend, or no JSON
        # A caller's mistake is no model's: it is not counted, and no other model is asked.
        check_encodable(chat)
        text = f"the request cannot be encoded: {type(error).__name__}: {error}"
        raise BrokenAnswerError(Failure(Refusal.REQUEST, message=text)) from None


def _thinking_as_asked(endpoint: Endpoint, chat: Chat) -> Endpoint:
    if chat.thinking is None:
        return endpoint
    level = chat.thinking.level_for(endpoint.model, endpoint.wire.thinking)
    return evolve(endpoint, wire=evolve(endpoint.wire, thinking=level))


def _send(member: Member, request: HttpRequest, scope: CancelScope) -> Exchange:
    timeout = (scope.timeout(member.limits.connect), member.limits.read)
    try:
        sent = send(member.connections, request, member.key, timeout, scope)
    except Exception as error:  # noqa: BLE001 - a third party's backend may ask for anything
        if isinstance(error, MultiplexerError) or is_lacking(error):
            # The machine lacks something; the model and its backend are not at fault.
            scope.cancel(CancelReason.LACKING)
        # Only its type: the text may repeat the request, and with it the key.
        dialect, kind = member.endpoint.dialect, type(error).__name__
        sent = TransportError(
            f"the request of the backend {dialect} cannot be sent ({kind})"
        )
    if isinstance(sent, TransportError):
        raise sent
    return sent


def _decode(member: Member, answer: HttpResponse) -> Reply:
    if not _is_success(answer.status):
        raise BrokenAnswerError(_classify(member, answer), answer.status)
    try:
        events = events_of(answer.body)
        if events is not None:
            return _assembled(member, events)
        return member.backend.reply(member.endpoint, answer)
    except BrokenAnswerError as error:
        raise BrokenAnswerError(error.failure, answer.status) from None
    except BadReplyError as error:
        failure = error.failure or Failure(Fault.TRANSIENT, message=str(error))
        raise BrokenAnswerError(failure, answer.status) from None
    except Exception as error:  # noqa: BLE001 - a third party's backend may raise anything
        raise broken_by(member.endpoint.dialect, error) from None


def _is_success(status: int) -> bool:
    """Whether the body may be an answer: it, not the exact status, shows whether it is one."""
    return status // 100 == HTTPStatus.OK // 100


def _assembled(member: Member, body: bytes) -> Reply:
    """Assemble an answer that came as a stream although a whole one was requested."""
    decoder = _new_decoder(member)
    decoder.feed(body)
    decoder.end()
    if not decoder.whole:
        raise broken("the answer came as a stream, and without its end")
    return decoder.reply()


def _stream_decoder(member: Member, exchange: Exchange) -> StreamDecoder:
    """Return the decoder of the stream, also if the answer came whole."""
    if not _is_success(exchange.status):
        answer = exchange.read_response()
        raise BrokenAnswerError(_classify(member, answer), answer.status)
    if not looks_whole(exchange.peek()):
        return _new_decoder(member)
    reply = _decode(member, exchange.read_response())
    return StreamDecoder.of_whole(reply, member.endpoint.dialect)


def _new_decoder(member: Member) -> StreamDecoder:
    endpoint = member.endpoint
    try:
        decoder = member.backend.stream(endpoint)
    except Exception as error:  # noqa: BLE001 - a third party's backend may raise anything
        raise broken_by(endpoint.dialect, error) from None
    return StreamDecoder(
        decoder, endpoint.dialect, finishes=endpoint.wire.emits_finish_reason
    )


def _checked(reply: Reply, status: int) -> Reply:
    """Return the reply. Raise `BrokenAnswerError` if it is no answer."""
    failure = failure_of(reply)
    if failure is not None:
        raise BrokenAnswerError(failure, status)
    return reply


def _classify(member: Member, answer: HttpResponse) -> Failure:
    headers = {name: member.masked(value) for name, value in answer.headers.items()}
    answer = HttpResponse(answer.status, headers, member.masked_bytes(answer.body))
    try:
        return member.backend.failure(answer, clock.now())
    except Exception as error:  # noqa: BLE001 - a third party's backend may raise anything
        return broken_by(member.endpoint.dialect, error).failure


def _read_to_content(exchange: Exchange, decoder: StreamDecoder, member: Member) -> bool:
    """Read up to the first content; return False if the answer ended without any."""
    seen = 0
    while True:
        try:
            more = read_more(exchange, decoder)
        except TransportError:
            if decoder.complete:
                return False
            raise
        if not more:
            break
        if any(chunk.commits for chunk in islice(decoder.chunks, seen, None)):
            return True
        if not decoder.chunks and member.limits.read > HEARTBEAT_SILENCE:
            # A server which shows that it lives will do so again.
            exchange.limit_silence(HEARTBEAT_SILENCE)
        seen = len(decoder.chunks)
        if seen > MOST_EMPTY_CHUNKS:
            raise broken(f"{seen} chunks came without any content")
    if not decoder.whole:
        raise broken("the stream ended before any content")
    return False


def _unanswered(
    error: BrokenAnswerError | TransportError,
    member: Member,
    slot: Slot,
    request: HttpRequest | None,
    scope: CancelScope,
    exchange: Exchange | None,
) -> Unanswered:
    """Turn the error of an attempt into its outcome; a cancelled scope explains any error."""
    rewrites = () if request is None else request.rewrites
    alias, attempt = slot.endpoint.alias, slot.attempt
    if isinstance(scope.reason, CancelReason):
        return Unanswered(Cancelled(alias, attempt, scope.reason), rewrites)
    if isinstance(error, TransportError):
        error = broken(str(error))
    failure = error.failure
    message = member.masked(_with_advice(failure, member))
    hint, left = failure.hint, _allowances(member, exchange)
    outcome: RateLimited | Failed | Rejected
    match failure.kind:
        case Limit() as kind:
            outcome = RateLimited(alias, attempt, kind, hint, message, left)
        case Fault() as kind:
            outcome = Failed(alias, attempt, kind, hint, message, left)
        case Refusal() as kind:
            outcome = Rejected(alias, attempt, kind, failure.window, message, left)
    return Unanswered(outcome, rewrites, error.status)


def _with_advice(failure: Failure, member: Member) -> str:
    """Return the server's message, with the variable of a refused key."""
    if failure.kind is not Fault.AUTH:
        return failure.message
    variable = member.endpoint.wire.key_variable
    if not variable:
        return f"{failure.message} (its provider names no api_key_env_var)"
    return f"{failure.message} (check {variable})"
