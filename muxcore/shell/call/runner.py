"""Run one call in a thread: the driver of `loop` that sleeps and makes HTTP attempts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias, TypeVar, assert_never

from muxcore.chat import AttemptReport, Chat, Reply
from muxcore.core.entries import CallResult
from muxcore.core.outcomes import (
    Cancelled,
    CancelReason,
    End,
    Failed,
    Fault,
    Responding,
    Succeeded,
)
from muxcore.core.protocol import Attempt, CallEnding
from muxcore.core.records import Call
from muxcore.core.selection import FRESH
from muxcore.errors import MultiplexerError, StrategyError
from muxcore.shell import clock
from muxcore.shell.call.arguments import (
    CallOptions,
    call_seconds,
    check_chat,
    check_encodable,
    check_known,
)
from muxcore.shell.call.attempts import Answered, Opened, Unanswered, complete, open_stream
from muxcore.shell.call.facts import begins_turn, conversation_of, estimated_tokens
from muxcore.shell.call.loop import GiveWay, call_loop
from muxcore.shell.call.member import Member, Runtime
from muxcore.shell.call.reports import error_of, report
from muxcore.shell.http.cancel_scope import CancelScope
from muxcore.shell.pool.pool import Nap
from muxcore.shell.pool.waiter import Waiter

T = TypeVar("T")
MakeAttempt: TypeAlias = Callable[
    [Member, Attempt, Chat, CancelScope], Answered[T] | Unanswered
]


class CallRun:
    """One call, from its first choice to its end. Use it once, in one thread."""

    def __init__(self, runtime: Runtime, chat: Chat, options: CallOptions) -> None:
        self.call = FRESH
        """The call as it was when the last attempt was chosen."""
        self.reports: tuple[AttemptReport, ...] = ()
        self._runtime = runtime
        self._chat = chat
        self._options = options
        self._waiter = Waiter()
        self._limit = 0.0
        """When the call's time is over, as a time of `clock.elapsed`."""
        self._scope: CancelScope | None = None
        """The scope of the last attempt."""

    @property
    def call_id(self) -> str:
        """The id of the call, from its first choice on."""
        return self._waiter.id

    def complete(self) -> Reply:
        """Make attempts until a model answers. Raise as `Multiplexer.complete` does."""
        try:
            answered = self._run(complete)
        except MultiplexerError as error:
            error.call_id = self.call_id
            raise
        alias = answered.slot.endpoint.alias
        return answered.answer.of_call(self.call_id, alias, self.reports)

    def open(self) -> Answered[Opened]:
        """Make attempts until a stream has its first content.

        The stream then belongs to the caller, which ends it with `end` or `abandon`.
        """
        try:
            answered = self._run(open_stream)
            self._runtime.pool.own(self, self._waiter)
        except BaseException as error:
            if isinstance(error, MultiplexerError):
                error.call_id = self.call_id
            # An interrupt after the first content: no caller will take the stream.
            self._runtime.pool.settle(self._waiter)
            self._give_up()
            raise
        return answered

    def end(self, answered: Answered[Opened], outcome: End) -> None:
        """Record once how the stream ended; give back its slot and connection. Repeatable."""
        pool = self._runtime.pool
        try:
            if self._waiter.slot is not None:
                pool.record(outcome)
                self._waiter.slot = None
                self._waiter.result = _result_of(outcome)
        finally:
            self._release(answered)
            pool.settle(self._waiter)

    def abandon(self, answered: Answered[Opened]) -> None:
        """Do as `end` does, in the garbage collector, where no lock may be taken."""
        self._release(answered)
        self._runtime.pool.abandon(self._waiter)

    def _release(self, answered: Answered[Opened]) -> None:
        """Give the connection back."""
        self._runtime.deadlines.remove(answered.scope)
        exchange, decoder = answered.answer
        exchange.close(drain=decoder.ended)

    def _run(self, make_attempt: MakeAttempt[T]) -> Answered[T]:
        """Drive the loop to its end; return the attempt that answered, or raise the call's error."""
        call = self._begin()
        if self._runtime.board is not None:
            self._runtime.board.freshen()
        attempts: list[Answered[T] | Unanswered] = []
        answered: Answered[T] | None = None
        loop = call_loop(self._runtime.pool, self._waiter, call)
        try:
            need = next(loop)
            while True:
                match need:
                    case Attempt():
                        self.call = need.call
                        attempt = self._attempt(need, make_attempt)
                        attempts.append(attempt)
                        if isinstance(attempt, Answered):
                            answered = attempt
                        need = loop.send(attempt.outcome)
                    case GiveWay():
                        need = next(loop)
                    case Nap():
                        need = loop.send(self._waiter.park(need.seconds))
                    case _ as never:
                        assert_never(never)
        except StopIteration as stop:
            ending: CallEnding = stop.value
        except StrategyError as error:
            origin = self._runtime.origin
            # The core knows only the class of the mode.
            placed = StrategyError(f"{error} ({origin})") if origin else error
            raise placed from error.__cause__
        finally:
            loop.close()
        served_by = "" if answered is None else answered.slot.endpoint.alias
        self.reports = tuple(
            report(tried, attempt.rewrites, served_by)
            for tried, attempt in zip(ending.trail, attempts, strict=True)
        )
        if answered is None:
            statuses = [a.status if isinstance(a, Unanswered) else None for a in attempts]
            raise error_of(ending, self.reports, statuses)
        return answered

    def _begin(self) -> Call:
        """Check the arguments of the caller, and set the deadline."""
        runtime, chat, options = self._runtime, self._chat, self._options
        check_chat(chat)
        if options.model is not None:
            check_known(options.model, runtime.pool.state)
        if options.cancellation is not None:
            options.cancellation.attach_call(runtime.pool, self._waiter)
        seconds = call_seconds(options, runtime.call_timeout)
        self._limit = clock.elapsed() + seconds
        try:
            conversation = conversation_of(options.session, chat)
            size = estimated_tokens(chat) if self._measures_prompt() else None
        except (TypeError, ValueError, RecursionError):
            # A chat that is not even text is no JSON either: this says where.
            check_encodable(chat)
            raise
        return Call(
            only=options.model,
            conversation=conversation,
            new_turn=begins_turn(chat.messages),
            prompt_tokens=size,
            deadline=clock.now() + timedelta(seconds=seconds),
            max_wait=options.patience,
        )

    def _measures_prompt(self) -> bool:
        # What answers teach may change this at any time.
        if self._runtime.measures_prompts:
            return True
        for candidate in self._runtime.pool.state.candidates:
            if candidate.learnt_window is not None or candidate.headroom is not None:
                return True
        return False

    def _attempt(
        self, step: Attempt, make_attempt: MakeAttempt[T]
    ) -> Answered[T] | Unanswered:
        """Make an attempt within its limits; repeat it if its refused key has been replaced."""
        runtime = self._runtime
        member = runtime.members[step.slot.endpoint.alias]
        scope = CancelScope(clock.elapsed() + member.limits.attempt, self._limit)
        self._scope = scope
        try:
            runtime.deadlines.add(scope)
            if self._options.cancellation is not None:
                self._options.cancellation.attach_attempt(scope)
            key = member.key
            attempt = make_attempt(member, step, self._chat, scope)
            match attempt.outcome:
                case Failed(kind=Fault.AUTH) if member.renew_key(key):
                    attempt = make_attempt(member, step, self._chat, scope)
        except BaseException:
            self._give_up()
            raise
        if isinstance(attempt.outcome, Responding):
            # From its first content on, only silence and the call's end limit it.
            scope.attempt_limit = scope.call_limit
        else:
            runtime.deadlines.remove(scope)
        return attempt

    def _give_up(self) -> None:
        """Cancel the last attempt: its caller has left."""
        if self._scope is not None:
            self._runtime.deadlines.remove(self._scope)
            self._scope.cancel(CancelReason.LEFT)


def _result_of(outcome: End) -> CallResult:
    """Return the result of a call whose stream ended after its first content."""
    match outcome:
        case Succeeded():
            return CallResult.SERVED
        case Cancelled():
            return CallResult.CANCELLED
        case _:
            return CallResult.BROKEN
