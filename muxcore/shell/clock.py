"""The one place that tells the time.

`now` is the wall clock, for everything that is remembered; a test may freeze it. `elapsed`
only measures lengths, for limits that must hold in a frozen or set-back world too: it is
bound once, so that freezing the clock does not stop it.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable


def now() -> dt.datetime:
    """Return the present moment, in UTC."""
    return dt.datetime.now(tz=dt.UTC)


def elapsed(_read: Callable[[], float] = time.monotonic) -> float:
    """Return seconds on a clock that only ever runs forward."""
    return _read()
