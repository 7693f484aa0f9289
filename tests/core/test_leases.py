"""Leases of the board in the state, and what is made of facts: the rarer ways."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve

from muxcore.core.allowance import Allowance, AllowanceKind, Announcement
from muxcore.core.entries import Heard
from muxcore.core.folding.leases import LeaseWanted, after_start, changed, lease_wanted
from muxcore.core.outcomes import (
    Failed,
    Fault,
    Refusal,
    Refuted,
    Rejected,
    Started,
    Succeeded,
)
from muxcore.core.records import (
    Call,
    Candidate,
    Cooldown,
    Endpoint,
    Exhausted,
    FreeLeases,
    Health,
    Policy,
    PoolState,
    Wait,
    WaitReason,
)
from muxcore.core.selection import select
from muxcore.core.sharing.facts import (
    LeasesChanged,
    PlaceDisabled,
    RefusalRefuted,
    WindowLearnt,
)
from muxcore.core.sharing.hearing import hear
from muxcore.core.sharing.publishing import publications
from muxcore.core.status import Totals, status_of
from muxcore.core.updating import update
from muxcore_strategies.failover import Failover
from tests.core.conftest import History

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CAPPED = Candidate(Endpoint("a", max_concurrent=2))


class Raising:
    def pick(self, candidates: Any, memory: Any, call: Any, now: Any) -> Any:
        raise RuntimeError


def test_an_attempt_uses_up_a_lease_of_its_slot() -> None:
    assert after_start(CAPPED) is None
    assert after_start(evolve(CAPPED, leases=FreeLeases(2, 1))) == FreeLeases(1, 1)
    free = evolve(CAPPED, endpoint=Endpoint("a"), leases=FreeLeases(2, 1))
    assert after_start(free) == FreeLeases(2, 1)


def test_leases_are_granted_and_taken_back_and_end_with_the_board() -> None:
    granted = changed(CAPPED, LeasesChanged(slots=2, probes=1))
    assert granted.leases == FreeLeases(2, 1)
    assert changed(granted, LeasesChanged(slots=-5, probes=-1)).leases == FreeLeases(0, 0)
    assert changed(granted, LeasesChanged(shared=False)).leases is None
    state = update(PoolState((CAPPED,)), Heard("a", LeasesChanged(slots=2, probes=1)), NOON)
    assert state["a"] == granted


def test_a_call_wants_the_lease_of_what_it_would_pick() -> None:
    lacking = PoolState((evolve(CAPPED, leases=FreeLeases()), Candidate(Endpoint("b"))))
    wanted = LeaseWanted("a", slot=True, probe=False)
    assert lease_wanted(lacking, Failover(), NOON, Call()) == wanted
    assert lease_wanted(lacking, Failover(), NOON, Call(only="b")) is None
    assert lease_wanted(lacking, Failover(), NOON, Call(only="stranger")) is None
    assert lease_wanted(lacking, Raising(), NOON, Call()) is None
    assert lease_wanted(PoolState((CAPPED,)), Failover(), NOON, Call()) is None


OVER = Cooldown(NOON - MINUTE, NOON, Fault.TRANSIENT, 3, 1, NOON - MINUTE)
"""Over at noon: then an endpoint is on probation."""
UNPROVEN = evolve(CAPPED, health=Health(broken=OVER))


@pytest.mark.parametrize(
    ("candidate", "left"),
    [
        (UNPROVEN, FreeLeases(1, 1)),
        (evolve(UNPROVEN, endpoint=Endpoint("a")), FreeLeases(2, 1)),
        (
            evolve(UNPROVEN, health=Health(broken=evolve(OVER, proven=True))),
            FreeLeases(1, 2),
        ),
    ],
)
def test_a_probe_uses_up_its_lease_too(candidate: Candidate, left: FreeLeases) -> None:
    assert after_start(evolve(candidate, leases=FreeLeases(2, 2))) == left
    assert after_start(evolve(candidate, leases=FreeLeases())) == FreeLeases(0, 0)
    last = after_start(evolve(candidate, leases=FreeLeases(1, 1)))
    assert last == FreeLeases(left.slots - 1, left.probes - 1)


def test_the_beginning_of_an_attempt_uses_up_leases() -> None:
    state = PoolState((evolve(UNPROVEN, leases=FreeLeases(2, 1)),))
    assert update(state, Started("a"), NOON)["a"].leases == FreeLeases(1, 0)
    assert update(PoolState((UNPROVEN,)), Started("a"), NOON)["a"].leases is None


@pytest.mark.parametrize(
    ("candidate", "leases", "wanted"),
    [
        (UNPROVEN, FreeLeases(), (True, True)),
        (UNPROVEN, FreeLeases(1, 0), (False, True)),
        (UNPROVEN, FreeLeases(0, 1), (True, False)),
        (UNPROVEN, FreeLeases(1, 1), None),
        (evolve(UNPROVEN, endpoint=Endpoint("a")), FreeLeases(), (False, True)),
        (Candidate(Endpoint("a")), FreeLeases(), None),
        # Full here, or its probe is under way: there is nothing to want.
        (evolve(CAPPED, health=Health(under_way=(1, 2))), FreeLeases(), None),
        (
            evolve(CAPPED, health=Health(broken=OVER, under_way=(4,))),
            FreeLeases(1, 0),
            None,
        ),
        (evolve(CAPPED, health=Health(under_way=(1,))), FreeLeases(), (True, False)),
    ],
)
def test_which_leases_a_call_wants(
    candidate: Candidate, leases: FreeLeases, wanted: tuple[bool, bool] | None
) -> None:
    state = PoolState((evolve(candidate, leases=leases),), attempts=4)
    found = lease_wanted(state, Failover(), NOON, Call())
    assert found == (None if wanted is None else LeaseWanted("a", *wanted))


@pytest.mark.parametrize("fact", [RefusalRefuted(Refusal.REQUEST, None), LeasesChanged()])
def test_facts_of_other_kinds_are_not_heard_as_standings(fact: Any) -> None:
    with pytest.raises(TypeError, match=r"^this fact is folded in elsewhere$"):
        hear(CAPPED, Heard("a", fact, 1), PoolState((CAPPED,)), NOON)


def test_a_fact_about_a_stranger_changes_nothing() -> None:
    state = PoolState.of(Endpoint("a"))
    assert update(state, Heard("stranger", WindowLearnt(9), 1), NOON) is state


def test_a_heard_fault_of_another_gravity_counts_from_one() -> None:
    state = PoolState.of(Endpoint("a"))
    passing = PlaceDisabled(Fault.TRANSIENT, MINUTE, 5)
    lasting = PlaceDisabled(Fault.AUTH, 2 * MINUTE, 1)
    state = update(state, Heard("a", passing, 1), NOON)
    state = update(state, Heard("a", lasting, 2), NOON)
    broken = state["a"].health.broken
    assert broken is not None
    assert (broken.cause, broken.failures) == (Fault.AUTH, 1)


def test_what_changed_nothing_is_not_published() -> None:
    state = PoolState.of(Endpoint("a"))
    assert publications(state, Failed("a", 1), state, NOON) == ()
    assert publications(state, Failed("stranger", 1), state, NOON) == ()


def test_a_learnt_window_is_published() -> None:
    before = update(PoolState.of(Endpoint("a")), Started("a"), NOON)
    refusal = Rejected("a", 1, Refusal.TOO_LONG, window=1024)
    after = update(before, refusal, NOON)
    [publication] = publications(before, refusal, after, NOON)
    assert publication.fact == WindowLearnt(1024)


def test_without_the_multiplexer_no_other_model_has_an_opinion() -> None:
    state = PoolState.of(Endpoint("a"), Endpoint("b"), policy=Policy(direct=True))
    call = Call(tried=("a", "b"), excluded=("a", "b"), refused=("a",))
    assert select(state, Failover(), NOON, call) == Exhausted(None, WaitReason.TRIED)


@pytest.mark.parametrize(
    ("after", "gradual", "left"),
    [(0, False, 20), (30, False, 20), (30, True, 60), (60, False, 100), (90, True, 100)],
)
def test_a_limit_is_refilled_continuously_or_all_at_once(
    after: int, gradual: bool, left: int
) -> None:
    allowance = Allowance(AllowanceKind.TOKENS, 20, 100)
    announcement = Announcement(allowance, 1, NOON, NOON + MINUTE, gradual)
    assert announcement.left(NOON + timedelta(seconds=after)) == left


def test_the_status_counts_since_the_journals_beginning() -> None:
    totals = {"a": Totals(NOON, 7, 2, 1)}
    status = status_of(PoolState.of(Endpoint("a")), "m", NOON, zone=UTC, totals=totals)
    line = "  - Since 2026-03-01: Success: 7 | Rate limited: 2 | Failed: 1\n"
    assert line in str(status)
    assert status.to_json()["per_model"]["a"]["since_beginning"] == {
        "since": NOON.isoformat(),
        "success_count": 7,
        "rate_limit_count": 2,
        "fail_count": 1,
    }


def test_a_spent_primary_is_looked_at_again_when_it_is_full(history: type[History]) -> None:
    """While another primary is busy, a call waits no longer than for the spent one."""
    pool = history(
        Endpoint("a"), Endpoint("b", max_concurrent=1), Endpoint("f", is_fallback=True)
    )
    full_at = pool.now + timedelta(seconds=4)
    spent = Allowance(AllowanceKind.REQUESTS, 0, 10, full_at)
    attempt = pool.start("a")
    pool.record(Succeeded("a", attempt, allowances=(spent,)))
    pool.start("b")
    assert pool.select() == Wait(full_at, WaitReason.BUSY)


def test_an_unlimited_allowance_shows_no_proportion(history: type[History]) -> None:
    """Without a limit, nothing tells how an allowance is refilled, or what is left of it."""
    pool = history("a")
    for remaining in (5, 3):
        full_at = pool.now + timedelta(seconds=30)
        allowance = Allowance(AllowanceKind.REQUESTS, remaining, None, full_at)
        attempt = pool.start("a")
        pool.record(Succeeded("a", attempt, allowances=(allowance,)))
    assert "Left: 3 requests (full at" in str(
        status_of(pool.state, "m", pool.now, zone=UTC)
    )
    later = pool.now + timedelta(seconds=40)
    assert "Left" not in str(status_of(pool.state, "m", later, zone=UTC))


@pytest.mark.parametrize(("later", "is_full"), [(-1, False), (0, True), (1, True)])
def test_a_limit_that_is_full_again_has_no_moment(
    history: type[History], later: int, is_full: bool
) -> None:
    pool = history("a")
    full_at = pool.now + timedelta(seconds=30)
    attempt = pool.start("a")
    allowance = Allowance(AllowanceKind.REQUESTS, 3, 10, full_at)
    pool.record(Succeeded("a", attempt, allowances=(allowance,)))
    refused = pool.start("a")
    pool.record(Rejected("a", refused))
    pool.record(Refuted("a", refused, Refusal.REQUEST, "b"))
    status = status_of(pool.state, "m", full_at + timedelta(seconds=later), zone=UTC)
    text = str(status)
    assert ("  - Left: 10 of 10 requests\n" in text) is is_full
    assert status.to_json()["per_model"]["a"]["limits"] == [
        {
            "kind": "requests",
            "left": 10 if is_full else 3,
            "limit": 10,
            "full_at": None if is_full else full_at.isoformat(),
        }
    ]
    assert "  - Refused, but taken by another model: 1\n" in text
