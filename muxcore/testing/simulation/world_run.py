"""Let a world happen: one thread, made-up time, and the real pool, streams and modes.

Every call is a task that does what `shell.driving.drive` does, and gives way wherever a thread
might: between any two steps, while it sleeps, and while an attempt is under way. Which of the
tasks that are ready goes on is decided by the world's seed.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import random  # noqa: TID251 - made from a seed, and nowhere else
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

from attrs import define, evolve, field, frozen

from muxcore.chat import AttemptReport, Chat
from muxcore.core.migration import migrate
from muxcore.core.outcomes import (
    Cancelled,
    CancelReason,
    End,
    Failed,
    Fault,
    Limit,
    Outcome,
    RateLimited,
    Refusal,
    Rejected,
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
    Sleep,
    Slept,
    Slot,
)
from muxcore.core.records import Call, Exhausted, PoolState, Wait, WaitReason
from muxcore.errors import (
    CallCancelledError,
    ClosedError,
    MultiplexerError,
    StrategyError,
    StreamInterruptedError,
)
from muxcore.shell.call.arguments import CallOptions
from muxcore.shell.call.attempts import Answered, Opened
from muxcore.shell.call.decoding import StreamDecoder
from muxcore.shell.call.loop import Done, GiveWay, Loop, call_loop
from muxcore.shell.call.member import Limits, Member, Runtime
from muxcore.shell.call.runner import CallRun
from muxcore.shell.call.stream import Stream
from muxcore.shell.http.cancel_scope import CancelScope, Deadlines, TimeLimit
from muxcore.shell.http.transport import Exchange, TransportError
from muxcore.shell.pool.pool import Nap, Pool
from muxcore.shell.pool.waiter import Decision, Waiter
from muxcore.testing.simulation.labels import (
    INTERRUPTED,
    LEAVES_BY,
    SERVED,
    STREAMED,
    label_of_ending,
    label_of_happening,
    label_of_outcome,
)
from muxcore.testing.simulation.rules import (
    Caller,
    Cause,
    ObservedStrategy,
    RuleChecker,
    ViolationError,
    demand,
)
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

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
PIECES = 4
"""Pieces of content in one stream."""
GRACE = SECOND // 10
"""Rule 1: so much later than its deadline may a call end."""
PAUSE_BETWEEN = 50
"""Microseconds in which others may come in between two steps of a thread."""

LIMITS = Limits(connect=10, read=120, attempt=300)


@frozen
class Run:
    """What came of a world: how each call ended, and a hash over all that happened."""

    endings: tuple[str, ...]
    steps: int
    attempts: int
    digest: str
    trace: tuple[str, ...] = ()


@frozen
class Ended:
    """A call that is over: how, when, and at what moment a client is told to come again."""

    arrival: Arrival
    how: str
    at: int
    retry_after: int | None = None
    """Whole seconds, as the gateway tells them."""

    @property
    def is_served(self) -> bool:
        return self.how in {SERVED, STREAMED}


class BrokenWorldError(AssertionError):
    """A world in which a rule did not hold, with all that happened until then."""

    def __init__(self, error: Exception, trace: tuple[str, ...]) -> None:
        self.rule = error.rule if isinstance(error, ViolationError) else 0
        self.trace = trace
        text = str(error) if self.rule else f"{type(error).__name__}: {error}"
        super().__init__(text)


@define
class SimulatedClock:
    """The two clocks of the shell. `moment` only ever grows; the wall's may be set."""

    moment: int = 0
    set_by: int = 0

    def now(self) -> datetime:
        return START + timedelta(microseconds=self.moment + self.set_by)

    def elapsed(self) -> float:
        return self.moment / SECOND


