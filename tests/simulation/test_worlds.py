"""A slice of the worlds; `python -m muxcore.testing.simulate` runs them all."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from datetime import datetime, timedelta
from functools import cache

import pytest
from attrs import evolve

from muxcore.core import protocol, selection, updating
from muxcore.core.outcomes import PickReason
from muxcore.core.records import Call, Candidate, Health, PoolState, WaitReason
from muxcore.testing.simulate import main
from muxcore.testing.simulation.comparison import compare
from muxcore.testing.simulation.shrinking import Smallest, shrink
from muxcore.testing.simulation.timeline import BrokenWorldError, Run
from muxcore.testing.simulation.world_run import run
from muxcore.testing.simulation.worlds import (
    CALLS,
    MODES,
    SECOND,
    ClockSet,
    World,
    world_of,
)


@cache
def ran(seed: int) -> Run:
    return run(world_of(seed))


DIGEST_OF_117 = "b71449eba7ca54849226142332cd0ae2f91460e8c13993aa4c5c42ab469a9b2b"
"""What happens in this world. It changes with the rules, never with names or messages."""


def test_the_hash_of_a_world_does_not_depend_on_names() -> None:
    assert run(world_of(117)).digest == DIGEST_OF_117


A_WORLD_THAT_IS_CLOSED = 107


@pytest.mark.unmeasured
@pytest.mark.parametrize("first", range(0, 40, 10))
def test_the_rules_hold_in_every_world(first: int) -> None:
    for seed in range(first, first + 10):
        assert ran(seed).steps


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "seed", [710, 864, 4016, 4401, 4843, 6205, 6234, 6696, 8612, 8960, 9295]
)
def test_the_rules_hold_in_worlds_that_once_broke_them(seed: int) -> None:
    """710: a cancel after a jump of the clock. 4843: a wait for a spent model whose slot is taken.

    The others: a clock set back under a second.
    """
    assert ran(seed).steps


@pytest.mark.unmeasured
def test_the_worlds_contain_every_ending_and_every_mode() -> None:
    """Otherwise the rules might hold for lack of cases."""
    endings: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    for seed in (*range(40), A_WORLD_THAT_IS_CLOSED):
        modes[world_of(seed).mode] += 1
        endings.update(ran(seed).endings)
    assert set(modes) == set(MODES)
    assert endings.keys() >= {
        "served",
        "streamed",
        "interrupted in its answer",
        "rejected",
        "abandoned",
        "interrupted",
        "left",
        "cancelled",
        "closed",
        "the mode is broken",
        "gave up: busy",
        "gave up: disabled",
        "gave up: tried",
        "gave up: deadline",
    }


def test_the_worlds_contain_models_that_announce_limits() -> None:
    lines = [line for seed in (8, 9) for line in run(world_of(seed), keep=True).trace]
    for what in (WaitReason.SPENT, PickReason.SPENT):
        assert any(line.endswith(what) for line in lines)


@pytest.mark.unmeasured
def test_rule_13_one_seed_makes_one_trace_byte_for_byte() -> None:
    for seed in range(4):
        one, other = run(world_of(seed), keep=True), run(world_of(seed), keep=True)
        assert one == other
        assert "\n".join(one.trace) == "\n".join(other.trace)
    assert run(world_of(0)).digest != run(world_of(1)).digest


def test_rule_13_another_process_makes_the_same_trace() -> None:
    """The seed of Python's hashes does not matter."""
    code = (
        "from muxcore.testing.simulation.world_run import run\n"
        "from muxcore.testing.simulation.worlds import world_of\n"
        "print(run(world_of(5)).digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert digests == {run(world_of(5)).digest}


@pytest.mark.unmeasured
@pytest.mark.parametrize("seed", range(8))
def test_rule_11_a_pool_does_no_worse_than_any_of_its_models(seed: int) -> None:
    assert not compare(seed).worse


# -- It finds broken rules ---------------------------------------------------------------------


def test_an_exceeded_cap_is_found_and_shrunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    standing = selection._standing

    def careless(candidate: Candidate, *more: object) -> selection.Standing:
        found: selection.Standing = standing(candidate, *more)  # type: ignore[arg-type]
        return selection.OPEN if found is selection.Standing.BUSY else found

    monkeypatch.setattr(selection, "_standing", careless)
    world, smallest = broken_world(rule=3)
    assert len(smallest.world.arrivals) <= 5
    assert len(smallest.error.trace) < 30
    assert smallest.world != world


def test_a_cooldown_that_a_rejection_ends_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    released = updating._released

    def healing(state: PoolState, outcome: object, now: datetime) -> PoolState:
        state = released(state, outcome, now)  # type: ignore[arg-type]
        candidates = tuple(
            evolve(c, health=Health(under_way=c.health.under_way)) for c in state.candidates
        )
        return evolve(state, candidates=candidates)

    monkeypatch.setattr(updating, "_released", healing)
    broken_world(rule=6)


def test_a_lost_slot_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from muxcore.shell.pool.pool import Pool

    monkeypatch.setattr(Pool, "abandon", lambda pool, waiter: None)
    broken_world(rule=2)


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("first", "calls"), [(430, 20), pytest.param(110, CALLS, marks=pytest.mark.slow)]
)
def test_a_wait_that_a_clock_set_back_lengthens_is_found(
    monkeypatch: pytest.MonkeyPatch, first: int, calls: int
) -> None:
    from muxcore.shell.pool.waiter import Waiter

    def trusting(waiter: Waiter, call: Call, *more: object) -> Call:
        waited = more[3] if len(more) > 3 else timedelta()
        assert isinstance(waited, timedelta)
        return evolve(call, waited=call.waited + waited)

    monkeypatch.setattr(Waiter, "timely", trusting)
    _, smallest = broken_world(rule=1, first=first, calls=calls)
    assert len(smallest.world.arrivals) <= 2
    assert len(smallest.error.trace) < 15
    assert any(isinstance(one, ClockSet) for one in smallest.world.happenings)


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("name", "wrong", "text"),
    [
        ("MOST_SECOND_OPINIONS", 9, "more than two second opinions"),
        ("_preference", lambda *_: (False,), "first"),
    ],
)
def test_a_wrong_second_opinion_is_found(
    monkeypatch: pytest.MonkeyPatch, name: str, wrong: object, text: str
) -> None:
    """Rule 6."""
    module = protocol if hasattr(protocol, name) else selection
    monkeypatch.setattr(module, name, wrong)
    _, smallest = broken_world(rule=6)
    assert text in str(smallest.error)


