"""The Redis board: the kit, what ends leases, a server that loses everything, and secrets."""

from __future__ import annotations

import itertools
import threading
from contextlib import suppress
from datetime import timedelta

import pytest

from muxcore.board.engine.redis import RedisBoard
from muxcore.core.outcomes import Fault, Limit
from muxcore.core.sharing.facts import (
    PlaceDisabled,
    PlaceRecovered,
    PlaceReset,
    WindowLearnt,
)
from muxcore.plugins.board import BoardGoneError
from muxcore.testing import check_board
from tests.board.redis.conftest import Open
from tests.board.redis.server import (
    Cluster,
    EncryptedServer,
    Failover,
    RedisServer,
    free_port,
)
from tests.waiting import wait_until

MINUTE = timedelta(minutes=1)
LIMITED = PlaceDisabled(Limit.RATE, MINUTE)


def test_a_redis_passes_the_kit(opened: Open) -> None:
    check_board(opened)


@pytest.mark.usefixtures("redis")
def test_a_server_with_tls_passes_the_kit(opened: Open) -> None:
    server = EncryptedServer()
    try:
        check_board(lambda: opened(server.url))
        with pytest.raises(BoardGoneError, match="certificate verify failed"):
            opened(server.url.partition("?")[0])
    finally:
        server.close()


@pytest.mark.usefixtures("redis")
def test_a_cluster_of_three_servers_passes_the_kit(opened: Open) -> None:
    cluster = Cluster()
    urls = itertools.cycle(cluster.urls)
    try:
        check_board(lambda: opened(next(urls)))
    finally:
        cluster.close()


def test_servers_behind_sentinels_pass_the_kit(opened: Open) -> None:
    servers = Failover()
    try:
        check_board(lambda: opened(servers.url))
    finally:
        servers.close()


def test_boards_of_different_names_share_nothing(opened: Open) -> None:
    one, other = opened(name="one"), opened(name="other")
    one.publish("here", LIMITED)
    assert one.take("slots", 1).granted
    assert not other.hear(0)
    assert other.take("slots", 1).granted
    assert one.salt != other.salt


def test_the_standing_has_what_holds_and_nothing_that_was_ended(opened: Open) -> None:
    one = opened()
    number = one.publish("a", LIMITED)
    one.publish("b", LIMITED)
    one.publish("b", PlaceReset())
    one.publish("c", PlaceDisabled(Fault.TRANSIENT, MINUTE))
    one.publish("c", PlaceRecovered(number))
    one.publish("d", PlaceDisabled(Fault.TRANSIENT, MINUTE))
    one.publish("d", PlaceRecovered(one.hear(0)[-1].number))
    one.publish("e", WindowLearnt(8000))
    assert [fact.place for fact in opened().standing().facts] == ["a", "c", "e"]


def test_rule_4_a_shorter_limit_replaces_no_longer_one_in_the_standing(
    opened: Open,
) -> None:
    one = opened()
    one.publish("a", PlaceDisabled(Limit.RATE, 10 * MINUTE))
    one.publish("a", LIMITED)
    (fact,) = one.standing().facts
    assert isinstance(fact.fact, PlaceDisabled)
    assert fact.fact.remaining > 9 * MINUTE


def test_what_has_ended_is_forgotten(opened: Open, redis: RedisServer) -> None:
    one = opened()
    one.publish("a", PlaceDisabled(Limit.RATE, timedelta(milliseconds=1)))
    wait_until(lambda: not one.standing().facts)
    with redis.client() as client:
        assert not client.exists("vibe-mux:{default}:standing")


def test_the_stream_of_facts_is_bounded(
    opened: Open, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muxcore.board.engine.redis.MOST_FACTS", 10)
    one = opened()
    for _ in range(500):
        one.publish("a", LIMITED)
    with redis.client() as client:
        # Redis drops whole nodes of a hundred entries.
        assert client.xlen("vibe-mux:{default}:facts") <= 200


def test_a_lease_ends_when_its_holder_does_not_renew_it(opened: Open) -> None:
    dead, other = opened(lease_ms=100), opened()
    assert dead.take("slots", 1).granted
    waiting = other.take("slots", 1)
    wait_until(lambda: other.take("slots", 1, waiting.ticket).granted)
    with pytest.raises(BoardGoneError, match="ran out before they were renewed"):
        dead.renew()


def test_a_lease_that_is_renewed_lasts(opened: Open) -> None:
    holder, other = opened(lease_ms=1500), opened()
    assert holder.take("slots", 1).granted
    waiting = other.take("slots", 1)
    for _ in range(20):
        threading.Event().wait(0.1)
        holder.renew()
    assert not other.take("slots", 1, waiting.ticket).granted


def test_a_fact_rings(opened: Open) -> None:
    one, two = opened(), opened()
    rung = listening(two)
    one.publish("a", LIMITED)
    assert rung.wait(30)


def test_a_slot_that_is_free_rings_where_it_is_waited_for(opened: Open) -> None:
    one, two = opened(), opened()
    held = one.take("slots", 1)
    waiting = two.take("slots", 1)
    rung = listening(two)
    one.give_back(held)
    assert rung.wait(30)
    assert two.take("slots", 1, waiting.ticket).granted


def listening(board: RedisBoard) -> threading.Event:
    rung = threading.Event()
    board.listen(rung.set)
    assert rung.wait(30)
    rung.clear()
    return rung


def test_a_board_that_was_emptied_is_gone_for_who_had_it_open(
    opened: Open, redis: RedisServer
) -> None:
    one = opened()
    with redis.client() as client:
        client.flushall()
    with pytest.raises(BoardGoneError, match="the board was emptied"):
        one.publish("a", LIMITED)
    assert opened().salt != one.salt


def test_a_board_that_was_lost_leaves_no_lease_once_its_process_is_back(
    opened: Open, redis: RedisServer
) -> None:
    lost = opened(timeout_ms=100)
    assert lost.take("slots", 1).granted
    redis.stop()
    with pytest.raises(BoardGoneError):
        lost.renew()
    lost.close()
    redis.go_on()
    assert opened().take("slots", 1).granted


def test_a_server_without_memory_is_gone_and_says_so(
    opened: Open, redis: RedisServer
) -> None:
    one = opened()
    with redis.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
    with pytest.raises(BoardGoneError, match="maxmemory"):
        one.publish("a", LIMITED)


@pytest.mark.parametrize(
    "url",
    [
        "redis://canary-user:canary%2Dpassword@127.0.0.1:{port}/0",
        "redis://127.0.0.1:{port}/0?password=canary-password",
        "redis://127.0.0.1:{port}/canary",
        "rediss://canary-user:canary-password@127.0.0.1:{port}/0",
        "redis+sentinel://:canary-password@127.0.0.1:{port}/0?service=main",
        "redis+cluster://:canary-password@127.0.0.1:{port}",
        "canary-password",
    ],
)
def test_no_error_shows_any_secret_of_the_url(
    opened: Open, redis: RedisServer, url: str
) -> None:
    for port in (redis.port, free_port()):
        with suppress(BoardGoneError):
            opened(url.format(port=port), timeout_ms=500)
            # A Redis without a password takes any database's name for its first.
            assert url.endswith("/canary")
            continue
        with pytest.raises(BoardGoneError) as caught:
            opened(url.format(port=port), timeout_ms=500)
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None
