"""Wait for a condition: no test depends on the speed of a machine."""

from __future__ import annotations

import threading
from collections.abc import Callable

from muxcore.shell import clock

PATIENCE = 60.0
"""Seconds after which a wait has failed; one that succeeds ends at once."""
_PAUSE = 0.002


def wait_until(condition: Callable[[], object], patience: float = PATIENCE) -> float:
    """Wait for a condition that no event announces; return how many seconds it took."""
    started = clock.elapsed()
    pause = threading.Event()
    while not condition():
        assert clock.elapsed() - started < patience, "waited too long"
        pause.wait(_PAUSE)
    return clock.elapsed() - started
