"""Run a world: one thread, made-up time, and the real pool, streams and modes.

Every call is the real `call_loop`, driven here: its tasks give way wherever a thread might,
between any two steps, while it sleeps, and while an attempt is under way. The world's seed
decides which of the tasks that are ready goes on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, cast

from attrs import evolve

from muxcore.core.entries import Configured
from muxcore.core.outcomes import (
    Cancelled,
    CancelReason,
    End,
    Failed,
    Reset,
    Responding,
    Succeeded,
)
from muxcore.core.protocol import (
    Attempt,
    CallCancelled,
    CallEnding,
    CallExhausted,
    CallRejected,
    CallServed,
    Slot,
)
from muxcore.core.records import Exhausted, PoolState, WaitReason
from muxcore.errors import (
    CallCancelledError,
    ClosedError,
    MultiplexerError,
    StrategyError,
)
from muxcore.shell.call.attempts import Answered
from muxcore.shell.call.decoding import StreamDecoder
from muxcore.shell.call.loop import Done, GiveWay, call_loop
from muxcore.shell.call.member import Limits, Member, Runtime
from muxcore.shell.call.stream import Stream
from muxcore.shell.http.cancel_scope import CancelScope, Deadlines, TimeLimit
from muxcore.shell.http.transport import Exchange, TransportError
from muxcore.shell.pool.pool import Nap
from muxcore.testing.simulation.answers import (
    OpenedCall,
    SimulatedExchange,
    SimulatedStream,
    arrivals_of,
    outcome_of,
)
from muxcore.testing.simulation.labels import (
    LEAVES_BY,
    label_of_ending,
    label_of_happening,
    label_of_outcome,
)
from muxcore.testing.simulation.observation import (
    Caller,
    Cause,
    ObservedPool,
    ObservedStrategy,
    ObservedWaiter,
    demand,
)
from muxcore.testing.simulation.rules import RuleChecker
from muxcore.testing.simulation.threads import CallThread
from muxcore.testing.simulation.timeline import BrokenWorldError, EndedCall, Run, Timeline
from muxcore.testing.simulation.worlds import (
    MODES,
    SECOND,
    Arrival,
    ClockSet,
    ConfigChanged,
    Course,
    Happening,
    Leaving,
    Manner,
    ModelReset,
    PoolClosed,
    SimulatedModel,
    World,
)
from muxcore_backends.generic import Generic

GRACE = SECOND // 10
"""Rule 1: so much later than its deadline may a call end."""
LIMITS = Limits(connect=10, read=120, attempt=300)


def run(world: World, *, keep: bool = False) -> Run:
    """Run this world; raise `BrokenWorldError` at the first rule that is broken.

    With `keep`, the result has a line for each thing that happened.
    """
    return Simulation(world, keep=keep).run()


class Simulation:
    """One world while it happens."""

    def __init__(
        self,
        world: World,
        *,
        keep: bool = False,
        ended: Callable[[EndedCall], None] | None = None,
    ) -> None:
        self.world = world
        self.requests: Counter[str] = Counter()
        """What each provider has seen."""
        self._on_end = ended
        self._timeline = Timeline(world.seed, keep=keep)
        self.clock = self._timeline.clock
        self._models: dict[str, SimulatedModel] = {
            m.endpoint.alias: m for m in world.models
        }
        self._closed_at: int | None = None
        state = PoolState.of(*(m.endpoint for m in world.models), policy=world.policy)
        mode = ObservedStrategy(MODES[world.mode](), by_weight=world.mode == "load_balance")
        self._checker = RuleChecker(state, mode, self._timeline.report)
        self._checker.moment = self.clock.elapsed
        self._pool = ObservedPool(state, mode, self._checker, self.clock)
        members = {
            alias: Member(model.endpoint, Generic(), None, LIMITS)
            for alias, model in self._models.items()
        }
        self._runtime = Runtime(self._pool, Deadlines(), members, call_timeout=math.inf)
        self._calls: list[CallThread] = []

    def run(self) -> Run:
        for arrival in self.world.arrivals:
            self.expect(arrival)
        for happening in self.world.happenings:
            self._timeline.at(happening.at, partial(self._happen, happening))
        try:
            self._timeline.run()
            self._look_back()
        except Exception as error:
            self._checker.is_over = True
            raise BrokenWorldError(error, self._timeline.trace) from error
        return Run(
            tuple(calling.caller.ended for calling in self._calls),
            self._timeline.steps,
            self._pool.state.attempts,
            self._timeline.digest,
            self._timeline.trace,
        )

    def _look_back(self) -> None:
        for calling in self._calls:
            demand(calling.caller.ended, 1, f"call {calling.caller.number} never ended")
        for candidate in self._pool.state.candidates:
            in_flight = candidate.health.in_flight
            demand(not in_flight, 2, f"{in_flight} in flight when all is quiet")

    def _step(self, name: str, **more: Any) -> None:
        """Note what the pool is about to be asked."""
        now = self.clock.now()
        self._checker.begin(Cause(name, now, now, **more))

    def expect(self, arrival: Arrival) -> None:
        """Schedule this call."""
        self._timeline.at(arrival.at, partial(self._arrive, arrival))

    # -- What comes from outside --------------------------------------------------------------

    def _arrive(self, arrival: Arrival) -> None:
        limit = self.clock.moment + arrival.patience
        call = evolve(
            arrival.call,
            deadline=self.clock.now() + timedelta(microseconds=arrival.patience),
        )
        waiter = ObservedWaiter()
        caller = Caller(len(self._calls), limit, waiter, call)
        loop = call_loop(self._pool, waiter, call)
        calling = CallThread(
            arrival, caller, waiter, loop, limit, self._timeline, self._resume
        )
        waiter.heard = calling.hear
        self._calls.append(calling)
        self._checker.callers[caller.waiter] = caller
        self._timeline.report(f"{caller.number} arrives", f"{caller.number} arrives")
        if arrival.leaves is not None:
            self._timeline.at(
                self.clock.moment + arrival.leaves, partial(self._leave, calling)
            )
        self._resume(calling, None)

    def _happen(self, happening: Happening) -> None:
        self._timeline.report(str(happening), label_of_happening(happening))
        match happening:
            case ClockSet():
                self.clock.set_by += happening.by
            case ModelReset():
                if happening.alias in {None, *self._models}:
                    self._pool.record(Reset(happening.alias))
            case ConfigChanged():
                self._adopt(happening)
            case PoolClosed():
                self._closed_at = self.clock.moment
                self._step("close")
                self._pool.close()
                for calling in self._calls:
                    self._scope(calling, CancelReason.CLOSED)

    def _adopt(self, changed: ConfigChanged) -> None:
        endpoints = tuple(
            evolve(model.endpoint, weight=weight)
            for model, weight in zip(self._models.values(), changed.weights, strict=False)
        )
        configured = Configured(endpoints, changed.policy)
        self._step("adopt", outcome=configured)
        self._pool.adopt(self._pool.strategy, configured)

    def _leave(self, calling: CallThread) -> None:
        """Let the caller leave, in its own way, if the call is still under way."""
        if calling.caller.ended or calling.left:
            return
        calling.left = True
        leaving = calling.arrival.leaving
        number = calling.caller.number
        self._timeline.report(f"{number} {leaving}", f"{number} {LEAVES_BY[leaving]}")
        if calling.stream is not None:
            self._leave_stream(calling, calling.stream, leaving)
        elif leaving is Leaving.CANCELS:
            self._step("cancel")
            self._pool.cancel(calling.caller.waiter)
            self._scope(calling, CancelReason.LEFT)
        else:
            self._interrupt(calling)

    def _interrupt(self, calling: CallThread) -> None:
        """Raise a KeyboardInterrupt in the call's thread, wherever that stands."""
        self._step("interrupt", caller=calling.caller)
        calling.disturb()
        calling.attempt = None
        try:
            calling.loop.throw(KeyboardInterrupt())
        except KeyboardInterrupt:
            self._end(calling, "interrupted")
        except StopIteration:
            self._end(calling, "interrupted at its end")

    def _scope(self, calling: CallThread, reason: CancelReason) -> None:
        if calling.stream is not None:
            calling.stream.scope.cancel(reason)
            calling.stream.exchange.arrived.append(TransportError(str(reason)))
            self._timeline.soon(partial(self._listen, calling))
        elif calling.attempt is not None:
            slot = calling.attempt
            outcome = Cancelled(slot.endpoint.alias, slot.attempt, reason)
            self._timeline.soon(partial(self._attempted, calling, slot, outcome))

    # -- One call, as its thread goes through it ------------------------------------------------

    def _resume(self, calling: CallThread, event: Done) -> None:
        if calling.caller.ended:
            return
        try:
            request = calling.loop.send(event)
        except StopIteration as stop:
            self._ended(calling, stop.value)
        except StrategyError:
            demand(self.world.mode == "unsound", 1, "a sound mode was blamed")
            self._end(calling, "the mode is broken")
        except MultiplexerError as error:
            closed = self._closed_at is not None and isinstance(error, ClosedError)
            expected = closed or isinstance(error, CallCancelledError)
            demand(expected, 1, f"it raised {error}")
            self._end(calling, str(error))
        else:
            match request:
                case GiveWay():
                    calling.give_way()
                case Nap():
                    calling.sleep(request.seconds)
                case Attempt():
                    self._attempt(calling, request.slot)

    # -- Attempts -------------------------------------------------------------------------------

    def _attempt(self, calling: CallThread, slot: Slot) -> None:
        """Let the model answer in its manner, unless the time is over before."""
        calling.attempt, calling.began = slot, self.clock.moment
        self.requests[slot.endpoint.alias] += 1
        manner = self._models[slot.endpoint.alias].manner(self.clock.moment)
        outcome, over = outcome_of(
            calling.arrival,
            self._models[slot.endpoint.alias],
            slot,
            manner,
            calling.began,
            self.world.silence_limit,
        )
        limit = min(calling.began + self.world.attempt_limit, calling.limit)
        if over > limit:
            alias, number = slot.endpoint.alias, slot.attempt
            if calling.limit <= limit:
                outcome = Cancelled(alias, number, CancelReason.CALL_TIME)
            else:
                outcome = Failed(alias, number, message=TimeLimit.ATTEMPT)
            over = max(limit, calling.began)
        self._timeline.at(over, partial(self._attempted, calling, slot, outcome, manner))

    def _attempted(
        self,
        calling: CallThread,
        slot: Slot,
        outcome: Responding | End,
        manner: Manner | None = None,
    ) -> None:
        if calling.attempt is not slot:
            return
        calling.attempt = None
        if manner is not None and isinstance(outcome, Responding):
            self._open(calling, slot, manner)
        calling.caller.outcomes.append(outcome)
        number = calling.caller.number
        self._timeline.report(
            f"{number} says {_describe_outcome(outcome)}",
            f"{number} #{outcome.attempt} {label_of_outcome(outcome)}",
        )
        self._resume(calling, outcome)

    # -- Streams --------------------------------------------------------------------------------

    def _open(self, calling: CallThread, slot: Slot, manner: Manner) -> None:
        """Make the real stream of an attempt that has come to its first content."""
        exchange = SimulatedExchange()
        limit = calling.limit / SECOND
        scope = CancelScope(limit, limit)
        alias = slot.endpoint.alias
        member = self._runtime.members[alias]
        decoder = StreamDecoder(
            member.backend.stream(slot.endpoint), slot.endpoint.dialect, finishes=True
        )
        opened = cast("Exchange", exchange), decoder
        outcome = Responding(alias, slot.attempt)
        answered = Answered(outcome, opened, member, slot, scope)
        label = f"{alias}:{slot.attempt}"
        stream = Stream(OpenedCall(self._runtime, calling.caller, answered))
        stream.__enter__()
        whole = manner.course is Course.WHOLE
        calling.stream = SimulatedStream(stream, exchange, scope, label, whole)
        script = arrivals_of(label, manner, self.world.silence_limit, calling.arrival)
        for after, piece in script:
            at = self.clock.moment + after
            if at > calling.limit:
                late = partial(self._scope, calling, CancelReason.CALL_TIME)
                self._timeline.at(max(calling.limit, self.clock.moment), late)
                break
            self._timeline.at(at, partial(self._receive, calling, piece))

    def _receive(self, calling: CallThread, piece: bytes | TransportError | None) -> None:
        if calling.stream is None or calling.caller.ended:
            return
        if calling.stream.scope.reason is None and piece is not None:
            calling.stream.exchange.arrived.append(piece)
        self._listen(calling, end=piece is None)

    def _listen(self, calling: CallThread, *, end: bool = False) -> None:
        """Read what has arrived, as the thread that consumes the stream does."""
        streaming = calling.stream
        if streaming is None or calling.caller.ended:
            return
        self._step("stream", caller=calling.caller)
        ended = streaming.read(end=end)
        if ended is not None:
            streaming.check(ended, has_tools=calling.arrival.tools)
            self._end(calling, ended)

    def _leave_stream(
        self, calling: CallThread, streaming: SimulatedStream, leaving: Leaving
    ) -> None:
        if leaving is Leaving.CANCELS:
            self._scope(calling, CancelReason.LEFT)
            return
        self._step("leave", caller=calling.caller)
        if leaving is Leaving.DROPS:
            # Nobody holds it any more from here on, so it is collected at once.
            calling.stream = None
            del streaming.stream
        else:
            streaming.stream.close()
        self._end(calling, "left")

    # -- Ends -------------------------------------------------------------------------------------

    def _ended(self, calling: CallThread, ending: CallEnding) -> None:
        caller = calling.caller
        demand(len(ending.trail) == len(caller.slots), 12, "a trail that is not whole")
        match ending:
            case CallServed():
                last = ending.trail[-1].outcome
                if isinstance(last, Responding):
                    return
                demand(isinstance(last, Succeeded), 1, "served without an answer")
            case CallRejected():
                refused = [tried.outcome for tried in ending.trail]
                demand(ending.refusal in refused, 1, "the refusal is none of its attempts'")
                calling.retry_at = ending.retry_at
            case CallExhausted(exhausted=Exhausted(reason=WaitReason.DEADLINE)):
                deadline = cast("datetime", caller.asked.deadline)
                over = self.clock.now() >= deadline or self.clock.moment >= calling.limit
                demand(over, 1, "given up before the deadline")
            case CallExhausted():
                calling.retry_at = ending.exhausted.retry_at
            case CallCancelled():
                pass
        self._end(calling, label_of_ending(ending))

    def _end(self, calling: CallThread, how: str) -> None:
        caller = calling.caller
        demand(not caller.ended, 1, f"{caller.number} ended twice: {caller.ended}, {how}")
        caller.ended = how
        calling.stream = None
        late = self.clock.moment - calling.limit
        demand(late <= GRACE, 1, f"{caller.number} ended {late / SECOND} s too late")
        with suppress(KeyError):
            del self._checker.callers[caller.waiter]
        self._timeline.report(f"{caller.number} ends: {how}", f"{caller.number} ends {how}")
        if self._on_end is not None:
            retry_after = None
            if calling.retry_at is not None:
                # As in the gateway: rounded up, so that no client comes too early.
                left = (calling.retry_at - self.clock.now()).total_seconds()
                retry_after = max(1, math.ceil(left))
            self._on_end(EndedCall(calling.arrival, how, self.clock.moment, retry_after))


def _describe_outcome(outcome: Responding | End) -> str:
    kind = getattr(outcome, "kind", "")
    return f"{type(outcome).__name__} #{outcome.attempt} {kind}".rstrip()
