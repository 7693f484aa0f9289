"""Calls of a real pool at moments that the test sets, and their journal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from attrs import evolve

from muxcore.core.outcomes import End, Responding
from muxcore.core.protocol import (
    Attempt,
    Slot,
)
from muxcore.core.records import Call, Endpoint, Policy, PoolState
from muxcore.core.strategy import Strategy
from muxcore.journal.recent import Journal
from muxcore.shell.call.loop import GiveWay, call_loop
from muxcore.shell.pool.pool import Nap, Pool
from muxcore.shell.pool.waiter import Waiter
from muxcore_strategies.failover import Failover

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
