"""Pools on a Redis: what one learns all know; round trips; a Redis that is gone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from muxcore import Multiplexer
from muxcore.board import leasing, thread
from muxcore.standin import Model, rate_limited
from tests.board.redis.conftest import Make
from tests.board.redis.server import RedisServer
from tests.waiting import wait_until

PING = [{"role": "user", "content": "ping"}]
CAPPED = {"model": "alpha", "max_concurrent": 3}
Counted = Callable[[Multiplexer], Callable[[], int]]


def limited(multiplexer: Multiplexer) -> bool:
    return multiplexer.state["alpha"].health.limited is not None


def scripts(redis: RedisServer) -> int:
    """Return how many scripts the server has run. Each is a round trip."""
    with redis.client() as client:
        found = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})
    return int(found["calls"])


def is_idle(redis: RedisServer) -> bool:
    """Whether all slots are given back, and the board hears by its blocking read alone."""
    with redis.client() as client:
        lanes = list(client.scan_iter("*lane:*"))
        return not lanes and any("b" in each["flags"] for each in client.client_list())


@pytest.fixture
def counted(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Count the round trips of a multiplexer from here on; no lease is old enough to renew."""
    for module in (leasing, thread):
        monkeypatch.setattr(module, "RENEW_SECONDS", 3600.0)

    def counted(multiplexer: Multiplexer) -> Callable[[], int]:
        ready(multiplexer)
        wait_until(lambda: is_idle(redis))
        before = scripts(redis)
        return lambda: scripts(redis) - before

    return counted


def ready(multiplexer: Multiplexer) -> None:
    multiplexer.complete(PING)
    wait_until(lambda: multiplexer.state["alpha"].leases is not None)


def test_a_limit_that_one_meets_is_known_to_the_others(made: Make, alpha: Model) -> None:
    one, two = made(), made()
    ready(one)
    ready(two)
    alpha.then(rate_limited(timedelta(seconds=90)))
    one.complete(PING)
    wait_until(lambda: limited(two))
    assert two.complete(PING).model == "beta"
    newcomer = made()
    wait_until(lambda: limited(newcomer))


def test_a_call_without_a_cap_makes_no_round_trip(made: Make, counted: Counted) -> None:
    multiplexer = made()
    trips = counted(multiplexer)
    for _ in range(20):
        multiplexer.complete(PING)
    multiplexer.close()
    assert trips() == 0


def test_a_call_with_a_cap_makes_one_round_trip_before_and_one_after(
    made: Make, counted: Counted
) -> None:
    multiplexer = made(CAPPED)
    trips = counted(multiplexer)
    for _ in range(10):
        multiplexer.complete(PING)
    multiplexer.close()
    assert trips() == 2 * 10


def test_a_redis_that_is_killed_fails_no_call_and_gets_back_what_it_lost(
    made: Make, redis: RedisServer, alpha: Model
) -> None:
    one, two = made(CAPPED, {"model": "beta"}), made()
    ready(one)
    ready(two)
    alpha.then(rate_limited(timedelta(seconds=90)))
    one.complete(PING)
    wait_until(lambda: limited(two))
    redis.kill()
    for _ in range(20):
        assert one.complete(PING).model == "beta"
    wait_until(lambda: one.status().notices)
    redis.start()
    wait_until(lambda: not one.status().notices)
    newcomer = made()
    wait_until(lambda: limited(newcomer))
    assert newcomer.complete(PING).model == "beta"


def test_without_a_redis_calls_are_served_and_one_line_says_why(
    made: Make,
) -> None:
    multiplexer = made(CAPPED, url="redis://:canary@127.0.0.1:1/0")
    assert multiplexer.complete(PING).model == "alpha"
    wait_until(lambda: multiplexer.status().notices)
    (notice,) = multiplexer.status().notices
    assert notice.startswith("State is kept in memory only: Redis: ")
    assert "canary" not in notice
