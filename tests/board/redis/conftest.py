from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from muxcore import Multiplexer
from muxcore.board.engine.redis import RedisBoard
from muxcore.shell import clock
from muxcore.standin import StandInServer
from tests.board.configs import two_models
from tests.board.redis.server import NO_SERVER, SERVER, RedisServer

VARIABLE = "VIBE_MUX_REDIS_URL"
Open = Callable[..., RedisBoard]
Make = Callable[..., Multiplexer]


@pytest.fixture(scope="module")
def _shared() -> Iterator[RedisServer]:
    if SERVER is None:
        pytest.skip(NO_SERVER)
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def redis(_shared: RedisServer) -> RedisServer:
    """Return a real server, running and empty."""
    with _shared.client() as client:
        client.flushall()
        client.config_set("maxmemory", 0)
        client.config_resetstat()
    return _shared


@pytest.fixture
def opened(redis: RedisServer) -> Iterator[Open]:
    """Open a board of the server, as another process would."""
    boards: list[RedisBoard] = []

    def opened(url: str | None = None, **options: Any) -> RedisBoard:
        environment = {VARIABLE: url or redis.url}
        options = {"timeout_ms": 5000, **options}
        boards.append(RedisBoard(now=clock.now, environment=environment, **options))
        return boards[-1]

    yield opened
    for board in boards:
        board.close()


@pytest.fixture
def redis_config(server: StandInServer) -> Callable[..., dict[str, Any]]:
    """Make a config of two models whose state is in a Redis."""

    def config(
        *pool: dict[str, Any], timeout_ms: int = 5000, **section: Any
    ) -> dict[str, Any]:
        options = {"timeout_ms": timeout_ms}
        section = {"state": "redis", "state_options": options, **section}
        return two_models(server.url, *pool, **section)

    return config


@pytest.fixture
def made(redis_config: Callable[..., dict[str, Any]], redis: RedisServer) -> Iterator[Make]:
    """Make a multiplexer on the server, as another process would."""
    multiplexers: list[Multiplexer] = []

    def made(*pool: dict[str, Any], url: str | None = None, **section: Any) -> Multiplexer:
        found = redis_config(*pool, **section)
        environment = {VARIABLE: url or redis.url}
        multiplexers.append(Multiplexer.from_config(found, env=environment))
        return multiplexers[-1]

    yield made
    for multiplexer in multiplexers:
        multiplexer.close()
