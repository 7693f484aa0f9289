"""What is wrong with the Redis of a config, for `vibe-mux doctor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from muxcore.board.engine.redis import FAILURES, RedisBoard
from muxcore.plugins.board import BoardGoneError

OLDEST = (6, 2)


def redis_faults(
    environment: Mapping[str, str],
    options: Mapping[str, Any],
    elapsed: Callable[[], float],
) -> tuple[str, ...]:
    """Connect, and return each fault in words, with what to do; nothing if all is well.

    `elapsed` is a clock, in seconds.
    """
    try:
        board = RedisBoard(now=elapsed, environment=environment, **options)
    except BoardGoneError as error:
        return (f"{error}; until it answers, state is kept in memory",)
    try:
        return _faults(board, elapsed)
    except BoardGoneError as error:
        return (str(error),)
    finally:
        board.close()


def _faults(board: RedisBoard, elapsed: Callable[[], float]) -> tuple[str, ...]:
    try:
        about = board.information()
    except FAILURES:
        # A user without the right to ask; that the scripts work is known.
        about = {}
    began = elapsed()
    board.standing()
    took = elapsed() - began
    found = []
    version = str(about.get("redis_version", ""))
    if version and tuple(map(int, version.split(".")[:2])) < OLDEST:
        found.append(f"Redis {version} is too old: expected 6.2 or newer, or a Valkey")
    policy = str(about.get("maxmemory_policy", ""))
    if policy.startswith("allkeys") and about.get("maxmemory"):
        found.append(
            f"the maxmemory-policy {policy} deletes any key once memory is full, leases and"
            " facts, too: set it to noeviction or to a volatile policy, or use a Redis of its own"
        )
    if took > board.timeout / 2:
        found.append(
            f"an answer took {took * 1000:.0f} ms, and timeout_ms is"
            f" {board.timeout * 1000:.0f}: after that the Redis counts as gone; raise it"
        )
    return tuple(found)
