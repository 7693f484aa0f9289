"""What the caller of a call gets: a report of each attempt, warnings, and the error."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

from muxcore.chat import AttemptReport, Usage
from muxcore.core.outcomes import (
    Cancelled,
    CancelReason,
    Failed,
    RateLimited,
    Rejected,
    Responding,
    Succeeded,
)
from muxcore.core.protocol import (
    CallCancelled,
    CallEnding,
    CallExhausted,
    CallRejected,
    CallServed,
    EndedAttempt,
)
from muxcore.core.records import WaitReason
from muxcore.errors import (
    CallCancelledError,
    CallError,
    ClosedError,
    MultiplexerError,
    PoolExhaustedError,
    RequestRejectedError,
)
from muxcore.text import printable

FAR_BELOW = 0.5
"""Estimates are rough, but not by this factor."""


def report(
    ended: EndedAttempt, rewrites: tuple[str, ...] = (), served_by: str = ""
) -> AttemptReport:
    """Describe one attempt. `served_by` is the alias that served the call, or empty."""
    alias = ended.slot.endpoint.alias
    match ended.outcome:
        case Succeeded():
            return AttemptReport(alias, "succeeded", rewrites=rewrites)
        case Responding():
            return AttemptReport(alias, "responding", rewrites=rewrites)
        case Cancelled(reason=reason):
            return AttemptReport(alias, "cancelled", reason, rewrites)
        case RateLimited() | Failed() as outcome:
            return AttemptReport(
                alias, str(outcome.kind), printable(outcome.message), rewrites
            )
        case Rejected(kind=kind, message=message):
            return AttemptReport(alias, str(kind), printable(message), rewrites, served_by)
        case _ as never:
            assert_never(never)


def error_of(
    ending: CallEnding,
    attempts: Sequence[AttemptReport],
    statuses: Sequence[int | None],
) -> MultiplexerError:
    """Return the error to raise for this ending. `statuses` are those of the attempts."""
    match ending:
        case CallRejected(trail=trail, refusal=refusal, retry_at=retry_at):
            # Attempts before the refusal may have failed in other ways.
            place = next(i for i, tried in enumerate(trail) if tried.outcome is refusal)
            refused = attempts[place]
            text = f"{printable(refused.alias)} refused the request ({refused.outcome})"
            if refused.message:
                text += f": {refused.message}"
            return RequestRejectedError(text, attempts, statuses[place], retry_at)
        case CallExhausted(exhausted=exhausted):
            return _exhausted(exhausted.reason, attempts, exhausted.retry_at)
        case CallCancelled(cancelled=cancelled):
            return error_of_cancelled(cancelled.reason, attempts)
        case CallServed():
            raise TypeError("a call that was served has no error")
        case _ as never:
            assert_never(never)


def error_of_cancelled(
    reason: CancelReason, attempts: Sequence[AttemptReport]
) -> MultiplexerError:
    """Return the error that a cancelled call raises."""
    match reason:
        case CancelReason.CLOSED:
            return ClosedError()
        case CancelReason.LEFT:
            return CallCancelledError()
        case CancelReason.FORKED | CancelReason.LACKING:
            return MultiplexerError(f"the call cannot continue: {reason}")
        case CancelReason.CALL_TIME:
            return _exhausted(WaitReason.DEADLINE, attempts, None)
        case _ as never:
            assert_never(never)


def _exhausted(
    reason: WaitReason, attempts: Sequence[AttemptReport], retry_at: datetime | None
) -> CallError:
    text = f"no model could serve the call: {reason}"
    if reason is WaitReason.DEADLINE:
        text += " (its deadline, call_timeout_ms or timeout)"
    if retry_at is not None:
        text += f"; the next may be tried at {retry_at.astimezone():%H:%M:%S}"
    for attempt in attempts:
        text += f"\n  {printable(attempt.alias)}: {attempt.outcome}"
        if attempt.message:
            text += f": {attempt.message}"
    return PoolExhaustedError(text, attempts, retry_at)


def truncated_prompt_warning(expected: int | None, usage: Usage) -> tuple[str, ...]:
    """Warn if a server has read far less than was sent.

    `expected` is the estimated prompt size if the server is known to truncate, else None.
    """
    read = usage.prompt_tokens or 0
    if expected is None or not 0 < read < expected * FAR_BELOW:
        return ()
    text = f"the server read only {read} of about {expected} tokens: it cut the history's front"
    return (
        f"{text} (raise its context length; for Ollama OLLAMA_CONTEXT_LENGTH or num_ctx)",
    )
