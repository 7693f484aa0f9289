"""The one place that reads a clock.

`now` is the wall clock, for everything that is stored; a test may freeze it. `elapsed` is the
monotonic clock, for limits that must hold even if the wall clock is frozen or set back. It is
bound at import, so freezing the clock does not stop it.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Protocol

LONGEST_SLEEP = 1_000_000.0
"""In seconds. Locks and sockets reject timeouts that are much longer."""


class Clock(Protocol):
    """The two clocks that a pool reads. This module is one; a simulation has its own."""

    def now(self) -> dt.datetime: ...

    def elapsed(self) -> float: ...


def now() -> dt.datetime:
    """Return the current time, in UTC."""
    return dt.datetime.now(tz=dt.UTC)


def elapsed(_read: Callable[[], float] = time.monotonic) -> float:
    """Return seconds on a clock that never runs backwards."""
    return _read()
