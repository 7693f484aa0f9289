"""Entries as bytes: canonical, versioned, and without what must not be kept."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from muxcore.core.allowance import Allowance, AllowanceKind
from muxcore.core.entries import Asked, CallResult, Chosen, Configured, Ended, Entry, Heard
from muxcore.core.outcomes import (
    Cancelled,
    CancelReason,
    Failed,
    Fault,
    Limit,
    PickReason,
    RateLimited,
    Refusal,
    Refuted,
    Rejected,
    Reset,
    Responding,
    Started,
    Succeeded,
)
from muxcore.core.records import (
    Call,
    Endpoint,
    Exhausted,
    Pin,
    Policy,
    PoolState,
    Sticky,
    Wait,
    WaitReason,
    Wire,
)
from muxcore.core.sharing.facts import (
    LeasesChanged,
    PlaceDisabled,
    PlaceRecovered,
    PlaceReset,
    RefusalRefuted,
    WindowLearnt,
)
from muxcore.core.updating import update
from muxcore.journal.codec import (
    JournalFormatError,
    decode,
    decode_checkpoint,
    encode,
    encode_checkpoint,
)
from muxcore.journal.recent import Checkpoint, JournalLine, RecentEntries
from muxcore.journal.redaction import redacted, redacted_state

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
SALT = b"salt"
WIRE = Wire("https://user:pw@host/v1?k=CANARY#x", "KEY", (("X-Canary", "CANARY"),))
ENTRIES: tuple[Entry, ...] = (
    Started("a", {"lag": {"a": [1, 2]}}, 7),
    Responding("a", 1, timedelta(milliseconds=250)),
    Responding("a", 1, None, (Allowance(AllowanceKind.UNCACHED_TOKENS, 50, 90),)),
    Succeeded("a", 1, 12, 3, 4, SECOND, "s/1", new_turn=True, refusers=("b", "c")),
    *(RateLimited("a", 1, kind, SECOND, "slow down") for kind in Limit),
    *(Failed("a", 1, kind, None, "it broke") for kind in Fault),
    *(Rejected("a", 1, kind, 8000) for kind in Refusal),
    *(Cancelled("a", 1, reason) for reason in CancelReason),
    Refuted("a", 1, Refusal.REQUEST, "b", "s/1"),
    Reset(),
    Reset("a"),
    Heard("a", PlaceDisabled(Fault.AUTH, SECOND, 3, SECOND), 5),
    Heard("a", PlaceRecovered(4), 6, 2),
    Heard("a", WindowLearnt(8000), 7),
    Heard("a", RefusalRefuted(Refusal.TEMPLATE, "s/2"), 8),
    Heard("a", PlaceReset(), 9),
    Heard("a", LeasesChanged(1, -1)),
    Configured(
        (Endpoint("a", wire=Wire("https://a/v1")), Endpoint("b", weight=3)),
        Policy(SECOND, SECOND, SECOND, Sticky.CALL),
        ("a",),
        same_mode=False,
    ),
    Asked(
        1,
        Call(
            only="a",
            conversation="s/1",
            deadline=NOON,
            tried=("a", "b"),
            waited=SECOND,
            pin=Pin("s/1", "a", NOON),
        ),
        "failover",
    ),
    Chosen(1, Call(tried=("a",), waited=SECOND)),
    Chosen(1, Call(), Wait(NOON, WaitReason.BUSY)),
    Chosen(1, Call(), Exhausted(None, WaitReason.TRIED)),
    *(Started("a", None, 1, None, reason) for reason in PickReason),
    *(Ended(1, result) for result in CallResult),
)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: type(entry).__name__)
def test_an_entry_comes_back_as_it_was(entry: Entry) -> None:
    line = JournalLine(3, NOON, entry)
    data = encode(line)
    assert decode(data) == line
    assert encode(decode(data)) == data, "the bytes are canonical"


def test_every_kind_of_entry_has_an_example() -> None:
    kinds = {kind for member in get_args(Entry) for kind in get_args(member) or (member,)}
    assert kinds == {type(entry) for entry in ENTRIES}


def test_a_newer_version_is_refused_with_a_message() -> None:
    line = json.loads(encode(JournalLine(1, NOON, Reset())))
    line["v"] = 3
    with pytest.raises(
        JournalFormatError, match="is of version 3, and this vibe-mux reads"
    ):
        decode(json.dumps(line).encode())


def test_an_older_line_is_read_with_the_defaults_of_new_fields() -> None:
    old = b'{"at":"2026-03-01T12:00:00+00:00","entry":{"alias":"a","type":"Started"},"n":1,"v":1}'
    assert decode(old) == JournalLine(1, NOON, Started("a"))


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"\xff", b"[]", b'{"v":1,"n":1,"at":"noon","entry":{"type":"Reset"}}'],
)
def test_a_damaged_line_is_refused_with_a_message(data: bytes) -> None:
    with pytest.raises(JournalFormatError, match="not a line of a journal"):
        decode(data)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_any_json_value_may_be_the_memory_of_a_mode(memory: object) -> None:
    line = JournalLine(1, NOON, Started("a", memory))
    assert decode(encode(line)) == line


def test_no_entry_holds_a_secret() -> None:
    entries = (
        Rejected("a", 1, message="CANARY"),
        Failed("a", 1, message="x" * 500),
        Configured((Endpoint("a", wire=WIRE),)),
        Asked(1, Call(conversation="CANARY/1")),
        Succeeded("a", 1, conversation="CANARY/1"),
        Refuted("a", 1, Refusal.REQUEST, "b", "CANARY/1"),
        Heard("a", RefusalRefuted(Refusal.REQUEST, "CANARY/1")),
    )
    for entry in entries:
        data = encode(JournalLine(1, NOON, redacted(entry, SALT)))
        assert b"CANARY" not in data
        assert b"pw" not in data
        assert len(data) < 400


def test_redacted_entries_lead_to_the_redacted_state() -> None:
    state = PoolState.of(Endpoint("a", wire=WIRE))
    state = update(state, Started("a"), NOON)
    for entry in ENTRIES:
        after = update(state, entry, NOON)
        before = redacted_state(state, SALT)
        assert update(before, redacted(entry, SALT), NOON) == redacted_state(after, SALT)
        assert "s/1" not in str(redacted_state(after, SALT).candidates)


def test_another_header_is_another_place_in_the_redacted_journal_too() -> None:
    used = update(PoolState.of(Endpoint("a", wire=WIRE)), Failed("a", 1), NOON)
    used = update(used, Started("a"), NOON)
    for value in ("CANARY", "another"):
        configured = Configured(
            (Endpoint("a", wire=evolve(WIRE, extra_headers=(("X-Canary", value),))),)
        )
        after = update(redacted_state(used, SALT), redacted(configured, SALT), NOON)
        assert after == redacted_state(update(used, configured, NOON), SALT)


def test_the_journal_in_memory_begins_with_the_state_before_its_first_entry() -> None:
    recent, state = RecentEntries(most=3), PoolState.of(Endpoint("a"))
    assert recent.journal("failover", None) is None
    for number in range(1, 6):
        before, state = state, update(state, Started("a"), NOON)
        recent.extend(number, NOON, (Started("a"),), before)
    journal = recent.journal("failover", None)
    assert journal is not None
    assert (journal.base.number, journal.base.mode) == (2, "failover")
    folded = journal.base.state
    for line in journal.lines:
        folded = update(folded, line.entry, line.now)
    assert folded == state


def test_the_journal_in_memory_begins_with_its_last_config() -> None:
    recent, state = RecentEntries(), PoolState.of(Endpoint("a"))
    entries: list[Entry] = [Reset(), Configured(()), Reset()]
    for number, entry in enumerate(entries, 1):
        recent.extend(number, NOON, (entry,), state)
    journal = recent.journal("failover", None)
    assert journal is not None
    assert [line.number for line in journal.lines] == [2, 3]


def test_a_checkpoint_comes_back_as_it_was() -> None:
    state = PoolState.of(Endpoint("a", wire=Wire("https://a/v1")))
    for entry in ENTRIES:
        state = update(state, entry, NOON)
    checkpoint = Checkpoint(9, state, "failover", {"deep": [1, 2]})
    data = encode_checkpoint(checkpoint)
    assert decode_checkpoint(data) == checkpoint
    assert encode_checkpoint(decode_checkpoint(data)) == data
    with pytest.raises(JournalFormatError, match="not a checkpoint"):
        decode_checkpoint(b"{}")


def test_recent_entries_are_bounded_and_appended_once() -> None:
    recent = RecentEntries(most=3)
    for number in range(1, 6):
        for _ in range(2):
            recent.extend(number, NOON, (Reset(str(number)),), PoolState.of())
    assert [line.number for line in recent.lines()] == [3, 4, 5]
