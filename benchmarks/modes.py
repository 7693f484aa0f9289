"""What the modes do to an agent, in a simulation: `python benchmarks/modes.py`.

It drives the very functions that serve real calls (`conduct`, `choose`, `serve`, `update`)
on virtual time, against made-up servers with prompt caches, token limits and outages. It is
seeded: the same figures come out on every machine. `--scale 0.1` is a quick look.
"""

from __future__ import annotations

import argparse
import heapq
import random  # noqa: TID251 - seeded
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import partial
from itertools import count, pairwise

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
from muxcore.core.records import (
    Call,
    Candidate,
    Endpoint,
    Exhausted,
    Policy,
    PoolState,
    Sticky,
    Tally,
    Wait,
)
from muxcore.core.strategy import Strategy
from muxcore.core.updating import update
from muxcore_strategies.failover import Failover
from muxcore_strategies.load_balance import LoadBalance
from muxcore_strategies.lowest_cost import LowestCost
from muxcore_strategies.lowest_latency import LowestLatency

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
CACHE_LASTS = 5 * MINUTE


# --- servers -------------------------------------------------------------------------------


@frozen
class Request:
    """What a server sees of a call."""

    conversation: str
    prompt: int
    answer: int


@frozen
class Outage:
    """A time in which a server answers nothing else than this fault."""

    since: datetime
    until: datetime
    kind: Fault


@frozen
class Played:
    """What a server does with a request: its first content and its end, and how it ends."""

    end: End
    first: timedelta
    whole: timedelta


@define
class Server:
    """A provider's model: a prompt cache, a limit of uncached tokens a minute, and outages.

    `pace` gives the seconds to the first content at a moment.
    """

    pace: Callable[[datetime, random.Random], float]
    dice: random.Random
    limit: int | None = None
    outages: Sequence[Outage] = ()
    flaws: float = 0.0
    """The share of requests that fail by themselves."""
    keeps: timedelta = CACHE_LASTS
    cached: dict[str, tuple[int, datetime]] = field(factory=dict)
    spent: deque[tuple[datetime, int]] = field(factory=deque)

    def play(self, slot: Slot, request: Request, now: datetime) -> Played:
        alias, number = slot.endpoint.alias, slot.attempt
        quick = timedelta(seconds=0.2)
        for outage in self.outages:
            if outage.since <= now < outage.until:
                return Played(Failed(alias, number, outage.kind), quick, quick)
        if self.dice.random() < self.flaws:
            return Played(Failed(alias, number), quick, quick)
        tokens, at = self.cached.get(request.conversation, (0, START))
        warm = min(tokens, request.prompt) if now - at < self.keeps else 0
        fresh = request.prompt - warm
        while self.spent and self.spent[0][0] <= now - MINUTE:
            self.spent.popleft()
        if self.limit is not None and sum(n for _, n in self.spent) + fresh > self.limit:
            return Played(RateLimited(alias, number), quick, quick)
        self.spent.append((now, fresh))
        self.cached[request.conversation] = (request.prompt + request.answer, now)
        first = timedelta(seconds=self.pace(now, self.dice) + fresh / 20_000)
        whole = first + timedelta(seconds=request.answer / 100)
        end = Succeeded(alias, number, request.prompt, warm, request.answer)
        return Played(evolve(end, conversation=request.conversation), first, whole)


# --- the driver ----------------------------------------------------------------------------


@define
class Course:
    """One call under way."""

    steps: Generator[CallStep, CallEvent, CallEnding]
    request: Request
    began: datetime
    then: Callable[[Finished], None]


@frozen
class Finished:
    """A call that is over: how, and after what time its first content had come."""

    ending: CallEnding
    first: timedelta


@define
class Waiting:
    course: Course
    pause: Sleep
    since: datetime


