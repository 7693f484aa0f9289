"""One call's place in the pool: the slot it holds, and what it waits for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from attrs import evolve, frozen

from muxcore.core.entries import CallResult
from muxcore.core.protocol import Slot
from muxcore.core.records import Call, Exhausted, Wait
from muxcore.errors import MultiplexerError
from muxcore.shell.pool.parker import Parker

Decision: TypeAlias = Slot | Wait | Exhausted | MultiplexerError
"""What the pool decides for a call; an error ends the call."""

A_MOMENT = timedelta(milliseconds=1)
"""Two readings of the clocks that differ by less mean the same time."""

ZERO = timedelta()
UNDECIDED = MultiplexerError("the pool has made no decision for this call")


@frozen
class Waiting:
    """What a waiting call waits for. `since` is a time of the monotonic clock."""

    call: Call
    since: float
    until: datetime

    def duration(self, moment: float) -> timedelta:
        return timedelta(seconds=moment - self.since)


NOT_WAITING = Waiting(Call(), 0.0, datetime.min.replace(tzinfo=UTC))


class Waiter:
    """One call's place in the pool: the latest decision, and the slot it holds."""

    __slots__ = (
        "cancelled",
        "decision",
        "id",
        "limit",
        "number",
        "parker",
        "result",
        "slot",
        "waiting",
        "wakes_at",
    )

    def __init__(self) -> None:
        self.decision: Decision = UNDECIDED
        self.slot: Slot | None = None
        """The slot that it holds, until the end of that attempt is recorded."""
        self.cancelled = False
        self.waiting = NOT_WAITING
        self.parker: Parker | None = None
        """Wakes its thread; None until it waits for the first time."""
        self.limit: float | None = None
        """When the call's time is over, on the monotonic clock."""
        self.number: int | None = None
        """The call's number in the journal, from its first choice until it is settled."""
        self.id = ""
        """The call's id, from its first choice on."""
        self.result = CallResult.CANCELLED
        """How the call ends, as far as is known."""
        self.wakes_at = 0.0
        """When its wait is over, on the monotonic clock."""

    def timely(
        self,
        call: Call,
        now: datetime,
        wall: datetime,
        moment: float,
        waited: timedelta = ZERO,
    ) -> Call:
        """Return the call after `waited` more, with its deadline in terms of `now` (`moment`).

        A wall clock set back must not extend the deadline; one set forward shortens it.
        """
        deadline = call.deadline
        if self.limit is not None and call.deadline is not None:
            left = min(self.limit - moment, (call.deadline - wall).total_seconds())
            deadline = now + timedelta(seconds=left)
            if not waited and abs(deadline - call.deadline) < A_MOMENT:
                # The usual case, at a third of the price of `evolve`.
                return call
        return evolve(call, waited=call.waited + waited, deadline=deadline)

    def receive(self, decision: Decision) -> None:
        """Store the decision of the pool, and wake the call."""
        self.decision = decision
        if isinstance(decision, Slot):
            self.slot = decision
        if self.parker is not None:
            self.parker.unpark()

    def park(self, seconds: float) -> bool:
        """Sleep until a decision arrives; return False if none does within `seconds`."""
        return self.parker is not None and self.parker.park(seconds)

    def decided(self) -> Slot | Wait | Exhausted:
        """Return the latest decision. Raise it if it is an error."""
        # Take the permit of the decision that is read here.
        self.park(0.0)
        if isinstance(self.decision, MultiplexerError):
            raise self.decision
        return self.decision
