"""Eight real processes on one Redis: shares and caps; and what the Redis holds of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis

from muxcore import Multiplexer
from muxcore.standin import Model, rate_limited
from muxcore.standin.script import Delayed
from tests.board.redis.conftest import VARIABLE, Make
from tests.board.redis.server import RedisServer
from tests.processes import PYTHONPATH
from tests.waiting import wait_until

PROCESSES = 8
CALLS = """
import json, sys
from collections import Counter
from muxcore import Multiplexer
ping = [{"role": "user", "content": "ping"}]
with Multiplexer.from_config(json.loads(sys.argv[1])) as multiplexer:
    print("ready", flush=True)
    sys.stdin.readline()
    served = Counter(
        multiplexer.complete(ping, timeout=300).model for _ in range(int(sys.argv[2]))
    )
    print(json.dumps(served), flush=True)
"""
Run = Callable[..., list[dict[str, int]]]


@pytest.fixture
def run(redis: RedisServer, redis_config: Callable[..., dict[str, Any]]) -> Iterator[Run]:
    """Run calls in eight processes at once; return what each was served by."""
    processes: list[subprocess.Popen[str]] = []

    def run(calls: int, *pool: dict[str, Any], **section: Any) -> list[dict[str, int]]:
        made = json.dumps(redis_config(*pool, max_wait_ms=300_000, **section))
        processes.extend(
            subprocess.Popen(
                [sys.executable, "-c", CALLS, made, str(calls)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={"PYTHONPATH": PYTHONPATH, VARIABLE: redis.url},
            )
            for _ in range(PROCESSES)
        )
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return [json.loads(process.communicate()[0]) for process in processes]

    yield run
    for process in processes:
        process.communicate()


@pytest.mark.slow
def test_rule_10_each_process_keeps_its_shares_exactly(run: Run) -> None:
    pool = ({"model": "alpha", "weight": 2}, {"model": "beta"})
    served = run(30, *pool, mode="load_balance")
    assert served == [{"alpha": 20, "beta": 10}] * PROCESSES


@pytest.mark.slow
def test_rule_2_a_cap_of_three_holds_at_the_upstream(run: Run, alpha: Model) -> None:
    alpha.default = Delayed(timedelta(milliseconds=5))
    served = run(20, {"model": "alpha", "max_concurrent": 3})
    assert served == [{"alpha": 20}] * PROCESSES
    assert alpha.max_in_flight == 3


def test_no_prompt_key_or_header_stands_in_the_redis(
    made: Make,
    redis: RedisServer,
    redis_config: Callable[..., dict[str, Any]],
    alpha: Model,
) -> None:
    found = redis_config({"model": "alpha", "max_concurrent": 1}, {"model": "beta"})
    found["providers"][0] |= {
        "api_key_env_var": "PROVIDER_KEY",
        "extra_headers": {"X-Team": "canary-header"},
    }
    environment = {VARIABLE: redis.url, "PROVIDER_KEY": "canary-key"}
    alpha.then(rate_limited(timedelta(seconds=90)))
    with Multiplexer.from_config(found, env=environment) as multiplexer:
        prompt = [{"role": "user", "content": "canary-prompt"}]
        multiplexer.complete(prompt, extra_body={"user": "canary-user"})
        with redis.client() as client:
            wait_until(lambda: client.exists("vibe-mux:{default}:standing"))
            dumped: list[object] = [client.client_list()]
            for key in client.scan_iter():
                dumped += [key, value_of(client, key)]
    assert "canary" not in repr(dumped)


def value_of(client: Redis, key: bytes) -> object:
    readers: dict[bytes, Callable[[], object]] = {
        b"stream": lambda: client.xrange(key),
        b"hash": lambda: client.hgetall(key),
        b"zset": lambda: client.zrange(key, 0, -1),
        b"string": lambda: client.get(key),
    }
    kind = client.type(key)
    assert isinstance(kind, bytes)
    return readers[kind]()
