"""One attempt at one member: encode, send, decode, and say what came of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import timedelta
from itertools import islice

from attrs import frozen

from muxcore.assembling import Assembler
from muxcore.chat import Chat, Chunk, Reply
from muxcore.core.outcomes import (
    Cancelled,
    CancelReason,
    End,
    Failed,
    Fault,
    Limit,
    RateLimited,
    Refusal,
    Rejected,
    Responding,
    Succeeded,
)
from muxcore.core.protocol import Slot
from muxcore.plugins.backend import (
    BadReplyError,
    Decoder,
    Failure,
    HttpRequest,
    HttpResponse,
    ServerEvent,
)
from muxcore.shell import clock
from muxcore.shell.call.member import Member
from muxcore.shell.call.warnings import truncated_prompt_warning
from muxcore.shell.call.wrapping import (
    LastFinish,
    chunks_of,
    failure_of,
    is_whole,
    looks_streamed,
    looks_whole,
)
from muxcore.shell.http.cancel_scope import CancelScope
from muxcore.shell.http.events import EventParser, EventTooLongError
from muxcore.shell.http.transport import Exchange, TransportError, send

OK = 200
MOST_EMPTY_CHUNKS = 10_000
"""A stream that never comes to its first content is ended after this many chunks."""


@frozen
class Attempted:
    """What came of one attempt: its outcome, and with a success what it brought.

    `status` is the HTTP status, for a request that was refused.
    """

    outcome: Responding | End
    rewrites: tuple[str, ...] = ()
    reply: Reply | None = None
    stream: OpenStream | None = None
    status: int | None = None


class _FailedError(Exception):
    """Leaves an attempt at the point where it is known to have failed."""

    def __init__(self, failure: Failure, status: int | None = None) -> None:
        self.failure = failure
        self.status = status
        super().__init__(failure.message)


class OpenStream:
    """A stream with its first content at hand: `chunks` that were read, and the rest."""

    def __init__(self, exchange: Exchange, decoder: Decoder, *, finishes: bool) -> None:
        self.exchange = exchange
        self.decoder = decoder
        self._finishes = finishes
        self.chunks: deque[Chunk] = deque()
        self.assembler = Assembler()
        self._finish = LastFinish()
        self._parser = EventParser()
        self._pieces = exchange.pieces()
        self._ended = False
        self._broken: TransportError | None = None
        self.prompt_tokens: int | None = None
        """How large the prompt was, if its server might have cut it (`HttpRequest`)."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is worth saying of the answer, once it is whole."""
        if self.prompt_tokens is None:
            return ()
        return truncated_prompt_warning(self.prompt_tokens, self.assembler.reply().usage)

    @property
    def whole(self) -> bool:
        """Whether the answer is complete, if the stream ends here of itself."""
        return self.decoder.done

    @property
    def complete(self) -> bool:
        """Whether the answer is complete, whatever happens to the stream now.

        A provider that emits no finish_reason says so only by a clean end.
        """
        return self.decoder.done and (self._finishes or self.decoder.ended)

    def read(self) -> bool:
        """Read one more piece into `chunks`; return False at the end of the stream.

        Raise `TransportError`, `BadReplyError` or `EventTooLongError` when it breaks.
        """
        if self._ended:
            return False
        try:
            piece = next(self._pieces, None)
            if piece is None:
                self._ended = True
                self._decode(event for event in self._parser.end() if is_whole(event))
            else:
                self._decode(self._parser.feed(piece))
        except BaseException:
            self.chunks += self._finish.end()
            raise
        if self._ended:
            self.chunks += self._finish.end()
        return piece is not None or bool(self.chunks)

    def take(self, reply: Reply) -> None:
        """Make this the stream of an answer that has come whole."""
        self._ended = True
        for chunk in chunks_of(reply):
            self.assembler.add(chunk)
            self.chunks.append(chunk)

    def _decode(self, events: Iterable[ServerEvent]) -> None:
        decoder = self.decoder
        for event in events:
            for chunk in decoder.feed(event):
                self.assembler.add(chunk)
                self.chunks += self._finish.pass_on(chunk)
            if decoder.ended:
                self._ended = True
                break

    def next(self, member: Member) -> Chunk | None:
        """Return the next chunk, None at the end of the stream.

        Raise `TransportError` for all that can break a stream, in words for people: once
        the chunks that came before the break have been given.
        """
        while not self.chunks:
            if self._broken is not None:
                raise self._broken
            try:
                if not _read(member, self):
                    return None
            except (_FailedError, TransportError) as error:
                self._broken = TransportError(member.masked(str(error)))
        return self.chunks.popleft()

    def close(self) -> None:
        if self._ended:
            self.exchange.drain()
        self.exchange.close()


