"""What an observer plugin implements."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from muxcore.core.entries import Entry
from muxcore.core.records import PoolState


class Observer(Protocol):
    """Sees every entry of this process's journal, in order, with the states around it.

    It is called in a thread of its own, so it may block. One that is too slow loses the oldest
    entries, and one that raises is shown in the status; neither harms a call.
    """

    def observe(
        self, now: datetime, entry: Entry, before: PoolState, after: PoolState, /
    ) -> None: ...

    def close(self) -> None:
        """End: no entry follows. It may take two seconds at most."""
