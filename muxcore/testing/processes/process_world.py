"""One world of several processes, in made-up time, out of a seed.

    python -m muxcore.testing.processes.process_world --worlds 1000

Each process has a real pool, a real link to its board and calls that go through the real loop;
providers, the board and the clocks are made up. Processes are killed and started anew, clocks
differ, facts arrive late, and in every second world the board is busy or gone at times.
"""

from __future__ import annotations

import argparse
import heapq
import random  # noqa: TID251 - made from a seed, and nowhere else
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import assert_never

from attrs import define, field, frozen

from muxcore.board.link import BoardLink, PoolSide
from muxcore.core.folding.leases import LeaseWanted, lease_wanted
from muxcore.core.outcomes import End, Failed, Limit, PickReason, RateLimited, Succeeded
from muxcore.core.protocol import Attempt
from muxcore.core.records import Call, Endpoint, Policy, PoolState
from muxcore.plugins.board import BoardBusyError
from muxcore.shell import clock as system_clock
from muxcore.shell.call.loop import Done, GiveWay, Loop, call_loop
from muxcore.shell.pool.pool import Nap, Pool
from muxcore.testing.processes.made_up_board import BoardStore, MadeUpBoard
from muxcore.testing.processes.process_rules import BrokenRuleError, ProcessRules, demand
from muxcore.testing.simulation.observation import ObservedWaiter
from muxcore_strategies.failover import Failover
from muxcore_strategies.load_balance import LoadBalance

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
HEAR, ASK_AGAIN, MOMENT = 0.04, 0.005, 0.0001
NOTICED_WITHIN = 1.0
"""Seconds after which the death of a holder is seen at the latest."""
PATIENCE = 60.0
GRACE = 0.1
"""Rule 1: so many seconds after its deadline may a call end."""
MODES = (Failover, LoadBalance)


@frozen
class WorldResult:
    """What came of a world."""

    calls: int
    attempts: int
    kills: int
    endings: Counter[str]


@define(eq=False)
class _Upstream:
    """One model as its provider sees it: what is in flight, and when it is limited."""

    endpoint: Endpoint
    latency: float
    limited: tuple[tuple[float, float], ...]
    in_flight: int = 0

    def answer(self, attempt: int, moment: float) -> End:
        alias = self.endpoint.alias
        for start, end in self.limited:
            if start <= moment < end:
                if attempt % 3 == 0:
                    return Failed(alias, attempt)
                hint = timedelta(seconds=round(end - moment) or 1)
                return RateLimited(alias, attempt, Limit.RATE, hint)
        return Succeeded(alias, attempt, 100, 0, 10)


@frozen
class _Clock:
    world: ProcessWorld
    skew: timedelta

    def now(self) -> datetime:
        return START + timedelta(seconds=self.world.moment) + self.skew

    def elapsed(self) -> float:
        return self.world.moment


@define(eq=False)
class _Thread:
    """One call under way."""

    process: _Process
    waiter: ObservedWaiter
    loop: Loop
    deadline: float
    naps: int = 0
    asleep: bool = False
    over: bool = False
    under_way: _Upstream | None = None
    is_probe: bool = False


@define(eq=False)
class _Process:
    name: str
    pool: Pool
    link: BoardLink
    rules: ProcessRules
    clock: _Clock
    wanted: Callable[[], Sequence[LeaseWanted]]
    alive: bool = True
    threads: list[_Thread] = field(factory=list)
    steps: int = 0
    """The number of the next step that is due, so that an older one has no effect."""


