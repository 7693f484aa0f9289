"""Waiting for a condition, as long as it takes: no test depends on a machine's speed."""

from __future__ import annotations

import threading
from collections.abc import Callable

from muxcore.shell import clock

PATIENCE = 60.0
"""Seconds after which a wait has failed; one that succeeds ends at once."""
_PAUSE = 0.002


def wait_until(condition: Callable[[], object], patience: float = PATIENCE) -> float:
    """Wait for what no event announces; return for how many seconds."""
    started = clock.elapsed()
    pause = threading.Event()
    while not condition():
        assert clock.elapsed() - started < patience, "waited too long"
        pause.wait(_PAUSE)
    return clock.elapsed() - started
