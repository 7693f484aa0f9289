"""One stream through the pool, as the caller sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from attrs import evolve, frozen

from muxcore.chat import AttemptReport, Chunk, Reply
from muxcore.core.calling import Granted
from muxcore.core.outcomes import Cancelled, End, Failed, Succeeded
from muxcore.errors import MultiplexerError, StreamInterruptedError
from muxcore.shell.attempts import OpenStream, read_chunk, succeeded
from muxcore.shell.cutting import Cut, CutReason, Watch
from muxcore.shell.members import Member
from muxcore.shell.pool import Pool, Ticket
from muxcore.shell.transport import TransportError


@frozen(eq=False)
class Running:
    """A stream that has come to its first content, or is whole without any."""

    pool: Pool
    watch: Watch
    ticket: Ticket
    cut: Cut
    member: Member
    granted: Granted
    source: OpenStream
    attempts: tuple[AttemptReport, ...]
    conversation: str | None

    @property
    def reply(self) -> Reply:
        """What has arrived so far."""
        reply = self.source.assembler.reply()
        return evolve(reply, model=self.granted.endpoint.alias, attempts=self.attempts)

    def end(self, outcome: End) -> None:
        """Record how it ended, once, and give everything back."""
        try:
            if self.ticket.granted is not None:
                self.pool.record(outcome)
                self.ticket.granted = None
        finally:
            self.release()
            self.pool.settle(self.ticket)

    def release(self) -> None:
        """Give the connection back; touches no lock of the pool."""
        self.watch.remove(self.cut)
        self.source.close()

    def succeeded(self) -> Succeeded:
        outcome = succeeded(self.granted, self.source.assembler.reply())
        return evolve(outcome, conversation=self.conversation)

    def cancelled(self, why: str) -> Cancelled:
        return Cancelled(self.granted.endpoint.alias, self.granted.attempt, why)


class Stream:
    """A streaming call. Use it as a context manager: the call is made on entering.

    Errors before the first content are raised there. Iterating gives `Chunk`s; a failure
    after the first content raises `StreamInterruptedError`. `reply` is the whole answer
    after the end, and what has arrived so far before it.
    """

    def __init__(self, begin: Callable[[], Running]) -> None:
        self._begin = begin
        self._running: Running | None = None
        self._ended = False

    def __enter__(self) -> Self:
        if self._running is not None:
            raise MultiplexerError("a stream can be entered once")
        self._running = self._begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        running = self._entered()
        if self._ended:
            raise StopIteration
        try:
            chunk = read_chunk(running.member, running.source)
        except TransportError as error:
            whole, text = running.source.complete, str(error)
        except BaseException:
            self.close()
            raise
        else:
            if chunk is not None:
                return chunk
            whole = running.source.whole
            text = "the stream ended without a finish_reason"
        self._ended = True
        if whole:
            running.end(running.succeeded())
            raise StopIteration
        raise self._interrupted(running, text)

    @property
    def reply(self) -> Reply:
        return self._entered().reply

    def close(self) -> None:
        """End the stream where it is. What the model had completed counts as a success."""
        running = self._running
        if running is None or self._ended:
            return
        self._ended = True
        if running.source.complete:
            running.end(running.succeeded())
        else:
            running.end(running.cancelled(CutReason.LEFT))

    def __del__(self) -> None:
        running = self._running
        if running is not None and not self._ended:
            self._ended = True
            running.release()
            running.pool.abandon(running.ticket)

    def _entered(self) -> Running:
        if self._running is None:
            raise MultiplexerError(
                "use a stream in a `with` statement: the call is made there"
            )
        return self._running

    def _interrupted(self, running: Running, text: str) -> MultiplexerError:
        reason = running.cut.reason
        if reason in {CutReason.CALL_TIME, CutReason.CLOSED, CutReason.LEFT}:
            running.end(running.cancelled(str(reason)))
        else:
            alias, attempt = running.granted.endpoint.alias, running.granted.attempt
            running.end(Failed(alias, attempt, message=text))
        if reason is CutReason.CLOSED:
            return MultiplexerError("closed")
        if reason is CutReason.LEFT:
            return MultiplexerError("cancelled")
        reply = running.reply
        alias = running.granted.endpoint.alias
        return StreamInterruptedError(
            f"{alias} broke off in the middle of its answer: {text}", reply, reply.attempts
        )
