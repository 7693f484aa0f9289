"""For authors of plugins: check a mode, a backend or a board in one line of pytest.

    from muxcore.testing import check_strategy

    def test_it() -> None:
        check_strategy(LeastBusy)

It needs hypothesis, which comes with `pip install "vibe-mux[testing]"`.
"""

try:
    import hypothesis  # noqa: F401 - what an extra brings
except ImportError:
    raise ImportError(
        'muxcore.testing needs hypothesis: pip install "vibe-mux[testing]"'
    ) from None

from muxcore.testing.check_backends import check_backend
from muxcore.testing.check_boards import check_board
from muxcore.testing.check_strategies import check_strategy
from muxcore.testing.faults import FaultyPluginError
from muxcore.testing.samples import OPENAI_SAMPLES, Row, Sample, failure_table

__all__ = [
    "OPENAI_SAMPLES",
    "FaultyPluginError",
    "Row",
    "Sample",
    "check_backend",
    "check_board",
    "check_strategy",
    "failure_table",
]