def complete(member: Member, slot: Slot, chat: Chat, scope: CancelScope) -> Attempted:
    """Make an attempt whose answer comes whole."""
    began = clock.elapsed()
    request: HttpRequest | None = None
    exchange: Exchange | None = None
    try:
        request = _encoded(member, chat)
        exchange = _send(member, request, scope)
        reply = _judged(_reply(member, exchange.answer()), exchange.status)
    except (_FailedError, TransportError) as error:
        return _failed(error, member, slot, request, scope)
    finally:
        # Before its slot is given back: the server must not see one call too many.
        if exchange is not None:
            exchange.close()
    after = timedelta(seconds=clock.elapsed() - began)
    outcome = succeeded(slot, reply, after)
    remarks = truncated_prompt_warning(request.prompt_tokens, reply.usage)
    return Attempted(outcome, (*request.rewrites, *remarks), reply=reply)


def open_stream(member: Member, slot: Slot, chat: Chat, scope: CancelScope) -> Attempted:
    """Make an attempt that streams, up to its first content."""
    began = clock.elapsed()
    request: HttpRequest | None = None
    exchange: Exchange | None = None
    try:
        request = _encoded(member, chat)
        exchange = _send(member, request, scope)
        stream = _stream(member, exchange)
        stream.prompt_tokens = request.prompt_tokens
        committed = _read_to_content(member, stream)
        if not committed:
            _judged(stream.assembler.reply(), exchange.status)
    except (_FailedError, TransportError) as error:
        if exchange is not None:
            exchange.close()
        return _failed(error, member, slot, request, scope)
    except BaseException:
        # An interrupt: the connection is of no more use to anyone.
        if exchange is not None:
            exchange.close()
        raise
    after = timedelta(seconds=clock.elapsed() - began)
    if committed:
        outcome: Responding | End = Responding(slot.endpoint.alias, slot.attempt, after)
    else:
        stream.close()
        outcome = succeeded(slot, stream.assembler.reply(), after)
    return Attempted(outcome, request.rewrites, stream=stream)


def succeeded(slot: Slot, reply: Reply, after: timedelta | None = None) -> Succeeded:
    """Return the outcome of a whole answer."""
    return Succeeded(
        slot.endpoint.alias,
        slot.attempt,
        tokens_in=reply.usage.prompt_tokens or 0,
        tokens_cached=reply.usage.cached_tokens or 0,
        tokens_out=reply.usage.completion_tokens or 0,
        after=after,
    )


def _encoded(member: Member, chat: Chat) -> HttpRequest:
    try:
        return member.backend.request(member.endpoint, chat)
    except Exception as error:  # noqa: BLE001 - a stranger's backend, or a message no JSON holds
        text = f"the request cannot be encoded: {type(error).__name__}: {error}"
        raise _FailedError(Failure(Refusal.REQUEST, message=text)) from None


def _send(member: Member, request: HttpRequest, scope: CancelScope) -> Exchange:
    timeout = (scope.timeout(member.limits.connect), member.limits.read)
    try:
        return send(member.connections, request, member.key, timeout, scope)
    except TransportError:
        raise
    except Exception as error:  # noqa: BLE001 - a stranger's backend may ask for anything
        # Its kind alone: the text may repeat what was to be sent, and so the key.
        dialect, kind = member.endpoint.dialect, type(error).__name__
        text = f"the request of the backend {dialect} cannot be sent ({kind})"
    raise TransportError(text)


def _decoder(member: Member) -> Decoder:
    try:
        return member.backend.stream(member.endpoint)
    except Exception as error:  # noqa: BLE001 - a stranger's backend may raise anything
        raise TransportError(_misread(member, error)) from None


def _reply(member: Member, answer: HttpResponse) -> Reply:
    if answer.status != OK:
        raise _FailedError(_classified(member, answer), answer.status)
    try:
        if looks_streamed(answer.body):
            return _assembled(member, answer.body)
        return member.backend.reply(member.endpoint, answer)
    except BadReplyError as error:
        failure = error.failure or Failure(Fault.TRANSIENT, message=str(error))
        raise _FailedError(failure, answer.status) from None
    except Exception as error:  # noqa: BLE001 - a stranger's backend may raise anything
        text = _misread(member, error)
        raise _FailedError(Failure(Fault.TRANSIENT, message=text)) from None


