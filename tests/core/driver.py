"""A driver of calls over made-up models, without a shell: each answers by a function."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from attrs import evolve

from muxcore.core.outcomes import (
    End,
    Failed,
    Fault,
    Limit,
    RateLimited,
    Refusal,
    Rejected,
    Succeeded,
)
from muxcore.core.protocol import (
    Attempt,
    CallEnding,
    Record,
    Sleep,
    Slept,
    call_steps,
    choose,
    credited,
)
from muxcore.core.records import Call, Endpoint, Policy, PoolState
from muxcore.core.selection import FRESH
from muxcore.core.strategy import Strategy
from muxcore.core.updating import update
from muxcore_strategies.failover import Failover

DEFAULTS = Policy()
FAILOVER = Failover()


class Driver:
    """Drives calls one after the other over models which answer by a function each."""

    def __init__(
        self,
        *endpoints: Endpoint,
        now: datetime,
        answers: dict[str, Callable[[int, datetime], End]],
        policy: Policy = DEFAULTS,
        mode: Strategy = FAILOVER,
    ) -> None:
        self.mode = mode
        self.state = PoolState.of(*endpoints, policy=policy)
        self.now, self.answers = now, answers
        self.asked: list[str] = []

    def call(self, call: Call = FRESH) -> CallEnding:
        running = call_steps(call)
        event: Any = None
        while True:
            try:
                step = running.send(event)
            except StopIteration as stop:
                ending: CallEnding = stop.value
                return ending
            if isinstance(step, Attempt):
                alias = step.slot.endpoint.alias
                self.asked.append(alias)
                event = self.answers[alias](step.slot.attempt, self.now)
                if isinstance(event, Succeeded):
                    event = credited(event, step.call)
                self.state = update(self.state, event, self.now)
                continue
            if isinstance(step, Record):
                self.state, event = update(self.state, step.outcome, self.now), None
                continue
            waited = timedelta()
            if isinstance(step, Sleep):
                waited = step.wait.until - self.now
                self.now = step.wait.until
            seen = evolve(step.call, waited=step.call.waited + waited)
            self.state, choice = choose(self.state, self.mode, self.now, seen)
            event = Slept(waited, choice) if isinstance(step, Sleep) else choice


def fine(alias: str) -> Callable[[int, datetime], End]:
    return lambda attempt, now: Succeeded(alias, attempt)


def broken(alias: str, kind: Fault = Fault.TRANSIENT) -> Callable[[int, datetime], End]:
    return lambda attempt, now: Failed(alias, attempt, kind)


def limited(alias: str, kind: Limit = Limit.RATE) -> Callable[[int, datetime], End]:
    return lambda attempt, now: RateLimited(alias, attempt, kind)


def refuses(alias: str, kind: Refusal) -> Callable[[int, datetime], End]:
    return lambda attempt, now: Rejected(alias, attempt, kind)
