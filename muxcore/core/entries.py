"""Entries: all that a process's journal may hold, as a closed union of records.

The state of a pool is the fold of its journal by `updating.update`. Most entries are outcomes.
The others are a config that counts from now on, a fact heard from other processes, and what
frames each call: its beginning, its later choices, its end. Those leave the state as it is:
with them, every choice can be explained, and made again.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeAlias

from attrs import frozen

from muxcore.core.outcomes import Outcome
from muxcore.core.records import Call, Endpoint, Exhausted, Policy, Wait
from muxcore.core.sharing.facts import Fact, LeasesChanged

DEFAULTS = Policy()
RULES = 1
"""The version of `select` and `update`: raised when they decide or fold anything differently."""


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

    `new_keys` are the aliases of endpoints whose key is another now. `options` is the table of
    the mode's own options.
    """

    endpoints: tuple[Endpoint, ...]
    policy: Policy = DEFAULTS
    new_keys: tuple[str, ...] = ()
    same_mode: bool = True
    mode: str = ""
    options: Any = None


@frozen
class Asked:
    """A call begins. `number` names it in this journal, `id` everywhere.

    `call` is as its first choice was made for it.
    """

    number: int
    call: Call
    mode: str = ""
    id: str = ""


@frozen
class Chosen:
    """What was chosen for a call, which is `call` by now.

    For a first choice that picked an endpoint, `Asked` and `Started` say the same. `choice` is
    None where an endpoint was picked: its `Started` follows.
    """

    number: int
    call: Call
    choice: Wait | Exhausted | None = None


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


Entry: TypeAlias = Outcome | Heard | Configured | Asked | Chosen | Ended
