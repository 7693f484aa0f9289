"""Entries: all that a process's journal may hold, as a closed union of records.

The state of a pool is the fold of its journal by `updating.update`. Most entries are outcomes.
The others are a config that counts from now on, a fact heard from other processes, and the
beginning and the end of each call, which leave the state as it is: they explain the rest.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from attrs import frozen

from muxcore.core.outcomes import Outcome
from muxcore.core.records import Call, Endpoint, Policy
from muxcore.core.sharing.facts import Fact, LeasesChanged

DEFAULTS = Policy()


@frozen
class Heard:
    """A fact about an endpoint's place, under the number that the board gave it.

    Or the board grants this process leases of the place: these have no number.

    `attempt` is 0 for a fact of another process. For an own fact which comes back with its
    number, it is the attempt that the fact comes from.
    """

    alias: str
    fact: Fact | LeasesChanged
    number: int = 0
    attempt: int = 0


@frozen
class Configured:
    """A config counts from now on; `migration.migrate` says what survives.

    `new_keys` are the aliases of endpoints whose key is another now.
    """

    endpoints: tuple[Endpoint, ...]
    policy: Policy = DEFAULTS
    new_keys: tuple[str, ...] = ()
    same_mode: bool = True


@frozen
class Asked:
    """A call begins. `number` names it in this journal."""

    number: int
    call: Call
    mode: str = ""


class CallResult(StrEnum):
    """How a call ended. The values are shown to users."""

    SERVED = "served"
    REJECTED = "refused"
    EXHAUSTED = "no model could serve it"
    CANCELLED = "cancelled"
    BROKEN = "broke off in the middle of its answer"
    FAILED = "the mode failed"


@frozen
class Ended:
    """A call is over."""

    number: int
    result: CallResult


Entry: TypeAlias = Outcome | Heard | Configured | Asked | Ended
