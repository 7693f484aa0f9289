"""Run a world in one thread and simulated time, with the real pool, streams and modes.

Every call is the real `call_loop`, driven here. It gives way wherever another thread might run:
between any two steps, while it sleeps, and while an attempt is under way. The seed of the world
decides which of the ready calls continues.
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
"""Rule 1: how long after its deadline a call may end."""
LIMITS = Limits(connect=10, read=120, attempt=300)


def run(world: World, *, keep: bool = False) -> Run:
    """Run this world; raise `BrokenWorldError` at the first rule that is broken.

    With `keep`, the result has a line for each thing that happened.
    """
    return Simulation(world, keep=keep).run()


class Simulation:
    """One world under way."""

    def __init__(
        self,
        world: World,
        *,
        keep: bool = False,
        ended: Callable[[EndedCall], None] | None = None,
    ) -> None:
        self.world = world
        self.requests: Counter[str] = Counter()
        """The requests that each provider has received."""
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
        checker = self._checker
        self._pool = ObservedPool(
            state, mode, self.clock, checker.check, checker.begin, checker.callers
        )
        members = {
            alias: Member(model.endpoint, Generic(), None, LIMITS)
            for alias, model in self._models.items()
        }
        self._runtime = Runtime(self._pool, Deadlines(), members, call_timeout=math.inf)
        self._calls: list[CallThread] = []

    def run(self) -> Run:
        for arrival in self.world.arrivals:
            self.schedule(arrival)
        for happening in self.world.happenings:
            self._timeline.at(happening.at, partial(self._apply, happening))
        try:
            self._timeline.run()
            self._check_ends()
        except Exception as error:
            self._checker.is_over = True
            raise BrokenWorldError(error, self._timeline.trace) from error
        return Run(
            tuple(thread.caller.ended for thread in self._calls),
            self._timeline.steps,
            self._pool.state.attempts,
            self._timeline.digest,
            self._timeline.trace,
        )

    def _check_ends(self) -> None:
        for thread in self._calls:
            demand(thread.caller.ended, 1, f"call {thread.caller.number} never ended")
        for candidate in self._pool.state.candidates:
            in_flight = candidate.health.in_flight
            demand(not in_flight, 2, f"{in_flight} in flight when all is quiet")

    def _begin(self, name: str, **more: Any) -> None:
        """Set the cause of the pool's next change."""
        now = self.clock.now()
        self._checker.begin(Cause(name, now, now, **more))

    def schedule(self, arrival: Arrival) -> None:
        """Schedule this call."""
        self._timeline.at(arrival.at, partial(self._arrive, arrival))

    # -- Events from outside ------------------------------------------------------------------

    def _arrive(self, arrival: Arrival) -> None:
        limit = self.clock.moment + arrival.patience
        call = evolve(
            arrival.call,
            deadline=self.clock.now() + timedelta(microseconds=arrival.patience),
        )
        waiter = ObservedWaiter()
        caller = Caller(len(self._calls), limit, waiter, call)
        loop = call_loop(self._pool, waiter, call)
        thread = CallThread(
            arrival, caller, waiter, loop, limit, self._timeline, self._resume
        )
        waiter.on_decision = thread.notify
        self._calls.append(thread)
        self._checker.callers[caller.waiter] = caller
        self._timeline.report(f"{caller.number} arrives", f"{caller.number} arrives")
        if arrival.leaves is not None:
            self._timeline.at(
                self.clock.moment + arrival.leaves, partial(self._leave, thread)
            )
        self._resume(thread, None)

    def _apply(self, happening: Happening) -> None:
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
                self._begin("close")
                self._pool.close()
                for thread in self._calls:
                    self._cancel(thread, CancelReason.CLOSED)

    def _adopt(self, changed: ConfigChanged) -> None:
        endpoints = tuple(
            evolve(model.endpoint, weight=weight)
            for model, weight in zip(self._models.values(), changed.weights, strict=False)
        )
        configured = Configured(endpoints, changed.policy)
        self._begin("adopt", outcome=configured)
        self._pool.adopt(self._pool.strategy, configured)

    def _leave(self, thread: CallThread) -> None:
        """Let the caller leave, if its call is still under way."""
        if thread.caller.ended or thread.left:
            return
        thread.left = True
        leaving = thread.arrival.leaving
        number = thread.caller.number
        self._timeline.report(f"{number} {leaving}", f"{number} {LEAVES_BY[leaving]}")
        if thread.stream is not None:
            self._leave_stream(thread, thread.stream, leaving)
        elif leaving is Leaving.CANCELS:
            self._begin("cancel")
            self._pool.cancel(thread.caller.waiter)
            self._cancel(thread, CancelReason.LEFT)
        else:
            self._interrupt(thread)

    def _interrupt(self, thread: CallThread) -> None:
        """Raise a KeyboardInterrupt in the call's thread, at its present step."""
        self._begin("interrupt", caller=thread.caller)
        thread.interrupt()
        thread.attempt = None
        try:
            thread.loop.throw(KeyboardInterrupt())
        except KeyboardInterrupt:
            self._end(thread, "interrupted")
        except StopIteration:
            self._end(thread, "interrupted at its end")

    def _cancel(self, thread: CallThread, reason: CancelReason) -> None:
        if thread.stream is not None:
            thread.stream.scope.cancel(reason)
            thread.stream.exchange.arrived.append(TransportError(str(reason)))
            self._timeline.soon(partial(self._listen, thread))
        elif thread.attempt is not None:
            slot = thread.attempt
            outcome = Cancelled(slot.endpoint.alias, slot.attempt, reason)
            self._timeline.soon(partial(self._attempted, thread, slot, outcome))

    # -- The steps of one call ------------------------------------------------------------------

    def _resume(self, thread: CallThread, event: Done) -> None:
        if thread.caller.ended:
            return
        try:
            request = thread.loop.send(event)
        except StopIteration as stop:
            self._finish(thread, stop.value)
        except StrategyError:
            demand(self.world.mode == "unsound", 1, "a StrategyError for a sound mode")
            self._end(thread, "the mode is broken")
        except MultiplexerError as error:
            closed = self._closed_at is not None and isinstance(error, ClosedError)
            expected = closed or isinstance(error, CallCancelledError)
            demand(expected, 1, f"the call raised {error}")
            self._end(thread, str(error))
        else:
            match request:
                case GiveWay():
                    thread.give_way()
                case Nap():
                    thread.sleep(request.seconds)
                case Attempt():
                    self._attempt(thread, request.slot)

    # -- Attempts -------------------------------------------------------------------------------

    def _attempt(self, thread: CallThread, slot: Slot) -> None:
        """Let the model answer in its manner, unless a time limit comes first."""
        thread.attempt, thread.began = slot, self.clock.moment
        self.requests[slot.endpoint.alias] += 1
        manner = self._models[slot.endpoint.alias].manner(self.clock.moment)
        outcome, over = outcome_of(
            thread.arrival,
            self._models[slot.endpoint.alias],
            slot,
            manner,
            thread.began,
            self.world.silence_limit,
        )
        limit = min(thread.began + self.world.attempt_limit, thread.limit)
        if over > limit:
            alias, number = slot.endpoint.alias, slot.attempt
            if thread.limit <= limit:
                outcome = Cancelled(alias, number, CancelReason.CALL_TIME)
            else:
                outcome = Failed(alias, number, message=TimeLimit.ATTEMPT)
            over = max(limit, thread.began)
        self._timeline.at(over, partial(self._attempted, thread, slot, outcome, manner))

    def _attempted(
        self,
        thread: CallThread,
        slot: Slot,
        outcome: Responding | End,
        manner: Manner | None = None,
    ) -> None:
        if thread.attempt is not slot:
            return
        thread.attempt = None
        if manner is not None and isinstance(outcome, Responding):
            self._open(thread, slot, manner)
        if manner is not None and not isinstance(outcome, Cancelled):
            model = self._models[slot.endpoint.alias]
            left = model.allowances(slot.attempt, self.clock.now())
            outcome = evolve(outcome, allowances=left)
        thread.caller.outcomes.append(outcome)
        number = thread.caller.number
        self._timeline.report(
            f"{number} gets {_describe_outcome(outcome)}",
            f"{number} #{outcome.attempt} {label_of_outcome(outcome)}",
        )
        self._resume(thread, outcome)

    # -- Streams --------------------------------------------------------------------------------

    def _open(self, thread: CallThread, slot: Slot, manner: Manner) -> None:
        """Open the real stream of an attempt with its first content."""
        exchange = SimulatedExchange()
        limit = thread.limit / SECOND
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
        stream = Stream(OpenedCall(self._runtime, thread.caller, answered))
        stream.__enter__()
        whole = manner.course is Course.WHOLE
        thread.stream = SimulatedStream(stream, exchange, scope, label, whole)
        script = arrivals_of(label, manner, self.world.silence_limit, thread.arrival)
        for after, piece in script:
            at = self.clock.moment + after
            if at > thread.limit:
                late = partial(self._cancel, thread, CancelReason.CALL_TIME)
                self._timeline.at(max(thread.limit, self.clock.moment), late)
                break
            self._timeline.at(at, partial(self._receive, thread, piece))

    def _receive(self, thread: CallThread, piece: bytes | TransportError | None) -> None:
        if thread.stream is None or thread.caller.ended:
            return
        if thread.stream.scope.reason is None and piece is not None:
            thread.stream.exchange.arrived.append(piece)
        self._listen(thread, end=piece is None)

    def _listen(self, thread: CallThread, *, end: bool = False) -> None:
        """Read what has arrived, as the thread that consumes the stream does."""
        streaming = thread.stream
        if streaming is None or thread.caller.ended:
            return
        self._begin("stream", caller=thread.caller)
        ended = streaming.read(end=end)
        if ended is not None:
            streaming.check(ended, has_tools=thread.arrival.tools)
            self._end(thread, ended)

    def _leave_stream(
        self, thread: CallThread, streaming: SimulatedStream, leaving: Leaving
    ) -> None:
        if leaving is Leaving.CANCELS:
            self._cancel(thread, CancelReason.LEFT)
            return
        self._begin("leave", caller=thread.caller)
        if leaving is Leaving.DROPS:
            # The last reference: the stream is collected at once.
            thread.stream = None
            del streaming.stream
        else:
            streaming.stream.close()
        self._end(thread, "left")

    # -- Ends -------------------------------------------------------------------------------------

    def _finish(self, thread: CallThread, ending: CallEnding) -> None:
        caller = thread.caller
        demand(len(ending.trail) == len(caller.slots), 12, "the trail is incomplete")
        match ending:
            case CallServed():
                last = ending.trail[-1].outcome
                if isinstance(last, Responding):
                    return
                demand(isinstance(last, Succeeded), 1, "served without an answer")
            case CallRejected():
                refusals = [tried.outcome for tried in ending.trail]
                demand(ending.refusal in refusals, 1, "the refusal is of no attempt")
                thread.retry_at = ending.retry_at
            case CallExhausted(exhausted=Exhausted(reason=WaitReason.DEADLINE)):
                deadline = cast("datetime", caller.call.deadline)
                over = self.clock.now() >= deadline or self.clock.moment >= thread.limit
                demand(over, 1, "the call gave up before its deadline")
            case CallExhausted():
                thread.retry_at = ending.exhausted.retry_at
            case CallCancelled():
                pass
        self._end(thread, label_of_ending(ending))

    def _end(self, thread: CallThread, how: str) -> None:
        caller = thread.caller
        demand(not caller.ended, 1, f"{caller.number} ended twice: {caller.ended}, {how}")
        caller.ended = how
        thread.stream = None
        late = self.clock.moment - thread.limit
        demand(late <= GRACE, 1, f"{caller.number} ended {late / SECOND} s too late")
        with suppress(KeyError):
            del self._checker.callers[caller.waiter]
        self._timeline.report(f"{caller.number} ends: {how}", f"{caller.number} ends {how}")
        if self._on_end is not None:
            retry_after = None
            if thread.retry_at is not None:
                # As in the gateway: rounded up, so that no client retries too early.
                left = (thread.retry_at - self.clock.now()).total_seconds()
                retry_after = max(1, math.ceil(left))
            self._on_end(EndedCall(thread.arrival, how, self.clock.moment, retry_after))


def _describe_outcome(outcome: Responding | End) -> str:
    kind = getattr(outcome, "kind", "")
    return f"{type(outcome).__name__} #{outcome.attempt} {kind}".rstrip()
