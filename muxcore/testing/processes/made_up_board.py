"""A made-up board: facts arrive late, the board is busy or gone at times, holders die."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from attrs import define, evolve, field, frozen

from muxcore.core.sharing.facts import Fact, PlaceDisabled
from muxcore.plugins.board import (
    BoardBusyError,
    BoardFact,
    BoardGoneError,
    PresentStanding,
    SlotLease,
)

SALT = b"made up"


@frozen
class _Written:
    at: float
    writer: str
    fact: BoardFact


@define(eq=False)
class BoardStore:
    """What all boards of a world share. `dead` says when the end of a holder is noticed."""

    facts: list[_Written] = field(factory=list)
    leases: list[tuple[int, str, str]] = field(factory=list)
    tickets: int = 0
    dead: dict[str, float] = field(factory=dict)


@frozen(eq=False)
class MadeUpBoard:
    """One process's access to the store. `trouble` returns "busy", "gone" or ""."""

    store: BoardStore
    name: str
    elapsed: Callable[[], float]
    delay: float
    trouble: Callable[[], str]

    @property
    def salt(self) -> bytes:
        return SALT

    def publish(self, place: str, fact: Fact, attempt: int = 0) -> int:
        self._expect_there()
        number = len(self.store.facts) + 1
        made = BoardFact(number, place, fact, attempt=attempt)
        self.store.facts.append(_Written(self.elapsed(), self.name, made))
        return number

    def hear(self, since: int) -> Sequence[BoardFact]:
        self._expect_there()
        now = self.elapsed()
        heard = []
        for written in self.store.facts[since : since + 50]:
            if written.writer != self.name and written.at + self.delay > now:
                break
            heard.append(self._aged(written, now))
        return heard

    def standing(self) -> PresentStanding:
        self._expect_there()
        now, facts = self.elapsed(), self.store.facts
        return PresentStanding(len(facts), tuple(self._aged(one, now) for one in facts))

    def take(self, place: str, cap: int, ticket: int | None = None) -> SlotLease:
        self._expect_there()
        store, now = self.store, self.elapsed()
        if ticket is None:
            store.tickets += 1
            ticket = store.tickets
            store.leases.append((ticket, place, self.name))
        store.leases[:] = [
            one for one in store.leases if store.dead.get(one[2], now) >= now
        ]
        ahead = sum(one[1] == place and one[0] < ticket for one in store.leases)
        return SlotLease(place, ticket, granted=ahead < cap)

    def renew(self) -> None:
        self._expect_there()

    def give_back(self, lease: SlotLease) -> None:
        self._expect_there()
        leases = self.store.leases
        leases[:] = [one for one in leases if one[0] != lease.ticket]

    def close(self) -> None:
        leases = self.store.leases
        leases[:] = [one for one in leases if one[2] != self.name]

    def after_fork(self) -> None:
        """Nothing here is the parent's alone."""

    def _expect_there(self) -> None:
        match self.trouble():
            case "busy":
                raise BoardBusyError("the board is busy")
            case "gone":
                raise BoardGoneError("the board is gone")
            case _:
                return

    def _aged(self, written: _Written, now: float) -> BoardFact:
        fact = written.fact.fact
        own = written.writer == self.name
        if isinstance(fact, PlaceDisabled):
            age = timedelta(seconds=now - written.at)
            fact = evolve(fact, remaining=fact.remaining - age)
        attempt = written.fact.attempt if own else 0
        return evolve(written.fact, fact=fact, own=own, attempt=attempt)