def broken_world(rule: int, first: int = 0, calls: int = CALLS) -> tuple[World, Smallest]:
    """Return the first world that breaks this rule, and the smallest one like it."""
    for seed in range(first, first + 400):
        world = world_of(seed, calls)
        try:
            run(world)
        except BrokenWorldError as error:
            if error.rule != rule:
                continue
            smallest = shrink(world)
            assert smallest is not None
            assert smallest.error.rule == rule
            return world, smallest
    pytest.fail(f"no world breaks rule {rule}")


# -- The command --------------------------------------------------------------------------------


def test_the_command_reports_how_many_worlds_it_ran(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--worlds", "3", "--calls", "20", "--processes", "1"]) == 0
    out = capsys.readouterr().out
    assert "3 worlds, 60 calls" in out
    assert "0 broken" in out
    assert "hash of everything that happened" in out


def test_the_command_prints_the_trace_of_one_world(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--seed", "7", "--calls", "5"]) == 0
    assert "0 arrives" in capsys.readouterr().out


def test_the_command_shrinks_a_broken_world(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from muxcore.shell.pool.pool import Pool

    monkeypatch.setattr(Pool, "abandon", lambda pool, waiter: None)
    assert main(["--worlds", "20", "--calls", "30", "--processes", "1"]) == 1
    out = capsys.readouterr().out
    assert "shrunk as far as possible: rule 2" in out
    assert f"{SECOND}" not in out.splitlines()[0]
