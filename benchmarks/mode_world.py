"""The simulated world of `modes.py`: servers, a pool on virtual time, and agents.

`World` drives the functions that serve real calls (`call_steps`, `choose`, `choose_all`,
`update`). It has a driver of its own, because it is a queue of events and not of threads.
"""

from __future__ import annotations

import heapq
import random  # noqa: TID251 - seeded
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Protocol

from attrs import define, evolve, field, frozen

from muxcore.core.outcomes import (
    End,
    Failed,
    Fault,
    Outcome,
    RateLimited,
    Responding,
    Succeeded,
)
from muxcore.core.protocol import (
    Attempt,
    CallEnding,
    CallEvent,
    CallServed,
    CallStep,
    Choose,
    Sleep,
    Slept,
    Slot,
    call_steps,
    choose,
    choose_all,
)
from muxcore.core.records import Call, Exhausted, PoolState, Wait
from muxcore.core.strategy import Strategy
from muxcore.core.updating import update
from muxcore_backends.allowances import allowances

START = datetime(2026, 1, 1, tzinfo=UTC)
NEVER = datetime.max.replace(tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CACHE_LASTS = 5 * MINUTE


# --- servers -------------------------------------------------------------------------------


@frozen
class Request:
    """The size of a call, in tokens, as a server sees it."""

    conversation: str
    prompt: int
    answer: int


@frozen
class Outage:
    """A period in which a server answers every request with this fault."""

    since: datetime
    until: datetime
    kind: Fault


NO_HEADERS: Mapping[str, str] = {}


@frozen
class PlayedAnswer:
    """A server's answer: its end, the times to its first content and to its end, its headers."""

    end: End
    first: timedelta
    whole: timedelta
    headers: Mapping[str, str] = NO_HEADERS


@define
class Server:
    """A provider's model: a prompt cache, a limit of uncached tokens a minute, and outages.

    `pace` returns the seconds to the first content at a moment.
    """

    pace: Callable[[datetime, random.Random], float]
    dice: random.Random
    limit: int | None = None
    outages: Sequence[Outage] = ()
    flaws: float = 0.0
    """The share of requests that fail outside of outages."""
    keeps: timedelta = CACHE_LASTS
    cached: dict[str, tuple[int, datetime]] = field(factory=dict)
    spent: deque[tuple[datetime, int]] = field(factory=deque)

    def play(self, slot: Slot, request: Request, now: datetime) -> PlayedAnswer:
        alias, number = slot.endpoint.alias, slot.attempt
        quick = timedelta(seconds=0.2)
        for outage in self.outages:
            if outage.since <= now < outage.until:
                return PlayedAnswer(Failed(alias, number, outage.kind), quick, quick)
        if self.dice.random() < self.flaws:
            return PlayedAnswer(Failed(alias, number), quick, quick)
        tokens, at = self.cached.get(request.conversation, (0, START))
        warm = min(tokens, request.prompt) if now - at < self.keeps else 0
        fresh = request.prompt - warm
        while self.spent and self.spent[0][0] <= now - MINUTE:
            self.spent.popleft()
        if self.limit is not None and sum(n for _, n in self.spent) + fresh > self.limit:
            return PlayedAnswer(RateLimited(alias, number), quick, quick)
        self.spent.append((now, fresh))
        self.cached[request.conversation] = (request.prompt + request.answer, now)
        first = timedelta(seconds=self.pace(now, self.dice) + fresh / 20_000)
        whole = first + timedelta(seconds=request.answer / 100)
        end = Succeeded(alias, number, request.prompt, warm, request.answer)
        return PlayedAnswer(evolve(end, conversation=request.conversation), first, whole)


class Playing(Protocol):
    """What plays a provider's model."""

    def play(self, slot: Slot, request: Request, now: datetime) -> PlayedAnswer: ...


# --- the driver ----------------------------------------------------------------------------


@define
class RunningCall:
    """One call under way."""

    steps: Generator[CallStep, CallEvent, CallEnding]
    request: Request
    began: datetime
    then: Callable[[Finished], None]


@frozen
class Finished:
    """A call that is over: its ending, and the time to its first content."""

    ending: CallEnding
    first: timedelta


@define
class SleepingCall:
    """A call that waits for a slot or a time."""

    running: RunningCall
    pause: Sleep
    since: datetime


@define
class World:
    """A pool, its servers, and a queue of events. The core makes all decisions."""

    state: PoolState
    mode: Strategy
    servers: Mapping[str, Playing]
    now: datetime = START
    line: list[SleepingCall] = field(factory=list)
    events: list[tuple[datetime, int, Callable[[], None]]] = field(factory=list)
    numbers: Iterator[int] = field(factory=count)
    firsts: dict[int, datetime] = field(factory=dict)

    def at(self, moment: datetime, act: Callable[[], None]) -> None:
        heapq.heappush(self.events, (moment, next(self.numbers), act))

    def run(self, until: datetime = NEVER) -> None:
        while self.events and self.events[0][0] < until:
            self.now, _, act = heapq.heappop(self.events)
            act()

    def call(self, call: Call, request: Request, then: Callable[[Finished], None]) -> None:
        self._advance(RunningCall(call_steps(call), request, self.now, then), None)

    def _advance(self, running: RunningCall, event: CallEvent | None) -> None:
        try:
            step = next(running.steps) if event is None else running.steps.send(event)
        except StopIteration as stop:
            self._finish(running, stop.value)
            return
        match step:
            case Choose():
                self.state, choice = choose(self.state, self.mode, self.now, step.call)
                self._advance(running, choice)
            case Sleep():
                waiting = SleepingCall(running, step, self.now)
                self.line.append(waiting)
                self.at(step.wait.until, lambda: self._choose_all(waiting))
            case Attempt():
                self._attempt(running, step.slot)

    def _finish(self, running: RunningCall, ending: CallEnding) -> None:
        first = timedelta()
        if isinstance(ending, CallServed):
            last = ending.trail[-1].slot.attempt
            first = self.firsts.pop(last) - running.began
        running.then(Finished(ending, first))

    def _attempt(self, running: RunningCall, slot: Slot) -> None:
        alias = slot.endpoint.alias
        played = self.servers[alias].play(slot, running.request, self.now)
        if isinstance(played.end, Succeeded):
            self.firsts[slot.attempt] = self.now + played.first
            self.at(self.now + played.first, lambda: self._respond(slot, played))

        def end() -> None:
            outcome = played.end
            if isinstance(outcome, RateLimited):
                left = allowances(played.headers, self.now)
                outcome = evolve(outcome, allowances=left)
            self._record(outcome)
            self._advance(running, outcome)

        self.at(self.now + played.whole, end)

    def _respond(self, slot: Slot, played: PlayedAnswer) -> None:
        left = allowances(played.headers, self.now)
        alias, number = slot.endpoint.alias, slot.attempt
        self._record(Responding(alias, number, played.first, left))

    def _record(self, outcome: Outcome) -> None:
        self.state = update(self.state, outcome, self.now)
        self._choose_all(None)

    def _choose_all(self, expired: SleepingCall | None) -> None:
        """Let all waiting calls choose again, in their order; advance those that are decided."""
        line, self.line = self.line, []
        if expired is not None and expired not in line:
            self.line = line
            return
        calls = [
            evolve(w.pause.call, waited=w.pause.call.waited + (self.now - w.since))
            for w in line
        ]
        self.state, choices = choose_all(self.state, self.mode, self.now, calls)
        for waiting, choice in zip(line, choices, strict=True):
            assert isinstance(choice, Slot | Wait | Exhausted)
            if isinstance(choice, Wait) and waiting is not expired:
                self.line.append(waiting)
            else:
                self._advance(waiting.running, Slept(self.now - waiting.since, choice))


# --- an agent ------------------------------------------------------------------------------


@define
class Agent:
    """Runs the turns of a growing conversation, one call after the other."""

    world: World
    name: str
    dice: random.Random
    turns: int
    largest: int
    served_by: list[str] = field(factory=list)
    lost: int = 0
    prompt: int = 6000
    chapter: int = 0
    left_in_turn: int = 0

    def begin(self) -> None:
        self.world.at(self.world.now, self._begin_turn)

    def _begin_turn(self) -> None:
        if self.turns == 0:
            return
        self.turns -= 1
        self.left_in_turn = self.dice.randint(2, 14)
        if self.prompt > self.largest:
            # The agent compacts its history: a new conversation, cold on every model.
            self.prompt, self.chapter = 8000, self.chapter + 1
        self._ask(new_turn=True)

    def _ask(self, *, new_turn: bool) -> None:
        conversation = f"{self.name}/{self.chapter}"
        request = Request(conversation, self.prompt, self.dice.randint(50, 600))
        # The estimate of four bytes per token is mostly low.
        estimate = int(self.prompt * self.dice.uniform(0.8, 1.05))
        deadline = self.world.now + 20 * MINUTE
        call = Call(None, conversation, new_turn, estimate, deadline)
        self.world.call(
            call, request, lambda finished: self._finish_call(request, finished)
        )

    def _finish_call(self, request: Request, finished: Finished) -> None:
        if isinstance(finished.ending, CallServed):
            self.served_by.append(finished.ending.trail[-1].slot.endpoint.alias)
            self.prompt += request.answer + self.dice.randint(100, 2500)
        else:
            self.lost += 1
        self.left_in_turn -= 1
        if self.left_in_turn > 0:
            pause = timedelta(seconds=self.dice.uniform(0.1, 4))
            self.world.at(self.world.now + pause, lambda: self._ask(new_turn=False))
        else:
            pause = timedelta(seconds=self.dice.uniform(5, 90))
            self.world.at(self.world.now + pause, self._begin_turn)


def recorded_outages(seed: str, length: timedelta) -> tuple[Outage, ...]:
    """Make outages like those on providers' status pages: mostly short, some long."""
    dice = random.Random(seed)
    outages = []
    now = START
    while now < START + length:
        now += timedelta(seconds=dice.expovariate(1 / 600))
        duration = timedelta(seconds=min(dice.lognormvariate(3, 1), 600))
        outages.append(Outage(now, now + duration, Fault.TRANSIENT))
        now += duration
    return tuple(outages)
