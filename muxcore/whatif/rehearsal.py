"""Runs the requests of a journal through another pool, in simulated time.

The pool and the loop of a call are the real ones. Pauses between calls are kept, not moments.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from attrs import define, evolve

from muxcore.core.entries import CallResult
from muxcore.core.outcomes import Responding, Succeeded
from muxcore.core.protocol import Attempt, Slot
from muxcore.core.records import Endpoint, PoolState
from muxcore.core.strategy import Strategy
from muxcore.errors import StrategyError
from muxcore.shell.call.loop import Done, GiveWay, Loop, call_loop
from muxcore.shell.pool.parker import Parker
from muxcore.shell.pool.pool import Nap, Pool
from muxcore.shell.pool.waiter import Waiter
from muxcore.whatif.estimates import Estimate
from muxcore.whatif.recorded import RecordedRequest, RequestRecord

USUAL_RETRY = timedelta(seconds=2)
MOST_RETRIES = 18
"""How often agents repeat a call that failed."""


class Answering(Protocol):
    """What answers attempts: estimates, or a simulated world."""

    def attempt(
        self, endpoint: Endpoint, attempt: int, request: int, now: datetime
    ) -> Estimate: ...


@define
class RehearsedSums:
    """What came of all attempts and waits."""

    attempts: int = 0
    estimated: int = 0
    unserved: int = 0
    """Requests that no call served."""
    waited: timedelta = timedelta()


class Rehearsal:
    """One run of all requests, of which there is at least one."""

    def __init__(
        self,
        record: RequestRecord,
        state: PoolState,
        strategy: Strategy,
        answering: Answering,
        mode: str = "",
    ) -> None:
        self.sums = RehearsedSums()
        self.pool = Pool(state, strategy, mode=mode, clock=self)
        self._record = record
        self._answering = answering
        self._began = min(request.calls[0].began for request in record.requests)
        self._seconds = 0.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._entries = 0
        self._followers: dict[int, list[int]] = defaultdict(list)
        for position, request in enumerate(record.requests):
            if request.follows is not None:
                self._followers[request.follows].append(position)

    def now(self) -> datetime:
        return self._began + timedelta(seconds=self._seconds)

    def elapsed(self) -> float:
        return self._seconds

    def run(self) -> None:
        """Run every request to its end."""
        for position, request in enumerate(self._record.requests):
            if request.follows is None:
                at = (request.calls[0].began - self._began).total_seconds()
                self.at(at, partial(self.begin, position, 0))
        while self._agenda:
            moment, _, act = heapq.heappop(self._agenda)
            self._seconds = max(self._seconds, moment)
            act()

    def at(self, moment: float, act: Callable[[], None]) -> None:
        self._entries += 1
        heapq.heappush(self._agenda, (moment, self._entries, act))

    def after(self, pause: timedelta, act: Callable[[], None]) -> None:
        self.at(self._seconds + pause.total_seconds(), act)

    def begin(self, position: int, retry: int) -> None:
        """Begin the call of a request, or its repetition."""
        request = self._record.requests[position]
        if retry == 0:
            for follower in self._followers[position]:
                if self._record.requests[follower].overlaps:
                    think = self._record.requests[follower].think
                    self.after(think, partial(self.begin, follower, 0))
        _RehearsedCall(self, request, position, retry).resume(None)

    def request(self, position: int) -> RecordedRequest:
        return self._record.requests[position]

    def attempt(self, slot: Slot, position: int) -> Estimate:
        estimate = self._answering.attempt(
            slot.endpoint, slot.attempt, position, self.now()
        )
        self.sums.attempts += 1
        self.sums.estimated += not estimate.known
        return estimate

    def end(self, position: int, retry: int, result: CallResult) -> None:
        """End a call: repeat it if it was not served, or go on to what follows it."""
        request = self._record.requests[position]
        pause = _retry_after(request, retry, result)
        if pause is not None:
            self.after(pause, partial(self.begin, position, retry + 1))
            return
        self.sums.unserved += result is not CallResult.SERVED
        for follower in self._followers[position]:
            following = self._record.requests[follower]
            if not following.overlaps:
                self.after(following.think, partial(self.begin, follower, 0))


def _retry_after(
    request: RecordedRequest, retry: int, result: CallResult
) -> timedelta | None:
    """Return after how long the client repeats the call, None if it does not."""
    if result not in {CallResult.EXHAUSTED, CallResult.BROKEN} or retry >= MOST_RETRIES:
        return None
    calls = request.calls
    if retry + 1 < len(calls):
        ended = calls[retry].ended or calls[retry].began
        return calls[retry + 1].began - ended
    # A client that had given up by then gives up again.
    return USUAL_RETRY if calls[-1].result is CallResult.SERVED else None


class _Bell(Parker):
    """Wakes a rehearsed call instead of a thread."""

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__()
        self._ring = ring

    def unpark(self) -> None:
        super().unpark()
        self._ring()


class _RehearsedCall:
    """One call under way."""

    def __init__(
        self, rehearsal: Rehearsal, request: RecordedRequest, position: int, retry: int
    ) -> None:
        self._rehearsal = rehearsal
        self._position, self._retry = position, retry
        recorded = request.calls[min(retry, len(request.calls) - 1)]
        deadline = recorded.call.deadline
        call = request.call
        if deadline is not None:
            call = evolve(call, deadline=rehearsal.now() + (deadline - recorded.began))
        self._waiter = Waiter()
        self._waiter.parker = _Bell(self._wake)
        self._napping: float | None = None
        self._naps = 0
        self._loop: Loop = call_loop(rehearsal.pool, self._waiter, call)
        self._open: Estimate | None = None
        """An answer whose first content has arrived."""

    def resume(self, done: Done) -> None:
        rehearsal = self._rehearsal
        try:
            need = self._loop.send(done)
            while isinstance(need, GiveWay):
                need = self._loop.send(None)
        except StopIteration:
            if self._open is None:
                rehearsal.end(self._position, self._retry, self._waiter.result)
            return
        except StrategyError:
            rehearsal.end(self._position, self._retry, CallResult.FAILED)
            return
        if isinstance(need, Nap):
            self._nap(need.seconds)
        elif isinstance(need, Attempt):
            self._attempt(need.slot)

    def _attempt(self, slot: Slot) -> None:
        estimate = self._rehearsal.attempt(slot, self._position)
        alias, attempt = slot.endpoint.alias, slot.attempt
        if estimate.streamed and estimate.first is not None:
            self._open = estimate
            begun = Responding(alias, attempt, estimate.first)
            self._rehearsal.after(estimate.first, partial(self.resume, begun))
            self._rehearsal.after(estimate.took, self._end_stream)
        else:
            self._rehearsal.after(estimate.took, partial(self.resume, estimate.outcome))

    def _end_stream(self) -> None:
        estimate, rehearsal = self._open, self._rehearsal
        if estimate is None:
            return
        outcome = estimate.outcome
        is_served = isinstance(outcome, Succeeded)
        request = rehearsal.request(self._position)
        if isinstance(outcome, Succeeded) and request.call.conversation is not None:
            outcome = outcome.of_conversation(
                request.call.conversation, (), new_turn=request.call.new_turn
            )
        rehearsal.pool.record(outcome)
        result = CallResult.SERVED if is_served else CallResult.BROKEN
        self._waiter.slot, self._waiter.result = None, result
        rehearsal.pool.settle(self._waiter)
        rehearsal.end(self._position, self._retry, result)

    def _nap(self, seconds: float) -> None:
        self._naps += 1
        self._napping = self._rehearsal.elapsed()
        timed = partial(self._end_nap, self._naps, woken=False)
        self._rehearsal.at(self._napping + seconds, timed)

    def _wake(self) -> None:
        if self._napping is not None:
            self._rehearsal.after(
                timedelta(), partial(self._end_nap, self._naps, woken=True)
            )

    def _end_nap(self, nap: int, *, woken: bool) -> None:
        if nap != self._naps or self._napping is None:
            return
        slept = self._rehearsal.elapsed() - self._napping
        self._rehearsal.sums.waited += timedelta(seconds=slept)
        self._napping = None
        self.resume(woken)
