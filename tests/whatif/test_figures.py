"""What another config would have made of a journal, against the truth of the same world.

A figure counts as right within a fifth, or within what is of no account: 2 % of the requests for a
count, a tenth of a second for each request for waits.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from attrs import evolve, frozen

from muxcore.whatif.figures import (
    PRECISION,
    ConfigComparison,
    Figures,
    compare,
    slack,
    value,
)
from tests.whatif.worlds import MODES, run, world_of

WORLDS = int(os.environ.get("VIBE_MUX_WORLDS", "8"))
CALLS = 2_000


@frozen
class JudgedWorld:
    """How many figures of a world were right, wrong, or could not be told."""

    counts: Counter[str]
    is_conclusive: bool


def judged(seed: int, calls: int) -> JudgedWorld:
    world = world_of(seed, calls)
    _, journal = run(world, world.before)
    truth = run(world, world.after)[0].named()
    strategy = MODES[world.after.mode]()
    compared = compare([journal], world.after.state(), strategy, world.after.mode)
    found, counts = compared.values(), Counter[str]()
    for name in truth.keys() | found.keys():
        estimate, true = found.get(name, 0.0), truth.get(name, 0.0)
        if estimate is None:
            counts["cannot tell"] += 1
        else:
            widest = max(PRECISION * true, slack(name, calls))
            counts["right" if abs(estimate - true) <= widest else "wrong"] += 1
    return JudgedWorld(counts, compared.is_conclusive)


@pytest.mark.slow
def test_it_is_right_in_nine_worlds_of_ten_or_says_that_it_cannot_tell() -> None:
    """`VIBE_MUX_WORLDS=200` runs as many as docs/testing.md reports."""
    worlds = [judged(seed, CALLS) for seed in range(WORLDS)]
    inconclusive = sum(not world.is_conclusive for world in worlds)
    wrong = sum(world.counts["wrong"] > 0 for world in worlds)
    told = Counter[str]()
    for world in worlds:
        told += world.counts
    print(f"{WORLDS} worlds: {wrong} wrong, {inconclusive} inconclusive; figures: {told}")
    assert wrong <= max(1, WORLDS // 10)
    assert inconclusive <= max(1, WORLDS // 5)


def test_the_same_journal_gives_the_same_figures() -> None:
    assert judged(4, 150) == judged(4, 150)


def test_figures_that_differ_too_much_cannot_be_told() -> None:
    assert value("limits met", [100, 110, 105], 100) == 105
    assert value("limits met", [100, 120, 110], 100) is None
    assert value("limits met", [0, 1, 2], 1_000) == 1, "that is of no account"
    assert value("cost", [0.1, 0.9], 1_000) is None


def test_above_half_estimated_attempts_nothing_can_be_told() -> None:
    figures = Figures(requests=10, limits=3)
    known = ConfigComparison(figures, (figures, figures), 0.5)
    assert known.values()["limits met"] == 3
    guessed = evolve(known, estimated=0.51)
    assert set(guessed.values().values()) == {None}
