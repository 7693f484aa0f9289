"""Where the state lives. Every change of it goes through `transact`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from muxcore.core.records import PoolState

T = TypeVar("T")


class Holder(Protocol):
    """Takes the result of a transaction: see `Store.transact`."""

    result: object


class Store(Protocol):
    """A home for one pool's state: in memory here, a file or a server elsewhere."""

    @property
    def state(self) -> PoolState:
        """The present state, for reading."""
        ...

    def transact(
        self, change: Callable[[PoolState], tuple[PoolState, T]], into: Holder | None = None
    ) -> T:
        """Replace the state by what `change` makes of it, alone; return its result.

        With `into`, the result is also put there, inseparably from the state: then an
        interrupt cannot leave an attempt begun without an owner who knows of it.
        """
        ...

    def after_fork(self) -> None:
        """Be of use in a forked child, where no other thread holds anything."""
        ...


class MemoryStore:
    """The state of one process, behind a lock that is held for pure functions only."""

    def __init__(self, state: PoolState) -> None:
        self._state = state
        self._lock = threading.Lock()

    @property
    def state(self) -> PoolState:
        return self._state

    def transact(
        self, change: Callable[[PoolState], tuple[PoolState, T]], into: Holder | None = None
    ) -> T:
        with self._lock:
            if into is None:
                self._state, result = change(self._state)
                return result
            # Both stores follow the call with no call between them: CPython looks for
            # signals at calls and loops only.
            self._state, into.result = change(self._state)
            return into.result

    def after_fork(self) -> None:
        self._lock = threading.Lock()
