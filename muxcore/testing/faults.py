"""What is wrong with a plugin, and what is looked for with hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis.errors import Flaky
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")


class FaultyPluginError(AssertionError):
    """A mode or backend does not keep what it must. The text holds the smallest case found."""


def search(cases: SearchStrategy[T], check: Callable[[T], None], runs: int) -> None:
    """Check many cases; raise the `FaultyPluginError` of the smallest one that fails.

    The cases are the same every time for the same code, so what is found once is found again.
    """
    found: list[FaultyPluginError] = []

    def watched(case: T) -> None:
        try:
            check(case)
        except FaultyPluginError as fault:
            found.append(fault)
            raise

    looked_for = settings(
        max_examples=runs,
        database=None,
        derandomize=True,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        verbosity=Verbosity.quiet,
        print_blob=False,
    )(given(cases)(watched))
    fault = None
    try:
        looked_for()
    except FaultyPluginError as smallest:
        fault = str(smallest)
    except Flaky:
        # It fails now and then for the same case: what was seen last is small enough.
        fault = (
            f"{found[-1]}\n(but not each time: it is not a function of what it is shown)"
        )
    if fault is not None:
        # Raised out here, without the search in its traceback.
        raise FaultyPluginError(fault)
