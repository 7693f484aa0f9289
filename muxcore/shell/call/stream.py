"""One stream through the pool, as the caller sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from attrs import evolve, frozen

from muxcore.chat import AttemptReport, Chunk, Reply
from muxcore.core.outcomes import Cancelled, CancelReason, End, Failed, Succeeded
from muxcore.core.protocol import EndedAttempt, Slot
from muxcore.errors import (
    CallCancelledError,
    ClosedError,
    MultiplexerError,
    StreamInterruptedError,
)
from muxcore.shell.call.attempts import OpenStream, succeeded
from muxcore.shell.call.member import Member
from muxcore.shell.call.reports import report
from muxcore.shell.http.cancel_scope import CancelScope, Deadlines
from muxcore.shell.http.transport import TransportError
from muxcore.shell.pool.pool import Pool
from muxcore.shell.pool.waiter import Waiter


@frozen(eq=False)
class Running:
    """A stream that has come to its first content, or is whole without any."""

    pool: Pool
    deadlines: Deadlines
    waiter: Waiter
    scope: CancelScope
    member: Member
    slot: Slot
    source: OpenStream
    attempts: tuple[AttemptReport, ...]
    conversation: str | None

    def reply(self, outcome: End | None) -> Reply:
        """Return what has arrived so far; `outcome` is how it ended, None while it runs."""
        attempts = self.attempts
        if outcome is not None:
            *others, last = attempts
            rewrites = (*last.rewrites, *self.source.remarks)
            attempts = (*others, report(EndedAttempt(self.slot, outcome), rewrites))
        reply = self.source.assembler.reply()
        return evolve(reply, model=self.slot.endpoint.alias, attempts=attempts)

    def end(self, outcome: End) -> None:
        """Record how it ended, once, and give everything back. Safe to be done again."""
        try:
            if self.waiter.slot is not None:
                self.pool.record(outcome)
                self.waiter.slot = None
        finally:
            self.release()
            self.pool.settle(self.waiter)

    def release(self) -> None:
        """Give the connection back; touches no lock of the pool."""
        self.deadlines.remove(self.scope)
        self.source.close()

    def succeeded(self) -> Succeeded:
        outcome = succeeded(self.slot, self.source.assembler.reply())
        return evolve(outcome, conversation=self.conversation)

    def cancelled(self, reason: CancelReason) -> Cancelled:
        return Cancelled(self.slot.endpoint.alias, self.slot.attempt, reason)


class Stream:
    """A streaming call. Use it as a context manager: the call is made on entering.

    Errors before the first content are raised there. Iterating gives `Chunk`s; a failure
    after the first content raises `StreamInterruptedError`. `reply` is the whole answer
    after the end, and what has arrived so far before it.
    """

    def __init__(self, begin: Callable[[], Running]) -> None:
        self._begin = begin
        self._running: Running | None = None
        self._outcome: End | None = None
        """How it ended, once all is given back."""
        self._error: MultiplexerError | None = None

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
        running = self._running or self._entered()
        if self._outcome is not None:
            # An answer that was not whole does not end cleanly by being asked twice.
            raise self._error or StopIteration
        try:
            chunk = running.source.next(running.member)
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
        if whole:
            self._end(running, running.succeeded())
            raise StopIteration
        self._error = self._interrupted(running, text)
        raise self._error

    @property
    def reply(self) -> Reply:
        return self._entered().reply(self._outcome)

    def close(self) -> None:
        """End the stream where it is. What the model had completed counts as a success."""
        running = self._running
        if running is None or self._outcome is not None:
            return
        if running.source.complete:
            self._end(running, running.succeeded())
        else:
            self._error = MultiplexerError("the stream was closed before its end")
            self._end(running, running.cancelled(CancelReason.LEFT))

    def __del__(self) -> None:
        running = self._running
        if running is not None and self._outcome is None:
            running.release()
            running.pool.abandon(running.waiter)

    def _entered(self) -> Running:
        if self._running is None:
            raise MultiplexerError(
                "use a stream in a `with` statement: the call is made there"
            )
        return self._running

    def _end(self, running: Running, outcome: End) -> None:
        # Known as ended only when it is: an interrupt before leaves it to `__exit__`.
        running.end(outcome)
        self._outcome = outcome

    def _interrupted(self, running: Running, text: str) -> MultiplexerError:
        reason = running.scope.reason
        alias, attempt = running.slot.endpoint.alias, running.slot.attempt
        if isinstance(reason, CancelReason):
            self._end(running, running.cancelled(reason))
        else:
            self._end(running, Failed(alias, attempt, message=text))
        if reason is CancelReason.CLOSED:
            return ClosedError()
        if reason is CancelReason.LEFT:
            return CallCancelledError()
        reply = running.reply(self._outcome)
        return StreamInterruptedError(
            f"{alias} broke off in the middle of its answer: {text}", reply, reply.attempts
        )
