"""Pools on a Redis: what one learns all know; round trips; a Redis that is gone."""

from __future__ import annotations

from datetime import timedelta

from muxcore import Multiplexer
from muxcore.standin import Model, rate_limited
from tests.board.redis.conftest import Make
from tests.board.redis.server import RedisServer
from tests.waiting import wait_until

PING = [{"role": "user", "content": "ping"}]
CAPPED = {"model": "alpha", "max_concurrent": 3}


def limited(multiplexer: Multiplexer) -> bool:
    return multiplexer.state["alpha"].health.limited is not None


def scripts(redis: RedisServer) -> int:
    """Return how many scripts the server has run. Each is a round trip."""
    with redis.client() as client:
        found = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})
    return int(found["calls"])


def settled(redis: RedisServer) -> int:
    """Return the same once it stays."""
    counts = [scripts(redis)]

    def stays() -> bool:
        counts.append(scripts(redis))
        return len(counts) > 30 and len(set(counts[-30:])) == 1

    wait_until(stays)
    return counts[-1]


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


def test_a_call_without_a_cap_makes_no_round_trip(made: Make, redis: RedisServer) -> None:
    multiplexer = made()
    ready(multiplexer)
    before = settled(redis)
    for _ in range(20):
        multiplexer.complete(PING)
    assert settled(redis) == before


def test_a_call_with_a_cap_makes_one_round_trip_before_and_one_after(
    made: Make, redis: RedisServer
) -> None:
    multiplexer = made(CAPPED)
    ready(multiplexer)

    def trips() -> int:
        before = settled(redis)
        multiplexer.complete(PING)
        return settled(redis) - before

    # Where a call takes seconds, its lease is renewed, too.
    assert min(trips() for _ in range(10)) == 2


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
