"""`vibe-mux doctor` on a Redis: what would lose leases, and one that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from muxcore.board.engine.doctor import redis_faults
from muxcore.cli.main import main
from muxcore.shell import clock
from tests.board.redis.conftest import VARIABLE
from tests.board.redis.server import RedisServer


def faults(url: str) -> tuple[str, ...]:
    return redis_faults({VARIABLE: url}, {"timeout_ms": 5000}, clock.elapsed)


def test_a_redis_that_is_well_has_no_faults(redis: RedisServer) -> None:
    assert faults(redis.url) == ()


@pytest.mark.parametrize(
    ("policy", "loses"),
    [("allkeys-lru", True), ("allkeys-random", True), ("volatile-ttl", False)],
)
def test_a_policy_that_deletes_leases_is_named(
    redis: RedisServer, policy: str, loses: bool
) -> None:
    with redis.client() as client:
        client.config_set("maxmemory", 1 << 30)
        client.config_set("maxmemory-policy", policy)
        assert any(policy in fault for fault in faults(redis.url)) == loses
        client.config_set("maxmemory-policy", "noeviction")


def test_an_answer_that_takes_half_of_the_timeout_is_named(redis: RedisServer) -> None:
    ticks = iter(range(0, 100, 3))
    (fault,) = redis_faults(
        {VARIABLE: redis.url}, {"timeout_ms": 5000}, lambda: next(ticks)
    )
    assert "an answer took 3000 ms, and timeout_ms is 5000" in fault


def test_doctor_fails_for_a_redis_that_is_not_there(
    redis_config: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(VARIABLE, "redis://:canary@127.0.0.1:1/0")
    file = tmp_path / "config.toml"
    file.write_text(tomlkit.dumps(redis_config()), "utf-8")
    assert main(["doctor", "--config", str(file)]) == 1
    assert "Redis: " in (shown := capsys.readouterr().out)
    assert "until it answers, state is kept in memory" in shown
    assert main(["doctor", "--json", "--config", str(file)]) == 1
    (fault,) = json.loads(shown_json := capsys.readouterr().out)["state_faults"]
    assert fault.startswith("Redis: ")
    assert "canary" not in shown + shown_json
