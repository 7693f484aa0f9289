"""Many threads at one pool: caps hold, slots go to waiters in order, no thread polls."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from muxcore import PoolExhaustedError
from muxcore.core.entries import CallResult, Ended
from muxcore.core.outcomes import Failed, Limit, RateLimited, Reset, Succeeded
from muxcore.core.protocol import Sleep, Slept, Slot
from muxcore.core.records import Call, Endpoint, Exhausted, Policy, PoolState, Wait
from muxcore.core.updating import update
from muxcore.shell import clock
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.shell.pool.parker import Parker
from muxcore.shell.pool.pool import Change, Nap, Pool
from muxcore.shell.pool.waiter import UNDECIDED, Decision, Waiter
from muxcore.standin import Answer, ConnectionClosed, Delayed, Model, Stall, rate_limited
from muxcore_strategies.failover import Failover
from tests.waiting import PATIENCE, wait_until

Make = Callable[..., Multiplexer]
Start = Callable[..., Future[Any]]

PING = [{"role": "user", "content": "ping"}]


@pytest.mark.unmeasured
@pytest.mark.parametrize("mode", ["failover", "load_balance"])
def test_caps_are_never_exceeded_and_no_slot_is_lost(
    make: Make, start: Start, alpha: Model, beta: Model, mode: str
) -> None:
    pause = timedelta(milliseconds=1)
    alpha.default = beta.default = Delayed(pause)
    multiplexer = make(
        {"model": "alpha", "max_concurrent": 2},
        {"model": "beta", "max_concurrent": 3},
        mode=mode,
    )
    ready = threading.Barrier(24)

    def calls() -> int:
        ready.wait()
        for number in range(8):
            if number % 2:
                multiplexer.complete(PING)
            else:
                with multiplexer.stream(PING) as stream:
                    list(stream)
        return 8

    done = sum(call.result() for call in [start(calls) for _ in range(24)])
    assert done == 192 == len(alpha.requests) + len(beta.requests)
    assert alpha.max_in_flight == 2
    assert beta.max_in_flight == 3
    for model in multiplexer.status().models:
        assert model.in_flight == 0
    assert sum(model.success_count for model in multiplexer.status().models) == 192


@pytest.mark.unmeasured
def test_no_slot_is_lost_when_calls_fail_and_leave(
    make: Make, start: Start, alpha: Model, beta: Model
) -> None:
    plays = (
        ConnectionClosed(),
        rate_limited(timedelta(milliseconds=5)),
        Answer(),
        Stall(1),
    )
    alpha.then(*plays * 20)
    multiplexer = make(
        {"model": "alpha", "max_concurrent": 2},
        {"model": "beta", "max_concurrent": 2},
        persistent_error_disable_duration_ms=1000,
        max_wait_ms=20_000,
    )

    def calls() -> None:
        for _ in range(6):
            with multiplexer.stream(PING) as stream:
                next(stream)

    for call in [start(calls) for _ in range(16)]:
        call.result()
    state = multiplexer.state
    assert [candidate.health.in_flight for candidate in state.candidates] == [0, 0]
    assert sum(candidate.tally.ended for candidate in state.candidates) == state.attempts
    alpha.wait_for(lambda model: model.in_flight == 0)
    beta.wait_for(lambda model: model.in_flight == 0)


def test_slots_go_to_waiters_in_their_order_of_arrival(
    make: Make, start: Start, alpha: Model
) -> None:
    multiplexer = make({"model": "alpha", "max_concurrent": 1})
    alpha.hold()
    calls = [start(multiplexer.complete, [{"role": "user", "content": "0"}])]
    alpha.wait_for(lambda model: model.in_flight == 1)
    for number in range(1, 9):
        message = {"role": "user", "content": str(number)}
        calls.append(start(multiplexer.complete, [message]))
        wait_until(lambda: len(multiplexer._runtime.pool._line) == len(calls) - 1)
    alpha.release()
    for call in calls:
        call.result()
    arrived = [request.body["messages"][0]["content"] for request in alpha.requests]
    assert arrived == [str(number) for number in range(9)]


def test_a_new_call_does_not_overtake_a_waiter(
    make: Make, start: Start, alpha: Model
) -> None:
    multiplexer = make({"model": "alpha", "max_concurrent": 1})
    alpha.hold()
    first = start(multiplexer.complete, PING)
    alpha.wait_for(lambda model: model.in_flight == 1)
    second = start(multiplexer.complete, [{"role": "user", "content": "second"}])
    wait_until(lambda: len(multiplexer._runtime.pool._line) == 1)
    alpha.release()
    alpha.hold()
    # The end of its attempt gave the slot to the waiter before this thread could choose.
    first.result()
    third = start(multiplexer.complete, [{"role": "user", "content": "third"}])
    wait_until(lambda: len(multiplexer._runtime.pool._line) == 1)
    alpha.wait_for(lambda model: len(model.requests) == 2)
    assert [r.body["messages"][0]["content"] for r in alpha.requests][1:] == ["second"]
    alpha.release()
    second.result()
    third.result()


def test_a_waiting_call_sleeps_without_polling(
    make: Make, start: Start, alpha: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    original = Parker.park

    def counted(self: Parker, seconds: float) -> bool:
        if threading.current_thread().name.startswith("of the test"):
            waits.append(seconds)
        return original(self, seconds)

    monkeypatch.setattr(Parker, "park", counted)
    multiplexer = make({"model": "alpha", "max_concurrent": 1})
    alpha.hold()
    first = start(multiplexer.complete, PING)
    alpha.wait_for(lambda model: model.in_flight == 1)
    second = start(multiplexer.complete, PING)
    wait_until(lambda: len(multiplexer._runtime.pool._line) == 1)
    alpha.release()
    first.result()
    second.result()
    (seconds,) = [seconds for seconds in waits if seconds]
    assert 29 < seconds <= 30


def test_a_reset_wakes_the_waiting_calls(make: Make, start: Start, alpha: Model) -> None:
    alpha.then(rate_limited(timedelta(seconds=20)))
    multiplexer = make("alpha")
    call = start(multiplexer.complete, PING)
    wait_until(lambda: len(multiplexer._runtime.pool._line) == 1)
    # Tried in this call: only as a last resort, which a reset brings forward.
    multiplexer.reset("alpha")
    assert call.result(PATIENCE).model == "alpha"


def test_more_calls_than_kept_connections_log_nothing(
    make: Make, start: Start, alpha: Model, caplog: pytest.LogCaptureFixture
) -> None:
    multiplexer = make("alpha")
    alpha.hold()
    calls = [start(multiplexer.complete, PING) for _ in range(40)]
    alpha.wait_for(lambda model: model.in_flight == 40)
    alpha.release()
    for call in calls:
        call.result(PATIENCE)
    assert [r.message for r in caplog.records if r.levelname != "DEBUG"] == []
    # The kept connections are reused.
    multiplexer.complete(PING)
    assert alpha.requests[-1].connection in {r.connection for r in alpha.requests[:-1]}


# The pool of calls itself, without any HTTP.

ONE = Endpoint("one", max_concurrent=1)


def one_pool(**policy: Any) -> Pool:
    return Pool(PoolState.of(ONE, policy=Policy(**policy)), Failover())


def in_flight(pool: Pool) -> int:
    return sum(candidate.health.in_flight for candidate in pool.state.candidates)


def slot(pool: Pool) -> Waiter:
    waiter = Waiter()
    assert isinstance(pool.choose(Call(), waiter), Slot)
    return waiter


def waiting(pool: Pool) -> tuple[Waiter, Sleep]:
    waiter = Waiter()
    choice = pool.choose(Call(), waiter)
    assert isinstance(choice, Wait)
    return waiter, Sleep(Call(), choice)


def sleep(pool: Pool, step: Sleep, waiter: Waiter) -> Slept:
    nap = pool.begin_sleep(step, waiter)
    return pool.end_sleep(step, waiter, nap, woken=waiter.park(nap.seconds))


def test_settling_is_safe_at_any_time_and_any_number_of_times() -> None:
    pool = one_pool()
    pool.settle(Waiter())
    waiter = slot(pool)
    for _ in range(2):
        pool.settle(waiter)
        assert in_flight(pool) == 0
    assert pool.state["one"].tally.cancelled == 1
    holder = slot(pool)
    late, _ = waiting(pool)
    pool.settle(late)
    assert pool._line == ()
    pool.settle(late)
    pool.settle(holder)
    assert pool.state["one"].tally.cancelled == 2


def test_a_slot_of_a_call_that_leaves_goes_to_the_next() -> None:
    pool = one_pool()
    holder = slot(pool)
    (first, _), (second, pause) = waiting(pool), waiting(pool)
    pool.settle(holder)
    assert first.slot is not None
    pool.settle(first)
    woken = sleep(pool, pause, second)
    assert isinstance(woken.choice, Slot)
    pool.settle(second)
    assert in_flight(pool) == 0


def test_an_undelivered_change_is_delivered_by_the_next_one() -> None:
    pool = one_pool()
    deliver = pool._deliver
    times: list[int] = []

    def interrupted_once() -> None:
        times.append(1)
        if len(times) == 2:
            raise KeyboardInterrupt
        deliver()

    pool._deliver = interrupted_once  # type: ignore[method-assign]
    waiter = Waiter()
    with pytest.raises(KeyboardInterrupt):
        pool.choose(Call(), waiter)
    assert waiter.slot is None
    assert in_flight(pool) == 1
    pool.settle(waiter)
    assert in_flight(pool) == 0


def test_an_abandoned_call_is_settled_even_where_the_guard_is_held() -> None:
    pool = one_pool()
    waiter = slot(pool)
    with pool._guard:
        # As the garbage collector may do in the thread that holds the guard.
        pool.abandon(waiter)
        assert in_flight(pool) == 1
    pool.record(Reset())
    assert in_flight(pool) == 0
    assert pool.state["one"].tally.cancelled == 1


def test_an_abandoned_call_is_settled_at_once_where_it_can_be() -> None:
    pool = one_pool()
    pool.abandon(slot(pool))
    assert in_flight(pool) == 0
    ended = slot(pool)
    pool.settle(ended)
    pool.abandon(ended)
    assert not pool._abandoned
    gc.collect()


MOST_NAPS = 5


def test_a_wait_returns_its_length_and_the_decision() -> None:
    pool = one_pool(max_wait=timedelta(milliseconds=30))
    holder = slot(pool)
    waiter, pause = waiting(pool)
    woken = sleep(pool, pause, waiter)
    waited, naps = woken.waited, 1
    while isinstance(woken.choice, Wait):
        # The two clocks may differ by a moment, and the thread be held up before it looks again.
        assert naps < MOST_NAPS
        naps += 1
        woken = sleep(pool, Sleep(Call(waited=waited), woken.choice), waiter)
        waited += woken.waited
    assert timedelta(milliseconds=29) < waited < timedelta(seconds=5)
    assert isinstance(woken.choice, Exhausted)
    assert pool._line == ()
    pool.settle(waiter)
    pool.settle(holder)


def test_a_call_that_waits_for_a_time_is_served_before_later_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = one_pool()
    holder = slot(pool)
    assert holder.slot is not None
    pool.record(Failed("one", holder.slot.attempt))
    holder.slot = None
    waiter, pause = waiting(pool)
    # It has not woken yet, but its time is over.
    monkeypatch.setattr(clock, "now", lambda: pause.wait.until)
    newcomer = Waiter()
    assert isinstance(pool.choose(Call(), newcomer), Wait)
    assert isinstance(waiter.decision, Slot)
    pool.settle(newcomer)
    pool.settle(waiter)
    assert in_flight(pool) == 0


def test_a_waiting_call_is_woken_only_by_an_earlier_time() -> None:
    pool = Pool(
        PoolState.of(Endpoint("one", max_concurrent=1), Endpoint("two", max_concurrent=1)),
        Failover(),
    )
    holder, other = slot(pool), slot(pool)
    waiter, _ = waiting(pool)
    first = waiter.decision
    # A change that does not concern it.
    pool.record(Succeeded("one", 99))
    assert waiter.decision is first
    # Both fail: it will be served earlier than decided before.
    for held in (holder, other):
        assert held.slot is not None
        pool.record(Failed(held.slot.endpoint.alias, held.slot.attempt))
        held.slot = None
    decision = waiter.decision
    assert isinstance(decision, Wait)
    assert isinstance(first, Wait)
    assert decision.until < first.until
    pool.settle(waiter)


def test_a_closed_or_cancelled_wait_raises(make: Make) -> None:
    from muxcore import MultiplexerError

    for end in ("cancel", "close"):
        pool = one_pool()
        holder = slot(pool)
        waiter, pause = waiting(pool)
        if end == "cancel":
            pool.cancel(holder)
            pool.cancel(waiter)
        else:
            pool.close()
        with pytest.raises(MultiplexerError):
            sleep(pool, pause, waiter)
        pool.settle(waiter)
        pool.settle(holder)
        assert in_flight(pool) == 0


def test_an_observer_sees_every_change_before_the_calls_do() -> None:
    seen: list[tuple[PoolState, PoolState, Decision]] = []

    def observe(before: PoolState, change: Change) -> None:
        seen.append((before, change.state, waiter.decision))

    pool = Pool(PoolState.of(ONE), Failover(), observer=observe)
    waiter, first = Waiter(), pool.state
    pool.choose(Call(), waiter)
    begun = pool.state
    pool.settle(waiter)
    assert isinstance(waiter.decision, Slot)
    assert seen == [
        (first, begun, UNDECIDED),
        (begun, pool.state, waiter.decision),
    ]


def test_a_pool_uses_the_clock_that_it_is_given() -> None:
    class Stopped:
        def now(self) -> datetime:
            return datetime(2026, 11, 24, tzinfo=UTC)

        def elapsed(self) -> float:
            return 7.0

    pool = Pool(PoolState.of(ONE, policy=Policy()), Failover(), clock=Stopped())
    slot(pool)
    waiter, step = waiting(pool)
    assert step.wait.until == datetime(2026, 11, 24, 0, 0, 30, tzinfo=UTC)
    assert pool.begin_sleep(step, waiter) == Nap(30.0, 7.0)


def test_no_call_waits_if_waiting_is_off(make: Make, start: Start, alpha: Model) -> None:
    multiplexer = make({"model": "alpha", "max_concurrent": 1}, max_wait_ms=0)
    alpha.hold()
    first = start(multiplexer.complete, PING)
    alpha.wait_for(lambda model: model.in_flight == 1)
    with pytest.raises(PoolExhaustedError, match="busy"):
        multiplexer.complete(PING)
    alpha.release()
    first.result()


# -- The journal -------------------------------------------------------------------------------


def test_the_journal_frames_each_call_and_rebuilds_the_state() -> None:
    initial = PoolState.of(ONE, policy=Policy())
    pool = Pool(initial, Failover(), mode="failover")
    for _ in range(3):
        waiter = Waiter()
        slot = pool.choose(Call(), waiter)
        assert isinstance(slot, Slot)
        pool.record(Succeeded("one", slot.attempt))
        waiter.slot, waiter.result = None, CallResult.SERVED
        pool.settle(waiter)
    lines = pool.journal.lines()
    kinds = [type(line.entry).__name__ for line in lines]
    assert kinds == ["Asked", "Started", "Succeeded", "Ended"] * 3
    assert lines[-1].entry == Ended(3, CallResult.SERVED)
    state = initial
    for line in lines:
        state = update(state, line.entry, line.now)
    assert state == pool.state


class SteppingClock:
    """Shows these seconds after noon, one after the other, then the last for ever."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = list(seconds)

    def now(self) -> datetime:
        shown = self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        return datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(seconds=shown)

    def elapsed(self) -> float:
        return 0.0


