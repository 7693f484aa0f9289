"""Measurements inside vibe-mux: streams, failing over, choosing, and memory."""
# ruff: noqa: PLC0415 - a worker imports only the packages of its environment

from __future__ import annotations

import gc
import io
import json
import resource
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from contenders import KEY, MESSAGES, multiplexer_over, pool_config
from model import ANSWER, chunk_of

Measured = dict[str, Any]


def stream(state: dict[str, Any], short: int, long: int, count: int) -> Measured:
    """Time streams. The time per chunk is the difference between a long and a short one."""
    took = {size: _streams_of(state, size, count) for size in (short, long)}
    chunk = chunk_of(" word").decode()
    times = (long - short) * count
    loads = json.loads
    cpu = time.process_time()
    for _ in range(times):
        loads(chunk)
    return {
        "per_chunk": (took[long] - took[short]) / times,
        "loads": (time.process_time() - cpu) / times,
    }


def _streams_of(state: dict[str, Any], size: int, count: int) -> float:
    key = f"stream of {size}"
    if key not in state:
        state[key] = multiplexer_over(*[f"{state['base']}/stream/{size}"] * 2)
    multiplexer = state[key]
    seen = 0
    gc.collect()
    cpu = time.process_time()
    for _ in range(count):
        with multiplexer.stream(MESSAGES) as chunks:
            for _chunk in chunks:
                seen += 1
    took = time.process_time() - cpu
    assert seen == count * (size + 1), "not all chunks"
    return took


def first_content(state: dict[str, Any], count: int) -> Measured:
    """Return the delays between the sending and the arrival of a stream's first content."""
    address = f"{state['base']}/slow/5/20"
    multiplexer = multiplexer_over(address, address)
    delays = []
    for _ in range(count):
        with multiplexer.stream(MESSAGES) as chunks:
            first = next(chunks)
            delays.append((time.monotonic_ns() - int(first.text)) / 1e9)
    multiplexer.close()
    return {"delays": delays}


def failing_over(state: dict[str, Any], count: int) -> Measured:
    """Time calls that fail at a primary first, and calls that go to the fallback at once."""
    base = state["base"]
    multiplexer = multiplexer_over(f"{base}/refused", f"{base}/answer")
    first, normal = [], []
    for _ in range(count):
        multiplexer.reset()
        for times, attempts in ((first, 2), (normal, 1)):
            wall = time.perf_counter()
            reply = multiplexer.complete(MESSAGES)
            times.append(time.perf_counter() - wall)
            assert len(reply.attempts) == attempts, "not as it should go"
    multiplexer.close()
    return {"first": first, "normal": normal}


def choosing(state: dict[str, Any], size: int, count: int) -> Measured:  # noqa: ARG001 - the parameters of every action
    """Time `select` with the updates for the start and the success of the attempt."""
    from muxcore import Endpoint, PoolState, Started, Succeeded, select, update
    from muxcore_strategies.failover import Failover

    mode, now = Failover(), datetime(2026, 10, 5, tzinfo=UTC)
    begin = PoolState.of(*[Endpoint(f"model-{number}") for number in range(size)])
    started = Started("model-0")
    ended = Succeeded("model-0", 2, 120, 0, 60, timedelta(milliseconds=400))
    # A model in use: it has succeeded before, and has a time to first content.
    once = update(begin, started, now)
    past = timedelta(milliseconds=300)
    begin = update(once, Succeeded("model-0", 1, 120, 0, 60, past), now)
    gc.collect()
    cpu = time.process_time()
    for _ in range(count):
        select(begin, mode, now)
        update(update(begin, started, now), ended, now)
    took = (time.process_time() - cpu) / count
    assert update(update(begin, started, now), ended, now)["model-0"].tally.succeeded == 2
    return {"cpu": took}


def remember(state: dict[str, Any], count: int) -> Measured:
    """Make calls over a transport without a network; return the peak memory."""
    if "memory" not in state:
        state["memory"] = _multiplexer_without_network()
    multiplexer, transport = state["memory"]
    for number in range(count):
        # Now and then a model is rate limited, and a new conversation begins.
        transport.is_limited = number % 5000 == 0
        multiplexer.complete(MESSAGES, session=f"session-{number // 50}")
    return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


class _Transport:
    """Replaces the connections of an endpoint."""

    is_limited = False
    answer = json.dumps(ANSWER).encode()

    def send(self, request: Any, timeout: Any, cut: Any) -> _Answer:  # noqa: ARG002
        if self.is_limited:
            self.is_limited = False
            return _Answer(429, b'{"error": {"message": "slow down"}}')
        return _Answer(200, self.answer)

    def close(self) -> None:
        pass


class _Answer:
    def __init__(self, status: int, body: bytes) -> None:
        self.status_code = status
        self.headers = {"content-type": "application/json"}
        self.raw = _Body(body)

    def close(self) -> None:
        pass


class _Body(io.BytesIO):
    def read1(self, size: int | None = -1, decode_content: bool | None = None) -> bytes:  # noqa: ARG002, FBT001
        return super().read1(-1 if size is None else size)


def _multiplexer_without_network() -> tuple[Any, _Transport]:
    from muxcore import Multiplexer
    from muxcore.shell.factory import parts_of

    transport = _Transport()
    config = pool_config(
        *["http://127.0.0.1:1/v1"] * 10, rate_limit_disable_duration_ms=1000
    )
    names = [model["alias"] for model in config["models"]]
    wrappings = dict.fromkeys(names, lambda _connections: transport)
    return Multiplexer(parts_of(config, {"BENCH_KEY": KEY}, wrappings)), transport


ACTIONS: dict[str, Callable[..., Measured]] = {
    "stream": stream,
    "first_content": first_content,
    "failing_over": failing_over,
    "choosing": choosing,
    "remember": remember,
}
