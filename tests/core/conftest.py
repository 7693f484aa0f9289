from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cattrs import Converter
from hypothesis import HealthCheck, settings

from muxcore.core.outcomes import (
    Cancelled,
    Failed,
    Fault,
    Limit,
    Outcome,
    RateLimited,
    Responding,
    Started,
    Succeeded,
)
from muxcore.core.records import Call, Choice, Cooldown, Endpoint, Policy, PoolState
from muxcore.core.selection import FRESH, select
from muxcore.core.strategy import Strategy
from muxcore.core.updating import update
from muxcore_strategies.failover import Failover

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DEFAULTS, FAILOVER = Policy(), Failover()

# Tests request it by name, so that it affects no others.
settings.register_profile(
    "core",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=100,
    stateful_step_count=50,
    suppress_health_check=[HealthCheck.too_slow],
)


class History:
    """A pool and its clock. Each method is one event, in the order of the calls."""

    def __init__(
        self,
        *endpoints: Endpoint | str,
        policy: Policy = DEFAULTS,
        mode: Strategy = FAILOVER,
    ) -> None:
        pool = (e if isinstance(e, Endpoint) else Endpoint(e) for e in endpoints or ("a",))
        self.state = PoolState.of(*pool, policy=policy)
        self.mode = mode
        self.now = NOON

    def after(self, seconds: float) -> History:
        self.now += timedelta(seconds=seconds)
        return self

    def at(self, seconds: float) -> History:
        """Set the clock to this many seconds after noon."""
        self.now = NOON + timedelta(seconds=seconds)
        return self

    def record(self, outcome: Outcome) -> History:
        self.state = update(self.state, outcome, self.now)
        return self

    def start(self, alias: str = "a", memory: object = None) -> int:
        self.record(Started(alias, memory))
        return self.state.attempts

    def respond(self, alias: str = "a", attempt: int | None = None) -> int:
        attempt = self.start(alias) if attempt is None else attempt
        self.record(Responding(alias, attempt))
        return attempt

    def succeed(
        self, alias: str = "a", attempt: int | None = None, conversation: str | None = None
    ) -> History:
        attempt = self.start(alias) if attempt is None else attempt
        return self.record(Succeeded(alias, attempt, conversation=conversation))

    def fail(
        self,
        kind: Limit | Fault,
        alias: str = "a",
        attempt: int | None = None,
        hint: float | None = None,
    ) -> History:
        """Let an attempt fail now; a new one if none is given."""
        attempt = self.start(alias) if attempt is None else attempt
        wish = None if hint is None else timedelta(seconds=hint)
        if isinstance(kind, Limit):
            return self.record(RateLimited(alias, attempt, kind, wish))
        return self.record(Failed(alias, attempt, kind, wish))

    def cancel(self, alias: str, attempt: int) -> History:
        return self.record(Cancelled(alias, attempt))

    def select(self, call: Call = FRESH) -> Choice:
        return select(self.state, self.mode, self.now, call)

    def cooldown(self, alias: str = "a") -> Cooldown:
        """Return the only cooldown of an endpoint."""
        (cooldown,) = self.state[alias].health.cooldowns
        return cooldown

    def lasts(self, alias: str = "a") -> float:
        """Return how many seconds from now it is disabled."""
        cooldown = self.state[alias].health.active_cooldown(self.now)
        return 0.0 if cooldown is None else (cooldown.until - self.now).total_seconds()


@pytest.fixture(scope="session")
def history() -> type[History]:
    return History


@pytest.fixture(scope="session")
def noon() -> datetime:
    return NOON


@pytest.fixture(scope="session")
def converter() -> Converter:
    """Turn records into plain JSON values and back."""
    converter = Converter()
    converter.register_unstructure_hook(datetime, datetime.isoformat)
    converter.register_structure_hook(
        datetime, lambda text, _: datetime.fromisoformat(text)
    )
    microsecond = timedelta(microseconds=1)
    converter.register_unstructure_hook(timedelta, lambda span: span // microsecond)
    converter.register_structure_hook(timedelta, lambda number, _: number * microsecond)

    # A set has no defined order.
    converter.register_unstructure_hook_func(lambda kind: kind == frozenset[str], sorted)
    converter.register_structure_hook_func(
        lambda kind: kind is object, lambda value, _: value
    )
    limits = {str(limit) for limit in Limit}
    converter.register_structure_hook_func(
        lambda kind: kind == Limit | Fault,
        lambda text, _: Limit(text) if text in limits else Fault(text),
    )
    return converter
