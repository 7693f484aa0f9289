"""The built-in modes pass `check_strategy`, as third-party modes have to."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from muxcore.core.strategy import Strategy
from muxcore.plugins.catalogue import built_in
from muxcore.testing import check_strategy
from muxcore_strategies.lowest_cost import LowestCost
from muxcore_strategies.lowest_latency import LowestLatency

FACTORIES: dict[str, Callable[[], Strategy]] = {
    **{name: entry.factory for name, entry in built_in().strategies.items()},
    "lowest_cost of one call": lambda: LowestCost(calls_ahead=0),
    "lowest_latency that explores": lambda: LowestLatency(1000, 1),
}


@pytest.mark.unmeasured
@pytest.mark.parametrize("make", FACTORIES.values(), ids=FACTORIES)
@pytest.mark.parametrize("runs", [50, pytest.param(2000, marks=pytest.mark.slow)])
def test_the_built_in_modes_pass(make: Callable[[], Strategy], runs: int) -> None:
    check_strategy(make, runs=runs)
