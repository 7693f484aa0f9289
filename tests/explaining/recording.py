"""Calls of a real pool at moments that the test sets, and their journal.

`python -m tests.explaining.recording` writes the journals in `journals/` anew: after the rules
have changed on purpose, and `RULES` was raised.
"""

from __future__ import annotations

import random  # noqa: TID251 - made from a seed, and nowhere else
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from attrs import evolve

from muxcore.core.outcomes import (
    Cancelled,
    End,
    Failed,
    Fault,
    Limit,
    RateLimited,
    Refusal,
    Rejected,
    Responding,
    Succeeded,
)
from muxcore.core.protocol import (
    Attempt,
    Slot,
)
from muxcore.core.records import Call, Endpoint, Policy, PoolState
from muxcore.core.strategy import Strategy
from muxcore.explaining.replay import sealed
from muxcore.journal.export import to_lines
from muxcore.journal.recent import Journal
from muxcore.shell.call.loop import GiveWay, call_loop
from muxcore.shell.pool.pool import Nap, Pool
from muxcore.shell.pool.waiter import Waiter
from muxcore_strategies.failover import Failover
from muxcore_strategies.load_balance import LoadBalance
from muxcore_strategies.lowest_cost import LowestCost

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
Answers = Callable[[Slot], Responding | End]


class Recording:
    """One pool, whose calls take no time but what the test adds."""

    def __init__(
        self,
        *endpoints: Endpoint,
        mode: str = "failover",
        strategy: Strategy | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.seconds = 0.0
        state = PoolState.of(*endpoints, policy=policy or Policy())
        self.pool = Pool(state, strategy or Failover(), mode=mode, clock=self)

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)

    def elapsed(self) -> float:
        return self.seconds

    def call(self, *answers: tuple[float, Answers], call: Call | None = None) -> str:
        """Make a call; each answer comes after so many seconds. Return the call's id."""
        waiter, coming = Waiter(), iter(answers)
        call = evolve(call or Call(), deadline=self.now() + timedelta(minutes=20))
        loop = call_loop(self.pool, waiter, call)
        done: bool | Responding | End | None = None
        try:
            while True:
                match loop.send(done):
                    case GiveWay():
                        done = None
                    case Nap(seconds=seconds):
                        self.seconds += seconds
                        done = False
                    case Attempt(slot=slot):
                        after, answer = next(coming)
                        self.seconds += after
                        done = answer(slot)
        except StopIteration:
            return waiter.id

    def journal(self) -> Journal:
        journal = self.pool.recorded()
        assert journal is not None
        return journal


FOLDER = Path(__file__).with_name("journals")
POOLS: Mapping[str, tuple[Strategy, tuple[Endpoint, ...]]] = {
    "failover": (
        Failover(),
        (
            Endpoint("large", context_window=60_000, input_price=2.0, output_price=6.0),
            Endpoint("other", input_price=1.0, output_price=2.0),
            Endpoint("local", is_fallback=True, context_window=30_000),
        ),
    ),
    "load_balance": (
        LoadBalance(),
        (Endpoint("a", weight=3), Endpoint("b", weight=2), Endpoint("c")),
    ),
    "lowest_cost": (
        LowestCost(),
        (
            Endpoint("dear", input_price=5.0, output_price=15.0, cached_input_price=0.5),
            Endpoint("cheap", input_price=0.4, output_price=1.2),
        ),
    ),
}


def day_of(mode: str, seed: int, calls: int) -> Recording:
    """Return so many calls of two conversations, whose models fail in every way."""
    recording = recording_of(mode)
    live(recording, seed, calls)
    return recording


def recording_of(mode: str) -> Recording:
    strategy, endpoints = POOLS[mode]
    return Recording(*endpoints, mode=mode, strategy=strategy)


def live(recording: Recording, seed: int, calls: int) -> None:
    """Make so many calls."""
    dice = random.Random(seed)
    for number in range(calls):
        recording.seconds += dice.uniform(0.2, 20)
        call = Call(
            conversation=f"session-{number % 2}",
            new_turn=dice.random() < 0.2,
            prompt_tokens=dice.randrange(1_000, 50_000),
        )
        answers = [_answer(dice) for _ in range(8)]
        recording.call(*answers, call=call)


def _answer(dice: random.Random) -> tuple[float, Answers]:
    which, after = dice.random(), dice.uniform(0.1, 4)
    read, hint = dice.randrange(1_000, 50_000), timedelta(seconds=dice.randrange(1, 60))

    def answer(slot: Slot) -> Responding | End:
        alias, attempt = slot.endpoint.alias, slot.attempt
        if which < 0.1:
            return RateLimited(alias, attempt, Limit.RATE, hint, "Slow down")
        if which < 0.17:
            return Failed(alias, attempt, Fault.TRANSIENT)
        if which < 0.22:
            return Rejected(alias, attempt, Refusal.REQUEST)
        if which < 0.24:
            return Rejected(alias, attempt, Refusal.TOO_LONG, 20_000)
        if which < 0.25:
            return Cancelled(alias, attempt)
        first = timedelta(seconds=after / 2)
        return Succeeded(alias, attempt, read, read // 2, 200, first)

    return after, answer


if __name__ == "__main__":
    for name in POOLS:
        journal = sealed(day_of(name, 1, 100).journal())
        (FOLDER / f"{name}.jsonl").write_bytes(b"".join(to_lines(journal)))
