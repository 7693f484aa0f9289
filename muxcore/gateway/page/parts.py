"""A part of a journal as rows, from which the page draws the time line. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from attrs import define, evolve, field

from muxcore.core.entries import Asked, Ended
from muxcore.core.outcomes import (
    Cancelled,
    Failed,
    RateLimited,
    Rejected,
    Started,
    Succeeded,
)
from muxcore.core.records import Candidate, PoolState
from muxcore.core.selection import explain
from muxcore.explaining.folding import FoldedLine, fold
from muxcore.gateway.page.view import SHORTEST, ShownStanding, shown_standing
from muxcore.journal.recent import Journal

MILLISECOND = timedelta(milliseconds=1)
EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
Row = list[Any]


@define
class TimelineRows:
    """What happened in a part of a journal. Times are in milliseconds since 1970.

    `standings`: time, model, standing, until when, what it is then, attempts in flight.
    `asked`: time, call, its id. `started`: time, attempt, model, call.
    `finished`: time, attempt, what came of it. `ended`: time, call, its result.
    """

    standings: list[Row] = field(factory=list)
    asked: list[Row] = field(factory=list)
    started: list[Row] = field(factory=list)
    finished: list[Row] = field(factory=list)
    ended: list[Row] = field(factory=list)

    def read(self, folded: FoldedLine) -> None:
        at = milliseconds(folded.line.now)
        match folded.line.entry:
            case Asked(number=number, id=call_id):
                self.asked.append([at, number, call_id or str(number)])
            case Started(alias=alias, call=call):
                self.started.append([at, folded.after.attempts, alias, call])
            case Succeeded(attempt=attempt):
                self.finished.append([at, attempt, "answered"])
            case RateLimited() | Failed() | Rejected() as outcome:
                self.finished.append([at, outcome.attempt, str(outcome.kind)])
            case Cancelled(attempt=attempt, reason=reason):
                self.finished.append([at, attempt, f"cancelled: {reason}"])
            case Ended(number=number, result=result):
                self.ended.append([at, number, str(result)])


def rows_of(entries: Iterable[FoldedLine]) -> TimelineRows:
    """Return the rows of folded entries. The first standing of each model is always one."""
    rows, standings = TimelineRows(), dict[str, Row]()
    for folded in entries:
        if not standings:
            _stand(rows, standings, folded.before, folded.line.now, ())
        rows.read(folded)
        if folded.after is not folded.before:
            known = folded.before.candidates
            _stand(rows, standings, folded.after, folded.line.now, known)
    return rows


def _stand(
    rows: TimelineRows,
    standings: dict[str, Row],
    state: PoolState,
    now: datetime,
    known: Sequence[Candidate],
) -> None:
    """Add a row for each model whose standing differs from the one in `standings`."""
    unchanged = set(map(id, known))
    for candidate in state.candidates:
        if id(candidate) not in unchanged:
            alias, row = candidate.endpoint.alias, _standing(candidate, state, now)
            if standings.get(alias) != row:
                standings[alias] = row
                rows.standings.append([milliseconds(now), alias, *row])


def milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // MILLISECOND


def moment_of(time: int) -> datetime:
    """Return the end of this millisecond, so that all that happened within it counts."""
    return EPOCH + (time + 1) * MILLISECOND - timedelta.resolution


def folded_until(journal: Journal, at: datetime) -> tuple[PoolState, str]:
    """Return the state at this moment, and the mode."""
    state, mode = journal.base.state, journal.base.mode
    for folded in fold(journal):
        if folded.line.now > at:
            break
        state, mode = folded.after, getattr(folded.line.entry, "mode", "") or mode
    return state, mode


def _standing(candidate: Candidate, state: PoolState, now: datetime) -> Row:
    """Return where a model stands: until when, and how it stands from then on."""
    (verdict,) = explain(evolve(state, candidates=(candidate,)), now, SHORTEST)
    health = candidate.health
    then = ShownStanding.PROBATION if health.unproven else ShownStanding.OPEN
    until = None if verdict.until is None else milliseconds(verdict.until)
    return [shown_standing(verdict, candidate), until, then, health.in_flight]