@define
class World:
    """A pool, its servers, and the events to come. Nothing here decides anything."""

    state: PoolState
    mode: Strategy
    servers: dict[str, Server]
    now: datetime = START
    line: list[Waiting] = field(factory=list)
    events: list[tuple[datetime, int, Callable[[], None]]] = field(factory=list)
    numbers: Iterator[int] = field(factory=count)
    firsts: dict[int, datetime] = field(factory=dict)

    def at(self, moment: datetime, act: Callable[[], None]) -> None:
        heapq.heappush(self.events, (moment, next(self.numbers), act))

    def run(self) -> None:
        while self.events:
            self.now, _, act = heapq.heappop(self.events)
            act()

    def call(self, call: Call, request: Request, then: Callable[[Finished], None]) -> None:
        self._go_on(Course(call_steps(call), request, self.now, then), None)

    def _go_on(self, course: Course, event: CallEvent | None) -> None:
        try:
            step = next(course.steps) if event is None else course.steps.send(event)
        except StopIteration as stop:
            self._finish(course, stop.value)
            return
        match step:
            case Choose():
                self.state, choice = choose(self.state, self.mode, self.now, step.call)
                self._go_on(course, choice)
            case Sleep():
                waiting = Waiting(course, step, self.now)
                self.line.append(waiting)
                self.at(step.wait.until, lambda: self._serve(waiting))
            case Attempt():
                self._attempt(course, step.slot)

    def _finish(self, course: Course, ending: CallEnding) -> None:
        first = timedelta()
        if isinstance(ending, CallServed):
            last = ending.trail[-1].slot.attempt
            first = self.firsts.pop(last) - course.began
        course.then(Finished(ending, first))

    def _attempt(self, course: Course, slot: Slot) -> None:
        alias = slot.endpoint.alias
        played = self.servers[alias].play(slot, course.request, self.now)
        if isinstance(played.end, Succeeded):
            self.firsts[slot.attempt] = self.now + played.first
            responding = Responding(alias, slot.attempt, played.first)
            self.at(self.now + played.first, lambda: self._learn(responding))

        def end() -> None:
            self._learn(played.end)
            self._go_on(course, played.end)

        self.at(self.now + played.whole, end)

    def _learn(self, outcome: Outcome) -> None:
        self.state = update(self.state, outcome, self.now)
        self._serve(None)

    def _serve(self, late: Waiting | None) -> None:
        """Let all who wait choose anew, in their order; tell those who have an answer."""
        line, self.line = self.line, []
        if late is not None and late not in line:
            self.line = line
            return
        calls = [
            evolve(w.pause.call, waited=w.pause.call.waited + (self.now - w.since))
            for w in line
        ]
        self.state, choices = choose_all(self.state, self.mode, self.now, calls)
        for waiting, choice in zip(line, choices, strict=True):
            assert isinstance(choice, Slot | Wait | Exhausted)
            if isinstance(choice, Wait) and waiting is not late:
                self.line.append(waiting)
            else:
                self._go_on(waiting.course, Slept(self.now - waiting.since, choice))


# --- an agent ------------------------------------------------------------------------------


@define
class Agent:
    """Works through turns of a growing conversation, one call after the other."""

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
            # The agent compacts its history: a new beginning, cold everywhere.
            self.prompt, self.chapter = 8000, self.chapter + 1
        self._ask(new_turn=True)

    def _ask(self, *, new_turn: bool) -> None:
        conversation = f"{self.name}/{self.chapter}"
        request = Request(conversation, self.prompt, self.dice.randint(50, 600))
        # Four bytes to a token is an estimate, and mostly a low one.
        estimate = int(self.prompt * self.dice.uniform(0.8, 1.05))
        deadline = self.world.now + 20 * MINUTE
        call = Call(None, conversation, new_turn, estimate, deadline)
        self.world.call(call, request, lambda finished: self._take(request, finished))

    def _take(self, request: Request, finished: Finished) -> None:
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
    """Make outages as providers' status pages record them: mostly short, some long."""
    dice = random.Random(seed)
    outages = []
    now = START
    while now < START + length:
        now += timedelta(seconds=dice.expovariate(1 / 600))
        lasting = timedelta(seconds=min(dice.lognormvariate(3, 1), 600))
        outages.append(Outage(now, now + lasting, Fault.TRANSIENT))
        now += lasting
    return tuple(outages)