class ObservedPool(Pool):
    """The real pool; the rule checker learns what each change is made for."""

    def __init__(
        self,
        state: PoolState,
        mode: ObservedStrategy,
        checker: RuleChecker,
        clock: SimulatedClock,
    ) -> None:
        super().__init__(state, mode, clock=clock, observer=checker.check)
        self._checker = checker

    def choose(self, call: Call, waiter: Waiter) -> Slot | Wait | Exhausted:
        caller = self._checker.callers[waiter]
        caller.asked = call
        self._begin("choose", caller)
        return super().choose(call, waiter)

    def end_sleep(self, sleep: Sleep, waiter: Waiter, nap: Nap, *, woken: bool) -> Slept:
        wall = self._clock.now()
        now = wall if woken else max(wall, sleep.wait.until)
        caller = self._checker.callers[waiter]
        self._checker.begin(Cause("wake", now, wall, caller=caller))
        return super().end_sleep(sleep, waiter, nap, woken=woken)

    def record(self, outcome: Outcome) -> None:
        now = self._clock.now()
        self._checker.begin(Cause("record", now, now, outcome))
        super().record(outcome)
        # Whatever follows does not come from this outcome.
        self._begin("settle")

    def settle(self, waiter: Waiter) -> None:
        self._begin("settle", self._checker.callers.get(waiter))
        super().settle(waiter)

    def _begin(self, name: str, caller: Caller | None = None) -> None:
        now = self._clock.now()
        self._checker.begin(Cause(name, now, now, caller=caller))


class ObservedWaiter(Waiter):
    """A waiter which the simulation hears waking."""

    __slots__ = ("_heard", "rung")

    def __init__(self, heard: Callable[[], None]) -> None:
        super().__init__()
        self._heard = heard
        self.rung = False

    def receive(self, decision: Decision) -> None:
        super().receive(decision)
        self.rung = True
        self._heard()


@define(eq=False)
class _Calling:
    """One call under way, as its thread sees it."""

    arrival: Arrival
    caller: Caller
    task: Loop
    limit: int
    """When the shell cuts it, on the clock that only runs forward."""
    naps: int = 0
    """Tells one sleep from the next, so that an old alarm wakes nobody."""
    asleep: bool = False
    attempt: Slot | None = None
    began: int = 0
    over: Callable[[], None] | None = None
    """Ends the attempt under way."""
    left: bool = False
    retry_at: datetime | None = None
    stream: _Streaming | None = None


@define(eq=False)
class _Streaming:
    """A stream that has come to its first content."""

    stream: Stream
    exchange: _SimulatedExchange
    scope: CancelScope
    label: str
    whole: bool
    heard: list[str] = field(factory=list)
    calls: set[str] = field(factory=set)


class OpenedCall(CallRun):
    """A call whose stream has come to its first content already."""

    def __init__(
        self, runtime: Runtime, caller: Caller, answered: Answered[Opened]
    ) -> None:
        super().__init__(runtime, Chat(()), CallOptions())
        self.call = caller.asked
        self.reports = (AttemptReport(answered.slot.endpoint.alias, "responding"),)
        self._waiter = caller.waiter
        self._answered = answered

    def open(self) -> Answered[Opened]:
        return self._answered


class _SimulatedExchange:
    """An answer as it arrives. It is read only when something has arrived, or at its end."""

    def __init__(self) -> None:
        self.arrived: deque[bytes | TransportError] = deque()

    def read(self) -> bytes:
        piece = self.arrived.popleft() if self.arrived else b""
        if isinstance(piece, TransportError):
            raise piece
        return piece

    def close(self, *, drain: bool = False) -> None:
        """Nothing is held here."""


def run(world: World, *, keep: bool = False) -> Run:
    """Let this world happen; raise `BrokenWorldError` at the first rule that is broken.

    With `keep`, what happened is told line by line.
    """
    return Simulation(world, keep=keep).run()


