"""`Multiplexer`: a pool of models behind every call."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from attrs import evolve, frozen

from muxcore.chat import AttemptReport, Chat, Reply
from muxcore.core.migration import migrate
from muxcore.core.outcomes import CancelReason, Failed, Fault, Reset, Responding
from muxcore.core.protocol import Attempt, CallServed
from muxcore.core.records import Call, PoolState
from muxcore.core.status import Status, status_of
from muxcore.core.strategy import Strategy
from muxcore.errors import ClosedError, MultiplexerError, StrategyError
from muxcore.shell import clock
from muxcore.shell.call.cancellation import Cancellation
from muxcore.shell.call.facts import begins_turn, conversation_of, estimated_tokens
from muxcore.shell.call.member import Member
from muxcore.shell.http.cancel_scope import CancelScope, Deadlines
from muxcore.shell.pool.pool import Pool
from muxcore.shell.pool.waiter import Waiter

if TYPE_CHECKING:
    from muxcore.config import Config
    from muxcore.shell.call.attempts import Attempted
    from muxcore.shell.call.stream import Running, Stream

Messages = Sequence[Mapping[str, Any]]


@frozen
class CallOptions:
    """What a caller asks of a call, beside the chat itself. `timeout` is in seconds.

    `patience` is for how long it may wait for a model, where that is less than the policy says.
    """

    session: str | None = None
    timeout: float | None = None
    model: str | None = None
    cancellation: Cancellation | None = None
    patience: timedelta | None = None


class Multiplexer:
    """A pool of models behind every call; safe to share between threads.

    Make one with `from_config`. Use it as a context manager, or `close` it.
    """

    def __init__(
        self,
        members: Sequence[Member],
        strategy: Strategy,
        state: PoolState,
        *,
        mode: str,
        call_timeout: timedelta,
        enabled: bool = True,
        origin: str = "",
    ) -> None:
        self._members = {member.endpoint.alias: member for member in members}
        self._pool = Pool(state, strategy)
        self._mode = mode
        self._enabled = enabled
        self._call_timeout = call_timeout.total_seconds()
        self._origin = origin
        self._measures = _measures(members, strategy)
        self._deadlines = Deadlines()
        self._closed = False
        weakref.finalize(self, self._deadlines.retire)
        _ALL.add(self)

    @classmethod
    def from_config(
        cls,
        source: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
        *,
        env: Mapping[str, str] | None = None,
    ) -> Self:
        """Make one from a file, a mapping of the same shape, a `Config`, or vibe's own file.

        `env` defaults to the process's environment. Raise `ConfigError` with all faults.
        """
        from muxcore.shell.call.factory import parts_of  # noqa: PLC0415 - brings cattrs and tomli

        return cls(**parts_of(source, env))

    def complete(  # noqa: PLR0913 - the public contract
        self,
        messages: Messages,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: Any = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        session: str | None = None,
        timeout: float | None = None,
        *,
        model: str | None = None,
        cancellation: Cancellation | None = None,
        **extra: Any,
    ) -> Reply:
        """Return a whole answer of one model of the pool.

        `session` names what the call belongs to, so that a turn stays on one model.
        `timeout` (seconds) shortens the config's limit for the whole call. `model`, an alias,
        asks that model alone. `cancellation` lets another thread give the call up. `extra`
        goes into the request's body as it is.

        Raise `RequestRejectedError` when the request is at fault, `PoolExhaustedError` when
        no model could serve in time, `StrategyError` when the mode is broken.
        """
        chat = Chat(messages, tools, tool_choice, temperature, max_tokens, extra=extra)
        return self.answer(chat, CallOptions(session, timeout, model, cancellation))

    def stream(  # noqa: PLR0913 - the public contract
        self,
        messages: Messages,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: Any = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        session: str | None = None,
        timeout: float | None = None,
        *,
        model: str | None = None,
        cancellation: Cancellation | None = None,
        **extra: Any,
    ) -> Stream:
        """Return a `Stream`, to be used in a `with` statement; arguments as for `complete`.

        Until the first content arrives a failing model is replaced unseen; after it, a
        failure raises `StreamInterruptedError` with the partial reply.
        """
        chat = Chat(messages, tools, tool_choice, temperature, max_tokens, extra=extra)
        return self.answer_in_chunks(
            chat, CallOptions(session, timeout, model, cancellation)
        )

    def answer(self, chat: Chat, asked: CallOptions) -> Reply:
        """Do as `complete` does. Here `chat.extra` may have members of any name."""
        from muxcore.shell.call.attempts import complete  # noqa: PLC0415 - brings requests

        attempted, reports = self._run(
            evolve(chat, stream=False) if chat.stream else chat,
            Waiter(),
            asked,
            complete,
            [],
        )
        assert attempted.reply is not None  # noqa: S101 - what `complete` brings with a success
        return evolve(attempted.reply, model=reports[-1].alias, attempts=reports)

    def answer_in_chunks(self, chat: Chat, asked: CallOptions) -> Stream:
        """Do as `stream` does. Here `chat.extra` may have members of any name."""
        from muxcore.shell.call.stream import Stream  # noqa: PLC0415 - brings requests

        streaming = evolve(chat, stream=True)
        return Stream(lambda: self._open(streaming, asked))

    def adopt(
        self,
        members: Sequence[Member],
        strategy: Strategy,
        state: PoolState,
        *,
        mode: str,
        call_timeout: timedelta,
        enabled: bool = True,
        origin: str = "",
    ) -> None:
        """Go on with the parts of another config; what stayed keeps its health (`carried`).

        Running calls run on, and are counted where they are; waiting ones choose anew.
        """
        former = self._members
        new_keys = {
            alias
            for member in members
            if (alias := member.endpoint.alias) in former
            and not former[alias].same_key(member)
        }
        going_on = {
            member.endpoint.alias: former[member.endpoint.alias]
            for member in members
            if member.endpoint.alias in former
            and former[member.endpoint.alias].goes_on_as(member)
        }
        # A call may have been granted one that is left out now, and be about to ask it.
        self._members = {**former, **{m.endpoint.alias: m for m in members}, **going_on}
        self._mode, self._enabled, self._origin = mode, enabled, origin
        self._call_timeout = call_timeout.total_seconds()
        self._measures = _measures(members, strategy)
        same_mode = strategy == self._pool.strategy
        endpoints = [candidate.endpoint for candidate in state.candidates]
        self._pool.adopt(
            strategy,
            lambda present: migrate(
                present, endpoints, state.policy, new_keys=new_keys, same_mode=same_mode
            ),
        )
        for alias, member in former.items():
            if alias not in going_on:
                member.close()

    def status(self) -> Status:
        """Return what `/mux` shows; `str()` of it is that text."""
        now = clock.now()
        return status_of(self.state, self._mode, now, enabled=self._enabled)

    @property
    def state(self) -> PoolState:
        """The present state, for `select`, `explain` and for looking at."""
        return self._pool.state

    def reset(self, alias: str | None = None) -> None:
        """Re-enable one model, or all. Raise `MultiplexerError` for an unknown alias."""
        if alias is not None:
            self._expect_known(alias)
        self._pool.record(Reset(alias))

    def close(self) -> None:
        """End everything: running calls raise `MultiplexerError("closed")`, as later ones."""
        self._closed = True
        self._pool.close()
        self._deadlines.close()
        for member in self._members.values():
            member.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        aliases = (candidate.endpoint.alias for candidate in self.state.candidates)
        return f"<Multiplexer {self._mode}: {', '.join(aliases)}>"

    def _open(self, chat: Chat, asked: CallOptions) -> Running:
        from muxcore.shell.call.attempts import open_stream  # noqa: PLC0415 - brings requests
        from muxcore.shell.call.stream import Running  # noqa: PLC0415

        waiter = Waiter()
        last: list[tuple[Attempt, CancelScope]] = []
        try:
            attempted, reports = self._run(chat, waiter, asked, open_stream, last)
            assert attempted.stream is not None  # noqa: S101 - what `open_stream` brings
            [(step, scope)] = last
            running = Running(
                self._pool,
                self._deadlines,
                waiter,
                scope,
                self._members[step.slot.endpoint.alias],
                step.slot,
                attempted.stream,
                reports,
                step.call.conversation,
            )
            self._pool.own(running, waiter)
        except BaseException:
            # An interrupt after the first content: nobody is there to take the stream.
            self._pool.settle(waiter)
            for _, scope in last:
                self._give_up(scope)
            raise
        return running

    def _run(
        self,
        chat: Chat,
        waiter: Waiter,
        asked: CallOptions,
        attempt_at: Callable[..., Attempted],
        last: list[tuple[Attempt, CancelScope]],
    ) -> tuple[Attempted, tuple[AttemptReport, ...]]:
        """Drive one call; return its last attempt, and all reports.

        `last` holds what the last attempt ran under, whatever is raised.
        """
        from muxcore.shell.call.reports import error_of, report  # noqa: PLC0415
        from muxcore.shell.call.runner import run_call  # noqa: PLC0415 - brings requests

        seconds = self._admitted(asked, waiter)
        call_limit = clock.elapsed() + seconds
        call = self._described(chat, asked, clock.now() + timedelta(seconds=seconds))

        def attempt(step: Attempt) -> Attempted:
            member = self._members[step.slot.endpoint.alias]
            scope = CancelScope(clock.elapsed() + member.limits.attempt, call_limit)
            last[:] = [(step, scope)]
            try:
                self._deadlines.add(scope)
                if asked.cancellation is not None:
                    asked.cancellation.watch_attempt(scope)
                ask = partial(attempt_at, member, step.slot, chat, scope)
                attempted = _with_the_present_key(member, ask)
            except BaseException:
                self._give_up(scope)
                raise
            if isinstance(attempted.outcome, Responding):
                # From its first content on, only silence and the call's end limit it.
                scope.attempt_limit = scope.call_limit
            else:
                self._deadlines.remove(scope)
            return attempted

        try:
            ending, attempts = run_call(self._pool, waiter, call, attempt)
        except StrategyError as error:
            raise self._placed(error) from error.__cause__
        reports = tuple(
            report(tried, attempted.rewrites)
            for tried, attempted in zip(ending.trail, attempts, strict=True)
        )
        if not isinstance(ending, CallServed):
            raise error_of(ending, reports, [attempted.status for attempted in attempts])
        return attempts[-1], reports

    def _admitted(self, asked: CallOptions, waiter: Waiter) -> float:
        """Begin a call; return how long it may take, in seconds."""
        if self._closed:
            raise ClosedError
        if asked.model is not None:
            self._expect_known(asked.model)
        if asked.cancellation is not None:
            asked.cancellation.watch_over(self._pool, waiter)
        if asked.timeout is None:
            return self._call_timeout
        if math.isnan(asked.timeout):
            raise ValueError("timeout is not a number (nan), expected seconds")
        return min(asked.timeout, self._call_timeout)

    def _give_up(self, scope: CancelScope) -> None:
        """End an attempt that nobody waits for any more."""
        self._deadlines.remove(scope)
        scope.cancel(CancelReason.LEFT)

    def _after_fork(self) -> None:
        """In a forked child: begin with nothing under way, and leave the parent's be."""
        self._deadlines.after_fork()
        for member in self._members.values():
            member.after_fork()
        self._pool.after_fork()

    def _placed(self, error: StrategyError) -> StrategyError:
        """Say where a mode is from that is at fault: the core knows no more than its class."""
        return StrategyError(f"{error} ({self._origin})") if self._origin else error

    def _described(self, chat: Chat, asked: CallOptions, deadline: datetime) -> Call:
        return Call(
            only=asked.model,
            conversation=conversation_of(asked.session, chat.messages),
            new_turn=begins_turn(chat.messages),
            prompt_tokens=estimated_tokens(chat) if self._measures else None,
            deadline=deadline,
            max_wait=asked.patience,
        )

    def _expect_known(self, alias: str) -> None:
        aliases = [candidate.endpoint.alias for candidate in self.state.candidates]
        if alias not in aliases:
            known = ", ".join(aliases)
            raise MultiplexerError(
                f"there is no model {alias!r} in the pool (known: {known})"
            )


_ALL: weakref.WeakSet[Multiplexer] = weakref.WeakSet()


def _after_fork() -> None:
    for multiplexer in tuple(_ALL):
        multiplexer._after_fork()  # noqa: SLF001 - it is this module's own


# Where there is no fork, there is nothing to register.
getattr(os, "register_at_fork", dict)(after_in_child=_after_fork)


def _measures(members: Sequence[Member], strategy: Strategy) -> bool:
    """Whether anybody wants to know how large a prompt is."""
    return any(member.endpoint.context_window for member in members) or bool(
        getattr(strategy, "needs_prompt_tokens", False)
    )


def _with_the_present_key(member: Member, ask: Callable[[], Attempted]) -> Attempted:
    """Ask; if the key is refused and another is to be found now, ask once more with that."""
    key = member.key
    attempted = ask()
    match attempted.outcome:
        case Failed(kind=Fault.AUTH) if member.renew_key(key):
            return ask()
        case _:
            return attempted
