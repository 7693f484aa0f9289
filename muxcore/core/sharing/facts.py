"""Facts: what one process publishes about a place, and the others hear.

A place is a server, a wire model and an account (see `muxcore.board.places`). Only what
changes whether a place may be used is a fact. Times are durations, never moments: the clocks
of two machines differ.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TypeAlias

from attrs import frozen

from muxcore.core.outcomes import Fault, Limit, Refusal


@frozen
class PlaceDisabled:
    """A limit or a fault: the place is disabled for `remaining` from now on.

    `failures` is how many there were in a row; `hint` is what the server asked for.
    """

    cause: Limit | Fault
    remaining: timedelta
    failures: int = 1
    hint: timedelta | None = None


@frozen
class PlaceRecovered:
    """A success which ended a cooldown. It knew the facts up to the number `heard_of`."""

    heard_of: int = 0


@frozen
class WindowLearnt:
    """The server named its context window, in tokens."""

    window: int


@frozen
class RefusalRefuted:
    """Another model took a request which this place refused."""

    kind: Refusal
    conversation: str | None = None


@frozen
class PlaceReset:
    """The user ends whatever disables the place."""


@frozen
class LeasesChanged:
    """The board grants leases to this process, or takes back what was free to use.

    Not `shared`: the board is gone, and caps count within the process.
    """

    slots: int = 0
    probes: int = 0
    shared: bool = True


Fact: TypeAlias = (
    PlaceDisabled | PlaceRecovered | WindowLearnt | RefusalRefuted | PlaceReset
)
"""What is published."""
