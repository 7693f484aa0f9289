"""A refusal gets a second opinion: rules 5, 6 and 11 (docs/design.md)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from muxcore.core.outcomes import (
    End,
    Fault,
    Limit,
    PickReason,
    Refusal,
    Refuted,
    Rejected,
    Reset,
    Started,
    Succeeded,
)
from muxcore.core.protocol import CallExhausted, CallRejected, CallServed
from muxcore.core.records import (
    Call,
    Endpoint,
    Exhausted,
    Picked,
    PoolState,
    Wait,
    WaitReason,
    Wire,
)
from muxcore.core.selection import select
from muxcore.core.updating import update
from muxcore_strategies.failover import Failover
from tests.core.driver import Driver, broken, fine, limited, refuses

if TYPE_CHECKING:
    from tests.core.conftest import History

Answers = dict[str, Callable[[int, datetime], End]]

NEAR, FAR = Wire("http://near:1/v1"), Wire("http://far:1/v1")
A = Endpoint("a", wire=NEAR)
B = Endpoint("b", wire=NEAR)
C = Endpoint("c", wire=FAR)
FALLBACK = Endpoint("f", wire=FAR, is_fallback=True)
REFUSED = [Refusal.REQUEST, Refusal.TEMPLATE, Refusal.FILTERED]


def driven(noon: datetime, pool: tuple[Endpoint, ...], answers: Answers) -> Driver:
    """Return a driver whose models serve, except those in `answers`."""
    others = {e.alias: fine(e.alias) for e in pool}
    return Driver(*pool, now=noon, answers=others | answers)


@pytest.mark.parametrize("kind", REFUSED)
def test_another_model_answers_and_the_caller_sees_no_error(
    noon: datetime, kind: Refusal
) -> None:
    driver = driven(noon, (A, C), {"a": refuses("a", kind)})
    ending = driver.call()
    assert isinstance(ending, CallServed)
    assert driver.asked == ["a", "c"]
    assert ending.trail[-1].slot.reason is PickReason.AFTER_REFUSAL
    assert not driver.state["a"].health.cooldowns, "one refusal disables no model"
    assert driver.state["a"].tally.refuted == 1


@pytest.mark.parametrize(
    ("pool", "asked"),
    [
        ((A, B, C), ["a", "c", "b"]),
        ((A, B, FALLBACK), ["a", "f", "b"]),
        ((A, FALLBACK, evolve(C, alias="g")), ["a", "g", "f"]),
        ((A, B, evolve(B, alias="d"), evolve(B, alias="e")), ["a", "b", "d"]),
    ],
    ids=["another server", "a fallback of another server", "a primary first", "no other"],
)
def test_another_server_comes_first_then_another_model(
    noon: datetime, pool: tuple[Endpoint, ...], asked: list[str]
) -> None:
    answers = {e.alias: refuses(e.alias, Refusal.REQUEST) for e in pool}
    driver = driven(noon, pool, answers)
    assert isinstance(driver.call(), CallRejected)
    assert driver.asked == asked


def test_if_all_refuse_the_call_ends_with_the_first_refusal(noon: datetime) -> None:
    def words(alias: str) -> Callable[[int, datetime], End]:
        return lambda attempt, _: Rejected(alias, attempt, message=f"said {alias}")

    driver = driven(noon, (A, B, C), {alias: words(alias) for alias in "abc"})
    ending = driver.call()
    assert isinstance(ending, CallRejected)
    assert ending.refusal.message == "said a"
    assert [ended.outcome.alias for ended in ending.trail] == ["a", "c", "b"]
    assert all(c.tally.refuted == 0 for c in driver.state.candidates)


@pytest.mark.parametrize(
    "failure", [broken("c"), broken("c", Fault.AUTH), limited("c", Limit.QUOTA)]
)
def test_a_failure_is_no_opinion_so_the_next_model_is_asked(
    noon: datetime, failure: Callable[[int, datetime], End]
) -> None:
    refusing = refuses("a", Refusal.REQUEST)
    driver = driven(noon, (A, C, B), {"a": refusing, "c": failure})
    assert isinstance(driver.call(), CallServed)
    assert driver.asked == ["a", "c", "b"]


def test_a_last_resort_is_not_taken_for_a_second_opinion(noon: datetime) -> None:
    driver = driven(noon, (A, C), {"a": refuses("a", Refusal.REQUEST), "c": broken("c")})
    assert isinstance(driver.call(), CallRejected)
    driver.now += timedelta(seconds=3)
    assert isinstance(driver.call(), CallRejected)
    assert driver.asked == ["a", "c", "a"]


def test_a_pool_of_one_and_a_call_for_one_model_end_with_the_first_refusal(
    noon: datetime,
) -> None:
    refusing = {"a": refuses("a", Refusal.REQUEST)}
    assert isinstance(driven(noon, (A,), refusing).call(), CallRejected)
    driver = driven(noon, (A, C), refusing)
    assert isinstance(driver.call(Call(only="a")), CallRejected)
    assert driver.asked == ["a"]


def test_a_busy_model_is_waited_for(history: type[History]) -> None:
    pool = history(A, evolve(C, max_concurrent=1))
    pool.start("c")
    wait = Wait(pool.now + timedelta(seconds=30), WaitReason.BUSY)
    assert pool.select(A_REFUSED) == wait
    late = evolve(A_REFUSED, waited=timedelta(seconds=30))
    assert pool.select(late) == Exhausted(pool.now, WaitReason.TRIED)


A_REFUSED = Call(tried=("a",), excluded=("a",), refused=("a",))


def test_half_of_the_time_to_the_deadline_is_left_after_a_wait_for_an_opinion(
    history: type[History],
) -> None:
    pool = history(A, evolve(C, max_concurrent=1))
    pool.start("c")
    call = evolve(A_REFUSED, deadline=pool.now + timedelta(seconds=8))
    assert pool.select(call) == Wait(pool.now + timedelta(seconds=4), WaitReason.BUSY)


def test_a_busy_fallback_is_waited_for_unless_another_is_open(
    history: type[History],
) -> None:
    busy = evolve(C, max_concurrent=1, is_fallback=True)
    pool = history(A, busy)
    pool.start("c")
    assert isinstance(pool.select(A_REFUSED), Wait)
    pool = history(A, busy, evolve(C, alias="d", is_fallback=True))
    pool.start("c")
    choice = pool.select(A_REFUSED)
    assert isinstance(choice, Picked)
    assert choice.endpoint.alias == "d"


def test_a_busy_model_is_waited_for_although_another_is_disabled(
    history: type[History],
) -> None:
    fallbacks = (
        evolve(C, alias=alias, max_concurrent=1, is_fallback=True) for alias in "cd"
    )
    pool = history(A, *fallbacks).fail(Limit.QUOTA, "d")
    pool.start("c")
    assert pool.select(A_REFUSED) == Wait(pool.now + timedelta(seconds=30), WaitReason.BUSY)


def test_a_larger_fallback_is_a_last_resort_for_too_long_a_prompt(
    history: type[History],
) -> None:
    pool = history(sized("a", 2_000), sized("f", 4_000, is_fallback=True))
    pool.fail(Fault.TRANSIENT, "f").after(1)
    call = Call(tried=("a",), excluded=("a",), outgrown=("a",), larger_than=2_000)
    choice = pool.select(call)
    assert isinstance(choice, Picked)
    assert (choice.endpoint.alias, choice.reason) == ("f", PickReason.LAST_RESORT)


def test_the_first_that_may_give_an_opinion_counts(history: type[History]) -> None:
    pool = history(A, C, evolve(C, alias="d"))
    pool.fail(Limit.RATE, "c").fail(Fault.TRANSIENT, "d")
    soon = pool.now + timedelta(seconds=15)
    assert pool.select(A_REFUSED) == Exhausted(soon, WaitReason.TRIED)


@pytest.mark.parametrize(
    ("outcome", "seconds"),
    [
        (limited("c"), 60),
        (broken("c"), 15),
        (limited("c", Limit.QUOTA), None),
        (refuses("c", Refusal.REQUEST), None),
    ],
)
def test_a_refusal_has_the_time_of_the_next_possible_opinion(
    noon: datetime, outcome: Callable[[int, datetime], End], seconds: int | None
) -> None:
    driver = driven(noon, (A, C), {"a": refuses("a", Refusal.REQUEST), "c": outcome})
    ending = driver.call()
    assert isinstance(ending, CallRejected)
    retry_at = None if seconds is None else noon + timedelta(seconds=seconds)
    assert ending.retry_at == retry_at


# -- A prompt that is too long --------------------------------------------------------------


def sized(alias: str, window: int | None, *, is_fallback: bool = False) -> Endpoint:
    return Endpoint(alias, context_window=window, is_fallback=is_fallback)


def test_too_long_a_prompt_goes_to_larger_windows_then_to_unknown_ones(
    noon: datetime,
) -> None:
    """Rule 6."""
    pool = (
        sized("a", 2000),
        sized("b", 1000),
        sized("u", None),
        sized("v", None, is_fallback=True),
        sized("c", 4000, is_fallback=True),
    )
    answers = {e.alias: refuses(e.alias, Refusal.TOO_LONG) for e in pool}
    driver = driven(noon, pool, answers)
    ending = driver.call()
    assert isinstance(ending, CallRejected)
    assert driver.asked == ["a", "c", "u", "v"]
    assert ending.refusal.alias == "a"
    assert all(not c.health.cooldowns for c in driver.state.candidates)


def test_a_local_primary_falls_back_whether_the_clouds_window_is_known_or_not(
    noon: datetime,
) -> None:
    for window in (None, 128_000):
        pool = (sized("local", 1024), sized("cloud", window, is_fallback=True))
        driver = driven(noon, pool, {"local": refuses("local", Refusal.TOO_LONG)})
        assert isinstance(driver.call(), CallServed)
        assert driver.asked == ["local", "cloud"]


def test_without_known_windows_each_other_model_is_asked_once(noon: datetime) -> None:
    pool = (sized("a", None), sized("b", None), sized("c", None))
    answers = {e.alias: refuses(e.alias, Refusal.TOO_LONG) for e in pool}
    driver = driven(noon, pool, answers)
    assert isinstance(driver.call(), CallRejected)
    assert driver.asked == ["a", "b", "c"]


def test_a_refusal_teaches_the_window_it_names(noon: datetime) -> None:
    def small(attempt: int, _: datetime) -> End:
        return Rejected("a", attempt, Refusal.TOO_LONG, window=1024)

    driver = driven(noon, (sized("a", None), sized("b", None)), {"a": small})
    driver.call(Call(prompt_tokens=3000))
    assert driver.state["a"].context_window == 1024
    driver.call(Call(prompt_tokens=3000))
    driver.call(Call(prompt_tokens=1000))
    assert driver.asked == ["a", "b", "b", "a", "b"]


@pytest.mark.parametrize(
    ("configured", "learnt", "window"),
    [(None, None, None), (None, 5, 5), (7, None, 7), (7, 5, 5), (5, 7, 5)],
)
def test_of_two_windows_the_smaller_counts(
    configured: int | None, learnt: int | None, window: int | None
) -> None:
    candidate = PoolState.of(sized("a", configured)).candidates[0]
    assert evolve(candidate, learnt_window=learnt).context_window == window


def test_a_longer_answer_and_a_reset_forget_a_learnt_window(noon: datetime) -> None:
    state = PoolState.of(sized("a", None))
    state = update(state, Started("a"), noon)
    state = update(state, Rejected("a", 1, Refusal.TOO_LONG, window=1000), noon)
    assert state["a"].learnt_window == 1000
    assert update(state, Reset("a"), noon)["a"].learnt_window is None
    for size, window in ((1000, 1000), (1001, None)):
        later = update(state, Started("a"), noon)
        later = update(later, Succeeded("a", 2, tokens_in=size), noon)
        assert later["a"].learnt_window == window


# -- The rest of the turn -------------------------------------------------------------------

STEP, TURN = (
    Call(conversation="talk", new_turn=False),
    Call(conversation="talk", new_turn=True),
)


def test_for_the_rest_of_the_turn_the_refuser_is_passed_over(noon: datetime) -> None:
    pool = (A, evolve(C, max_concurrent=1), FALLBACK)
    driver = driven(noon, pool, {"a": refuses("a", Refusal.REQUEST)})
    driver.call(TURN)
    driver.call(STEP)
    # Not even while the model that took it is busy.
    driver.state = update(driver.state, Started("c"), driver.now)
    driver.call(evolve(STEP, waited=timedelta(seconds=30)))
    assert driver.asked == ["a", "c", "c", "f"]
    assert driver.state["a"].tally.refuted == 1


def test_a_new_turn_asks_the_refuser_again(noon: datetime) -> None:
    driver = driven(noon, (A, C), {"a": refuses("a", Refusal.REQUEST)})
    driver.call(TURN)
    driver.call(TURN)
    assert driver.asked == ["a", "c", "a", "c"]
    driver.answers["a"] = fine("a")
    driver.call(TURN)
    driver.call(STEP)
    assert driver.asked[4:] == ["a", "a"]


def test_the_refuser_is_asked_again_if_no_other_model_can_serve(noon: datetime) -> None:
    """Rule 11."""
    driver = driven(noon, (A, C), {"a": refuses("a", Refusal.REQUEST)})
    driver.call(TURN)
    driver.answers |= {"a": fine("a"), "c": broken("c")}
    assert isinstance(driver.call(STEP), CallServed)
    assert driver.asked == ["a", "c", "c", "a"]
    driver.answers["c"] = fine("c")
    driver.call(STEP)
    assert driver.asked[-1] == "a", "it has served this turn since"


def test_a_refuser_that_serves_after_all_is_no_longer_passed_over(
    history: type[History],
) -> None:
    pool = history("a", "b", "c")
    first, refusers = pool.start("b"), ("a", "c")
    pool.record(Succeeded("b", first, conversation="x", refusers=refusers))
    served = Succeeded("a", pool.start("a"), conversation="x")
    assert pool.record(served).state.pins[-1].refusers == ("c",)


@pytest.mark.parametrize(("window", "learnt"), [(-1, None), (0, None), (1, 1)])
def test_a_window_of_no_token_is_not_learnt(
    history: type[History], window: int, learnt: int | None
) -> None:
    pool = history()
    too_long = Rejected("a", pool.start(), Refusal.TOO_LONG, window=window)
    assert pool.record(too_long).state["a"].learnt_window == learnt


def test_a_second_refusal_of_the_refuser_ends_no_call(noon: datetime) -> None:
    """The others have taken it in this turn, so the request is not at fault."""
    driver = driven(noon, (A, C), {"a": refuses("a", Refusal.REQUEST)})
    driver.call(TURN)
    driver.answers["c"] = limited("c", Limit.QUOTA)
    ending = driver.call(STEP)
    assert isinstance(ending, CallExhausted)
    assert driver.asked == ["a", "c", "c", "a"]


# -- Effects of refutations ----------------------------------------------------------------


def refuted(
    conversations: str, kind: Refusal = Refusal.REQUEST, successes: tuple[int, ...] = ()
) -> PoolState:
    """Return the state after one refuted refusal of "a" for each letter, in order.

    After those whose position is in `successes`, "a" succeeds.
    """
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    state = PoolState.of(A, C)
    for position, conversation in enumerate(conversations):
        state = update(state, Started("a"), now)
        number = state.attempts
        state = update(state, Rejected("a", number, kind), now)
        state = update(state, Refuted("a", number, kind, "c", conversation), now)
        if position in successes:
            state = update(state, Started("a"), now)
            state = update(state, Succeeded("a", state.attempts), now)
    return state


@pytest.mark.parametrize(
    ("conversations", "kind", "successes", "is_disabled"),
    [
        ("xyx", Refusal.REQUEST, (), True),
        ("xxy", Refusal.TEMPLATE, (), True),
        ("xxxxy", Refusal.REQUEST, (), True),
        ("xy", Refusal.REQUEST, (), False),
        # Nonsense of one caller, accepted by some server, affects only that caller.
        ("xxxxxxxx", Refusal.REQUEST, (), False),
        ("xyxy", Refusal.FILTERED, (), False),
        ("xyxy", Refusal.TOO_LONG, (), False),
        ("xyxy", Refusal.REQUEST, (1,), False),
        ("xyxyx", Refusal.REQUEST, (1,), True),
    ],
)
def test_three_refuted_refusals_in_a_row_from_two_conversations_are_a_persistent_error(
    conversations: str,
    kind: Refusal,
    successes: tuple[int, ...],
    is_disabled: bool,
    noon: datetime,
) -> None:
    candidate = refuted(conversations, kind, successes)["a"]
    cooldown = candidate.health.active_cooldown(noon)
    assert (cooldown is not None) == is_disabled
    assert candidate.tally.refuted == len(conversations)
    if cooldown is not None:
        assert cooldown.cause is Fault.PERSISTENT


def test_a_success_of_a_later_attempt_wins_over_a_refutation_that_arrives_after_it(
    noon: datetime,
) -> None:
    state = refuted("xy")
    state = update(state, Started("a"), noon)
    state = update(state, Started("a"), noon)
    state = update(state, Rejected("a", 3), noon)
    state = update(state, Succeeded("a", 4), noon)
    state = update(state, Refuted("a", 3, Refusal.REQUEST, "c", "z"), noon)
    assert state["a"].health.broken is None
    assert state["a"].refutations == ()


def test_after_its_cooldown_each_further_one_disables_it_for_longer(noon: datetime) -> None:
    state = refuted("xyx")
    later = noon + timedelta(seconds=20)
    state = update(state, Started("a"), later)
    state = update(state, Rejected("a", 4), later)
    state = update(state, Refuted("a", 4, Refusal.REQUEST, "c", "y"), later)
    cooldown = state["a"].health.active_cooldown(later)
    assert cooldown is not None
    assert cooldown.until - later == timedelta(seconds=30)


@pytest.mark.parametrize("attempt", [0, -1, 99])
def test_a_refutation_of_an_unknown_attempt_changes_nothing(
    noon: datetime, attempt: int
) -> None:
    state = refuted("x")
    assert update(state, Refuted("a", attempt, Refusal.REQUEST, "c"), noon) is state
    assert update(state, Refuted("stranger", 1, Refusal.REQUEST, "c"), noon) is state


def test_the_same_refutation_twice_counts_once_in_the_row(noon: datetime) -> None:
    state = refuted("xy")
    again = update(state, Refuted("a", 2, Refusal.REQUEST, "c", "y"), noon)
    assert again["a"].refutations == state["a"].refutations


# -- Properties -----------------------------------------------------------------------------

SERVERS = st.sampled_from(["http://one/v1", "http://two/v1", "http://three:8080/v1"])
ANSWERS = st.sampled_from(["takes", "refuses", "filters", "fails", "is limited"])


@st.composite
def pools(draw: st.DrawFn) -> list[tuple[Endpoint, str]]:
    count = draw(st.integers(1, 6))
    return [
        (
            Endpoint(
                f"m{number}",
                wire=Wire(draw(SERVERS)),
                is_fallback=number > 0 and draw(st.booleans()),
            ),
            draw(ANSWERS),
        )
        for number in range(count)
    ]


@given(pools())
def test_the_rules_hold_for_every_second_opinion(pool: list[tuple[Endpoint, str]]) -> None:
    """Rules 6 and 11: at most two more refusals, the first refusal is reported, another server first."""
    ways: dict[str, Callable[[str], Callable[[int, datetime], End]]] = {
        "takes": fine,
        "refuses": lambda alias: refuses(alias, Refusal.REQUEST),
        "filters": lambda alias: refuses(alias, Refusal.FILTERED),
        "fails": broken,
        "is limited": limited,
    }
    answers = {endpoint.alias: ways[way](endpoint.alias) for endpoint, way in pool}
    way_of = {endpoint.alias: way for endpoint, way in pool}
    server_of = {endpoint.alias: endpoint.server for endpoint, _ in pool}
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    driver = Driver(*(e for e, _ in pool), now=noon, answers=answers)
    ending = driver.call()

    refusing = [a for a in driver.asked if way_of[a] in {"refuses", "filters"}]
    assert len(refusing) <= 3
    assert len(set(refusing)) == len(refusing)
    for alias in refusing:
        assert not driver.state[alias].health.cooldowns
    if refusing:
        first = driver.asked.index(refusing[0])
        rest = driver.asked[first + 1 :]
        assert len(set(rest)) == len(rest), "no last resort for a second opinion"
        untried = [e.alias for e, _ in pool if e.alias not in driver.asked[: first + 1]]
        if rest and server_of[rest[0]] == server_of[refusing[0]]:
            assert all(server_of[a] == server_of[refusing[0]] for a in untried)
    if isinstance(ending, CallRejected):
        assert ending.refusal.alias == refusing[0]
    takers = [alias for alias, way in way_of.items() if way == "takes"]
    if takers and len([w for w in way_of.values() if w in {"refuses", "filters"}]) <= 2:
        assert isinstance(ending, CallServed)


def test_the_order_is_decided_by_the_address_not_by_names(history: type[History]) -> None:
    pool = (
        Endpoint("a", wire=Wire("http://Host:1/v1")),
        Endpoint("b", wire=Wire("http://host:1/other")),
        Endpoint("c", wire=Wire("http://host:2/v1")),
    )
    state = history(*pool).state
    call = Call(tried=("a",), excluded=("a",), refused=("a",))
    choice = select(state, Failover(), datetime(2026, 3, 1, 12, tzinfo=UTC), call)
    assert isinstance(choice, Picked)
    assert choice.endpoint.alias == "c"
