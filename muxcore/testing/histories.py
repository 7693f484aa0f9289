"""Made-up histories of a pool: who is in it, and what happens to it, step by step."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from attrs import frozen
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
"""Seconds between two steps: none, a cooldown's worth, days; and a clock that is set back."""

HAPPENINGS: tuple[Responding | End, ...] = (
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
"""What may come of an attempt; its alias and number are filled in when it does."""


@frozen
class CallMade:
    """A call comes. `tried` are places in the pool, not all of which there need to be."""

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
class Happened:
    """Something comes of an attempt under way: the `which`-th, counted round and round."""

    which: int
    what: Responding | End


@frozen
class HistoryStep:
    passed: timedelta
    event: CallMade | Happened


@frozen
class History:
    """A pool and what happens to it."""

    pool: tuple[Endpoint, ...]
    policy: Policy
    steps: tuple[HistoryStep, ...]


def describe_history(endpoint: Endpoint) -> str:
    """Name an endpoint with what sets it apart."""
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


def _endpoint(facts: tuple[int, int | None, bool, int | None, float, float]) -> Endpoint:
    weight, cap, is_fallback, window, input_price, output_price = facts
    return Endpoint(
        "",
        "model",
        "provider",
        weight,
        cap,
        is_fallback,
        window,
        input_price,
        output_price,
    )


def _named(pool: list[Endpoint]) -> tuple[Endpoint, ...]:
    # The first is a primary, as a config sees to.
    return tuple(
        Endpoint(
            alias,
            alias.upper(),
            "provider",
            one.weight,
            one.max_concurrent,
            one.is_fallback and place > 0,
            one.context_window,
            one.input_price,
            one.output_price,
        )
        for place, (alias, one) in enumerate(zip(ALIASES, pool, strict=False))
    )


POOLS = st.lists(
    st.tuples(
        st.sampled_from((1, 2, 3, 7, 100)),
        st.sampled_from((None, None, 1, 2)),
        st.sampled_from((False, False, True)),
        st.sampled_from((None, None, 8_000, 128_000)),
        st.sampled_from((0.0, 0.4, 2.0)),
        st.sampled_from((0.0, 2.0, 10.0)),
    ).map(_endpoint),
    min_size=1,
    max_size=MOST_MODELS,
).map(_named)

POLICIES = st.sampled_from([Policy(sticky=sticky) for sticky in Sticky])

CALLS = st.builds(
    CallMade,
    st.sampled_from((None, "first", "second")),
    st.booleans(),
    st.sampled_from((None, 10, 20_000, 500_000)),
    st.sampled_from(((), (), (0,), (1,), (0, 1))),
)
HAPPENED = st.builds(Happened, st.integers(0, MOST_STEPS - 1), st.sampled_from(HAPPENINGS))
STEPS = st.lists(
    st.builds(HistoryStep, st.sampled_from(PASSED), CALLS | HAPPENED), max_size=MOST_STEPS
).map(tuple)
# In this order the smallest case found is smaller.
HISTORIES = st.builds(History, policy=POLICIES, steps=STEPS, pool=POOLS)
