"""Generated histories of a pool: its endpoints, and what happens to them, step by step."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from attrs import evolve, frozen
from hypothesis import strategies as st

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
from muxcore.core.records import Call, Endpoint, Policy, PoolState, Sticky

START = datetime(2026, 1, 1, tzinfo=UTC)
MOST_MODELS = 6
MOST_STEPS = 40
ALIASES = "abcdef"

PASSED = tuple(
    timedelta(seconds=seconds) for seconds in (0, 0.001, 1, 10, 61, 400, 90_000, -5)
)
"""Time between two steps: none, a cooldown's length, a day, and a clock that is set back."""

OUTCOMES: tuple[Responding | End, ...] = (
    Succeeded("", 0, 1200, 0, 300, timedelta(milliseconds=400)),
    Succeeded("", 0, 90_000, 80_000, 20, timedelta(seconds=9)),
    Succeeded("", 0),
    Responding("", 0, timedelta(milliseconds=250)),
    Cancelled("", 0),
    *(RateLimited("", 0, kind) for kind in Limit),
    *(Failed("", 0, kind) for kind in Fault),
    RateLimited("", 0, hint=timedelta(seconds=7)),
    *(Rejected("", 0, kind) for kind in Refusal),
)
"""What may come of an attempt. Its alias and number are filled in later."""


@frozen
class CallMade:
    """A new call. `tried` are places in the pool; those beyond its end are ignored."""

    conversation: str | None = None
    new_turn: bool = True
    prompt_tokens: int | None = None
    tried: tuple[int, ...] = ()

    def call(self, state: PoolState) -> Call:
        aliases = [candidate.endpoint.alias for candidate in state.candidates]
        return Call(
            conversation=self.conversation,
            new_turn=self.new_turn,
            prompt_tokens=self.prompt_tokens,
            tried=tuple(aliases[place] for place in self.tried if place < len(aliases)),
        )


@frozen
class AttemptEvent:
    """An outcome of an attempt under way: the `which`-th, modulo their number."""

    which: int
    outcome: Responding | End


@frozen
class HistoryStep:
    passed: timedelta
    event: CallMade | AttemptEvent


@frozen
class History:
    """A pool and its steps."""

    pool: tuple[Endpoint, ...]
    policy: Policy
    steps: tuple[HistoryStep, ...]


def describe_endpoint(endpoint: Endpoint) -> str:
    """Return the alias of an endpoint, with its settings that are not the default."""
    facts = [
        f"{field} {value:g}"
        for field, value, usual in (
            ("weight", endpoint.weight, 1),
            ("max_concurrent", endpoint.max_concurrent, None),
            ("context_window", endpoint.context_window, None),
            ("input_price", endpoint.input_price, 0.0),
            ("output_price", endpoint.output_price, 0.0),
        )
        if value is not None and value != usual
    ]
    if endpoint.is_fallback:
        facts.append("a fallback")
    return f"{endpoint.alias} ({', '.join(facts)})" if facts else endpoint.alias


def _with_aliases(pool: list[Endpoint]) -> tuple[Endpoint, ...]:
    return tuple(
        evolve(
            one,
            alias=alias,
            model=alias.upper(),
            # The first is a primary, as every config demands.
            is_fallback=one.is_fallback and place > 0,
        )
        for place, (alias, one) in enumerate(zip(ALIASES, pool, strict=False))
    )


POOLS = st.lists(
    st.builds(
        Endpoint,
        alias=st.just(ALIASES[0]),
        provider=st.just("provider"),
        weight=st.sampled_from((1, 2, 3, 7, 100)),
        max_concurrent=st.sampled_from((None, None, 1, 2)),
        is_fallback=st.sampled_from((False, False, True)),
        context_window=st.sampled_from((None, None, 8_000, 128_000)),
        input_price=st.sampled_from((0.0, 0.4, 2.0)),
        output_price=st.sampled_from((0.0, 2.0, 10.0)),
    ),
    min_size=1,
    max_size=MOST_MODELS,
).map(_with_aliases)

POLICIES = st.sampled_from([Policy(sticky=sticky) for sticky in Sticky])

CALLS = st.builds(
    CallMade,
    st.sampled_from((None, "first", "second")),
    st.booleans(),
    st.sampled_from((None, 10, 20_000, 500_000)),
    st.sampled_from(((), (), (0,), (1,), (0, 1))),
)
ATTEMPT_EVENTS = st.builds(
    AttemptEvent, st.integers(0, MOST_STEPS - 1), st.sampled_from(OUTCOMES)
)
STEPS = st.lists(
    st.builds(HistoryStep, st.sampled_from(PASSED), CALLS | ATTEMPT_EVENTS),
    max_size=MOST_STEPS,
).map(tuple)
# Hypothesis shrinks in this order: so the smallest case is smaller.
HISTORIES = st.builds(History, policy=POLICIES, steps=STEPS, pool=POOLS)