# --- 1. load_balance and its share ---------------------------------------------------------


def table_of_shares(scale: float) -> list[list[str]]:
    rows = [
        ["models", "trials", "picks", "never changes", "some are busy", "some are disabled"]
    ]
    for size in (2, 4, 8, 16, 64):
        trials = max(2, round(scale * 60))
        rows.append(
            [
                str(size),
                str(trials),
                str(trials * PICKS),
                *(f"{float(deviation(size, trials, away)):.4f}" for away in AWAY),
            ]
        )
    return rows


PICKS = 400
AWAY = ("", "busy", "disabled")


def deviation(size: int, trials: int, away: str) -> Fraction:
    """Return the most by which any model's turns ever differed from its exact share.

    While others come and go, the exact share is that of a fluid that is poured over those
    who are there. One that was disabled begins anew: then so does its account here.
    """
    worst = Fraction(0)
    for trial in range(trials):
        dice = random.Random(f"{size} {trial}")
        weights = [dice.randint(1, 100) for _ in range(size)]
        worst = max(worst, _deviation(weights, away, dice))
    return worst


def _deviation(weights: Sequence[int], away: str, dice: random.Random) -> Fraction:
    mode = LoadBalance()
    pool = [Candidate(Endpoint(str(i), weight=w)) for i, w in enumerate(weights)]
    absent: set[int] = set()
    lags = [Fraction(0)] * len(pool)
    memory: object = None
    worst = Fraction(0)
    for _ in range(PICKS):
        if away and dice.random() < 0.1:
            place = dice.randrange(len(pool))
            if place in absent:
                absent.remove(place)
            elif len(absent) < len(pool) - 1:
                absent.add(place)
                if away == "disabled":
                    failed = pool[place].tally.failed + 1
                    pool[place] = evolve(pool[place], tally=Tally(failed=failed))
                    lags[place] = Fraction(0)
        shown = [place for place in range(len(pool)) if place not in absent]
        total = sum(weights[place] for place in shown)
        picked, memory = mode.pick([pool[p] for p in shown], memory, Call(), START)
        for place in shown:
            lags[place] += Fraction(weights[place], total)
        lags[int(picked.alias)] -= 1
        worst = max(worst, *(abs(lags[place]) for place in shown))
    return worst


# --- 2. stickiness -------------------------------------------------------------------------


@frozen
class Stuck:
    """What became of some agents with one mode and one value of `sticky`."""

    cached: float
    switches: int
    faults: int
    limits: int
    on_first: int
    calls: int
    lost: int

    @property
    def switches_per_fault(self) -> float:
        return self.switches / max(1, self.faults)


FIRST, SECOND, THIRD = Endpoint("first"), Endpoint("second"), Endpoint("third")
LIMIT = 50_000
LARGEST_PROMPT = 42_000


