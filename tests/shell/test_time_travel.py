"""Cooldowns pass without waiting: with a frozen clock, and as pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import freezegun
import pytest
import responses
from freezegun.api import FrozenDateTimeFactory

from muxcore import (
    Endpoint,
    Failed,
    Multiplexer,
    PoolState,
    RateLimited,
    Reply,
    Started,
    Succeeded,
    select,
    update,
)
from muxcore.core.records import Exhausted, Picked, Policy
from muxcore.shell import clock
from muxcore_strategies.failover import Failover

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PRIMARY = "https://primary.example/v1/chat/completions"
FALLBACK = "https://fallback.example/v1/chat/completions"
PING = [{"role": "user", "content": "ping"}]
HOUR = timedelta(hours=1)

CONFIG: dict[str, Any] = {
    "providers": [
        {"name": name, "api_base": f"https://{name}.example/v1", "backend": "generic"}
        for name in ("primary", "fallback")
    ],
    "models": [
        {"name": f"{name}-model", "provider": name, "alias": name}
        for name in ("primary", "fallback")
    ],
}


def config(**section: Any) -> dict[str, Any]:
    pool = [{"model": "primary"}, {"model": "fallback", "is_fallback": True}]
    return {
        **CONFIG,
        "multiplexer": {"enabled": True, "mode": "failover", "pool": pool, **section},
    }


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


@pytest.fixture
def world() -> Iterator[FrozenDateTimeFactory]:
    with freezegun.freeze_time(NOON) as frozen:
        yield cast("FrozenDateTimeFactory", frozen)


@pytest.fixture
def web() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.post(FALLBACK, json=completion("fallback"))
        yield mock


def completion(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def rate_limit_once(web: responses.RequestsMock, **headers: str) -> None:
    web.post(PRIMARY, status=429, json={"error": {"message": "slow"}}, headers=headers)
    web.post(PRIMARY, json=completion("primary"))


def ask(multiplexer: Multiplexer) -> Reply:
    return multiplexer.complete(PING)


def test_a_rate_limited_model_is_disabled_for_exactly_sixty_seconds(
    world: FrozenDateTimeFactory, web: responses.RequestsMock
) -> None:
    rate_limit_once(web)
    with Multiplexer.from_config(config(), env={}) as multiplexer:
        first = ask(multiplexer)
        assert (first.model, first.text) == ("fallback", "fallback")
        assert [(a.alias, a.outcome) for a in first.attempts] == [
            ("primary", "rate limited"),
            ("fallback", "succeeded"),
        ]
        assert multiplexer.status().models_available == 1

        world.tick(seconds(59))
        assert ask(multiplexer).model == "fallback"
        world.tick(timedelta(milliseconds=999))
        assert ask(multiplexer).model == "fallback"
        assert web.assert_call_count(PRIMARY, 1)

        world.tick(timedelta(milliseconds=1))
        status = multiplexer.status()
        assert status.models_available == 2
        assert status.models[0].on_probation
        assert ask(multiplexer).model == "primary"
        assert web.assert_call_count(PRIMARY, 2)
        assert not multiplexer.status().models[0].on_probation
        # One call probes it; then it is the first choice again.
        assert ask(multiplexer).model == "primary"


def test_the_cooldown_has_the_configured_length(
    world: FrozenDateTimeFactory, web: responses.RequestsMock
) -> None:
    rate_limit_once(web)
    section = config(rate_limit_disable_duration_ms=5000)
    with Multiplexer.from_config(section, env={}) as multiplexer:
        assert ask(multiplexer).model == "fallback"
        world.tick(seconds(4.9))
        assert ask(multiplexer).model == "fallback"
        world.tick(seconds(0.1))
        assert ask(multiplexer).model == "primary"


def test_an_error_has_its_own_configured_cooldown(
    world: FrozenDateTimeFactory, web: responses.RequestsMock
) -> None:
    web.post(PRIMARY, status=503)
    web.post(PRIMARY, json=completion("primary"))
    section = config(persistent_error_disable_duration_ms=7000)
    with Multiplexer.from_config(section, env={}) as multiplexer:
        assert ask(multiplexer).model == "fallback"
        world.tick(seconds(6.9))
        assert ask(multiplexer).model == "fallback"
        world.tick(seconds(0.1))
        assert ask(multiplexer).model == "primary"


@pytest.mark.parametrize(
    ("headers", "out"),
    [
        ({"Retry-After": "90"}, 90),
        ({"Retry-After": "Sun, 01 Mar 2026 12:02:00 GMT"}, 120),
        ({"retry-after-ms": "61500"}, 61.5),
        # A shorter one does not cut the configured time short.
        ({"Retry-After": "3"}, 60),
        # A hint counts for at most an hour.
        ({"Retry-After": "86400"}, 3600),
    ],
)
def test_a_longer_retry_after_wins(
    world: FrozenDateTimeFactory,
    web: responses.RequestsMock,
    headers: dict[str, str],
    out: float,
) -> None:
    rate_limit_once(web, **headers)
    with Multiplexer.from_config(config(), env={}) as multiplexer:
        assert ask(multiplexer).model == "fallback"
        assert multiplexer.status().models[0].disabled_until == NOON + seconds(out)
        world.tick(seconds(out - 0.001))
        assert ask(multiplexer).model == "fallback"
        world.tick(seconds(0.001))
        assert ask(multiplexer).model == "primary"


def test_a_failed_probe_disables_again(
    world: FrozenDateTimeFactory, web: responses.RequestsMock
) -> None:
    web.post(PRIMARY, status=429)
    web.post(PRIMARY, status=429)
    web.post(PRIMARY, json=completion("primary"))
    with Multiplexer.from_config(config(), env={}) as multiplexer:
        ask(multiplexer)
        world.tick(seconds(60))
        assert ask(multiplexer).model == "fallback"
        world.tick(seconds(59))
        assert ask(multiplexer).model == "fallback"
        assert web.assert_call_count(PRIMARY, 2)
        world.tick(seconds(1))
        assert ask(multiplexer).model == "primary"


def test_a_clock_set_back_before_the_cooldown_ends_it(
    world: FrozenDateTimeFactory, web: responses.RequestsMock
) -> None:
    rate_limit_once(web)
    with Multiplexer.from_config(config(), env={}) as multiplexer:
        assert ask(multiplexer).model == "fallback"
        world.move_to(NOON - HOUR)
        assert ask(multiplexer).model == "primary"


def test_a_wait_ends_after_its_length_although_the_clock_stands_still(
    world: FrozenDateTimeFactory, web: responses.RequestsMock
) -> None:
    web.replace(responses.POST, FALLBACK, status=503)
    rate_limit_once(web, **{"retry-after-ms": "30"})
    section = config(rate_limit_disable_duration_ms=1000, max_wait_ms=5000)
    with Multiplexer.from_config(section, env={}) as multiplexer:
        # A last resort, at the server's own hint: 30 ms of real time, none of the frozen.
        reply = ask(multiplexer)
        assert [a.alias for a in reply.attempts] == ["primary", "fallback", "primary"]
        assert clock.now() == NOON


def test_a_stream_uses_the_frozen_clock_too(
    world: FrozenDateTimeFactory, web: responses.RequestsMock
) -> None:
    web.post(PRIMARY, status=429)
    event = 'data: {"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}\n\n'
    web.post(PRIMARY, body=event, content_type="text/event-stream")
    web.replace(responses.POST, FALLBACK, body=event, content_type="text/event-stream")
    with Multiplexer.from_config(config(), env={}) as multiplexer:
        for model, later in (("fallback", 59), ("fallback", 1), ("primary", 0)):
            with multiplexer.stream(PING) as stream:
                assert "".join(chunk.text for chunk in stream) == "hi"
            assert stream.reply.model == model
            world.tick(seconds(later))


# The same with pure functions, without mocks: only `now` changes.

FRESH = PoolState.of(Endpoint("primary"), Endpoint("fallback", is_fallback=True))


def alias_at(state: PoolState, now: datetime) -> str:
    choice = select(state, Failover(), now)
    assert isinstance(choice, Picked)
    return choice.endpoint.alias


def after(state: PoolState, now: datetime, **failure: Any) -> PoolState:
    state = update(state, Started("primary"), now)
    return update(state, RateLimited("primary", state.attempts, **failure), now)


def test_purely_a_rate_limited_model_is_disabled_for_sixty_seconds() -> None:
    state = after(FRESH, NOON)
    assert alias_at(state, NOON) == "fallback"
    assert alias_at(state, NOON + seconds(59)) == "fallback"
    assert alias_at(state, NOON + seconds(60)) == "primary"


def test_purely_one_call_probes_it() -> None:
    state = after(FRESH, NOON)
    back = NOON + seconds(60)
    state = update(state, Started("primary"), back)
    assert alias_at(state, back) == "fallback"
    state = update(state, Succeeded("primary", state.attempts), back)
    assert alias_at(state, back) == "primary"


@pytest.mark.parametrize(("hint", "out"), [(3, 60), (90, 90), (86400, 3600)])
def test_purely_a_longer_hint_wins(hint: float, out: float) -> None:
    state = after(FRESH, NOON, hint=seconds(hint))
    assert alias_at(state, NOON + seconds(out) - seconds(0.001)) == "fallback"
    assert alias_at(state, NOON + seconds(out)) == "primary"


def test_purely_the_cooldowns_have_the_configured_length() -> None:
    policy = Policy(
        rate_limit_disable_duration=seconds(5),
        persistent_error_disable_duration=seconds(7),
    )
    fresh = PoolState.of(
        Endpoint("primary"), Endpoint("fallback", is_fallback=True), policy=policy
    )
    limited = after(fresh, NOON)
    assert alias_at(limited, NOON + seconds(4.999)) == "fallback"
    assert alias_at(limited, NOON + seconds(5)) == "primary"
    broken = update(fresh, Started("primary"), NOON)
    broken = update(broken, Failed("primary", broken.attempts), NOON)
    assert alias_at(broken, NOON + seconds(6.999)) == "fallback"
    assert alias_at(broken, NOON + seconds(7)) == "primary"


def test_purely_a_pool_of_one_has_the_time_of_the_next_attempt() -> None:
    policy = Policy(max_wait=seconds(0))
    state = after(PoolState.of(Endpoint("primary"), policy=policy), NOON, hint=seconds(9))
    choice = select(state, Failover(), NOON)
    assert isinstance(choice, Exhausted)
    # At the server's own hint, not only when the configured minute is over.
    assert choice.retry_at == NOON + seconds(9)
