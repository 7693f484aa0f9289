"""Every decision of a journal is made again, and a rule that has changed is found."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from muxcore.config.resolve import strategy_named
from muxcore.core import selection
from muxcore.core.entries import RULES
from muxcore.core.outcomes import PickReason, Started
from muxcore.core.records import Candidate
from muxcore.core.updating import update
from muxcore.explaining.replay import Replayed, replay, sealed
from muxcore.journal.codec import JournalFormatError, digest_of
from muxcore.journal.export import JournalGapError, from_lines, to_lines
from muxcore.journal.recent import Checkpoint, Journal, JournalLine
from muxcore.journal.redaction import redacted, redacted_state
from muxcore.testing.simulation.world_run import Simulation
from muxcore.testing.simulation.worlds import MODES, world_of
from tests.explaining.recording import FOLDER, POOLS, day_of, live, recording_of

FIXTURES = sorted(FOLDER.glob("*.jsonl"))


def read(file: Path) -> Journal:
    with file.open("rb") as lines:
        (journal,) = from_lines(lines)
    return journal


@pytest.mark.parametrize("file", FIXTURES, ids=lambda file: file.stem)
def test_todays_rules_decide_as_the_recorded_ones(file: Path) -> None:
    """If this fails and the rules have changed on purpose, raise `RULES` and record anew."""
    journal = read(file)
    assert journal.base.rules == RULES
    made = replay(journal, strategy_named)
    assert made.difference is None
    assert made.decisions > 100
    assert made.states == 1


def test_there_is_a_journal_of_each_pool() -> None:
    assert [file.stem for file in FIXTURES] == sorted(POOLS)


def test_an_export_comes_back_as_it_was() -> None:
    for file in FIXTURES:
        assert b"".join(to_lines(read(file))) == file.read_bytes()


@pytest.mark.unmeasured
@pytest.mark.parametrize("seed", range(16))
def test_all_decisions_of_simulated_worlds_are_made_again(seed: int) -> None:
    """Of waiting calls too, with clocks that are set, interrupts, resets and new configs."""
    world = evolve(world_of(seed), happenings=())
    simulation = Simulation(world)
    pool = simulation._pool
    base, lines = Checkpoint(0, pool.state, world.mode), list[JournalLine]()
    pool.journal.follow(lines.extend)
    simulation.run()
    digests = {lines[-1].number: digest_of(pool.state)}
    made = replay(Journal(base, lines, digests), lambda mode, _: MODES[mode]())
    assert made.difference is None
    assert made.states == 1
    begun = [line for line in lines if isinstance(line.entry, Started)]
    assert made.decisions >= len(begun) == pool.state.attempts


class Backwards:
    """A mode that picks the last open endpoint, as nothing recorded did."""

    def pick(
        self, candidates: Sequence[Candidate], memory: object, *_: object
    ) -> tuple[Any, object]:
        return candidates[-1].endpoint, memory


def test_a_change_of_a_mode_is_found_at_its_first_decision() -> None:
    journal = read(FOLDER / "failover.jsonl")
    found = replay(journal, lambda *_: Backwards()).difference
    assert found is not None
    first = next(line for line in journal.lines if isinstance(line.entry, Started))
    assert found.number == first.number
    assert found.recorded == "asks large (the mode's choice)"
    assert found.today == "asks other (the mode's choice)"
    assert found.call_id.endswith("-1")


def test_a_change_of_a_rule_is_found_at_its_first_decision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    journal = read(FOLDER / "failover.jsonl")
    monkeypatch.setattr(selection, "_stays", lambda *_: False)
    found = replay(journal, strategy_named).difference
    assert found is not None
    first = next(
        line
        for line in journal.lines
        if isinstance(line.entry, Started) and line.entry.reason is PickReason.STICKY
    )
    assert found.number == first.number
    assert found.recorded.endswith("(this turn is there)")
    assert found.today == "asks other (another model refused it)"


def test_a_change_of_folding_is_found_by_the_state() -> None:
    journal = read(FOLDER / "load_balance.jsonl")
    last = journal.lines[-1].number
    found = replay(evolve(journal, digests={last: "0" * 32}), strategy_named).difference
    assert found is not None
    assert (found.number, found.recorded) == (last, "another state")


def test_a_mode_that_fails_today_is_a_difference() -> None:
    class Broken:
        def pick(self, *_: object) -> Any:
            raise LookupError("no such thing")

    journal = read(FOLDER / "failover.jsonl")
    found = replay(journal, lambda *_: Broken()).difference
    assert found is not None
    assert "raised LookupError: no such thing" in found.today


# -- Files that are not whole -------------------------------------------------------------------


def exported() -> list[bytes]:
    return list(to_lines(sealed(day_of("failover", 3, 20).journal())))


def test_a_torn_last_line_is_ignored() -> None:
    lines = exported()
    (whole,) = from_lines(lines[:-2])
    (torn,) = from_lines([*lines[:-2], lines[-2][:40]])
    assert torn == whole


def test_a_torn_line_before_others_is_an_error() -> None:
    lines = exported()
    lines[5] = lines[5][:40]
    with pytest.raises(JournalFormatError, match="line 6 is no line of a journal"):
        from_lines(lines)


def test_a_gap_is_an_error() -> None:
    lines = exported()
    del lines[7]
    with pytest.raises(
        JournalGapError, match="line 8: entry 8 follows entry 6: entries are missing"
    ):
        from_lines(lines)


def test_a_file_without_a_header_is_refused() -> None:
    for lines in ([], exported()[1:]):
        with pytest.raises(JournalFormatError, match="header"):
            from_lines(lines)


def test_an_export_holds_no_name_of_a_session() -> None:
    assert b"session" not in b"".join(exported())


# -- How long it takes --------------------------------------------------------------------------


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


@pytest.mark.slow
def test_a_hundred_thousand_decisions_take_at_most_three_times_a_plain_fold() -> None:
    recording, lines = recording_of("failover"), list[JournalLine]()
    base = recording.pool.checkpoint()
    recording.pool.journal.follow(lines.extend)
    live(recording, 7, 90_000)
    redacted_lines = [line._replace(entry=redacted(line.entry, b"salt")) for line in lines]
    digest = digest_of(redacted_state(recording.pool.state, b"salt"))
    written = Journal(base, redacted_lines, {lines[-1].number: digest})
    data = list(to_lines(written))
    (journal,) = from_lines(data)

    def fold() -> None:
        state = journal.base.state
        for line in journal.lines:
            state = update(state, line.entry, line.now)

    loaded = cpu_seconds(lambda: [json.loads(line) for line in data])
    read = cpu_seconds(lambda: from_lines(data))
    folded, (replayed, made) = cpu_seconds(fold), timed(journal)
    print(
        f"{made.decisions:,} decisions in {len(lines):,} entries: replayed in {replayed:.2f} s,"
        f" folded in {folded:.2f} s; read in {read:.2f} s, json.loads {loaded:.2f} s"
    )
    assert made.difference is None
    assert made.states == 1
    assert made.decisions >= 100_000
    assert replayed <= 3 * folded


def timed(journal: Journal) -> tuple[float, Replayed]:
    made = list[Replayed]()
    seconds = cpu_seconds(lambda: made.append(replay(journal, strategy_named)))
    return seconds, made[0]