def stuck(
    pool: Sequence[Endpoint],
    mode: Strategy,
    sticky: Sticky,
    sessions: int,
    turns: int = 40,
    keeps: timedelta = CACHE_LASTS,
) -> Stuck:
    """Let agents work, each with a pool of its own, under the same faults."""
    totals: Counter[str] = Counter()
    for session in range(sessions):
        servers = {
            endpoint.alias: Server(
                lambda _, dice: dice.lognormvariate(0, 0.4),
                random.Random(f"{session} {endpoint.alias}"),
                LIMIT,
                recorded_outages(f"{session} {endpoint.alias}", 6 * HOUR),
                flaws=0.01,
                keeps=keeps,
            )
            for endpoint in pool
        }
        world = World(PoolState.of(*pool, policy=Policy(sticky=sticky)), mode, servers)
        dice = random.Random(f"agent {session}")
        agent = Agent(world, f"session {session}", dice, turns, LARGEST_PROMPT)
        agent.begin()
        world.run()
        for candidate in world.state.candidates:
            tally = candidate.tally
            totals["in"] += tally.tokens_in
            totals["cached"] += tally.tokens_cached
            totals["limits"] += tally.rate_limited
            totals["faults"] += tally.rate_limited + tally.failed
        served = agent.served_by
        totals["switches"] += sum(a != b for a, b in pairwise(served))
        totals["first"] += served.count(pool[0].alias)
        totals["calls"] += len(served)
        totals["lost"] += agent.lost
    return Stuck(
        totals["cached"] / totals["in"],
        totals["switches"],
        totals["faults"],
        totals["limits"],
        totals["first"],
        totals["calls"],
        totals["lost"],
    )


def table_of_stickiness(scale: float) -> list[list[str]]:
    """Show it where a prompt cache lasts as long as most providers', and where it is short."""
    sessions = max(2, round(scale * 12))
    pool = [FIRST, SECOND, THIRD]
    runs = []
    for keeps in (5 * MINUTE, MINUTE):
        alone = stuck([FIRST], Failover(), Sticky.TURN, sessions, keeps=keeps)
        minutes = f"{keeps // MINUTE} min"
        runs.append((minutes, "the first alone", "", alone, alone))
        for name, mode in (("failover", Failover()), ("load_balance", LoadBalance())):
            for sticky in Sticky:
                run = stuck(pool, mode, sticky, sessions, keeps=keeps)
                runs.append((minutes, name, sticky.value, run, alone))
    return [
        [
            "cache kept",
            "mode",
            "sticky",
            "cached tokens",
            "of a single model's",
            "switches per fault",
            "rate limits met",
            "on the first",
            "calls",
            "lost",
        ],
        *(
            [
                minutes,
                name,
                sticky,
                f"{run.cached:.1%}",
                f"{run.cached / alone.cached:.1%}",
                f"{run.switches_per_fault:.2f}",
                str(run.limits),
                f"{run.on_first / run.calls:.0%}",
                str(run.calls),
                str(run.lost),
            ]
            for minutes, name, sticky, run, alone in runs
        ),
    ]


# --- 3. latency ----------------------------------------------------------------------------


def steady(_: datetime, dice: random.Random) -> float:
    return 0.5 * dice.lognormvariate(0, 0.3)


def slow(_: datetime, dice: random.Random) -> float:
    return 2.0 * dice.lognormvariate(0, 0.3)


def now_and_then(now: datetime, dice: random.Random) -> float:
    """Be the quickest of all, but for one minute in six."""
    bad = (now - START) % (6 * MINUTE) < MINUTE
    return (6.0 if bad else 0.35) * dice.lognormvariate(0, 0.3)


PACES = {"steady": steady, "slow": slow, "now and then slow": now_and_then}


@frozen
class Latencies:
    firsts: tuple[float, ...]
    """Seconds to the first content of each call, ascending."""
    by_model: Counter[str]

    def percentile(self, share: float) -> float:
        return self.firsts[min(int(share * len(self.firsts)), len(self.firsts) - 1)]


def latencies(mode: Strategy, calls: int, per_second: float) -> Latencies:
    """Send calls at random moments to a steady, a slow and a now and then slow model."""
    dice = random.Random("arrivals")
    servers = {name: Server(pace, random.Random(name)) for name, pace in PACES.items()}
    world = World(PoolState.of(*map(Endpoint, PACES)), mode, servers)
    firsts: list[float] = []
    by_model: Counter[str] = Counter()

    def take(finished: Finished) -> None:
        assert isinstance(finished.ending, CallServed)
        firsts.append(finished.first.total_seconds())
        by_model[finished.ending.trail[-1].slot.endpoint.alias] += 1

    moment = START
    for number in range(calls):
        moment += timedelta(seconds=dice.expovariate(per_second))
        request = Request(str(number), 1000, 100)
        world.at(moment, partial(world.call, Call(), request, take))
    world.run()
    return Latencies(tuple(sorted(firsts)), by_model)


