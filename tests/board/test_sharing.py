"""Several multiplexers on one state file, as several processes and restarts are."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time

from muxcore import Multiplexer
from muxcore.board import leasing, thread
from muxcore.board.file import FileBoard
from muxcore.board.thread import BoardThread
from muxcore.core.outcomes import Limit
from muxcore.journal.codec import decode
from muxcore.standin import Model, rate_limited, refusal
from muxcore.standin.script import Delayed, StatusAnswer
from tests.waiting import wait_until

Make = Callable[..., Multiplexer]
PING = [{"role": "user", "content": "ping"}]


def limited(multiplexer: Multiplexer, alias: str = "alpha") -> bool:
    return multiplexer.state[alias].health.limited is not None


def test_a_limit_that_one_meets_is_obeyed_by_the_other(
    make: Make, alpha: Model, beta: Model
) -> None:
    one, two = make(), make()
    assert two.complete(PING).model == "alpha"
    alpha.then(rate_limited(timedelta(seconds=90)))
    assert one.complete(PING).model == "beta"
    wait_until(lambda: limited(two))
    assert two.complete(PING).model == "beta"
    assert len(alpha.requests) == 2
    (cooldown,) = two.state["alpha"].health.cooldowns
    assert cooldown.cause is Limit.RATE
    assert cooldown.hint == timedelta(seconds=90)


def test_a_restart_remembers(make: Make, alpha: Model) -> None:
    alpha.then(rate_limited(timedelta(seconds=90)))
    for attempts in (2, 1, 1):
        multiplexer = make()
        reply = multiplexer.complete(PING)
        assert reply.model == "beta"
        assert len(reply.attempts) == attempts
        multiplexer.close()
    assert len(alpha.requests) == 1


def test_a_reset_ends_it_everywhere(make: Make, alpha: Model) -> None:
    one, two = make(), make()
    alpha.then(rate_limited())
    one.complete(PING)
    wait_until(lambda: limited(two))
    two.reset("alpha")
    wait_until(lambda: not limited(one))
    assert one.complete(PING).model == "alpha"


def test_a_success_of_one_ends_the_cooldown_of_all(make: Make, alpha: Model) -> None:
    with freeze_time("2026-03-01 12:00:00") as frozen:
        one, two = make(), make()
        alpha.then(rate_limited())
        one.complete(PING)
        wait_until(lambda: limited(two))
        frozen.tick(61)
        assert two.complete(PING).model == "alpha"
        wait_until(lambda: not limited(one))


def test_another_key_is_another_place(
    config: Callable[..., dict[str, Any]], alpha: Model
) -> None:
    keyed = config()
    keyed["providers"][0]["api_key_env_var"] = "A_KEY"
    bad, good = {"A_KEY": "old-key-000"}, {"A_KEY": "new-key-111"}
    alpha.then(StatusAnswer(401))
    with Multiplexer.from_config(keyed, env=bad) as one:
        assert one.complete(PING).model == "beta"
    with Multiplexer.from_config(keyed, env=good) as two:
        assert two.complete(PING).model == "alpha", "a mended key is tried at once"
    with Multiplexer.from_config(keyed, env=bad) as three:
        assert three.complete(PING).model == "beta"


@pytest.mark.parametrize("state", ["memory", "file"])
@pytest.mark.parametrize(("seconds", "model"), [(59, "beta"), (60, "alpha")])
def test_a_cooldown_lasts_60_seconds_by_a_frozen_clock(
    make: Make, alpha: Model, state: str, seconds: int, model: str
) -> None:
    options: dict[str, Any] = {"state": state}
    with freeze_time("2026-03-01 12:00:00") as frozen:
        multiplexer = make(**options)
        alpha.then(rate_limited())
        assert multiplexer.complete(PING).model == "beta"
        frozen.tick(seconds)
        assert multiplexer.complete(PING).model == model


def test_the_status_counts_this_run_and_all_since_the_beginning(make: Make) -> None:
    for run in (1, 2):
        multiplexer = make()
        multiplexer.complete(PING)
        status = multiplexer.status()
        (model, _) = status.models
        assert model.success_count == 1
        assert model.totals is not None
        assert model.totals.succeeded == run
        line = f"  - Since {datetime.now(UTC).astimezone():%Y-%m-%d}: Success: {run} |"  # noqa: TID251 - today's date as the status shows it
        assert line in str(status)
        multiplexer.close()


def test_no_secret_stands_in_any_byte_of_the_file(
    config: Callable[..., dict[str, Any]], state_file: Path, alpha: Model, beta: Model
) -> None:
    keyed = config()
    provider = keyed["providers"][0]
    provider["api_key_env_var"] = "A_KEY"
    provider["extra_headers"] = {"X-CANARY-NAME": "CANARY-header"}
    prompt = [{"role": "user", "content": "CANARY-prompt"}]
    key = "CANARY-key-0123456789"
    refused = refusal(400, "CANARY-refusal of CANARY-prompt")
    alpha.then(refused, refusal(500, f"no use for {key}"), StatusAnswer(401))
    with Multiplexer.from_config(keyed, env={"A_KEY": key}) as one:
        for _ in range(3):
            one.complete(prompt, session="CANARY-session")
        one.status()
        data = b"".join(file.read_bytes() for file in state_file.parent.iterdir())
    data += state_file.read_bytes()
    assert b"CANARY" not in data
    assert b"Succeeded" in data


def test_the_journal_in_the_file_frames_each_call(make: Make, state_file: Path) -> None:
    multiplexer = make()
    multiplexer.complete(PING)
    multiplexer.close()
    with sqlite3.connect(state_file) as connection:
        rows = connection.execute("SELECT line FROM lines ORDER BY number").fetchall()
    connection.close()
    kinds = [type(decode(row[0]).entry).__name__ for row in rows]
    expected = ["Asked", "Started", "Succeeded", "Ended"]
    assert [kind for kind in kinds if kind != "Heard"] == expected


# -- Without the file --------------------------------------------------------------------------


def spoil(state_file: Path) -> None:
    state_file.parent.mkdir(mode=0o700)
    state_file.write_text("theirs")


def test_a_file_that_cannot_be_used_is_one_line_and_the_call_is_served(
    make: Make, state_file: Path
) -> None:
    spoil(state_file)
    multiplexer = make()
    assert multiplexer.complete(PING).model == "alpha"
    wait_until(lambda: multiplexer.status().notices)
    (notice,) = multiplexer.status().notices
    assert notice == f"State is kept in memory only: {state_file} is not a state file"
    assert state_file.read_text() == "theirs"


def test_a_board_that_comes_back_is_used_again(
    make: Make, state_file: Path, alpha: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muxcore.board.link.RETRY_SECONDS", 0.0)
    spoil(state_file)
    one = make()
    alpha.then(rate_limited())
    one.complete(PING)
    wait_until(lambda: one.status().notices)
    state_file.unlink()
    wait_until(lambda: not one.status().notices)
    two = make()
    wait_until(lambda: limited(two))
    assert two.complete(PING).model == "beta", "what was met meanwhile is published"


def test_a_held_lock_slows_no_call(make: Make, state_file: Path) -> None:
    multiplexer = make()
    multiplexer.complete(PING)
    wait_until(state_file.exists)
    other = sqlite3.connect(state_file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(20):
        assert multiplexer.complete(PING).model == "alpha"
    other.execute("ROLLBACK")
    other.close()
    assert not multiplexer.status().notices


def test_off_writes_nothing(
    config: Callable[..., dict[str, Any]], state_file: Path
) -> None:
    with Multiplexer.from_config(config(enabled=False), env={}) as multiplexer:
        assert multiplexer.complete(PING).model == "alpha"
    assert not state_file.parent.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_keeps_its_state_in_memory(make: Make, alpha: Model) -> None:
    multiplexer = make()
    multiplexer.complete(PING)
    child = os.fork()
    if child == 0:  # pragma: no cover - the child's own process
        code = 1
        try:
            served = multiplexer.complete(PING).model == "alpha"
            notices = multiplexer.status().notices
            forked = "This process was forked: its state is kept in memory."
            code = 0 if served and notices == (forked,) else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert multiplexer.complete(PING).model == "alpha"
    assert not multiplexer.status().notices


def test_a_pool_that_is_forgotten_closes_its_board(make: Make) -> None:
    board = make()._runtime.board
    assert isinstance(board, BoardThread)
    board.stop()
    assert not board._thread.is_alive()
    board.freshen()


# -- Slots and probes across processes ---------------------------------------------------------


def test_rule_2_a_cap_holds_across_processes(make: Make, alpha: Model) -> None:
    capped = {"model": "alpha", "max_concurrent": 2}
    pools = [make(capped, max_wait_ms=60_000) for _ in range(4)]
    alpha.default = Delayed(timedelta(milliseconds=5))
    with ThreadPoolExecutor(8) as executor:
        calls = [executor.submit(pools[n % 4].complete, PING) for n in range(80)]
        assert {call.result().model for call in calls} == {"alpha"}
    assert alpha.max_in_flight == 2


def test_rule_3_one_probe_after_a_cooldown_across_processes(
    make: Make, alpha: Model
) -> None:
    pools = [
        make({"model": "alpha"}, rate_limit_disable_duration_ms=1000) for _ in range(3)
    ]
    alpha.then(rate_limited(timedelta(seconds=1)))
    alpha.default = Delayed(timedelta(milliseconds=200))
    pools[0].complete(PING, timeout=30)
    assert len(alpha.requests) == 2
    alpha.then(rate_limited(timedelta(seconds=1)))
    with ThreadPoolExecutor(3) as executor:
        calls = [executor.submit(pool.complete, PING, timeout=30) for pool in pools]
        assert all(call.result().model == "alpha" for call in calls)


def test_a_slot_is_free_again_for_others_when_its_call_is_over(
    make: Make, alpha: Model
) -> None:
    one, two = (make({"model": "alpha", "max_concurrent": 1}) for _ in range(2))
    for _ in range(5):
        assert one.complete(PING).model == "alpha"
        assert two.complete(PING).model == "alpha"


def test_a_lease_is_renewed_however_long_its_answer_takes(
    make: Make, alpha: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed: list[int] = []
    monkeypatch.setattr(FileBoard, "renew", lambda _: renewed.append(1))
    for module in (leasing, thread):
        monkeypatch.setattr(module, "RENEW_SECONDS", 0.001)
    monkeypatch.setattr(thread, "ACTIVE_SECONDS", 0.0)
    multiplexer = make({"model": "alpha", "max_concurrent": 1})
    with multiplexer.stream(PING) as stream:
        next(stream)
        before = len(renewed)
        wait_until(lambda: len(renewed) > before + 3)


def test_a_call_without_patience_gets_a_free_slot_and_else_the_fallback(
    make: Make, alpha: Model
) -> None:
    pool = ({"model": "alpha", "max_concurrent": 1}, {"model": "beta", "is_fallback": True})
    one, two = (make(*pool, max_wait_ms=0) for _ in range(2))
    assert one.complete(PING).model == "alpha"
    with one.stream(PING) as stream:
        next(stream)
        assert two.complete(PING).model == "beta"
    wait_until(lambda: two.complete(PING).model == "alpha")


def test_without_the_board_a_cap_counts_in_the_process(
    make: Make, state_file: Path, alpha: Model
) -> None:
    spoil(state_file)
    multiplexer = make({"model": "alpha", "max_concurrent": 1})
    for _ in range(3):
        assert multiplexer.complete(PING).model == "alpha"
    assert multiplexer.state["alpha"].leases is None
