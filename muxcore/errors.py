"""The exceptions of this package. None of them holds a key."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # A command that makes no call starts without them.
    from muxcore.chat import AttemptReport, Reply


class MultiplexerError(Exception):
    """Any error of this package, also raised by calls on a closed multiplexer."""

    call_id: str = ""
    """The id of the call that it ended: `vibe-mux why --call` explains it. Empty for none."""


class ClosedError(MultiplexerError):
    """The multiplexer is closed, or was closed during the call."""

    def __init__(self, message: str = "closed") -> None:
        super().__init__(message)


class CallCancelledError(MultiplexerError):
    """Another thread cancelled the call."""

    def __init__(self, message: str = "cancelled") -> None:
        super().__init__(message)


class InvalidArgumentError(MultiplexerError, ValueError):
    """An argument of a call is wrong. It says which, and what was expected."""


class ConfigError(MultiplexerError):
    """The config cannot be used. `problems` holds each mistake as one text; str() has all.

    `warnings` holds what alone would not stop it, as `Config.warnings` does. `excerpt` shows the
    place of a syntax error, with a caret below it.
    """

    def __init__(
        self, problems: Sequence[str], warnings: Sequence[str] = (), excerpt: str = ""
    ) -> None:
        self.problems = tuple(problems)
        self.warnings = tuple(warnings)
        self.excerpt = excerpt
        super().__init__("\n".join([*self.problems, *([excerpt] if excerpt else [])]))

    def __reduce__(self) -> tuple[object, ...]:
        # An exception is copied by its arguments, which are not these.
        return type(self), (self.problems,), self.__dict__


class CallError(MultiplexerError):
    """A call ended without an answer. `attempts` has a report of each attempt."""

    def __init__(self, message: str, attempts: Sequence[AttemptReport] = ()) -> None:
        self.attempts = tuple(attempts)
        super().__init__(message)


class RequestRejectedError(CallError):
    """The models that were asked refused the request. `status` is the first one's HTTP status.

    At `retry_at` (UTC) a model which is disabled or busy now may take it; None if none may.
    """

    def __init__(
        self,
        message: str,
        attempts: Sequence[AttemptReport] = (),
        status: int | None = None,
        retry_at: datetime | None = None,
    ) -> None:
        self.status = status
        self.retry_at = retry_at
        super().__init__(message, attempts)


class PoolExhaustedError(CallError):
    """No model could serve in time. At `retry_at` (UTC) one may be tried; None: unknown."""

    def __init__(
        self,
        message: str,
        attempts: Sequence[AttemptReport] = (),
        retry_at: datetime | None = None,
    ) -> None:
        self.retry_at = retry_at
        super().__init__(message, attempts)


class StreamInterruptedError(CallError):
    """A stream failed after its first content. `reply` holds what had arrived."""

    def __init__(
        self, message: str, reply: Reply, attempts: Sequence[AttemptReport] = ()
    ) -> None:
        self.reply = reply
        super().__init__(message, attempts)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.reply), self.__dict__


class StrategyError(MultiplexerError):
    """A mode raised, or picked an endpoint it was not shown. It names the mode."""


class BoardBusyError(MultiplexerError):
    """The board cannot do it at this moment; the same call may work soon."""


class BoardGoneError(MultiplexerError):
    """The board cannot be used. The text says why, and what to do."""
