from vibe_mux_strategy_least_busy import LeastBusy

from muxcore.testing import check_strategy


def test_it_passes_the_check() -> None:
    check_strategy(LeastBusy)


def test_it_passes_the_check_by_weight() -> None:
    check_strategy(lambda: LeastBusy(by_weight=True))
