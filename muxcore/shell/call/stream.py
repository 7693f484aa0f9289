"""One stream through the pool, as the caller sees it."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from muxcore.chat import Chunk, Reply
from muxcore.core.outcomes import Cancelled, CancelReason, End, Failed
from muxcore.core.protocol import EndedAttempt
from muxcore.errors import (
    CallCancelledError,
    ClosedError,
    MultiplexerError,
    StreamInterruptedError,
)
from muxcore.shell.call.attempts import Answered, Opened, read_more, succeeded
from muxcore.shell.call.decoding import BrokenAnswerError
from muxcore.shell.call.reports import report
from muxcore.shell.call.runner import CallRun
from muxcore.shell.http.transport import TransportError


class Stream:
    """A streaming call. Use it as a context manager: the call is made on entering.

    Errors before the first content are raised there. Iteration yields `Chunk`s; a failure
    after the first content raises `StreamInterruptedError`. `reply` is the whole answer
    after the end, and what has arrived so far before it.
    """

    def __init__(self, call: CallRun) -> None:
        self._call = call
        self._answered: Answered[Opened] | None = None
        self._broken: str | None = None
        """Why the stream failed; chunks that came before are returned first."""
        self._outcome: End | None = None
        """How it ended, once its slot and connection are given back."""
        self._error: MultiplexerError | None = None

    def __enter__(self) -> Self:
        if self._answered is not None:
            raise MultiplexerError("a stream can be entered once")
        self._answered = self._call.open()
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
        answered = self._answered or self._entered()
        if self._outcome is not None:
            # Every later call raises the same error.
            raise self._error or StopIteration
        _, decoder = answered.answer
        try:
            if decoder.chunks or self._read(answered):
                return decoder.chunks.popleft()
        except BaseException:
            self.close()
            raise
        whole = decoder.whole if self._broken is None else decoder.complete
        if whole:
            self._end(answered, self._succeeded(answered))
            raise StopIteration
        self._error = self._interrupt(answered)
        self._error.call_id = self._call.call_id
        raise self._error

    @property
    def reply(self) -> Reply:
        answered = self._entered()
        _, decoder = answered.answer
        attempts = self._call.reports
        if self._outcome is not None:
            *others, last = attempts
            rewrites = (*last.rewrites, *decoder.warnings())
            ended = EndedAttempt(answered.slot, self._outcome)
            attempts = (*others, report(ended, rewrites))
        alias = answered.slot.endpoint.alias
        return decoder.reply().of_call(self._call.call_id, alias, attempts)

    def close(self) -> None:
        """End the stream where it is. An answer that was complete counts as a success."""
        answered = self._answered
        if answered is None or self._outcome is not None:
            return
        _, decoder = answered.answer
        if decoder.complete:
            self._end(answered, self._succeeded(answered))
        else:
            self._error = MultiplexerError("the stream was closed before its end")
            slot = answered.slot
            self._end(answered, Cancelled(slot.endpoint.alias, slot.attempt))

    def __del__(self) -> None:
        if self._answered is not None and self._outcome is None:
            self._call.abandon(self._answered)

    def _entered(self) -> Answered[Opened]:
        if self._answered is None:
            raise MultiplexerError(
                "use a stream in a `with` statement: the call is made there"
            )
        return self._answered

    def _read(self, answered: Answered[Opened]) -> bool:
        """Read until there is a chunk; return False at the end."""
        exchange, decoder = answered.answer
        while self._broken is None and not decoder.chunks:
            try:
                if not read_more(exchange, decoder):
                    break
            except (BrokenAnswerError, TransportError) as error:
                self._broken = answered.member.masked(str(error))
        return bool(decoder.chunks)

    def _end(self, answered: Answered[Opened], outcome: End) -> None:
        # Set last: after an interrupt in `end`, `__exit__` calls it again.
        self._call.end(answered, outcome)
        self._outcome = outcome

    def _succeeded(self, answered: Answered[Opened]) -> End:
        _, decoder = answered.answer
        return succeeded(self._call.call, answered.slot, decoder.reply())

    def _interrupt(self, answered: Answered[Opened]) -> MultiplexerError:
        """End a stream that broke in the middle; return the error for the caller."""
        reason, slot = answered.scope.reason, answered.slot
        alias = slot.endpoint.alias
        text = self._broken or "the stream ended without a finish_reason"
        if isinstance(reason, CancelReason):
            self._end(answered, Cancelled(alias, slot.attempt, reason))
        else:
            self._end(answered, Failed(alias, slot.attempt, message=text))
        if reason is CancelReason.CLOSED:
            return ClosedError()
        if reason is CancelReason.LEFT:
            return CallCancelledError()
        reply = self.reply
        return StreamInterruptedError(
            f"{alias} broke off in the middle of its answer: {text}", reply, reply.attempts
        )
