"""Hand the entries of the journal to observers, in a thread of their own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from muxcore.core.entries import Entry
from muxcore.core.records import PoolState
from muxcore.core.updating import update
from muxcore.journal.redaction import without_texts
from muxcore.plugins.observer import Observer
from muxcore.shell.pool.parker import Parker
from muxcore.shell.pool.pool import Change
from muxcore.text import printable

MOST_WAITING = 10_000
"""Changes that wait for slow observers; then the oldest are lost."""

PAUSE_SECONDS = 0.05
"""How long to collect changes after the first: waking the thread costs more than a change."""

CLOSE_SECONDS = 2.0

Seen: TypeAlias = tuple[PoolState, Change]


class Observing:
    """The observers of one pool. `put` is called with the guard of the pool held."""

    def __init__(self) -> None:
        self._observers: Mapping[str, Observer] = {}
        """By name."""
        self._waiting: deque[Seen] = deque(maxlen=MOST_WAITING)
        self._put = self._taken = 0
        """How many changes were put, and were taken or lost."""
        self._faults: dict[str, str] = {}
        self._parker = Parker()
        self._sleeps = False
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()

    @property
    def notices(self) -> tuple[str, ...]:
        """What is wrong with the observers, by the last fault of each."""
        lost = self._put - self._taken - len(self._waiting)
        slow = (
            (f"{lost} changes were lost: the observers are too slow",) if lost > 0 else ()
        )
        return (*self._faults.values(), *slow)

    def replace(self, former: Iterable[str], coming: Mapping[str, Observer]) -> None:
        """Close some observers, and let others see what comes from now on."""
        gone = frozenset(former)
        leaving = {n: o for n, o in self._observers.items() if n in gone}
        staying = {n: o for n, o in self._observers.items() if n not in gone}
        self._observers = {**staying, **coming}
        _close(leaving, self.note)
        if self._thread is None and coming:
            self._thread = threading.Thread(
                target=self._run, name="vibe-mux-observers", daemon=True
            )
            self._thread.start()

    def put(self, before: PoolState, change: Change) -> None:
        if change.entries:
            self._waiting.append((before, change))
            self._put += 1
            if self._sleeps:
                self._parker.unpark()

    def stop(self) -> None:
        """Let the observers see what is there, and end. An observer that hangs is left."""
        self._ending.set()
        self._parker.unpark()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        latest: tuple[Entry, ...] = ()
        is_last = False
        while not is_last:
            self._sleeps = True
            # What is put from here on wakes the thread.
            if not (self._waiting or self._ending.is_set()):
                self._parker.park(threading.TIMEOUT_MAX)
            self._sleeps = False
            is_last = self._ending.wait(PAUSE_SECONDS)
            while self._waiting:
                before, change = self._waiting.popleft()
                self._taken += 1
                # After an interrupt, a change may be delivered twice.
                if change.entries is not latest:
                    latest = change.entries
                    self._show(before, change)
        _close(self._observers, self.note)

    def _show(self, before: PoolState, change: Change) -> None:
        for each, earlier, later in _each(before, change):
            entry = without_texts(each)
            for name, observer in self._observers.items():
                try:
                    observer.observe(change.now, entry, earlier, later)
                except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                    self.note(name, error)

    def note(self, name: str, error: Exception) -> None:
        """Show in the status that an observer fails."""
        reason = printable(f"{type(error).__name__}: {error}")
        self._faults[name] = f"the observer {name} fails: {reason}"


def _close(
    observers: Mapping[str, Observer], note: Callable[[str, Exception], None]
) -> None:
    for name, observer in observers.items():
        try:
            observer.close()
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            note(name, error)


def _each(
    before: PoolState, change: Change
) -> Iterator[tuple[Entry, PoolState, PoolState]]:
    """Yield the entries of a change with the states around each. The last one is known."""
    *earlier, last = change.entries
    for entry in earlier:
        after = update(before, entry, change.now)
        yield entry, before, after
        before = after
    yield last, before, change.state
