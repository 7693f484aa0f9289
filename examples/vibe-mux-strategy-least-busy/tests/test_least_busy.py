from vibe_mux_strategy_least_busy import LeastBusy

from muxcore.testing import check_strategy


def test_it_keeps_what_a_mode_must() -> None:
    check_strategy(LeastBusy)


def test_by_weight_too() -> None:
    check_strategy(lambda: LeastBusy(by_weight=True))
