"""A call's thread in a world: it sleeps until a decision or an alarm wakes it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TypeAlias

from attrs import define

from muxcore.core.protocol import Slot
from muxcore.shell.call.loop import Done, Loop
from muxcore.testing.simulation.answers import SimulatedStream
from muxcore.testing.simulation.observation import Caller, ObservedWaiter
from muxcore.testing.simulation.timeline import Timeline
from muxcore.testing.simulation.worlds import SECOND, Arrival

Resume: TypeAlias = "Callable[[CallThread, Done], None]"


@define(eq=False)
class CallThread:
    """One call under way, as its thread sees it."""

    arrival: Arrival
    caller: Caller
    waiter: ObservedWaiter
    loop: Loop
    limit: int
    """When the shell cancels it, on the monotonic clock."""
    timeline: Timeline
    resume: Resume
    naps: int = 0
    """The number of the current sleep, so that the alarm of an older one has no effect."""
    asleep: bool = False
    attempt: Slot | None = None
    began: int = 0
    left: bool = False
    retry_at: datetime | None = None
    stream: SimulatedStream | None = None

    def give_way(self) -> None:
        """Continue soon; other threads may run first."""
        self.timeline.soon(partial(self._continue, self.naps))

    def sleep(self, seconds: float) -> None:
        """Sleep for this long, or until a decision arrives."""
        self.naps += 1
        if self.waiter.park(0.0):
            self.timeline.soon(partial(self._wake_up, self.naps, woken=True))
            return
        self.asleep = True
        until = self.timeline.clock.moment + round(seconds * SECOND)
        self.timeline.at(until, partial(self._alarm, self.naps))

    def notify(self) -> None:
        """Wake up for a decision that has arrived."""
        if self.asleep:
            self.asleep = False
            self.timeline.soon(partial(self._check_decision, self.naps))

    def interrupt(self) -> None:
        """End the sleep without a result."""
        self.naps += 1
        self.asleep = False

    def _continue(self, naps: int) -> None:
        if self.naps == naps:
            self.resume(self, None)

    def _check_decision(self, naps: int) -> None:
        if self.naps == naps and self.waiter.park(0.0):
            self._wake_up(naps, woken=True)

    def _alarm(self, naps: int) -> None:
        if self.naps == naps and self.asleep:
            self.asleep = False
            self._wake_up(naps, woken=self.waiter.park(0.0))

    def _wake_up(self, naps: int, *, woken: bool) -> None:
        if self.naps == naps:
            self.naps += 1
            self.resume(self, woken)
