"""Search generated cases for a fault of a plugin, with hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis.errors import Flaky
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")


class FaultyPluginError(AssertionError):
    """A mode or backend breaks its contract. The text holds the smallest case found."""


def search(cases: SearchStrategy[T], check: Callable[[T], None], runs: int) -> None:
    """Check many cases; raise the `FaultyPluginError` of the smallest one that fails.

    The same code gets the same cases each time, so a fault that is found once is found again.
    """
    found: list[FaultyPluginError] = []

    def run_case(case: T) -> None:
        try:
            check(case)
        except FaultyPluginError as fault:
            found.append(fault)
            raise

    run_all = settings(
        max_examples=runs,
        database=None,
        derandomize=True,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        verbosity=Verbosity.quiet,
        print_blob=False,
    )(given(cases)(run_case))
    fault = None
    try:
        run_all()
    except FaultyPluginError as smallest:
        fault = str(smallest)
    except Flaky:
        # The same case fails only sometimes: the last fault seen is small enough.
        fault = (
            f"{found[-1]}\n(but not each time: it is not a function of what it is shown)"
        )
    if fault is not None:
        # Raised here, so that the traceback does not show the search.
        raise FaultyPluginError(fault)