@pytest.mark.parametrize(
    ("back", "journal_shows"), [(0.4, 100.0), (0.999, 100.0), (1.0, 99.0), (3600, -3500)]
)
def test_now_runs_backwards_only_if_the_clock_is_set_back_by_a_second(
    back: float, journal_shows: float
) -> None:
    clock = SteppingClock(100, 100 - back)
    pool = Pool(PoolState.of(ONE), Failover(), clock=clock)
    pool.record(Reset())
    pool.record(Reset())
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    shown = [(line.now - noon).total_seconds() for line in pool.journal.lines()]
    assert shown == [100.0, journal_shows]


def test_a_deadline_ends_when_the_clock_says_so_though_the_journal_is_ahead() -> None:
    """The clock is set back by less than a second, so a change counts from a later moment."""
    clock = SteppingClock(100)
    pool = Pool(PoolState.of(ONE), Failover(), clock=clock)
    slot(pool)
    clock.seconds = [99.6]
    waiter, deadline = Waiter(), clock.now() + timedelta(seconds=5)
    choice = pool.choose(Call(deadline=deadline), waiter)
    assert isinstance(choice, Wait)
    assert waiter.limit == 5.0
    # It may wait for half of its time, reckoned from the later moment.
    assert choice.until == deadline + timedelta(seconds=0.4 - 2.5)
    assert waiter.wakes_at == 2.5


def test_a_cancel_of_a_running_call_lets_a_waiting_call_choose() -> None:
    clock = SteppingClock(0)
    pool = Pool(
        PoolState.of(ONE, Endpoint("two", max_concurrent=1)), Failover(), clock=clock
    )
    holder, limited = slot(pool), slot(pool).slot
    assert limited is not None
    pool.record(RateLimited("two", limited.attempt, Limit.RATE, timedelta(seconds=20)))
    waiter, _ = waiting(pool)
    clock.seconds = [21]
    pool.cancel(holder)
    assert waiter.slot is not None
    assert waiter.slot.endpoint.alias == "two"


def test_the_entries_of_many_threads_are_in_the_order_of_now() -> None:
    pool = Pool(PoolState.of(ONE), Failover())

    def work() -> None:
        for _ in range(200):
            pool.record(Reset())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = pool.journal.lines()
    assert [line.number for line in lines] == list(range(1, 801))
    assert [line.now for line in lines] == sorted(line.now for line in lines)