def table_of_latency(scale: float) -> list[list[str]]:
    rows = [["calls a second", "mode", "p50", "p90", "p99", *PACES]]
    for per_second in (0.1, 2.0, 10.0):
        calls = max(400, round(scale * 12_000 * min(1, per_second)))
        for name, mode in (
            ("load_balance", LoadBalance()),
            ("lowest_latency", LowestLatency()),
        ):
            seen = latencies(mode, calls, per_second)
            shares = (seen.by_model[model] / calls for model in PACES)
            rows.append(
                [
                    f"{per_second:g}",
                    name,
                    *(f"{seen.percentile(p):.2f} s" for p in (0.5, 0.9, 0.99)),
                    *(f"{share:.1%}" for share in shares),
                ]
            )
    return rows


# --- 4. cost -------------------------------------------------------------------------------

PRICED = (
    Endpoint("large", input_price=2.0, output_price=8.0, cached_input_price=0.2),
    Endpoint("middle", input_price=0.4, output_price=2.0, cached_input_price=0.04),
    Endpoint("plain", input_price=0.15, output_price=0.6),
)
"""Dollars for a million tokens. The last one is the cheapest cold, and has no cheaper cache."""


def money(
    pool: Sequence[Endpoint], mode: Strategy, sticky: Sticky, sessions: int, turns: int = 40
) -> tuple[float, Counter[str]]:
    """Return the dollars of 1,000 calls, and how many went where."""
    spent, calls = 0.0, Counter[str]()
    for session in range(sessions):
        servers = {e.alias: Server(steady, random.Random(e.alias)) for e in pool}
        world = World(PoolState.of(*pool, policy=Policy(sticky=sticky)), mode, servers)
        dice = random.Random(f"agent {session}")
        agent = Agent(world, f"session {session}", dice, turns, 100_000)
        agent.begin()
        world.run()
        spent += sum(candidate.cost for candidate in world.state.candidates)
        calls.update(agent.served_by)
    return 1000 * spent / calls.total(), calls


def table_of_cost(scale: float) -> list[list[str]]:
    sessions = max(2, round(scale * 12))
    rows = [["mode", "sticky", "dollars for 1,000 calls", *(e.alias for e in PRICED)]]

    def add(name: str, pool: Sequence[Endpoint], mode: Strategy, sticky: Sticky) -> None:
        dollars, calls = money(pool, mode, sticky, sessions)
        shares = [f"{calls[e.alias] / calls.total():.0%}" for e in PRICED]
        rows.append([name, sticky.value, f"{dollars:.2f}", *shares])

    for endpoint in PRICED:
        add(f"{endpoint.alias} alone", [endpoint], Failover(), Sticky.TURN)
    for name, mode in (("load_balance", LoadBalance()), ("lowest_cost", LowestCost())):
        for sticky in Sticky:
            add(name, PRICED, mode, sticky)
    return rows


# --- printing ------------------------------------------------------------------------------

TABLES: tuple[tuple[str, Callable[[float], list[list[str]]]], ...] = (
    (
        "load_balance: the most turns by which any model strayed from its share",
        table_of_shares,
    ),
    (
        "sticky: an agent under recorded-style faults and a limit of tokens",
        table_of_stickiness,
    ),
    ("lowest_latency: time to the first content", table_of_latency),
    ("lowest_cost: the bill", table_of_cost),
)


def drawn(rows: Sequence[Sequence[str]]) -> str:
    """Draw a table in Markdown."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--scale", type=float, default=1.0, help="how much of it (1: all)")
    scale = options.parse_args().scale
    for title, table in TABLES:
        print(f"### {title}\n\n{drawn(table(scale))}\n", flush=True)


if __name__ == "__main__":
    main()
