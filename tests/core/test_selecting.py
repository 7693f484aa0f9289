"""The choice, step by step as in DESIGN.md: rules 2, 3, 5, 6 and 7."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve, frozen

from muxcore.core.outcomes import Fault, Limit, PickReason
from muxcore.core.records import (
    Call,
    Candidate,
    Choice,
    Endpoint,
    Exhausted,
    Picked,
    Policy,
    Sticky,
    Wait,
    WaitReason,
)
from muxcore.core.selection import Standing, Verdict, explain
from muxcore.errors import StrategyError

if TYPE_CHECKING:
    from tests.core.conftest import History

RATE, QUOTA, BUDGET = Limit.RATE, Limit.QUOTA, Limit.BUDGET
TRANSIENT = Fault.TRANSIENT
ALL_GRAVE: list[Limit | Fault] = [
    QUOTA,
    Fault.UNPAID,
    Fault.AUTH,
    Fault.NOT_FOUND,
    Fault.PERSISTENT,
]

CAPPED = Endpoint("a", max_concurrent=1)
FALLBACK = Endpoint("f", is_fallback=True)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def summary(choice: Choice) -> tuple[str, PickReason] | Wait | Exhausted:
    """Return a choice in the short form of the tables."""
    return (choice.endpoint.alias, choice.reason) if isinstance(choice, Picked) else choice


# -- 1. Open endpoints-----------------------------------------------------------------------


def test_a_fresh_pool_is_open(history: type[History]) -> None:
    assert summary(history("a", "b").select()) == ("a", PickReason.MODE)


def test_an_endpoint_tried_in_this_call_is_skipped(history: type[History]) -> None:
    assert summary(history("a", "b").select(Call(tried=("a",)))) == ("b", PickReason.MODE)


@pytest.mark.parametrize("kind", [*Limit, *Fault])
def test_a_disabled_endpoint_is_skipped_until_its_time(
    history: type[History], kind: Limit | Fault
) -> None:
    pool = history("a", "b").fail(kind, "a")
    assert summary(pool.select()) == ("b", PickReason.MODE)
    lasts = pool.lasts("a")
    assert summary(pool.after(lasts - 0.001).select()) == ("b", PickReason.MODE)
    assert summary(pool.after(0.001).select()) == ("a", PickReason.MODE)


def test_on_probation_one_call_at_a_time_is_let_through(history: type[History]) -> None:
    pool = history("a", "b").fail(RATE, "a").after(60)
    probe = pool.start("a")
    assert summary(pool.select()) == ("b", PickReason.MODE)
    pool.respond("a", probe)
    assert summary(pool.select()) == ("a", PickReason.MODE)


def test_an_attempt_from_before_the_failure_is_no_probe(history: type[History]) -> None:
    pool = history("a", "b")
    pool.start("a")
    pool.fail(RATE, "a", pool.start("a")).after(60)
    assert summary(pool.select()) == ("a", PickReason.MODE)


def test_a_cancelled_probe_lets_the_next_through(history: type[History]) -> None:
    pool = history("a", "b").fail(RATE, "a").after(60)
    pool.cancel("a", pool.start("a"))
    assert summary(pool.select()) == ("a", PickReason.MODE)


def test_a_streaming_last_resort_does_not_block_the_endpoint_after_the_cooldown(
    history: type[History],
) -> None:
    pool = history("a").fail(RATE).after(2)
    pool.respond("a")
    assert isinstance(pool.select(), Wait)
    assert summary(pool.after(58).select()) == ("a", PickReason.MODE)


def test_an_endpoint_at_its_cap_is_busy(history: type[History]) -> None:
    pool = history(Endpoint("a", max_concurrent=2), "b")
    first = pool.start("a")
    assert summary(pool.select()) == ("a", PickReason.MODE)
    pool.start("a")
    assert summary(pool.select()) == ("b", PickReason.MODE)
    assert summary(pool.succeed("a", first).select()) == ("a", PickReason.MODE)


WINDOWS = (
    Endpoint("small", context_window=1000),
    Endpoint("large", context_window=4000),
    Endpoint("middle", context_window=2000),
)


@pytest.mark.parametrize(
    ("pool", "call", "alias"),
    [
        (WINDOWS, Call(), "small"),
        (WINDOWS, Call(prompt_tokens=1000), "small"),
        (WINDOWS, Call(prompt_tokens=1001), "large"),
        (WINDOWS, Call(prompt_tokens=5000), "large"),
        (WINDOWS, Call(prompt_tokens=5000, only="middle"), "middle"),
        ((*WINDOWS, Endpoint("unknown")), Call(prompt_tokens=5000), "unknown"),
        ((*WINDOWS, Endpoint("other", dialect="x")), Call(only="other"), "other"),
    ],
)
def test_only_an_endpoint_with_a_large_enough_window_is_open(
    history: type[History], pool: tuple[Endpoint, ...], call: Call, alias: str
) -> None:
    assert summary(history(*pool).select(call)) == (alias, PickReason.MODE)


@pytest.mark.parametrize(
    "call",
    [
        Call(only="stranger"),
        Call(only="stranger", prompt_tokens=1),
        Call(larger_than=4000),
    ],
)
def test_without_a_large_enough_window_there_is_no_retry_time(
    history: type[History], call: Call
) -> None:
    assert history(*WINDOWS).select(call) == Exhausted(None, WaitReason.UNFIT)


UNKNOWN = Endpoint("unknown")
LARGE_FALLBACK = Endpoint("large fallback", is_fallback=True, context_window=9000)


@pytest.mark.parametrize(
    ("pool", "call", "alias"),
    [
        (WINDOWS, Call(prompt_tokens=10, larger_than=1000), "large"),
        (WINDOWS, Call(prompt_tokens=10, larger_than=1000, only="middle"), "middle"),
        ((UNKNOWN, *WINDOWS), Call(larger_than=1000), "large"),
        # The unknown window turns out to be smaller than the largest known one.
        (
            (*WINDOWS, UNKNOWN),
            Call(prompt_tokens=5000, larger_than=3000, outgrown=("unknown",)),
            "large",
        ),
        # Known larger windows before unknown ones, primaries before fallbacks in each.
        ((UNKNOWN, LARGE_FALLBACK), Call(larger_than=10), "large fallback"),
        ((*WINDOWS, UNKNOWN), Call(larger_than=4000), "unknown"),
        ((evolve(UNKNOWN, is_fallback=True),), Call(larger_than=10), "unknown"),
    ],
)
def test_a_prompt_that_was_too_long_goes_to_larger_windows_then_to_unknown_ones(
    history: type[History], pool: tuple[Endpoint, ...], call: Call, alias: str
) -> None:
    assert summary(history(*pool).select(call)) == (alias, PickReason.AFTER_REFUSAL)


# -- 2. One turn, one model -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("sticky", "new_turn", "alias"),
    [
        (Sticky.CALL, False, "a"),
        (Sticky.CALL, True, "a"),
        (Sticky.TURN, False, "b"),
        (Sticky.TURN, True, "a"),
        (Sticky.SESSION, False, "b"),
        (Sticky.SESSION, True, "b"),
    ],
)
def test_a_conversation_stays_on_its_endpoint(
    history: type[History], sticky: Sticky, new_turn: bool, alias: str
) -> None:
    pool = history("a", "b", policy=Policy(sticky=sticky)).succeed("b", conversation="c")
    why = PickReason.STICKY if alias == "b" else PickReason.MODE
    call = Call(conversation="c", new_turn=new_turn)
    assert summary(pool.select(call)) == (alias, why)
    assert summary(pool.select(evolve(call, conversation="other"))) == (
        "a",
        PickReason.MODE,
    )
    assert summary(pool.select(evolve(call, conversation=None))) == ("a", PickReason.MODE)


TURN = Call(conversation="c", new_turn=False)


@pytest.mark.parametrize(
    ("waited", "alias"), [(0, "b"), (299.999, "b"), (300, "a"), (-0.001, "a")]
)
def test_a_conversation_stays_on_its_endpoint_for_five_minutes(
    history: type[History], waited: float, alias: str
) -> None:
    pool = history("a", "b").succeed("b", conversation="c").after(waited)
    choice = pool.select(TURN)
    assert isinstance(choice, Picked)
    assert choice.endpoint.alias == alias


def test_a_call_begins_a_new_turn_by_default(history: type[History]) -> None:
    pool = history("a", "b").succeed("b", conversation="c")
    assert summary(pool.select(Call(conversation="c"))) == ("a", PickReason.MODE)


def test_each_call_of_a_conversation_prolongs_its_pin(history: type[History]) -> None:
    pool = history("a", "b").succeed("b", conversation="c").after(200)
    assert summary(pool.succeed("b", conversation="c").after(200).select(TURN)) == (
        "b",
        PickReason.STICKY,
    )


def test_a_turn_stays_on_a_fallback(history: type[History]) -> None:
    pool = history("a", FALLBACK).succeed("f", conversation="c")
    assert summary(pool.select(TURN)) == ("f", PickReason.STICKY)
    assert summary(pool.select(evolve(TURN, new_turn=True))) == ("a", PickReason.MODE)


@pytest.mark.parametrize("kind", [RATE, TRANSIENT])
def test_a_turn_leaves_a_model_that_is_not_open(
    history: type[History], kind: Limit | Fault
) -> None:
    pool = history("a", "b").succeed("b", conversation="c").fail(kind, "b")
    assert summary(pool.select(TURN)) == ("a", PickReason.MODE)


def test_a_turn_leaves_a_model_at_which_this_call_failed(history: type[History]) -> None:
    pool = history("a", "b").succeed("b", conversation="c")
    assert summary(pool.select(evolve(TURN, tried=("b",)))) == ("a", PickReason.MODE)


def test_of_257_conversations_the_oldest_pin_is_dropped(history: type[History]) -> None:
    pool = history("a", "b")
    for number in range(257):
        pool.succeed("b", conversation=str(number))
    assert summary(pool.select(evolve(TURN, conversation="0"))) == ("a", PickReason.MODE)
    assert summary(pool.select(evolve(TURN, conversation="1"))) == ("b", PickReason.STICKY)


# -- 3. Primaries before fallbacks ----------------------------------------------------------


def test_a_fallback_is_used_only_when_no_primary_can_serve(history: type[History]) -> None:
    pool = history(FALLBACK, "a", "b")
    assert summary(pool.select()) == ("a", PickReason.MODE)
    pool.fail(RATE, "a")
    assert summary(pool.select()) == ("b", PickReason.MODE)
    assert summary(pool.select(Call(tried=("b",)))) == ("f", PickReason.FALLBACK)
    pool.fail(TRANSIENT, "b")
    assert summary(pool.select()) == ("f", PickReason.FALLBACK)


def test_while_a_primary_is_probed_the_fallback_serves(history: type[History]) -> None:
    pool = history("a", FALLBACK).fail(RATE, "a").after(60)
    pool.start("a")
    assert summary(pool.select()) == ("f", PickReason.FALLBACK)


@pytest.mark.parametrize(
    ("max_wait", "left", "waits"),
    [(30, None, 30), (30, 100, 30), (30, 40, 20), (30, 60, 30), (0, None, 0), (30, 0, 0)],
)
def test_a_busy_primary_is_waited_for(
    history: type[History], max_wait: float, left: float | None, waits: float
) -> None:
    """At most `max_wait`, and at most half of the time left; then the fallback serves."""
    pool = history(CAPPED, FALLBACK, policy=Policy(max_wait=seconds(max_wait)))
    pool.start("a")
    deadline = None if left is None else pool.now + seconds(left)
    call = Call(deadline=deadline)
    if waits:
        assert pool.select(call) == Wait(pool.now + seconds(waits), WaitReason.BUSY)
    halfway = evolve(call, waited=seconds(waits / 2))
    pool.after(waits / 2)
    if waits:
        assert pool.select(halfway) == Wait(pool.now + seconds(waits / 2), WaitReason.BUSY)
    over = evolve(call, waited=seconds(waits))
    assert summary(pool.after(waits / 2).select(over)) == ("f", PickReason.FALLBACK)


@pytest.mark.parametrize("pool_of", [(CAPPED, FALLBACK), (CAPPED,)])
def test_a_slot_is_waited_for_whatever_the_calls_own_max_wait_is(
    history: type[History], pool_of: tuple[Endpoint, ...]
) -> None:
    """Rule 5: a busy primary has not failed."""
    pool = history(*pool_of, policy=Policy(max_wait=seconds(30)))
    pool.start("a")
    call = Call(max_wait=seconds(5), deadline=pool.now + seconds(1000))
    assert pool.select(call) == Wait(pool.now + seconds(30), WaitReason.BUSY)


def test_a_disabled_model_is_waited_for_no_longer_than_the_calls_own_max_wait(
    history: type[History],
) -> None:
    pool = history("a", policy=Policy(max_wait=seconds(30))).fail(TRANSIENT, "a")
    again = pool.now + seconds(1)
    assert pool.select(Call(max_wait=seconds(5))) == Wait(again, WaitReason.DISABLED)
    assert pool.select(Call(max_wait=seconds(0.5))) == Exhausted(again, WaitReason.DISABLED)


def test_a_slot_given_back_ends_the_wait_for_a_primary(history: type[History]) -> None:
    pool = history(CAPPED, FALLBACK)
    slot = pool.start("a")
    assert summary(pool.cancel("a", slot).select(Call(waited=seconds(1)))) == (
        "a",
        PickReason.MODE,
    )


def test_another_primary_that_is_enabled_ends_the_wait(history: type[History]) -> None:
    pool = history(CAPPED, "b", FALLBACK).fail(TRANSIENT, "b")
    pool.start("a")
    assert pool.select() == Wait(pool.now + seconds(15), WaitReason.BUSY)
    assert summary(pool.after(15).select()) == ("b", PickReason.MODE)


def test_a_fallback_that_is_enabled_does_not_end_the_wait_for_a_primary(
    history: type[History],
) -> None:
    pool = history(CAPPED, FALLBACK, Endpoint("g", is_fallback=True))
    pool.start("a")
    pool.fail(TRANSIENT, "g")
    assert pool.select() == Wait(pool.now + seconds(30), WaitReason.BUSY)


def test_while_a_fallback_is_open_nothing_is_a_last_resort(history: type[History]) -> None:
    pool = history(CAPPED, "b", FALLBACK).fail(TRANSIENT, "b").after(5)
    pool.start("a")
    assert pool.select() == Wait(pool.now + seconds(10), WaitReason.BUSY)


def test_a_busy_primary_is_waited_for_before_a_fallback_is_a_last_resort(
    history: type[History],
) -> None:
    """Rule 5 holds for last resorts too."""
    pool = history(CAPPED, FALLBACK).fail(TRANSIENT, "f").after(5)
    pool.start("a")
    assert pool.select() == Wait(pool.now + seconds(30), WaitReason.BUSY)
    later = Call(waited=seconds(30))
    assert summary(pool.select(later)) == ("f", PickReason.LAST_RESORT)


def test_a_busy_fallback_is_no_reason_to_wait_for_a_slot(history: type[History]) -> None:
    pool = history("a", evolve(FALLBACK, max_concurrent=1), Endpoint("g", is_fallback=True))
    pool.fail(QUOTA, "a").start("f")
    assert summary(pool.select()) == ("g", PickReason.FALLBACK)


# -- 4. The mode picks ----------------------------------------------------------------------


@frozen
class Recorder:
    """A mode that picks the last, and records what it is shown."""

    shown: list[Any]

    def pick(
        self, candidates: Sequence[Candidate], memory: object, call: Call, now: datetime
    ) -> tuple[Endpoint, object]:
        self.shown.append(([c.endpoint.alias for c in candidates], memory, call, now))
        return evolve(candidates[-1].endpoint), {"picks": len(self.shown)}


def test_the_mode_sees_only_the_open_endpoints_of_one_tier(history: type[History]) -> None:
    mode = Recorder([])
    pool = history("a", "b", FALLBACK, "c", mode=mode).fail(RATE, "b")
    choice = pool.select()
    assert isinstance(choice, Picked)
    assert (choice.endpoint.alias, choice.memory) == ("c", {"picks": 1})
    pool.start("c", choice.memory)
    pool.fail(QUOTA, "a").select(Call(tried=("c",)))
    assert mode.shown == [
        (["a", "c"], None, Call(), pool.now),
        (["f"], None, Call(tried=("c",)), pool.now),
    ]


def test_the_modes_memory_comes_back_with_its_next_pick(history: type[History]) -> None:
    mode = Recorder([])
    pool = history("a", mode=mode)
    pool.start("a", {"picks": 7})
    pool.select()
    assert mode.shown[0][1] == {"picks": 7}


def test_a_last_resort_and_a_turn_keep_the_modes_memory(history: type[History]) -> None:
    pool = history("a")
    attempt = pool.start("a", {"kept": 1})
    pool.succeed("a", attempt, conversation="c")
    sticky = pool.select(TURN)
    assert isinstance(sticky, Picked)
    assert sticky.memory == {"kept": 1}
    attempt = pool.start("a", sticky.memory)
    last = pool.fail(TRANSIENT, "a", attempt).after(1).select()
    assert isinstance(last, Picked)
    assert (last.reason, last.memory) == (PickReason.LAST_RESORT, {"kept": 1})


@frozen
class Misbehaved:
    answer: Any

    def pick(self, *_: object) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (ValueError("no idea"), "raised ValueError: no idea"),
        (None, "raised TypeError: "),
        (
            (Endpoint("stranger"), None),
            f"picked {Endpoint('stranger')!r}, which it was not shown",
        ),
        ((FALLBACK, None), f"picked {FALLBACK!r}, which it was not shown"),
        (("a", None), "picked 'a', which it was not shown"),
    ],
)
def test_a_mode_that_breaks_its_contract_is_named(
    history: type[History], answer: Any, says: str
) -> None:
    with pytest.raises(StrategyError) as caught:
        history("a", FALLBACK, mode=Misbehaved(answer)).select()
    assert str(caught.value).startswith(f"the mode {__name__}.Misbehaved {says}")


# -- 5. None is open ------------------------------------------------------------------------


def test_without_an_open_endpoint_a_call_waits_for_the_first_that_opens(
    history: type[History],
) -> None:
    pool = history("a", "b").fail(Fault.AUTH, "a").after(3).fail(Fault.AUTH, "b")
    assert pool.select() == Wait(pool.now + seconds(12), WaitReason.DISABLED)


def test_all_waits_of_a_call_stay_within_max_wait(history: type[History]) -> None:
    pool = history("a").fail(Fault.AUTH, "a")
    until = pool.now + seconds(15)
    assert pool.select(Call(waited=seconds(15))) == Wait(until, WaitReason.DISABLED)
    over = pool.select(Call(waited=seconds(15.001)))
    assert over == Exhausted(until, WaitReason.DISABLED)


def test_a_deadline_ends_the_waiting(history: type[History]) -> None:
    pool = history("a").fail(Fault.AUTH, "a")
    until = pool.now + seconds(15)
    assert pool.select(Call(deadline=until)) == Wait(until, WaitReason.DISABLED)
    soon = Call(deadline=until - seconds(1))
    assert pool.select(soon) == Exhausted(until, WaitReason.DISABLED)
    assert pool.after(14).select(soon) == Exhausted(until, WaitReason.DEADLINE)


def test_a_first_attempt_is_never_denied_for_the_deadline(
    history: type[History], noon: datetime
) -> None:
    """Rule 11."""
    assert summary(history("a").select(Call(deadline=noon))) == ("a", PickReason.MODE)


def test_a_slot_is_waited_for_until_patience_ends(history: type[History]) -> None:
    pool = history(CAPPED)
    pool.start("a")
    assert pool.select() == Wait(pool.now + seconds(30), WaitReason.BUSY)
    half = Call(deadline=pool.now + seconds(8))
    assert pool.select(half) == Wait(pool.now + seconds(4), WaitReason.BUSY)
    # No other endpoint could serve, so the call waits for the other half too.
    more = evolve(half, waited=seconds(4))
    assert pool.after(4).select(more) == Wait(pool.now + seconds(4), WaitReason.BUSY)
    assert pool.select(Call(waited=seconds(30))) == Exhausted(None, WaitReason.BUSY)


def test_a_slot_of_a_fallback_is_waited_for(history: type[History]) -> None:
    pool = history("a", evolve(FALLBACK, max_concurrent=1)).fail(QUOTA, "a")
    pool.start("f")
    assert pool.select() == Wait(pool.now + seconds(30), WaitReason.BUSY)
    later = pool.select(Call(waited=seconds(30)))
    assert later == Exhausted(pool.now + seconds(900), WaitReason.BUSY)


def test_a_slot_of_a_fallback_is_waited_for_whatever_the_calls_own_max_wait_is(
    history: type[History],
) -> None:
    pool = history(Endpoint("f", is_fallback=True, max_concurrent=1))
    pool.start("f")
    call = Call(max_wait=seconds(5))
    assert pool.select(call) == Wait(pool.now + seconds(30), WaitReason.BUSY)


def test_a_primary_that_this_call_has_tried_does_not_end_the_wait_for_another(
    history: type[History],
) -> None:
    pool = history(CAPPED, "b", FALLBACK).fail(TRANSIENT, "b")
    pool.start("a")
    wait = Wait(pool.now + seconds(15), WaitReason.BUSY)
    assert pool.select() == wait
    tried = Call(tried=("b",))
    assert pool.select(tried) == Wait(pool.now + seconds(30), WaitReason.BUSY)


def test_a_slot_of_a_model_that_stays_disabled_is_not_waited_for(
    history: type[History],
) -> None:
    pool = history(Endpoint("a", max_concurrent=1))
    pool.start("a")
    pool.fail(QUOTA, "a", pool.start("a"))
    assert pool.select() == Exhausted(pool.now + seconds(900), WaitReason.DISABLED)


def test_a_slot_of_a_model_that_is_enabled_in_time_is_waited_for(
    history: type[History],
) -> None:
    pool = history(Endpoint("a", max_concurrent=1))
    slot = pool.start("a")
    pool.fail(Fault.AUTH, "a", pool.start("a"))
    assert pool.select() == Wait(pool.now + seconds(30), WaitReason.BUSY)
    short = Call(deadline=pool.now + seconds(14))
    assert pool.select(short) == Exhausted(pool.now + seconds(15), WaitReason.DISABLED)
    assert pool.cancel("a", slot).select() == Wait(
        pool.now + seconds(15), WaitReason.DISABLED
    )


def test_a_probe_under_way_is_waited_for(history: type[History]) -> None:
    pool = history("a").fail(RATE).after(60)
    pool.start("a")
    assert pool.select() == Wait(pool.now + seconds(30), WaitReason.BUSY)
    assert pool.select(Call(waited=seconds(30))) == Exhausted(None, WaitReason.BUSY)


@pytest.mark.parametrize("cap", [None, 1])
def test_a_probe_is_waited_for_no_longer_than_the_calls_own_max_wait(
    history: type[History], cap: int | None
) -> None:
    """Unlike a slot: its model has failed. A last resort under way is a probe, too."""
    pool = history(Endpoint("a", max_concurrent=cap)).fail(TRANSIENT).after(1)
    pool.start("a")
    call = Call(max_wait=seconds(2))
    for now in (pool.now, pool.now + seconds(15)):
        pool.now = now
        assert pool.select(call) == Wait(now + seconds(2), WaitReason.BUSY)


def test_a_last_resort_that_responded_ends_the_wait_with_the_cooldown(
    history: type[History],
) -> None:
    pool = history("a").fail(TRANSIENT)
    enabled = pool.now + seconds(15)
    pool.after(1).respond("a")
    assert pool.select() == Wait(enabled, WaitReason.BUSY)
    assert pool.select(Call(max_wait=seconds(3))) == Wait(
        pool.now + seconds(3), WaitReason.BUSY
    )


def test_a_wait_ends_at_the_sooner_of_a_slot_and_a_cooldown(history: type[History]) -> None:
    pool = history(CAPPED, "b").fail(Fault.AUTH, "b")
    pool.start("a")
    assert pool.select() == Wait(pool.now + seconds(15), WaitReason.BUSY)


def test_when_all_were_tried_and_none_may_be_repeated_the_call_is_exhausted(
    history: type[History],
) -> None:
    pool = history("a").fail(Fault.AUTH, "a")
    call = Call(tried=("a",), excluded=("a",))
    assert pool.select(call) == Exhausted(pool.now + seconds(15), WaitReason.TRIED)


def test_retry_at_is_the_earliest_time_of_any_endpoint(history: type[History]) -> None:
    pool = history("a", "b").fail(QUOTA, "a").fail(TRANSIENT, "b", hint=40)
    choice = pool.select(Call(tried=("b",), excluded=("b",)))
    assert choice == Exhausted(pool.now + seconds(40), WaitReason.DISABLED)


def test_without_the_multiplexer_there_is_one_attempt_and_no_wait(
    history: type[History],
) -> None:
    pool = history(CAPPED, policy=Policy(direct=True))
    assert pool.select(Call(tried=("a",))) == Exhausted(pool.now, WaitReason.TRIED)
    pool.start("a")
    assert pool.select() == Exhausted(None, WaitReason.BUSY)


# -- 6. The last resort ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "hint", "pauses"),
    [
        (TRANSIENT, None, [1, 2, 4, 4, 4]),
        (TRANSIENT, 3, [3, 3, 4]),
        (RATE, None, [2, 4, 8, 16, 32, 60, 60]),
        (RATE, 5, [5, 5, 5]),
        (RATE, 0, [2, 4]),
        (BUDGET, 3, [3, 3]),
        (RATE, 90, [90, 90]),
    ],
)
def test_a_last_resort_may_be_repeated_after_its_pause(
    history: type[History], kind: Limit | Fault, hint: float | None, pauses: list[float]
) -> None:
    pool = history("a", policy=Policy(max_wait=seconds(1000)))
    for pause in pauses:
        pool.fail(kind, "a", hint=hint)
        assert pool.select() == Wait(pool.now + seconds(pause), WaitReason.DISABLED)
        pool.after(pause)
        choice = pool.select(Call(tried=("a",)))
        assert summary(choice) == ("a", PickReason.LAST_RESORT)


@pytest.mark.parametrize("kind", ALL_GRAVE)
def test_a_permanent_cause_never_allows_a_last_resort(
    history: type[History], kind: Limit | Fault
) -> None:
    pool = history("a", policy=Policy(max_wait=seconds(10_000))).fail(kind)
    end = pool.now + seconds(pool.lasts())
    assert pool.select() == Wait(end, WaitReason.DISABLED)
    assert pool.after(pool.lasts() - 0.001).select() == Wait(end, WaitReason.DISABLED)


def test_one_permanent_cooldown_of_two_forbids_a_last_resort(
    history: type[History],
) -> None:
    pool = history("a")
    attempts = pool.start("a"), pool.start("a")
    pool.fail(TRANSIENT, "a", attempts[0]).fail(QUOTA, "a", attempts[1])
    assert pool.after(14).select() == Exhausted(
        pool.now + seconds(886), WaitReason.DISABLED
    )


def test_both_cooldowns_must_allow_a_last_resort(history: type[History]) -> None:
    pool = history("a")
    attempts = pool.start("a"), pool.start("a")
    pool.fail(TRANSIENT, "a", attempts[0]).fail(RATE, "a", attempts[1])
    assert pool.after(1).select() == Wait(pool.now + seconds(1), WaitReason.DISABLED)
    assert summary(pool.after(1).select()) == ("a", PickReason.LAST_RESORT)


def test_last_resorts_go_one_at_a_time(history: type[History]) -> None:
    pool = history("a").fail(TRANSIENT).after(1)
    pool.start("a")
    assert pool.select() == Wait(pool.now + seconds(30), WaitReason.BUSY)


def test_last_resorts_obey_the_cap(history: type[History]) -> None:
    pool = history(Endpoint("a", max_concurrent=1))
    pool.start("a")
    pool.fail(TRANSIENT, "a", pool.start("a")).after(1)
    assert isinstance(pool.select(), Wait)


def test_of_last_resorts_primaries_go_first_and_then_the_earliest(
    history: type[History],
) -> None:
    pool = history("a", FALLBACK, "b").fail(TRANSIENT, "f")
    pool.after(1).fail(TRANSIENT, "b").after(1).fail(TRANSIENT, "a").after(1)
    order = []
    for _ in range(3):
        choice = pool.select()
        assert isinstance(choice, Picked)
        assert choice.reason is PickReason.LAST_RESORT
        order.append(choice.endpoint.alias)
        pool.start(order[-1])
    assert order == ["b", "a", "f"]


def test_with_two_cooldowns_a_last_resort_waits_for_the_later(
    history: type[History],
) -> None:
    pool = history("a", "b")
    attempts = pool.start("a"), pool.start("a")
    pool.fail(TRANSIENT, "a", attempts[0]).fail(RATE, "a", attempts[1])
    assert summary(pool.after(0.5).fail(TRANSIENT, "b").after(5).select()) == (
        "b",
        PickReason.LAST_RESORT,
    )


def test_a_tried_endpoint_that_has_recovered_is_a_last_resort(
    history: type[History],
) -> None:
    pool = history("a")
    assert summary(pool.select(Call(tried=("a",)))) == ("a", PickReason.LAST_RESORT)
    assert pool.select(Call(tried=("a",), excluded=("a",))) == Exhausted(
        pool.now, WaitReason.TRIED
    )


def test_a_call_repeats_at_most_twice(history: type[History]) -> None:
    """Rule 7."""
    pool = history("a", "b").fail(TRANSIENT, "a").fail(TRANSIENT, "b").after(4)
    assert summary(pool.select(Call(tried=("a", "b", "a")))) == (
        "a",
        PickReason.LAST_RESORT,
    )
    repeated = Call(tried=("a", "b", "a", "b"))
    assert (repeated.attempts, repeated.repeats) == (4, 2)
    assert pool.select(repeated) == Exhausted(pool.now, WaitReason.TRIED)


def test_a_clock_set_back_opens_what_was_disabled(history: type[History]) -> None:
    pool = history("a").fail(QUOTA)
    assert summary(pool.after(-1).select()) == ("a", PickReason.MODE)


# -- Why each was skipped -------------------------------------------------------------------


def test_explain_shows_the_standing_of_each_endpoint(history: type[History]) -> None:
    pool = history(
        "open",
        Endpoint("busy", max_concurrent=1),
        "probed",
        "disabled",
        "tried",
        Endpoint("unfit", context_window=10),
    )
    pool.fail(TRANSIENT, "probed").after(15)
    pool.start("probed")
    pool.fail(RATE, "disabled").fail(QUOTA, "unfit").start("busy")
    call = Call(tried=("tried",), prompt_tokens=11)
    assert explain(pool.state, pool.now, call) == (
        Verdict("open", Standing.OPEN),
        Verdict("busy", Standing.BUSY),
        Verdict("probed", Standing.PROBED),
        Verdict("disabled", Standing.DISABLED, pool.now + seconds(60), "rate limited"),
        Verdict("tried", Standing.TRIED),
        Verdict("unfit", Standing.UNFIT, pool.now + seconds(900), "quota spent"),
    )


def test_a_state_is_indexed_by_alias(history: type[History]) -> None:
    pool = history("a", "b")
    assert pool.state["b"].endpoint.alias == "b"
    with pytest.raises(KeyError):
        pool.state["stranger"]
