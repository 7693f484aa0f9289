"""Decode the bytes of a stream to chunks, without I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Self

from muxcore.assembling import Assembler
from muxcore.chat import Chunk, Reply
from muxcore.core.outcomes import Fault
from muxcore.plugins.backend import BadReplyError, Decoder, Failure, ServerEvent
from muxcore.shell.call.answer_form import LastFinish, chunks_of, is_whole
from muxcore.shell.call.reports import truncated_prompt_warning
from muxcore.shell.http.events import LARGEST_BODY, EventParser, EventTooLongError


class BrokenAnswerError(Exception):
    """A response that is a failure; `status` is its HTTP status, if that shows it."""

    def __init__(self, failure: Failure, status: int | None = None) -> None:
        self.failure = failure
        self.status = status
        super().__init__(failure.message)


def broken(message: str) -> BrokenAnswerError:
    """Return the error for a broken answer, which counts as a transient failure."""
    return BrokenAnswerError(Failure(Fault.TRANSIENT, message=message))


def broken_by(dialect: str, error: Exception) -> BrokenAnswerError:
    """Return the error for an answer on which a backend raised an unexpected error."""
    return broken(f"the backend {dialect} raised {type(error).__name__}: {error}")


class _Whole:
    """The decoder of a stream whose answer came whole."""

    done = ended = True

    def feed(self, event: ServerEvent) -> Iterable[Chunk]:  # noqa: ARG002 - no event comes
        return ()


class StreamDecoder:
    """Decodes one stream. Feed it bytes, and take the decoded chunks from `chunks`."""

    def __init__(
        self,
        decoder: Decoder,
        dialect: str,
        *,
        finishes: bool,
    ) -> None:
        self.chunks: deque[Chunk] = deque()
        self.ended = False
        """Whether the stream has announced its end."""
        self._decoder = decoder
        self._dialect = dialect
        self._finishes = finishes
        """Whether the provider sends a finish_reason."""
        self.prompt_tokens: int | None = None
        """The size of the prompt, if its server may have truncated it (`HttpRequest`)."""
        self._size = 0
        self._parser = EventParser()
        self._assembler = Assembler()
        self._finish = LastFinish()

    @classmethod
    def of_whole(cls, reply: Reply, dialect: str) -> Self:
        """Return a decoder for an answer that came whole."""
        decoder = cls(_Whole(), dialect, finishes=True)
        decoder.ended = True
        for chunk in chunks_of(reply):
            decoder._assembler.add(chunk)
            decoder.chunks.append(chunk)
        return decoder

    def feed(self, data: bytes) -> None:
        """Decode `data`. Raise `BrokenAnswerError` after adding the chunks before the fault."""
        self._size += len(data)
        if self._size > LARGEST_BODY:
            self.flush()
            raise broken(f"the answer is longer than {LARGEST_BODY} bytes")
        try:
            self._decode(self._parser.feed(data))
        except EventTooLongError as error:
            self.flush()
            raise broken(str(error)) from None

    def end(self) -> None:
        """Decode the rest after a clean end of the stream. Raise `BrokenAnswerError`."""
        self.ended = True
        self._decode(filter(is_whole, self._parser.end()))

    def flush(self) -> None:
        """Add the chunks that were held back, at the end of the stream."""
        self.chunks += self._finish.end()

    def _decode(self, events: Iterable[ServerEvent]) -> None:
        decoder, add, pass_on = self._decoder, self._assembler.add, self._finish.pass_on
        try:
            for event in events:
                for chunk in decoder.feed(event):
                    add(chunk)
                    self.chunks += pass_on(chunk)
                if decoder.ended:
                    self.ended = True
                    break
        except BadReplyError as error:
            self.flush()
            failure = error.failure or Failure(Fault.TRANSIENT, message=str(error))
            raise BrokenAnswerError(failure) from None
        except Exception as error:  # noqa: BLE001 - a third party's decoder may raise anything
            self.flush()
            raise broken_by(self._dialect, error) from None
        if self.ended:
            self.flush()

    @property
    def whole(self) -> bool:
        """Whether the answer is complete, if the stream ends cleanly here."""
        return self._decoder.done

    @property
    def complete(self) -> bool:
        """Whether the answer is complete, however the stream ends.

        Without a finish_reason, only a clean end shows that it is.
        """
        return self._decoder.done and (self._finishes or self._decoder.ended)

    def reply(self) -> Reply:
        """Return what has arrived so far, as one answer."""
        return self._assembler.reply()

    def warnings(self) -> tuple[str, ...]:
        """Return the warnings about the whole answer."""
        if self.prompt_tokens is None:
            return ()
        return truncated_prompt_warning(self.prompt_tokens, self.reply().usage)
