"""Worlds of several processes over a made-up board: rules 1, 2, 3, 4, 12 and 13."""

from __future__ import annotations

import pytest

from muxcore.core.folding import leases
from muxcore.core.records import Candidate, FreeLeases
from muxcore.plugins.board import SlotLease
from muxcore.testing.processes.made_up_board import MadeUpBoard
from muxcore.testing.processes.process_rules import BrokenRuleError
from muxcore.testing.processes.process_world import ProcessWorld, main


def run_worlds(number: int) -> None:
    for seed in range(number):
        ProcessWorld(seed).run()


@pytest.mark.unmeasured
@pytest.mark.parametrize("first", range(0, 12, 4))
def test_the_rules_hold_in_every_world(first: int) -> None:
    for seed in range(first, first + 4):
        result = ProcessWorld(seed, calls=40).run()
        assert result.endings["CallServed"]


def test_the_same_seed_makes_the_same_world() -> None:
    assert ProcessWorld(4).run() == ProcessWorld(4).run()


def test_a_lease_that_is_not_used_up_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def keeps(candidate: Candidate) -> FreeLeases | None:
        return candidate.leases

    monkeypatch.setattr("muxcore.core.updating.after_start", keeps)
    assert leases.after_start is not keeps
    with pytest.raises(BrokenRuleError, match="2:"):
        run_worlds(30)


@pytest.mark.parametrize(("kind", "rule"), [("model-", "2:"), ("probe:", "3:")])
def test_a_lease_too_many_is_found(
    monkeypatch: pytest.MonkeyPatch, kind: str, rule: str
) -> None:
    take = MadeUpBoard.take

    def generous(
        self: MadeUpBoard, place: str, cap: int, ticket: int | None = None
    ) -> SlotLease:
        return take(self, place, cap + place.startswith(kind), ticket)

    monkeypatch.setattr(MadeUpBoard, "take", generous)
    with pytest.raises(BrokenRuleError, match=f"^{rule}"):
        run_worlds(30)


@pytest.mark.unmeasured
def test_a_probe_keeps_its_lease_when_it_hears_of_another_failure() -> None:
    """Who has not heard of it must not probe beside it."""
    assert ProcessWorld(923).run().endings["CallServed"]


@pytest.mark.unmeasured
@pytest.mark.parametrize("seed", [105, 5565, 11190])
def test_who_hears_that_another_probe_succeeded_probes_no_more(seed: int) -> None:
    """It gives its lease back, and one who has not heard yet may probe at the same time."""
    assert ProcessWorld(seed).run().endings["CallServed"]


def test_the_command_reports_what_it_ran(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--worlds", "2", "--calls", "10"]) == 0
    assert "20 calls" in capsys.readouterr().out
