"""The requests of a journal, run again: what is kept, and what another pool changes."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta

import pytest
from attrs import evolve

from muxcore.core.entries import CallResult
from muxcore.core.outcomes import Failed, RateLimited, Succeeded
from muxcore.core.records import Call, Endpoint, Policy, PoolState
from muxcore.whatif.estimates import Estimate, Estimator
from muxcore.whatif.figures import figures_of, rehearse, rehearsed_figures
from muxcore.whatif.recorded import place_key, record_of
from muxcore_strategies.failover import Failover
from tests.explaining.recording import Recording
from tests.explaining.test_stories import failed, limited, served
from tests.whatif.worlds import MODES, TrueAnswers, run, world_of

SECOND = timedelta(seconds=1)
ONE, TWO = Endpoint("one"), Endpoint("two")


@pytest.mark.parametrize("seed", range(4))
def test_the_same_config_in_the_same_world_gives_the_journal_again(seed: int) -> None:
    """So reading and rehearsing lose nothing: think times, retries, waits, streams."""
    world = world_of(seed, 200)
    _, journal = run(world, world.before)
    record = record_of(journal)
    assert len(record.requests) == 200
    recorded = figures_of(journal, record)
    # The journal has the requests in the order of their beginning, the world by sessions.
    places: dict[str | None, list[int]] = defaultdict(list)
    for number, request in enumerate(world.record.requests):
        places[request.call.conversation].append(number)
    tokens = tuple(
        world.tokens[places[request.call.conversation].pop(0)]
        for request in record.requests
    )
    again = evolve(world, record=record, tokens=tokens)
    rehearsal = rehearse(
        record,
        world.before.state(),
        MODES[world.before.mode](),
        TrueAnswers(again),
        world.before.mode,
    )
    rehearsed = rehearsed_figures(record, rehearsal)
    assert rehearsed.named() == pytest.approx(recorded.named(), rel=0.02, abs=2)


def test_a_second_model_saves_the_wait_for_the_first() -> None:
    recording = Recording(ONE, policy=Policy(max_wait=30 * SECOND))
    recording.call((0.5, limited(10)), (1.0, served(100, 0, 10)))
    record = record_of(recording.journal())
    state = PoolState.of(ONE, TWO)
    alone = rehearse(record, PoolState.of(ONE), Failover(), Estimator(record))
    both = rehearse(record, state, Failover(), Estimator(record))
    assert alone.sums.waited == 10 * SECOND
    assert both.sums.waited == timedelta()
    assert both.pool.state["two"].tally.succeeded == 1
    assert both.sums.estimated == 1, "nothing is known of the second"


def test_calls_that_repeat_a_failed_one_are_one_request() -> None:
    recording = Recording(ONE, policy=Policy(max_wait=timedelta()))
    turn = Call(conversation="s")
    recording.call((0.1, failed()), call=turn)
    recording.seconds += 20
    recording.call((1.0, served(10, 0, 5)), call=turn)
    recording.seconds += 7
    recording.call((1.0, served(20, 0, 5)), call=evolve(turn, new_turn=False))
    record = record_of(recording.journal())
    assert [len(request.calls) for request in record.requests] == [2, 1]
    assert record.requests[1].think == 7 * SECOND
    assert record.requests[0].calls[0].result is CallResult.EXHAUSTED


def test_a_request_that_is_served_at_once_is_not_repeated() -> None:
    recording = Recording(ONE, policy=Policy(max_wait=timedelta()))
    for answers in ([(0.1, failed())], [(1.0, served(10, 0, 5))]):
        recording.call(*answers, call=Call(conversation="s"))
        recording.seconds += 20

    class Well:
        def attempt(self, endpoint: Endpoint, attempt: int, *_: object) -> Estimate:
            outcome = Succeeded(endpoint.alias, attempt)
            return Estimate(outcome, SECOND, None, streamed=False, known=True)

    record = record_of(recording.journal())
    rehearsal = rehearse(record, PoolState.of(ONE), Failover(), Well())
    assert rehearsal.sums.attempts == 1


def test_a_prompt_is_cached_where_its_conversation_has_been() -> None:
    recording = Recording(ONE, TWO)
    for number, cached in enumerate([0, 900, 1800]):
        call = Call(conversation="s", new_turn=number == 0)
        recording.call((1.0, served(1000 * (number + 1), cached, 0)), call=call)
    record = record_of(recording.journal())
    estimator = Estimator(record)
    found = [
        estimator.attempt(TWO, 1, number, record.requests[number].calls[0].began).outcome
        for number in range(3)
    ]
    assert [one.tokens_cached for one in found if isinstance(one, Succeeded)] == [
        0,
        900,
        1800,
    ]


def test_a_place_is_another_with_another_key_server_or_name() -> None:
    assert place_key(Endpoint("a", "m", "p")) == place_key(Endpoint("b", "m", "p"))
    assert place_key(Endpoint("a", "m", "p")) != place_key(Endpoint("a", "n", "p"))
    assert place_key(Endpoint("a", "m", "p")) != place_key(Endpoint("a", "m", "q"))


def test_a_limit_is_estimated_with_what_is_left_of_it() -> None:
    recording = Recording(ONE, policy=Policy(max_wait=timedelta()))
    recording.call((0.5, limited(60)))
    record = record_of(recording.journal())
    later = record.requests[0].calls[0].began + 20 * SECOND
    estimate = Estimator(record).attempt(ONE, 7, 0, later)
    assert isinstance(estimate.outcome, RateLimited | Failed)
    assert estimate.outcome.hint == 40 * SECOND
    assert estimate.known
