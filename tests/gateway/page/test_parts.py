"""The rows of a part of a journal: from them, the time line is drawn without asking again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from muxcore.core.allowance import Allowance, AllowanceKind
from muxcore.core.outcomes import Limit, RateLimited, Succeeded
from muxcore.core.records import Endpoint
from muxcore.core.status import status_of
from muxcore.explaining.folding import fold
from muxcore.gateway.page.parts import (
    Row,
    folded_until,
    milliseconds,
    moment_of,
    rows_of,
)
from muxcore.gateway.page.view import pool_view
from tests.explaining.recording import POOLS, Recording, day_of


def drawn_at(standings: list[Row], at: int) -> dict[str, tuple[str, int]]:
    """Return where each model stands on the time line, and what it has in flight."""
    found = {}
    for time, alias, standing, until, then, in_flight in standings:
        if time <= at:
            is_over = until is not None and until <= at
            found[alias] = (str(then if is_over else standing), in_flight)
    return found


@pytest.mark.parametrize("mode", POOLS)
def test_the_time_line_and_the_pool_agree_at_every_moment(mode: str) -> None:
    journal = day_of(mode, 1, 60).journal()
    standings = rows_of(fold(journal)).standings
    first, last = (milliseconds(journal.lines[place].now) for place in (0, -1))
    checked = set()
    for at in range(first, last, 1_700):
        moment = moment_of(at)
        state, named = folded_until(journal, moment)
        view = pool_view(status_of(state, named, moment), state, moment)
        shown = {
            model["alias"]: (str(model["standing"]), model["in_flight"])
            for model in view["models"]
        }
        assert drawn_at(standings, at) == shown
        checked |= {standing for standing, _ in shown.values()}
    assert {"open", "disabled", "on probation"} <= checked


def test_a_limit_is_one_row_until_it_ends() -> None:
    recording = Recording(Endpoint("large"), Endpoint("small"))

    def limited(slot: Any) -> RateLimited:
        return RateLimited("large", slot.attempt, Limit.RATE, timedelta(seconds=90))

    def served(slot: Any) -> Succeeded:
        return Succeeded("small", slot.attempt, 10, 0, 5)

    call_id = recording.call((1.0, limited), (2.0, served))
    journal = recording.journal()
    rows = rows_of(fold(journal))
    limited_at = journal.lines[0].now + timedelta(seconds=1)
    (disabled,) = [row for row in rows.standings if row[2] == "disabled"]
    until = milliseconds(limited_at + timedelta(seconds=90))
    assert disabled == [
        milliseconds(limited_at),
        "large",
        "disabled",
        until,
        "on probation",
        0,
    ]
    assert [row[2] for row in rows.asked] == [call_id]
    assert [row[2] for row in rows.started] == ["large", "small"]
    assert [row[2] for row in rows.ended] == ["served"]


def test_a_spent_limit_is_one_row_until_it_has_room_again() -> None:
    recording = Recording(Endpoint("large"))
    full_at = recording.now() + timedelta(seconds=61)

    def served(slot: Any) -> Succeeded:
        spent = Allowance(AllowanceKind.REQUESTS, 0, 1, full_at)
        return Succeeded("large", slot.attempt, 10, 0, 5, allowances=(spent,))

    recording.call((1.0, served))
    rows = rows_of(fold(recording.journal()))
    (spent,) = [row for row in rows.standings if row[2] == "spent"]
    answered_at = milliseconds(recording.now())
    assert (spent[0], spent[1], spent[4], spent[5]) == (answered_at, "large", "open", 0)
    assert answered_at < spent[3] <= milliseconds(full_at) + 1_000


def test_a_moment_is_that_of_the_entries_until_then() -> None:
    journal = day_of("failover", 2, 10).journal()
    before: datetime = journal.lines[0].now - timedelta(seconds=1)
    assert folded_until(journal, before)[0] is journal.base.state
    end = journal.lines[-1].now
    assert folded_until(journal, end)[0] == list(fold(journal))[-1].after