class Simulation:
    """One world while it happens."""

    def __init__(
        self,
        world: World,
        *,
        keep: bool = False,
        ended: Callable[[Ended], None] | None = None,
    ) -> None:
        self.world = world
        self.requests: Counter[str] = Counter()
        """What each provider has seen."""
        self._on_end = ended
        self.clock = SimulatedClock()
        self._dice = random.Random(world.seed)  # noqa: S311 - the same every time
        self._models: dict[str, SimulatedModel] = {
            m.endpoint.alias: m for m in world.models
        }
        self._hash = hashlib.sha256()
        self._lines: list[str] | None = [] if keep else None
        self._steps = 0
        self._agenda: list[tuple[int, int, int, Callable[[], None]]] = []
        self._entries = 0
        self._closed_at: int | None = None
        state = PoolState.of(*(m.endpoint for m in world.models), policy=world.policy)
        mode = ObservedStrategy(MODES[world.mode](), by_weight=world.mode == "load_balance")
        self._checker = RuleChecker(state, mode, self._tell)
        self._checker.moment = self.clock.elapsed
        self._pool = ObservedPool(state, mode, self._checker, self.clock)
        members = {
            alias: Member(model.endpoint, Generic(), None, LIMITS)
            for alias, model in self._models.items()
        }
        self._runtime = Runtime(self._pool, Deadlines(), members, call_timeout=math.inf)
        self._calls: list[_Calling] = []

    def run(self) -> Run:
        for arrival in self.world.arrivals:
            self.expect(arrival)
        for happening in self.world.happenings:
            self._at(happening.at, partial(self._happen, happening))
        try:
            self._go_through()
            self._look_back()
        except Exception as error:
            self._checker.is_over = True
            raise BrokenWorldError(error, tuple(self._lines or ())) from error
        return Run(
            tuple(calling.caller.ended for calling in self._calls),
            self._steps,
            self._pool.state.attempts,
            self._hash.hexdigest(),
            tuple(self._lines or ()),
        )

    def _go_through(self) -> None:
        agenda = self._agenda
        while agenda:
            moment, _, _, act = heapq.heappop(agenda)
            self.clock.moment = max(moment, self.clock.moment)
            self._steps += 1
            act()

    def _look_back(self) -> None:
        for calling in self._calls:
            demand(calling.caller.ended, 1, f"call {calling.caller.number} never ended")
        for candidate in self._pool.state.candidates:
            in_flight = candidate.health.in_flight
            demand(not in_flight, 2, f"{in_flight} in flight when all is quiet")

    # -- Time, threads, and what is told ----------------------------------------------------

    def _at(self, moment: int, act: Callable[[], None]) -> None:
        self._entries += 1
        entry = (moment, self._dice.getrandbits(16), self._entries, act)
        heapq.heappush(self._agenda, entry)

    def _soon(self, act: Callable[[], None]) -> None:
        self._at(self.clock.moment + self._dice.randrange(PAUSE_BETWEEN), act)

    def _tell(self, text: str, label: str) -> None:
        """Say what happened: `label` goes into the hash, and never changes its words."""
        self._hash.update(f"{self.clock.moment} {label}\n".encode())
        if self._lines is not None:
            self._lines.append(f"{self.clock.moment / SECOND:12.6f} {text}")

    def _step(self, name: str, **more: Any) -> None:
        """Say what the pool is about to be asked."""
        now = self.clock.now()
        self._checker.begin(Cause(name, now, now, **more))

    def expect(self, arrival: Arrival) -> None:
        """Let this call come at its time."""
        self._at(arrival.at, partial(self._arrive, arrival))

    # -- What comes from outside --------------------------------------------------------------

    def _arrive(self, arrival: Arrival) -> None:
        calling: _Calling

        def heard() -> None:
            if calling.asleep:
                calling.asleep = False
                self._soon(partial(self._wake, calling, calling.naps))

        limit = self.clock.moment + arrival.patience
        call = evolve(
            arrival.call,
            deadline=self.clock.now() + timedelta(microseconds=arrival.patience),
        )
        caller = Caller(len(self._calls), limit, ObservedWaiter(heard), call)
        loop = call_loop(self._pool, caller.waiter, call)
        calling = _Calling(arrival, caller, loop, limit)
        self._calls.append(calling)
        self._checker.callers[caller.waiter] = caller
        self._tell(f"{caller.number} arrives", f"{caller.number} arrives")
        if arrival.leaves is not None:
            self._at(self.clock.moment + arrival.leaves, partial(self._leave, calling))
        self._resume(calling, None)

    def _happen(self, happening: Happening) -> None:
        self._tell(str(happening), label_of_happening(happening))
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
        endpoints = [
            evolve(model.endpoint, weight=weight)
            for model, weight in zip(self._models.values(), changed.weights, strict=False)
        ]

        def carry(state: PoolState) -> PoolState:
            return migrate(state, endpoints, changed.policy)

        self._step("adopt", migrate_state=carry)
        self._pool.adopt(self._pool.strategy, carry)

    def _leave(self, calling: _Calling) -> None:
        """Let the caller give up, in its own way, if the call is still under way."""
        if calling.caller.ended or calling.left:
            return
        calling.left = True
        leaving = calling.arrival.leaving
        number = calling.caller.number
        self._tell(f"{number} {leaving}", f"{number} {LEAVES_BY[leaving]}")
        if calling.stream is not None:
            self._leave_stream(calling, calling.stream, leaving)
        elif leaving is Leaving.CANCELS:
            self._step("cancel")
            self._pool.cancel(calling.caller.waiter)
            self._scope(calling, CancelReason.LEFT)
        else:
            self._interrupt(calling)

    def _interrupt(self, calling: _Calling) -> None:
        """Raise a KeyboardInterrupt in the call's thread, wherever that stands."""
        self._step("interrupt", caller=calling.caller)
        calling.naps += 1
        calling.asleep = False
        calling.attempt = None
        try:
            calling.task.throw(KeyboardInterrupt())
        except KeyboardInterrupt:
            self._end(calling, "interrupted")
        except StopIteration:
            self._end(calling, "interrupted at its end")

    def _scope(self, calling: _Calling, reason: CancelReason) -> None:
        if calling.stream is not None:
            calling.stream.scope.cancel(reason)
            calling.stream.exchange.arrived.append(TransportError(str(reason)))
            self._soon(partial(self._listen, calling))
        elif calling.attempt is not None:
            slot = calling.attempt
            outcome = Cancelled(slot.endpoint.alias, slot.attempt, reason)
            self._soon(partial(self._attempted, calling, slot, outcome))

    # -- One call, as its thread goes through it ------------------------------------------------

    def _resume(self, calling: _Calling, event: Done) -> None:
        if calling.caller.ended:
            return
        try:
            request = calling.task.send(event)
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
                    self._soon(partial(self._resume_after, calling, calling.naps))
                case Nap():
                    self._sleep(calling, request.seconds)
                case Attempt():
                    self._attempt(calling, request.slot)

    def _resume_after(self, calling: _Calling, naps: int) -> None:
        if calling.naps == naps:
            # What the pool was told is on its way to the call: the same as `event`.
            self._resume(calling, None)

    def _sleep(self, calling: _Calling, seconds: float) -> None:
        calling.naps += 1
        waiter = cast("ObservedWaiter", calling.caller.waiter)
        if _rings(waiter):
            self._soon(partial(self._go_on, calling, calling.naps, woken=True))
            return
        calling.asleep = True
        until = self.clock.moment + round(seconds * SECOND)
        self._at(until, partial(self._alarm, calling, calling.naps))

    def _wake(self, calling: _Calling, naps: int) -> None:
        if calling.naps == naps and _rings(cast("ObservedWaiter", calling.caller.waiter)):
            self._go_on(calling, naps, woken=True)

    def _alarm(self, calling: _Calling, naps: int) -> None:
        if calling.naps == naps and calling.asleep:
            calling.asleep = False
            self._go_on(
                calling, naps, woken=_rings(cast("ObservedWaiter", calling.caller.waiter))
            )

    def _go_on(self, calling: _Calling, naps: int, *, woken: bool) -> None:
        if calling.naps == naps:
            calling.naps += 1
            self._resume(calling, woken)

    # -- Attempts -------------------------------------------------------------------------------

    def _attempt(self, calling: _Calling, slot: Slot) -> None:
        """Let the model answer in its manner, unless time is up before."""
        calling.attempt, calling.began = slot, self.clock.moment
        self.requests[slot.endpoint.alias] += 1
        manner = self._models[slot.endpoint.alias].manner(self.clock.moment)
        outcome, over = self._outcome(calling, slot, manner)
        limit = min(calling.began + self.world.attempt_limit, calling.limit)
        if over > limit:
            alias, number = slot.endpoint.alias, slot.attempt
            if calling.limit <= limit:
                outcome = Cancelled(alias, number, CancelReason.CALL_TIME)
            else:
                outcome = Failed(alias, number, message=TimeLimit.ATTEMPT)
            over = max(limit, calling.began)
        self._at(over, partial(self._attempted, calling, slot, outcome, manner))

    def _outcome(
        self, calling: _Calling, slot: Slot, manner: Manner
    ) -> tuple[Responding | End, int]:
        """Return what comes of the attempt, and when that is known."""
        alias, number = slot.endpoint.alias, slot.attempt
        over = calling.began + manner.delay
        hint = None if manner.hint is None else timedelta(microseconds=manner.hint)
        after = timedelta(microseconds=manner.delay)
        kind = manner.kind
        if kind is None and self._models[alias].refuses(calling.arrival):
            kind = Refusal.REQUEST
        match kind:
            case Limit():
                return RateLimited(alias, number, kind, hint), over
            case Fault():
                return Failed(alias, number, kind, hint), over
            case None if calling.arrival.stream:
                return Responding(alias, number, after), over
            case None if manner.course is Course.WHOLE:
                over += manner.lasts
                return Succeeded(alias, number, 900, 100, 60, after), over
            case None:
                silent = manner.course is Course.SILENT
                over += self.world.silence_limit if silent else manner.lasts
                return Failed(alias, number, message=manner.course), over
            case _:
                return Rejected(alias, number, kind), over

    def _attempted(
        self,
        calling: _Calling,
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
        self._tell(
            f"{number} says {_describe_outcome(outcome)}",
            f"{number} #{outcome.attempt} {label_of_outcome(outcome)}",
        )
        self._resume(calling, outcome)

    # -- Streams --------------------------------------------------------------------------------

    def _open(self, calling: _Calling, slot: Slot, manner: Manner) -> None:
        """Make the real stream of an attempt that has come to its first content."""
        exchange = _SimulatedExchange()
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
        calling.stream = _Streaming(stream, exchange, scope, label, whole)
        script = _script(label, manner, self.world.silence_limit, calling.arrival)
        for after, piece in script:
            at = self.clock.moment + after
            if at > calling.limit:
                late = partial(self._scope, calling, CancelReason.CALL_TIME)
                self._at(max(calling.limit, self.clock.moment), late)
                break
            self._at(at, partial(self._receive, calling, piece))

    def _receive(self, calling: _Calling, piece: bytes | TransportError | None) -> None:
        if calling.stream is None or calling.caller.ended:
            return
        if calling.stream.scope.reason is None and piece is not None:
            calling.stream.exchange.arrived.append(piece)
        self._listen(calling, end=piece is None)

    def _listen(self, calling: _Calling, *, end: bool = False) -> None:
        """Read what has arrived, as the thread that consumes the stream does."""
        streaming = calling.stream
        if streaming is None or calling.caller.ended:
            return
        self._step("stream", caller=calling.caller)
        stream = streaming.stream
        try:
            while streaming.exchange.arrived or end:
                chunk = next(stream)
                if chunk.text:
                    streaming.heard.append(chunk.text)
                for call in chunk.delta.get("tool_calls") or ():
                    if "id" in call:
                        new = call["id"] not in streaming.calls
                        demand(new, 8, f"the tool call {call['id']} came twice")
                        streaming.calls.add(call["id"])
        except StopIteration:
            demand(streaming.whole, 8, "a stream that was not whole ended cleanly")
            self._over(calling, streaming, STREAMED)
        except StreamInterruptedError:
            demand(not streaming.whole or streaming.scope.reason, 8, "a whole stream broke")
            self._over(calling, streaming, INTERRUPTED)
        except MultiplexerError as error:
            expected = isinstance(error, ClosedError | CallCancelledError)
            demand(expected, 8, f"a stream raised {error}")
            self._over(calling, streaming, str(error))

    def _over(self, calling: _Calling, streaming: _Streaming, ended: str) -> None:
        reply = streaming.stream.reply
        words = [f"{streaming.label}:{number} " for number in range(PIECES)]
        heard = streaming.heard
        demand(heard == words[: len(heard)], 8, f"{streaming.label} said {heard}")
        demand(reply.text == "".join(heard), 8, f"a reply of other words: {reply.text}")
        demand(reply.model == streaming.label.split(":")[0], 8, "a wrong model is named")
        if ended == STREAMED:
            demand(len(heard) == PIECES, 8, f"{len(heard)} of {PIECES} pieces arrived")
        if calling.arrival.tools and ended == STREAMED:
            demand(len(streaming.calls) == 1, 8, "its tool call did not arrive")
        self._end(calling, ended)

    def _leave_stream(
        self, calling: _Calling, streaming: _Streaming, leaving: Leaving
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

    def _ended(self, calling: _Calling, ending: CallEnding) -> None:
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
                demand(ending.refusal in refused, 1, "refused by nobody")
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

    def _end(self, calling: _Calling, how: str) -> None:
        caller = calling.caller
        demand(not caller.ended, 1, f"{caller.number} ended twice: {caller.ended}, {how}")
        caller.ended = how
        calling.stream = None
        late = self.clock.moment - calling.limit
        demand(late <= GRACE, 1, f"{caller.number} ended {late / SECOND} s too late")
        with suppress(KeyError):
            del self._checker.callers[caller.waiter]
        self._tell(f"{caller.number} ends: {how}", f"{caller.number} ends {how}")
        if self._on_end is not None:
            retry_after = None
            if calling.retry_at is not None:
                # As in the gateway: nobody is to come too early.
                left = (calling.retry_at - self.clock.now()).total_seconds()
                retry_after = max(1, math.ceil(left))
            self._on_end(Ended(calling.arrival, how, self.clock.moment, retry_after))


def _rings(waiter: ObservedWaiter) -> bool:
    waiter.rung = False
    return waiter.park(0.0)


def _describe_outcome(outcome: Responding | End) -> str:
    kind = getattr(outcome, "kind", "")
    return f"{type(outcome).__name__} #{outcome.attempt} {kind}".rstrip()


def _script(
    label: str, manner: Manner, silence: int, arrival: Arrival
) -> list[tuple[int, bytes | TransportError | None]]:
    """Return what arrives after the first content, each with its time; None is the end."""
    pieces = [_event({"content": f"{label}:{number} "}) for number in range(PIECES)]
    if arrival.tools:
        call = f'{{"index":0,"id":"{label}","function":{{"name":"f","arguments":"{{}}"}}}}'
        pieces.append(
            f'data: {{"choices":[{{"delta":{{"tool_calls":[{call}]}}}}]}}\n\n'.encode()
        )
    pace = manner.lasts // (len(pieces) + 1)
    script: list[tuple[int, bytes | TransportError | None]] = [
        (number * pace, piece) for number, piece in enumerate(pieces)
    ]
    match manner.course:
        case Course.WHOLE:
            end = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
            return [
                *script,
                (manner.lasts, end + b"data: [DONE]\n\n"),
                (manner.lasts + 1, None),
            ]
        case Course.UNFINISHED:
            return [*script, (manner.lasts, None)]
        case Course.ERROR:
            error = b'data: {"error":{"message":"overloaded","code":503}}\n\n'
            return [*script[:2], (manner.lasts, error)]
        case Course.CUT:
            half = pieces[2][: len(pieces[2]) // 2]
            scope = TransportError("the connection was cut")
            return [*script[:2], (manner.lasts, half), (manner.lasts + 1, scope)]
        case Course.SILENT:
            silent = TransportError("nothing came for too long")
            return [*script[:1], (silence, silent)]


def _event(delta: dict[str, str]) -> bytes:
    content = delta["content"]
    return f'data: {{"choices":[{{"delta":{{"content":"{content}"}}}}]}}\n\n'.encode()