def _assembled(member: Member, body: bytes) -> Reply:
    """Put an answer together that came as a stream, although it was asked for whole."""
    decoder, parser, assembler = _decoder(member), EventParser(), Assembler()
    for event in (*parser.feed(body), *filter(is_whole, parser.end())):
        for chunk in decoder.feed(event):
            assembler.add(chunk)
    if not decoder.done:
        raise BadReplyError("the answer came as a stream, and without its end")
    return assembler.reply()


def _stream(member: Member, exchange: Exchange) -> OpenStream:
    """Return the stream of an answer, also of one that came whole."""
    if exchange.status != OK:
        raise _FailedError(_classified(member, exchange.answer()), exchange.status)
    finishes = member.endpoint.wire.emits_finish_reason
    if not looks_whole(exchange.peek()):
        return OpenStream(exchange, _decoder(member), finishes=finishes)
    reply = _reply(member, exchange.answer())
    stream = OpenStream(exchange, _Whole(), finishes=finishes)
    stream.take(reply)
    return stream


class _Whole:
    """The decoder of a stream that is whole from the beginning."""

    done = ended = True

    def feed(self, event: ServerEvent) -> Iterable[Chunk]:  # noqa: ARG002 - there is none
        return ()


def _judged(reply: Reply, status: int) -> Reply:
    failure = failure_of(reply)
    if failure is not None:
        raise _FailedError(failure, status)
    return reply


def _classified(member: Member, answer: HttpResponse) -> Failure:
    headers = {name: member.masked(value) for name, value in answer.headers.items()}
    answer = HttpResponse(answer.status, headers, member.masked_bytes(answer.body))
    try:
        return member.backend.failure(answer, clock.now())
    except Exception as error:  # noqa: BLE001 - a stranger's backend may raise anything
        return Failure(Fault.TRANSIENT, message=_misread(member, error))


def _read_to_content(member: Member, stream: OpenStream) -> bool:
    """Read up to the first content; return False if the answer is whole without any."""
    seen = 0
    while True:
        try:
            more = _read(member, stream)
        except TransportError:
            if stream.complete:
                return False
            raise
        if not more:
            break
        if any(chunk.commits for chunk in islice(stream.chunks, seen, None)):
            return True
        seen = len(stream.chunks)
        if seen > MOST_EMPTY_CHUNKS:
            raise TransportError(f"{seen} chunks came without any content")
    if not stream.whole:
        raise TransportError("the stream ended before any content")
    return False


def _read(member: Member, stream: OpenStream) -> bool:
    """Read one more piece; return False at the end. Raise `_FailedError`, `TransportError`."""
    try:
        return stream.read()
    except BadReplyError as error:
        failure = error.failure or Failure(Fault.TRANSIENT, message=str(error))
        raise _FailedError(failure) from None
    except EventTooLongError as error:
        raise TransportError(str(error)) from None
    except TransportError:
        raise
    except Exception as error:  # noqa: BLE001 - a stranger's decoder may raise anything
        raise TransportError(_misread(member, error)) from None


def _misread(member: Member, error: Exception) -> str:
    return f"the backend {member.endpoint.dialect} raised {type(error).__name__}: {error}"


def _failed(
    error: _FailedError | TransportError,
    member: Member,
    slot: Slot,
    request: HttpRequest | None,
    scope: CancelScope,
) -> Attempted:
    rewrites = () if request is None else request.rewrites
    alias, attempt = slot.endpoint.alias, slot.attempt
    if isinstance(scope.reason, CancelReason):
        return Attempted(Cancelled(alias, attempt, scope.reason), rewrites)
    if isinstance(error, TransportError):
        failure, status = Failure(Fault.TRANSIENT, message=str(error)), None
    else:
        failure, status = error.failure, error.status
    message = member.masked(_advised(failure, member))
    outcome: End
    match failure.kind:
        case Limit():
            outcome = RateLimited(alias, attempt, failure.kind, failure.hint, message)
        case Fault():
            outcome = Failed(alias, attempt, failure.kind, failure.hint, message)
        case Refusal():
            outcome = Rejected(alias, attempt, failure.kind, failure.window, message)
    return Attempted(outcome, rewrites, status=status)


def _advised(failure: Failure, member: Member) -> str:
    """Add to the server's words what the user can do about them."""
    wire = member.endpoint.wire
    if failure.kind is not Fault.AUTH:
        return failure.message
    if not wire.key_variable:
        return f"{failure.message} (its provider names no api_key_env_var)"
    advice = f"check {wire.key_variable}"
    if member.endpoint.dialect == "mistral":
        advice += "; Mistral says the same of a plan that is spent"
    return f"{failure.message} ({advice})"
