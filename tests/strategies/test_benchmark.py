"""The simulation of `benchmarks/modes.py` at a small scale: what its tables must show."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from muxcore.core.records import Sticky
from muxcore_strategies.failover import Failover
from muxcore_strategies.load_balance import LoadBalance
from muxcore_strategies.lowest_cost import LowestCost
from muxcore_strategies.lowest_latency import LowestLatency

PLACE = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def modes() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PLACE)
        yield importlib.import_module("modes")


@pytest.mark.unmeasured
@pytest.mark.parametrize("size", [2, 5, 64])
def test_shares_stay_within_one_request(modes: ModuleType, size: int) -> None:
    assert modes.deviation(size, 3, "") < 1
    for away in ("busy", "disabled"):
        assert modes.deviation(size, 3, away) < 2


@pytest.mark.unmeasured
def test_stickiness_keeps_caches_warm(modes: ModuleType) -> None:
    pool = [modes.FIRST, modes.SECOND, modes.THIRD]
    alone = modes.run_agents([modes.FIRST], Failover(), Sticky.TURN, 2)
    by_sticky = {s: modes.run_agents(pool, LoadBalance(), s, 2) for s in Sticky}
    call, turn, session = (by_sticky[s] for s in (Sticky.CALL, Sticky.TURN, Sticky.SESSION))
    assert call.cached < turn.cached < session.cached
    assert call.switches > turn.switches > session.switches
    failover = modes.run_agents(pool, Failover(), Sticky.TURN, 2)
    assert failover.cached > 0.95 * alone.cached
    assert failover.on_first > 0.75 * failover.calls
    # Rule 11: a pool does no worse than its first member alone.
    assert failover.lost <= alone.lost
    assert failover.calls >= alone.calls


@pytest.mark.unmeasured
def test_lowest_latency_avoids_slow_models(modes: ModuleType) -> None:
    balanced = modes.latencies(LoadBalance(), 1500, 2.0)
    lowest = modes.latencies(LowestLatency(), 1500, 2.0)
    assert lowest.percentile(0.5) < balanced.percentile(0.5)
    assert lowest.percentile(0.9) < balanced.percentile(0.9) / 2
    assert lowest.percentile(0.99) < balanced.percentile(0.99)
    assert min(lowest.by_model.values()) > 0


@pytest.mark.unmeasured
def test_lowest_cost_is_as_cheap_as_the_cheapest_model_alone(modes: ModuleType) -> None:
    def money(mode: object, *pool: object) -> float:
        return float(modes.cost_of(pool, mode, Sticky.TURN, 2)[0])

    alone = [money(Failover(), endpoint) for endpoint in modes.PRICED]
    lowest = money(LowestCost(), *modes.PRICED)
    assert lowest < 1.05 * min(alone)
    assert lowest < money(LoadBalance(), *modes.PRICED) / 2


@pytest.mark.unmeasured
def test_it_prints_the_same_tables_each_time(
    modes: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["modes.py", "--scale", "0.02"])
    modes.main()
    printed = capsys.readouterr().out
    assert printed.count("###") == len(modes.TABLES) == 4
    for table in (modes.table_of_latency, modes.table_of_cost):
        assert modes.markdown_table(table(0.02)) in printed
