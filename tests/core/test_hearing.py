"""Facts from other processes obey the rules of outcomes (rules 3, 4, 13)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from muxcore.core.entries import Asked, CallResult, Configured, Ended, Entry, Heard
from muxcore.core.outcomes import (
    Fault,
    Limit,
    RateLimited,
    Refusal,
    Refuted,
    Rejected,
    Reset,
    Started,
    Succeeded,
)
from muxcore.core.records import (
    Call,
    Candidate,
    Cooldown,
    Endpoint,
    Health,
    Picked,
    Policy,
    PoolState,
    Refutation,
    Wait,
)
from muxcore.core.sharing.facts import (
    Fact,
    LeasesChanged,
    PlaceDisabled,
    PlaceRecovered,
    PlaceReset,
    RefusalRefuted,
    WindowLearnt,
)
from muxcore.core.sharing.publishing import Publication, forgotten, publications
from muxcore.core.updating import update

if TYPE_CHECKING:
    from tests.core.conftest import History


def heard(fact: Fact, number: int = 1, attempt: int = 0) -> Heard:
    return Heard("a", fact, number, attempt)


def disabled(
    seconds: float = 60, cause: Limit | Fault = Limit.RATE, failures: int = 1
) -> PlaceDisabled:
    return PlaceDisabled(cause, timedelta(seconds=seconds), failures)


def test_a_limit_that_another_process_met_disables_here(history: type[History]) -> None:
    here = history("a", "b").record(heard(disabled(60)))  # type: ignore[arg-type]
    assert here.lasts() == 60
    assert isinstance(choice := here.select(), Picked)
    assert choice.endpoint.alias == "b"


@pytest.mark.parametrize("cause", [*Limit, *Fault])
def test_the_cause_decides_between_limited_and_broken(
    history: type[History], cause: Limit | Fault
) -> None:
    here = history().record(heard(disabled(5, cause)))  # type: ignore[arg-type]
    assert here.cooldown().cause is cause
    limited = isinstance(cause, Limit) or cause is Fault.UNPAID
    assert (here.state["a"].health.limited is not None) is limited


def test_rule_4_no_fact_shortens_a_cooldown(history: type[History]) -> None:
    here = history()
    here.fail(Limit.RATE)
    here.record(heard(disabled(1)))  # type: ignore[arg-type]
    assert here.lasts() == 60
    here.after(10).record(heard(disabled(70), 2))  # type: ignore[arg-type]
    assert here.lasts() == 70


def test_a_permanent_cause_stays_while_it_lasts(history: type[History]) -> None:
    here = history().record(heard(disabled(15, Fault.AUTH)))  # type: ignore[arg-type]
    here.record(heard(disabled(20, Fault.TRANSIENT), 2))  # type: ignore[arg-type]
    assert here.cooldown().cause is Fault.AUTH
    assert here.lasts() == 20


def test_a_success_clears_the_facts_that_its_attempt_knew(history: type[History]) -> None:
    here = history().record(heard(disabled(), 7))  # type: ignore[arg-type]
    here.record(heard(PlaceRecovered(6), 8))  # type: ignore[arg-type]
    assert here.lasts() == 60, "that attempt began before the fact 7"
    here.record(heard(PlaceRecovered(7), 9))  # type: ignore[arg-type]
    assert not here.state["a"].health.cooldowns


def test_a_local_failure_is_cleared_only_once_it_has_a_number(
    history: type[History],
) -> None:
    here = history()
    here.fail(Limit.RATE)
    here.record(heard(PlaceRecovered(99), 99))  # type: ignore[arg-type]
    assert here.lasts() == 60, "no process knows this failure yet"
    here.record(heard(disabled(), 100, attempt=1))  # type: ignore[arg-type]
    assert here.lasts() == 60
    here.record(heard(PlaceRecovered(99), 101))  # type: ignore[arg-type]
    assert here.lasts() == 60, "that attempt did not know the fact 100"
    here.record(heard(PlaceRecovered(100), 102))  # type: ignore[arg-type]
    assert not here.state["a"].health.cooldowns


def test_an_attempt_under_way_is_no_evidence_against_a_fact(history: type[History]) -> None:
    here = history()
    attempt = here.start()
    here.record(heard(disabled()))  # type: ignore[arg-type]
    here.succeed(attempt=attempt)
    assert here.lasts() == 60


def test_rule_3_a_probe_follows_a_cooldown_from_a_fact(
    history: type[History],
) -> None:
    here = history().record(heard(disabled(5)))  # type: ignore[arg-type]
    here.after(6)
    assert isinstance(here.select(), Picked)
    here.start()
    assert isinstance(here.select(), Wait)


def test_a_reset_in_another_process_ends_the_cooldown_here(history: type[History]) -> None:
    here = history()
    here.fail(Limit.QUOTA)
    here.record(heard(PlaceReset()))  # type: ignore[arg-type]
    assert not here.state["a"].health.cooldowns


def test_a_window_that_another_process_learnt_counts_here(history: type[History]) -> None:
    here = history().record(heard(WindowLearnt(8000)))  # type: ignore[arg-type]
    assert here.state["a"].context_window == 8000


def test_refutations_in_other_processes_count_from_two_conversations(
    history: type[History],
) -> None:
    here = history()
    for number, name in enumerate(["x", "x", "y"], start=1):
        here.cancel("a", here.start())
        here.record(heard(RefusalRefuted(Refusal.REQUEST, name), number))  # type: ignore[arg-type]
        assert bool(here.lasts()) is (number == 3)


@pytest.mark.parametrize(
    ("fact", "attempt", "counts"),
    [
        (RefusalRefuted(Refusal.REQUEST, "c"), 0, True),
        (RefusalRefuted(Refusal.TEMPLATE, None), 0, True),
        (RefusalRefuted(Refusal.FILTERED, "c"), 0, False),
        (RefusalRefuted(Refusal.TOO_LONG, "c"), 0, False),
        # The own fact that comes back is counted already.
        (RefusalRefuted(Refusal.REQUEST, "c"), 1, False),
    ],
)
def test_which_refutations_elsewhere_count(
    history: type[History], fact: RefusalRefuted, attempt: int, counts: bool
) -> None:
    here = history()
    here.cancel("a", here.start())
    here.record(heard(fact, 1, attempt))  # type: ignore[arg-type]
    expected = (Refutation(1, fact.conversation),) if counts else ()
    assert here.state["a"].refutations == expected


def test_a_refutation_elsewhere_is_older_than_the_last_success(
    history: type[History],
) -> None:
    """Nothing tells which came first, so nothing is held against the model."""
    here = history().succeed("a")
    here.record(heard(RefusalRefuted(Refusal.REQUEST, "c")))  # type: ignore[arg-type]
    assert here.state["a"].refutations == ()


def test_switched_off_no_fact_disables(history: type[History]) -> None:
    here = history(policy=Policy(direct=True)).record(heard(disabled()))  # type: ignore[arg-type]
    assert here.lasts() == 0


@pytest.mark.parametrize("entry", [Asked(1, Call()), Ended(1, CallResult.SERVED)])
def test_the_ends_of_a_call_leave_the_state_as_it_is(noon: datetime, entry: Entry) -> None:
    state = PoolState.of(Endpoint("a"))
    assert update(state, entry, noon) is state


def test_the_first_entry_of_a_journal_makes_the_pool(noon: datetime) -> None:
    endpoints, policy = (Endpoint("a"), Endpoint("b")), Policy(direct=True)
    made = update(PoolState(()), Configured(endpoints, policy), noon)
    assert made == PoolState.of(*endpoints, policy=policy)


# -- The cooldown, member by member ------------------------------------------------------------

RATE, AUTH, ERROR = Limit.RATE, Fault.AUTH, Fault.TRANSIENT
BEFORE = timedelta(seconds=30)


def spell(noon: datetime, **members: Any) -> Cooldown:
    """Begin a cooldown half a minute before noon, by a failure that the board numbered 5."""
    since = noon - BEFORE
    spell = Cooldown(since, noon + BEFORE, ERROR, 1, 4, since, fact=5)
    return evolve(spell, **members)


def after(noon: datetime, cooldown: Cooldown | None, entry: Entry) -> Cooldown:
    """Return the cooldown after this; nine attempts were made before."""
    candidate = Candidate(Endpoint("a"), Health(broken=cooldown))
    state = PoolState((candidate,), attempts=9)
    (one,) = update(state, entry, noon)["a"].health.cooldowns
    return one


@pytest.mark.parametrize(
    ("seconds", "failures", "lasts", "counted"),
    [(60, 3, 60, 3), (3_600, 0, 3_600, 1), (3_601, -1, 3_600, 1)],
)
def test_a_fact_begins_a_cooldown_of_at_most_an_hour(
    noon: datetime, seconds: float, failures: int, lasts: float, counted: int
) -> None:
    hint = timedelta(seconds=7)
    fact = evolve(disabled(seconds, RATE, failures), hint=hint)
    assert after(noon, None, heard(fact, 8)) == Cooldown(
        noon, noon + timedelta(seconds=lasts), RATE, 9, counted, noon, hint, fact=8
    )


@pytest.mark.parametrize(
    ("cooldown", "fact", "becomes"),
    [
        # Of the same gravity: one spell goes on, with the newer cause and the higher count.
        (
            {"unnumbered": 2},
            disabled(10, ERROR, 2),
            {"newest": 9, "failed_at": 0, "fact": 8, "unnumbered": 2},
        ),
        ({}, disabled(40, ERROR, 6), {"newest": 9, "failed_at": 0, "fact": 8, "until": 40, "failures": 6}),
        ({"fact": 11}, disabled(10, ERROR), {"newest": 9, "failed_at": 0}),
        # A lasting cause replaces one that passes, and counts from its own beginning.
        (
            {},
            disabled(10, AUTH, 2),
            {"newest": 9, "failed_at": 0, "fact": 8, "failures": 2, "cause": AUTH},
        ),
        # One that passes does not replace a lasting one.
        (
            {"cause": AUTH, "proven": True},
            disabled(40, ERROR, 9),
            {"newest": 9, "proven": False, "fact": 8, "until": 40},
        ),
        # A cooldown that is over is only the memory of what happened.
        (
            {"until": -1, "unnumbered": 2, "cause": AUTH},
            disabled(10, ERROR),
            {"since": 0, "until": 10, "newest": 9, "failed_at": 0, "fact": 8, "failures": 1, "cause": ERROR},
        ),
    ],
)  # fmt: skip
def test_a_fact_continues_a_cooldown(
    noon: datetime,
    cooldown: dict[str, Any],
    fact: PlaceDisabled,
    becomes: dict[str, Any],
) -> None:
    """Moments are seconds after noon, when the fact is heard."""

    def moments(members: dict[str, Any]) -> dict[str, Any]:
        return {
            name: noon + timedelta(seconds=value)
            if name in {"since", "until", "failed_at"}
            else value
            for name, value in members.items()
        }

    before = spell(noon, **moments(cooldown))
    assert after(noon, before, heard(fact, 8)) == evolve(before, **moments(becomes))


def test_an_own_fact_that_comes_back_numbers_the_own_failure(noon: datetime) -> None:
    own = spell(noon, unnumbered=9)
    assert after(noon, own, heard(disabled(), 8, attempt=9)) == spell(noon, fact=8)
    assert after(noon, own, heard(disabled(), 3, attempt=9)) == spell(noon)
    assert after(noon, own, heard(disabled(), 8, attempt=7)) == own


def test_an_own_failure_in_a_heard_cooldown_keeps_its_number(
    history: type[History],
) -> None:
    here = history().record(heard(disabled(), 7))  # type: ignore[arg-type]
    here.fail(RATE)
    assert (here.cooldown().fact, here.cooldown().unnumbered) == (7, 1)
    assert history().fail(RATE).cooldown().fact == 0


def test_a_success_elsewhere_clears_each_of_two_cooldowns_by_its_own_number(
    history: type[History],
) -> None:
    here = history()
    here.record(heard(disabled(60, RATE), 1))  # type: ignore[arg-type]
    here.record(heard(disabled(60, ERROR), 2))  # type: ignore[arg-type]
    before = here.state["a"]
    assert here.record(heard(PlaceRecovered(0), 3)).state["a"] is before  # type: ignore[arg-type]
    here.record(heard(PlaceRecovered(1), 4))  # type: ignore[arg-type]
    assert here.cooldown().cause is ERROR
    assert not here.record(heard(PlaceRecovered(2), 5)).state["a"].health.cooldowns  # type: ignore[arg-type]


def test_without_a_number_nothing_that_is_heard_clears_a_cooldown(
    history: type[History],
) -> None:
    here = history().record(heard(disabled(), 0))  # type: ignore[arg-type]
    assert here.record(heard(PlaceRecovered(9), 9)).lasts() == 60  # type: ignore[arg-type]


@pytest.mark.parametrize(("window", "known"), [(-1, None), (0, None), (1, 1)])
def test_a_window_is_at_least_one_token(
    history: type[History], window: int, known: int | None
) -> None:
    here = history().record(heard(WindowLearnt(window)))  # type: ignore[arg-type]
    assert here.state["a"].learnt_window == known


@pytest.mark.parametrize("seconds", [-1, 0])
def test_what_is_over_when_it_is_heard_disables_nothing(
    history: type[History], seconds: float
) -> None:
    here = history().record(heard(disabled(seconds)))  # type: ignore[arg-type]
    assert here.state["a"].health.cooldowns == ()


def test_what_an_entry_leaves_out() -> None:
    """A journal that was written earlier may lack these."""
    assert PlaceDisabled(RATE, BEFORE) == PlaceDisabled(RATE, BEFORE, 1, None)
    assert PlaceRecovered() == PlaceRecovered(heard_of=0)
    assert LeasesChanged() == LeasesChanged(slots=0, probes=0, shared=True)
    assert Heard("a", PlaceReset()) == Heard("a", PlaceReset(), number=0, attempt=0)
    assert Configured(()) == Configured((), Policy(), (), same_mode=True)
    assert Succeeded("a", 1) == Succeeded("a", 1, 0, 0, 0, None, None, new_turn=False)


# -- What is published -------------------------------------------------------------------------


def published(state: PoolState, entry: Entry, now: datetime) -> list[Fact]:
    after = update(state, entry, now)
    return [one.fact for one in publications(state, entry, after, now)]


def test_few_entries_are_published_as_facts(noon: datetime) -> None:
    state = update(PoolState.of(Endpoint("a")), Started("a"), noon)
    limited = RateLimited("a", 1, hint=timedelta(seconds=90))
    assert published(state, limited, noon) == [
        PlaceDisabled(Limit.RATE, timedelta(seconds=90), 1, timedelta(seconds=90))
    ]
    assert published(state, Succeeded("a", 1), noon) == [], "a success that ends nothing"
    assert published(state, Started("a"), noon) == []
    assert published(state, Reset(), noon) == [PlaceReset()]
    assert published(state, heard(disabled()), noon) == [], "no echo of what was heard"


def test_a_success_publishes_the_last_fact_that_it_knew(noon: datetime) -> None:
    state = update(PoolState.of(Endpoint("a")), heard(disabled(5), 7), noon)
    later = noon + timedelta(seconds=6)
    state = update(state, Started("a"), later)
    assert published(state, Succeeded("a", 1), later) == [PlaceRecovered(7)]


@pytest.mark.parametrize(("attempts", "number"), [(0, 1), (5, 5)])
def test_a_reset_is_published_for_each_place(
    noon: datetime, attempts: int, number: int
) -> None:
    """Its number makes it an own fact, which changes nothing when it comes back."""
    state = PoolState.of(Endpoint("a"), Endpoint("b"))
    state = evolve(state, attempts=attempts)
    sent = [Publication(alias, PlaceReset(), number) for alias in ("a", "b")]
    assert publications(state, Reset(), state, noon) == tuple(sent)
    assert publications(state, Reset("b"), state, noon) == (sent[1],)


def test_a_refuted_refusal_is_published_once(noon: datetime) -> None:
    state = update(PoolState.of(Endpoint("a")), Started("a"), noon)
    refuted = Refuted("a", 1, Refusal.REQUEST, "b", "c")
    assert published(state, refuted, noon) == [RefusalRefuted(Refusal.REQUEST, "c")]
    assert published(state, evolve(refuted, attempt=2), noon) == [], "no such attempt"


def test_a_window_is_published_only_when_it_changes(noon: datetime) -> None:
    state = update(PoolState.of(Endpoint("a")), Started("a"), noon)
    state = update(state, heard(WindowLearnt(1_024)), noon)
    too_long = Rejected("a", 1, Refusal.TOO_LONG, window=1_024)
    assert published(state, too_long, noon) == []
    assert published(state, evolve(too_long, window=2_048), noon) == [WindowLearnt(2_048)]


def test_a_success_names_all_that_it_ended(noon: datetime) -> None:
    """The newest number of the board, and the own failures which have none yet."""
    later = noon + timedelta(minutes=2)
    limited, broken = spell(noon, cause=RATE, fact=3), spell(noon, unnumbered=2)
    candidate = Candidate(Endpoint("a"), Health(limited, broken, (9,)))
    state = PoolState((candidate,), attempts=9)
    entry = Succeeded("a", 9)
    after = update(state, entry, later)
    assert publications(state, entry, after, later) == (
        Publication("a", PlaceRecovered(5), 9, after=(2,)),
    )


@pytest.mark.parametrize(
    ("stated", "sent"),
    [
        ((), True),
        ((disabled(60, Fault.TRANSIENT),), True),
        ((WindowLearnt(60),), True),
        ((disabled(59),), True),
        ((disabled(59.5),), False),
        ((disabled(90),), False),
    ],
)
def test_a_board_that_lost_a_limit_is_given_it_back(
    noon: datetime, stated: tuple[Fact, ...], sent: bool
) -> None:
    """It may have heard the same one from another process, a little later."""
    state = update(PoolState.of(Endpoint("a"), Endpoint("b")), heard(disabled(90), 7), noon)
    later = noon + timedelta(seconds=30)
    expected = (Publication("a", disabled(60), 0),) if sent else ()
    assert forgotten(state, {"a": stated}, later) == expected
    assert forgotten(state, {}, noon + timedelta(seconds=90)) == (), "it has ended"


@pytest.mark.parametrize(
    ("stated", "sent"),
    [((), True), ((WindowLearnt(1),), True), ((WindowLearnt(8),), False)],
)
def test_a_board_that_lost_a_window_is_given_it_back(
    noon: datetime, stated: tuple[Fact, ...], sent: bool
) -> None:
    state = update(PoolState.of(Endpoint("a")), heard(WindowLearnt(8)), noon)
    expected = (Publication("a", WindowLearnt(8), 0),) if sent else ()
    assert forgotten(state, {"a": stated}, noon) == expected


# -- Rules 4 and 13, over any history ----------------------------------------------------------

FACTS: st.SearchStrategy[Fact] = st.one_of(
    st.builds(
        PlaceDisabled,
        st.sampled_from([*Limit, *Fault]),
        st.integers(-5, 400).map(lambda seconds: timedelta(seconds=seconds)),
        st.integers(0, 4),
    ),
    st.builds(PlaceRecovered, st.integers(0, 12)),
    st.builds(WindowLearnt, st.integers(-1, 9000)),
    st.builds(RefusalRefuted, st.sampled_from(Refusal), st.sampled_from([None, "x", "y"])),
)
ENTRIES: st.SearchStrategy[Entry] = st.one_of(
    st.builds(
        Heard, st.sampled_from("ab"), FACTS, st.integers(1, 12), st.sampled_from([0, 1, 2])
    ),
    st.builds(Started, st.sampled_from("ab")),
    st.builds(RateLimited, st.sampled_from("ab"), st.integers(1, 4)),
)


@settings(settings.get_profile("core"))
@given(st.lists(st.tuples(st.integers(0, 90), ENTRIES), max_size=30))
def test_rules_4_and_13_hold_for_all_facts(
    noon: datetime, steps: list[tuple[int, Entry]]
) -> None:
    state, now = PoolState.of(Endpoint("a"), Endpoint("b")), noon
    other = state
    for seconds, entry in steps:
        now += timedelta(seconds=seconds)
        after = update(state, entry, now)
        other = update(other, entry, now)
        fact = entry.fact if isinstance(entry, Heard) else None
        for was, became in zip(state.candidates, after.candidates, strict=True):
            for old, new in (
                (was.health.limited, became.health.limited),
                (was.health.broken, became.health.broken),
            ):
                if old is None or not old.active(now):
                    continue
                if new is None:
                    assert isinstance(fact, PlaceRecovered)
                    assert 0 < old.fact <= fact.heard_of
                    assert not old.unnumbered
                else:
                    assert new.until >= old.until
                    assert new.newest >= old.newest
        state = after
    assert other == state
    assert evolve(state) == other
