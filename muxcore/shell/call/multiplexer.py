"""`Multiplexer`, the public class: a pool of models behind every call."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from attrs import evolve

from muxcore import shell
from muxcore.chat import Chat, Messages, Reply, Tools
from muxcore.core.entries import Configured
from muxcore.core.outcomes import Reset
from muxcore.core.records import PoolState
from muxcore.core.status import NO_TOTALS, Status, status_of
from muxcore.core.strategy import Strategy
from muxcore.shell import clock
from muxcore.shell.call.arguments import CallOptions, check_known
from muxcore.shell.call.cancellation import Cancellation
from muxcore.shell.call.member import Member, Runtime
from muxcore.shell.http.cancel_scope import Deadlines
from muxcore.shell.pool.pool import Pool

if TYPE_CHECKING:
    from muxcore.board.journal_file import JournalPlace
    from muxcore.config import Source
    from muxcore.explaining.story import Story
    from muxcore.journal.recent import Journal
    from muxcore.plugins.observer import Observer
    from muxcore.shell.call.stream import Stream
    from muxcore.shell.factory import ObserverSource, Parts
    from muxcore.shell.observing import Observing


class Multiplexer:
    """A pool of models behind every call; safe to share between threads.

    Make one with `from_config`. Use it as a context manager, or `close` it.
    """

    def __init__(self, parts: Parts) -> None:
        deadlines = Deadlines()
        self._mode = parts.mode
        self._enabled = parts.enabled
        self._runtime = Runtime(
            pool=Pool(
                parts.state, parts.strategy, mode=parts.strategy_name, options=parts.options
            ),
            deadlines=deadlines,
            members={member.endpoint.alias: member for member in parts.members},
            call_timeout=parts.call_timeout.total_seconds(),
            measures_prompts=_measures_prompts(parts.members, parts.strategy),
            origin=parts.origin,
        )
        weakref.finalize(self, deadlines.retire)
        self._sources: Sequence[ObserverSource] = ()
        self._watch(parts)
        self._share(parts)
        _ALL.add(self)

    @classmethod
    def from_config(
        cls,
        source: Source = None,
        *,
        env: Mapping[str, str] | None = None,
    ) -> Self:
        """Make one from a file, a mapping of the same shape, a `Config`, or vibe's own file.

        `env` defaults to the process's environment. Raise `ConfigError` with all problems.
        """
        return cls(shell.parts_of(source, env))

    def complete(  # noqa: PLR0913 - the public contract
        self,
        messages: Messages,
        tools: Tools | None = None,
        tool_choice: object = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        session: str | None = None,
        timeout: float | None = None,
        *,
        model: str | None = None,
        cancellation: Cancellation | None = None,
        **extra: object,
    ) -> Reply:
        """Return a whole answer of one model of the pool.

        `session` names the session of the call, so that a turn stays on one model.
        `timeout` (seconds) shortens the config's limit for the whole call. `model`, an alias,
        uses that model alone. `cancellation` lets another thread cancel the call. `extra`
        is added to the body of the request.

        Raise `InvalidArgumentError` for a wrong argument, `RequestRejectedError` when the
        request is at fault, `PoolExhaustedError` when no model could serve in time,
        `StrategyError` when the mode is broken.
        """
        chat = Chat(messages, tools, tool_choice, temperature, max_tokens, extra=extra)
        options = CallOptions(session, timeout, model, cancellation)
        return shell.CallRun(self._runtime, chat, options).complete()

    def stream(  # noqa: PLR0913 - the public contract
        self,
        messages: Messages,
        tools: Tools | None = None,
        tool_choice: object = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        session: str | None = None,
        timeout: float | None = None,
        *,
        model: str | None = None,
        cancellation: Cancellation | None = None,
        **extra: object,
    ) -> Stream:
        """Return a `Stream`, to be used in a `with` statement; arguments as for `complete`.

        Until the first content arrives a failing model is replaced unseen; after it, a
        failure raises `StreamInterruptedError` with the partial reply.
        """
        chat = Chat(messages, tools, tool_choice, temperature, max_tokens, extra=extra)
        return self.answer_in_chunks(
            chat, CallOptions(session, timeout, model, cancellation)
        )

    def answer(self, chat: Chat, options: CallOptions) -> Reply:
        """As `complete`, for a `Chat`; its `extra` may have members of any name."""
        chat = evolve(chat, stream=False) if chat.stream else chat
        return shell.CallRun(self._runtime, chat, options).complete()

    def answer_in_chunks(self, chat: Chat, options: CallOptions) -> Stream:
        """As `stream`, for a `Chat`; its `extra` may have members of any name."""
        streaming = evolve(chat, stream=True)
        return shell.Stream(shell.CallRun(self._runtime, streaming, options))

    def adopt(self, parts: Parts) -> None:
        """Continue with the parts of another config; endpoints in both keep their health.

        Calls under way continue on their endpoint; waiting calls choose again.
        """
        runtime = self._runtime
        former = dict(runtime.members)
        coming = {member.endpoint.alias: member for member in parts.members}
        new_keys = {
            alias
            for alias, member in coming.items()
            if alias in former and not former[alias].same_key(member)
        }
        kept = {
            alias: former[alias]
            for alias, member in coming.items()
            if alias in former and former[alias].can_replace(member)
        }
        # A call may hold a slot of a member that left, and be about to use it.
        runtime.members.update({**coming, **kept})
        self._mode, self._enabled = parts.mode, parts.enabled
        runtime.origin = parts.origin
        runtime.call_timeout = parts.call_timeout.total_seconds()
        runtime.measures_prompts = _measures_prompts(parts.members, parts.strategy)
        same_mode = parts.strategy == runtime.pool.strategy
        configured = Configured(
            tuple(candidate.endpoint for candidate in parts.state.candidates),
            parts.state.policy,
            tuple(sorted(new_keys)),
            same_mode,
            parts.strategy_name,
            parts.options,
        )
        runtime.pool.adopt(parts.strategy, configured)
        self._watch(parts)
        self._share(parts)
        for alias, member in former.items():
            if alias not in kept:
                member.close()

    def observe(self, name: str, observer: Observer) -> None:
        """Let an observer see every entry of the journal from now on.

        It is called in a thread of its own, and closed with the multiplexer. A forked child is
        not observed.
        """
        self._observing().replace((), {name: observer})

    def status(self) -> Status:
        """Return the status that `/mux` shows; `str()` makes its text."""
        board, observing = self._runtime.board, self._runtime.observing
        if board is not None:
            board.freshen(written=True)
        shared = (board.notice,) if board is not None and board.notice else ()
        observed = () if observing is None else observing.notices
        return status_of(
            self.state,
            self._mode,
            clock.now(),
            enabled=self._enabled,
            notices=(*shared, *observed),
            totals=NO_TOTALS if board is None else board.totals,
        )

    @property
    def journal(self) -> Journal | None:
        """The last 1,000 entries of this process, without texts; None before the first."""
        return self._runtime.pool.recorded()

    @property
    def recorded_in(self) -> JournalPlace | None:
        """Where the state file has this journal; None while it is in memory alone."""
        board = self._runtime.board
        return None if board is None else board.recorded_in

    def why(self, call_id: str | None = None, *, last: int = 1) -> tuple[Story, ...]:
        """Return the stories of the last calls, or of one: who was asked, and why.

        `str()` of a story is its text. Only calls among the last 1,000 entries are known.
        """
        from muxcore.explaining.stories import stories  # noqa: PLC0415 - rarely wanted

        found = () if (journal := self.journal) is None else tuple(stories(journal))
        if call_id is not None:
            return tuple(story for story in found if story.call_id == call_id)
        return tuple(sorted(found, key=lambda story: story.began)[-last:])

    @property
    def state(self) -> PoolState:
        """The present state, as `select` and `explain` take it."""
        return self._runtime.pool.state

    @property
    def sharing_problem(self) -> str | None:
        """Why the state is not shared with other processes; None while it is."""
        board = self._runtime.board
        if board is None:
            return "this config keeps its state in memory, in each process alone"
        return board.notice or None

    def reset(self, alias: str | None = None) -> None:
        """Re-enable one model, or all. Raise `MultiplexerError` for an unknown alias."""
        if alias is not None:
            check_known(alias, self.state)
        self._runtime.pool.record(Reset(alias))

    def close(self) -> None:
        """Cancel all calls; running and later ones raise `MultiplexerError("closed")`."""
        self._runtime.pool.close()
        self._runtime.deadlines.close()
        for member in self._runtime.members.values():
            member.close()
        if self._runtime.board is not None:
            self._runtime.board.stop()
        if self._runtime.observing is not None:
            self._runtime.observing.stop()

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

    def _share(self, parts: Parts) -> None:
        """Begin or cease to share the state, if the config has switched that on or off."""
        runtime = self._runtime
        if parts.board is None and runtime.board is not None:
            runtime.board.leave()
            runtime.board = None
        elif parts.board is not None and runtime.board is None:
            runtime.board = shell.share(runtime, parts.board)
            weakref.finalize(self, runtime.board.stop)

    def _observing(self) -> Observing:
        """Return what hands entries to observers, started if it was not."""
        runtime = self._runtime
        if runtime.observing is None:
            runtime.observing = shell.Observing()
            runtime.pool.observer = runtime.observing.put
            weakref.finalize(self, runtime.observing.stop)
        return runtime.observing

    def _watch(self, parts: Parts) -> None:
        """Replace the observers, if the config has changed them."""
        former, self._sources = self._sources, parts.observers
        if former == parts.observers:
            return
        observing = self._observing()
        made: dict[str, Observer] = {}
        for source in parts.observers:
            try:
                made[source.name] = source.make(**source.options)
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                observing.note(source.name, error)
        observing.replace([source.name for source in former], made)

    def _after_fork(self) -> None:
        """Run in a forked child: begin with no call under way, and keep off the parent's."""
        self._runtime.deadlines.after_fork()
        for member in self._runtime.members.values():
            member.after_fork()
        board = self._runtime.board
        if board is not None:
            board.after_fork()
        # The thread of the observers is the parent's.
        self._runtime.observing = self._runtime.pool.observer = None
        self._sources = ()
        self._runtime.pool.after_fork()
        if board is not None:
            board.unshare()


_ALL: weakref.WeakSet[Multiplexer] = weakref.WeakSet()


def _after_fork() -> None:
    for multiplexer in tuple(_ALL):
        multiplexer._after_fork()  # noqa: SLF001 - a class of this module


# Where there is no fork, there is nothing to register.
getattr(os, "register_at_fork", dict)(after_in_child=_after_fork)


def _measures_prompts(members: Sequence[Member], strategy: Strategy) -> bool:
    """Whether anything depends on the size of a prompt."""
    return any(member.endpoint.context_window for member in members) or bool(
        getattr(strategy, "needs_prompt_tokens", False)
    )
