"""The rules that hold in each process, and across processes while the board is there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from muxcore.core.entries import Configured, Entry, Heard
from muxcore.core.outcomes import Reset, Succeeded
from muxcore.core.records import Cooldown, PoolState
from muxcore.core.sharing.facts import PlaceRecovered, PlaceReset
from muxcore.core.updating import update
from muxcore.shell.pool.pool import Change

SECOND = timedelta(seconds=1)


class BrokenRuleError(AssertionError):
    """A rule does not hold. The text begins with its number."""


def demand(truth: object, text: str) -> None:
    if not truth:
        raise BrokenRuleError(text)


class ProcessRules:
    """Observes the pool of one process: rules 2, 4, 12 and 13 at every change."""

    def __init__(self, state: PoolState) -> None:
        self._initial = state
        self._latest = datetime.min.replace(tzinfo=UTC)
        self.entries: list[tuple[datetime, Entry]] = []

    def check(self, before: PoolState, change: Change) -> None:
        state = before
        for entry in change.entries:
            after = update(state, entry, change.now)
            self._rule_4(state, entry, after, change.now)
            state = after
            self.entries.append((change.now, entry))
        demand(state == change.state, "13: the entries make another state")
        if change.entries:
            back = self._latest - change.now
            demand(not timedelta() < back < SECOND, f"13: the journal runs back by {back}")
            self._latest = change.now
        total = 0
        for candidate in state.candidates:
            in_flight, cap = candidate.health.in_flight, candidate.endpoint.max_concurrent
            demand(cap is None or in_flight <= cap, f"2: {in_flight} in flight of {cap}")
            total += candidate.tally.ended + in_flight
        demand(total == state.attempts, f"12: {state.attempts} attempts, {total} counted")

    def look_back(self, state: PoolState) -> None:
        """Fold the whole journal anew."""
        folded = self._initial
        for now, entry in self.entries:
            folded = update(folded, entry, now)
        demand(folded == state, "13: the journal makes another state")
        for candidate in state.candidates:
            demand(not candidate.health.under_way, "2: in flight when all is quiet")

    @staticmethod
    def _rule_4(before: PoolState, entry: Entry, after: PoolState, now: datetime) -> None:
        if before.candidates is after.candidates or isinstance(entry, Configured):
            return
        for was, became in zip(before.candidates, after.candidates, strict=True):
            for old, new in (
                (was.health.limited, became.health.limited),
                (was.health.broken, became.health.broken),
            ):
                if old is None or old is new or not old.active(now):
                    continue
                if new is None:
                    demand(_may_clear(old, entry), f"4: {entry} cleared {old}")
                else:
                    demand(new.until >= old.until, "4: a cooldown became shorter")
                    demand(new.newest >= old.newest, "4: a cooldown forgot an attempt")


def _may_clear(cooldown: Cooldown, entry: Entry) -> bool:
    match entry:
        case Succeeded(attempt=attempt):
            return attempt > cooldown.newest
        case Heard(fact=PlaceRecovered(heard_of=heard_of)):
            return not cooldown.unnumbered and 0 < cooldown.fact <= heard_of
        case Reset() | Heard(fact=PlaceReset()):
            return True
        case _:
            return False
