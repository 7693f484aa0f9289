"""The `Board` protocol: where processes tell each other what they learn about places.

A board does blocking I/O. One thread of a process makes all the calls, in one order; calls of
models never wait for it longer than a bounded moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from attrs import frozen

from muxcore.errors import BoardBusyError as BoardBusyError
from muxcore.errors import BoardGoneError as BoardGoneError

if TYPE_CHECKING:
    # A command that only looks for the state file needs no fact.
    from muxcore.core.sharing.facts import Fact


@frozen
class BoardFact:
    """A fact as the board has it. Numbers grow, in the order of publication.

    `own` says that this very board object has published it, with this `attempt`. What is left
    of a duration is reduced by the time that the fact has been on the board.
    """

    number: int
    place: str
    fact: Fact
    own: bool = False
    attempt: int = 0


@frozen
class PresentStanding:
    """What a newcomer needs to know: the facts of effect, oldest first.

    `newest` is the number of the newest fact on the board; the newcomer hears on from there.
    """

    newest: int
    facts: tuple[BoardFact, ...] = ()


@frozen
class SlotLease:
    """A request for one slot of a place; it is held once `granted`."""

    place: str
    ticket: int
    granted: bool


@runtime_checkable
class ListeningBoard(Protocol):
    """What a board also has if it reports news, so that nobody has to poll it."""

    @property
    def is_listening(self) -> bool:
        """Whether it rings: the process has heard everything, but for the last moment."""
        ...

    def listen(self, ring: Callable[[], None]) -> None:
        """Call `ring` from now on, from any thread, when there is something to hear or take."""
        ...


class Board(Protocol):
    """What processes share of places. Every call may raise one of the two errors above.

    `salt` is a secret that all who share the board have: places are fingerprints with it.
    """

    @property
    def salt(self) -> bytes: ...

    def publish(self, place: str, fact: Fact, attempt: int = 0) -> int:
        """Put a fact on the board; return its number."""
        ...

    def hear(self, since: int) -> Sequence[BoardFact]:
        """Return a page of the facts after the number `since`, oldest first; empty at the end.

        Own facts are among them. Facts of no effect any more may be left out.
        """
        ...

    def standing(self) -> PresentStanding:
        """Return what still has an effect, for a newcomer."""
        ...

    def take(self, place: str, cap: int, ticket: int | None = None) -> SlotLease:
        """Ask for one of `cap` slots, or ask again with the ticket of an earlier request.

        Requests are granted in the order of their first call. Those of dead processes end.
        """
        ...

    def renew(self) -> None:
        """Keep the own leases and requests alive; called every few seconds while there are any."""
        ...

    def give_back(self, lease: SlotLease) -> None:
        """End a lease or a request. Repeating it changes nothing."""
        ...

    def close(self) -> None:
        """Give everything back. Later calls raise `BoardGoneError`."""
        ...

    def after_fork(self) -> None:
        """In a forked child: forget everything, and do not touch what the parent holds."""
        ...