class ProcessWorld:
    """A world while it happens."""

    def __init__(self, seed: int, calls: int = 60) -> None:
        self.moment = 0.0
        self._dice = random.Random(seed)  # noqa: S311 - the same every time
        dice = self._dice
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._entries = 0
        self._store = BoardStore()
        self._calls = calls
        self._is_troubled = dice.random() < 0.5  # noqa: PLR2004 - every second one
        self._outages = self._periods(5) if self._is_troubled else ()
        self._kills = 0
        self._endings: Counter[str] = Counter()
        self._upstreams = [
            _Upstream(
                Endpoint(
                    f"m{number}",
                    f"model-{number}",
                    max_concurrent=dice.choice([None, 1, 2, 3]),
                    weight=dice.randint(1, 3),
                ),
                dice.choice([0.02, 0.1, 0.5]),
                self._periods(4),
            )
            for number in range(dice.randint(1, 3))
        ]
        self._mode = dice.choice(MODES)
        self._policy = Policy(
            rate_limit_disable_duration=timedelta(seconds=dice.choice([1, 5])),
            persistent_error_disable_duration=timedelta(seconds=1),
            max_wait=timedelta(seconds=dice.choice([5, 30])),
        )
        self._arrivals = 0
        self._processes = [self._process(n) for n in range(dice.randint(2, 4))]

    def run(self) -> WorldResult:
        """Let it happen; raise `BrokenRuleError` at the first rule that does not hold."""
        dice, moment = self._dice, 0.0
        for _ in range(self._calls):
            moment += dice.choice([0.0, 0.001, 0.05, 0.3])
            self._at(moment, self._arrive)
        for _ in range(dice.choice([0, 1, 3])):
            self._at(dice.random() * moment, self._kill)
        while self._agenda:
            self.moment, _, act = heapq.heappop(self._agenda)
            act()
        self._look_back()
        attempts = sum(process.pool.state.attempts for process in self._processes)
        return WorldResult(self._calls, attempts, self._kills, self._endings)

    def _periods(self, most: int) -> tuple[tuple[float, float], ...]:
        dice = self._dice
        starts = (dice.random() * 12 for _ in range(dice.randint(0, most)))
        return tuple((start, start + dice.choice([0.1, 1, 4])) for start in starts)

    def _at(self, moment: float, act: Callable[[], None]) -> None:
        self._entries += 1
        heapq.heappush(self._agenda, (moment, self._entries, act))

    def _process(self, number: int) -> _Process:
        dice, clock = (
            self._dice,
            _Clock(self, timedelta(seconds=self._dice.randint(-90, 90))),
        )
        endpoints = [upstream.endpoint for upstream in self._upstreams]
        state = PoolState.of(*endpoints, policy=self._policy)
        rules = ProcessRules(state)
        pool = Pool(state, self._mode(), clock=clock, observer=rules.check)
        name, delay = f"p{number}", dice.choice([0.0, 0.05, 0.5])

        def trouble() -> str:
            for start, end in self._outages:
                if start <= self.moment < end:
                    return "busy" if number % 2 else "gone"
            return ""

        def wanted() -> Sequence[LeaseWanted]:
            found = map(lacks, pool.waiting_calls())
            return [one for one in found if one is not None]

        def lacks(call: Call) -> LeaseWanted | None:
            return lease_wanted(pool.state, pool.strategy, clock.now(), call)

        side = PoolSide(
            state=lambda: pool.state,
            checkpoint=pool.checkpoint,
            record=pool.record,
            follow=pool.journal.follow,
            places=lambda _: {endpoint.alias: endpoint.model for endpoint in endpoints},
            now=clock.now,
            elapsed=clock.elapsed,
            lacks=lacks,
            wanted=wanted,
        )
        board = MadeUpBoard(self._store, name, clock.elapsed, delay, trouble)
        link = BoardLink(lambda: board, side)
        pool.journal.follow(link.follow)
        process = _Process(name, pool, link, rules, clock, wanted)
        self._step(process, 0)
        return process

    def _step(self, process: _Process, number: int) -> None:
        """Make one step of a process's link, and plan the next."""
        if not process.alive or number != process.steps:
            return
        process.steps += 1
        with suppress(BoardBusyError):
            process.link.step(process.wanted, lambda: None)
        has_calls = any(not thread.over for thread in process.threads)
        if has_calls or self._arrivals < self._calls:
            leasing = process.link.leasing
            is_waiting = leasing is not None and leasing.is_waiting
            pause = ASK_AGAIN if is_waiting else HEAR
            self._at(self.moment + pause, partial(self._step, process, process.steps))

    def _step_soon(self, process: _Process) -> None:
        """Ring the bell, as the thread's does when a call asks or an attempt ends."""
        process.steps += 1
        self._at(self.moment + MOMENT, partial(self._step, process, process.steps))

    def _arrive(self) -> None:
        self._arrivals += 1
        process = self._dice.choice([one for one in self._processes if one.alive])
        waiter = ObservedWaiter()
        call = Call(
            deadline=process.clock.now() + timedelta(seconds=PATIENCE),
            conversation=self._dice.choice([None, "one", "two"]),
        )
        loop = call_loop(process.pool, waiter, call)
        thread = _Thread(process, waiter, loop, self.moment + PATIENCE)
        waiter.on_decision = partial(self._notify, thread)
        process.threads.append(thread)
        self._resume(thread, done=None)
        self._step_soon(process)

    def _resume(self, thread: _Thread, *, done: Done) -> None:
        if not thread.process.alive:
            return
        try:
            need = thread.loop.send(done)
        except StopIteration as stop:
            thread.over = True
            late = self.moment - thread.deadline
            demand(late <= GRACE, f"1: a call ended {late:.3f} s after its deadline")
            self._endings[type(stop.value).__name__] += 1
            return
        match need:
            case GiveWay():
                self._at(self.moment + MOMENT, partial(self._resume, thread, done=None))
            case Nap():
                self._sleep(thread, need)
            case Attempt():
                self._attempt(thread, need)
            case _ as never:
                assert_never(never)

    def _sleep(self, thread: _Thread, nap: Nap) -> None:
        thread.naps += 1
        if thread.waiter.park(0.0):
            self._at(self.moment + MOMENT, partial(self._resume, thread, done=True))
            return
        thread.asleep = True
        alarm = partial(self._wake, thread, thread.naps, woken=False)
        # No thread wakes up at the very moment at which it fell asleep.
        self._at(self.moment + max(nap.seconds, MOMENT), alarm)

    def _notify(self, thread: _Thread) -> None:
        if thread.asleep:
            wake = partial(self._wake, thread, thread.naps, woken=True)
            self._at(self.moment + MOMENT, wake)

    def _wake(self, thread: _Thread, nap: int, *, woken: bool) -> None:
        if thread.asleep and thread.naps == nap and thread.process.alive:
            thread.asleep = False
            self._resume(thread, done=woken or thread.waiter.park(0.0))

    def _attempt(self, thread: _Thread, step: Attempt) -> None:
        slot, process = step.slot, thread.process
        upstream = next(u for u in self._upstreams if u.endpoint == slot.endpoint)
        candidate = process.pool.state[slot.endpoint.alias]
        now, cap = process.clock.now(), slot.endpoint.max_concurrent
        thread.under_way = upstream
        thread.is_probe = (
            candidate.leases is not None
            and candidate.health.unproven
            and candidate.health.active_cooldown(now) is None
            and slot.reason is not PickReason.LAST_RESORT
        )
        upstream.in_flight += 1
        if not self._is_troubled:
            flight, probes = upstream.in_flight, self._probes(upstream)
            demand(cap is None or flight <= cap, f"2: {flight} in flight of {cap} in all")
            demand(probes <= 1, f"3: {probes} probes at once in all processes")
        outcome = upstream.answer(slot.attempt, self.moment)
        self._at(self.moment + upstream.latency, partial(self._end, thread, outcome))

    def _probes(self, upstream: _Upstream) -> int:
        """Count the probes under way. Whoever hears that another succeeded probes no more."""
        alias = upstream.endpoint.alias
        return sum(
            thread.is_probe and thread.under_way is upstream
            for process in self._processes
            if process.pool.state[alias].health.unproven
            for thread in process.threads
        )

    def _end(self, thread: _Thread, outcome: End) -> None:
        if thread.process.alive:
            self._leave(thread)
            self._resume(thread, done=outcome)
            self._step_soon(thread.process)

    def _leave(self, thread: _Thread) -> None:
        if thread.under_way is not None:
            thread.under_way.in_flight -= 1
            thread.under_way = None

    def _kill(self) -> None:
        """Kill a process with all that it holds, and start another in its place."""
        process = self._dice.choice([one for one in self._processes if one.alive])
        process.alive = False
        self._kills += 1
        for thread in process.threads:
            self._leave(thread)
            self._endings["killed"] += not thread.over
        noticed = self.moment + self._dice.random() * NOTICED_WITHIN
        self._store.dead[process.name] = noticed
        self._processes.append(self._process(len(self._processes)))

    def _look_back(self) -> None:
        for process in self._processes:
            if not process.alive:
                continue
            for thread in process.threads:
                demand(thread.over, "1: a call never ended")
            with suppress(BoardBusyError):
                process.link.step(process.wanted, lambda: None, last=True)
            process.rules.look_back(process.pool.state)
            process.link.close()
        living = {process.name for process in self._processes if process.alive}
        left = [lease for lease in self._store.leases if lease[2] in living]
        demand(not left, f"2: leases are left: {left}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Simulate worlds of several processes.")
    parser.add_argument("--worlds", type=int, default=1_000)
    parser.add_argument("--calls", type=int, default=60, help="in each world")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args(arguments)
    began, endings = system_clock.elapsed(), Counter[str]()
    attempts = kills = 0
    for seed in range(options.first, options.first + options.worlds):
        try:
            result = ProcessWorld(seed, options.calls).run()
        except BrokenRuleError as error:
            print(f"world {seed} breaks rule {error}")  # noqa: T201
            return 1
        attempts += result.attempts
        kills += result.kills
        endings += result.endings
    seconds = system_clock.elapsed() - began
    calls = options.worlds * options.calls
    print(  # noqa: T201
        f"{calls:,} calls, {attempts:,} attempts, {kills:,} processes killed in"
        f" {options.worlds:,} worlds: no rule broken ({seconds:.0f} s);"
        f" {dict(sorted(endings.items()))}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
