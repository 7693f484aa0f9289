"""The built-in modes keep what the kit asks of everybody's."""

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


@pytest.mark.parametrize("make", FACTORIES.values(), ids=FACTORIES)
def test_it_keeps_what_a_mode_must(make: Callable[[], Strategy]) -> None:
    check_strategy(make)
