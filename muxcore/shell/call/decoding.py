"""From the bytes of a stream to its chunks: no I/O, only what is fed to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Self

from muxcore.assembling import Assembler
from muxcore.chat import Chunk, Reply
from muxcore.core.outcomes import Fault
from muxcore.plugins.backend import BadReplyError, Decoder, Failure, ServerEvent
from muxcore.shell.call.reports import truncated_prompt_warning
from muxcore.shell.call.wrapping import LastFinish, chunks_of, is_whole
from muxcore.shell.http.events import LARGEST_BODY, EventParser, EventTooLongError


class BrokenAnswerError(Exception):
    """An answer is a failure; `status` is its HTTP status, where that says so."""

    def __init__(self, failure: Failure, status: int | None = None) -> None:
        self.failure = failure
        self.status = status
        super().__init__(failure.message)


def broken(message: str) -> BrokenAnswerError:
    """Return the error for an answer which another attempt may get right."""
    return BrokenAnswerError(Failure(Fault.TRANSIENT, message=message))


def broken_by(dialect: str, error: Exception) -> BrokenAnswerError:
    """Return the error for an answer at which a backend raised something unexpected."""
    return broken(f"the backend {dialect} raised {type(error).__name__}: {error}")


class _Whole:
    """The decoder of a stream which is whole from the beginning."""

    done = ended = True

    def feed(self, event: ServerEvent) -> Iterable[Chunk]:  # noqa: ARG002 - there is none
        return ()


class StreamDecoder:
    """Decodes one stream. Feed it bytes, and take what it decodes out of `chunks`."""

    def __init__(
        self,
        decoder: Decoder,
        dialect: str,
        *,
        finishes: bool,
    ) -> None:
        self.chunks: deque[Chunk] = deque()
        self.ended = False
        """Whether the stream has said that nothing more will come."""
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
        """Return the decoder of a stream which came as one whole answer."""
        decoder = cls(_Whole(), dialect, finishes=True)
        decoder.ended = True
        for chunk in chunks_of(reply):
            decoder._assembler.add(chunk)
            decoder.chunks.append(chunk)
        return decoder

    def feed(self, data: bytes) -> None:
        """Decode what has arrived. Raise `BrokenAnswerError`, after what came before it."""
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
        """Decode what a clean end of the stream leaves. Raise `BrokenAnswerError`."""
        self.ended = True
        self._decode(filter(is_whole, self._parser.end()))

    def flush(self) -> None:
        """Pass on the chunks that were held back: no more will come."""
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
        """Return what the caller should know of the whole answer."""
        if self.prompt_tokens is None:
            return ()
        return truncated_prompt_warning(self.prompt_tokens, self.reply().usage)
