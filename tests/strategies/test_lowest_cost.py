"""`lowest_cost`: its arithmetic, row by row, and the effect of a warm cache."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve

from muxcore import Multiplexer
from muxcore.config import load
from muxcore.core.outcomes import Succeeded
from muxcore.core.protocol import Slot, choose
from muxcore.core.records import (
    Call,
    Candidate,
    Endpoint,
    Pin,
    Policy,
    PoolState,
    Sticky,
    Tally,
)
from muxcore.core.updating import update
from muxcore.errors import ConfigError
from muxcore_strategies.lowest_cost import UNKNOWN_PROMPT, LowestCost

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEAR = Endpoint("dear", input_price=2.0, output_price=8.0, cached_input_price=0.2)
CHEAP = Endpoint("cheap", input_price=0.5, output_price=2.0)
USUAL = LowestCost()
TALKER = Endpoint("talker", input_price=0.1, output_price=9.0)


def picked(*endpoints: Endpoint, mode: LowestCost = USUAL, **call: object) -> str:
    candidates = [Candidate(endpoint) for endpoint in endpoints]
    return mode.pick(candidates, None, Call(**call), NOW)[0].alias  # type: ignore[arg-type]


def test_the_cheapest_model_is_picked() -> None:
    assert picked(DEAR, CHEAP, prompt_tokens=1000) == "cheap"


def test_equally_cheap_models_go_in_pool_order() -> None:
    twin = evolve(CHEAP, alias="twin")
    assert picked(twin, CHEAP, prompt_tokens=1000) == "twin"
    assert picked(CHEAP, twin, prompt_tokens=1000) == "cheap"


def test_a_model_without_prices_is_free() -> None:
    assert picked(CHEAP, Endpoint("local"), prompt_tokens=1) == "local"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    # 500 tokens of answer: 0.5 p + 1000 against 0.1 p + 4500, equal at 8750.
    [(0, "cheap"), (8749, "cheap"), (8750, "talker"), (100_000, "talker")],
)
def test_prompt_and_answer_both_count(prompt: int, expected: str) -> None:
    assert picked(TALKER, CHEAP, prompt_tokens=prompt) == expected


def test_the_expected_answer_is_the_average_so_far() -> None:
    tally = Tally(succeeded=2, tokens_in=100, tokens_out=20)
    candidates = [Candidate(CHEAP, tally=tally), Candidate(TALKER)]
    # 10 tokens: 0.5 p + 20 against 0.1 p + 90, equal at 175.
    for prompt, expected in ((174, CHEAP), (176, TALKER)):
        call = Call(prompt_tokens=prompt)
        assert LowestCost().pick(candidates, None, call, NOW)[0] is expected


def test_without_an_estimate_the_expected_prompt_is_the_average_so_far() -> None:
    assert UNKNOWN_PROMPT == 10_000
    assert picked(CHEAP, TALKER) == "talker"
    tally = Tally(succeeded=2, tokens_in=1000, tokens_out=1000)
    candidates = [Candidate(CHEAP, tally=tally), Candidate(TALKER)]
    assert LowestCost().pick(candidates, None, Call(), NOW)[0] is CHEAP


def test_a_warm_cache_keeps_its_model() -> None:
    prompt = 20_000
    warm = Pin("talk", "dear", NOW, tokens=20_000)
    facts = {"conversation": "talk", "prompt_tokens": prompt}
    once = LowestCost(calls_ahead=0, output_tokens=0)
    assert picked(CHEAP, DEAR, mode=once, **facts) == "cheap"
    # 20,000 warm at 0.2 against 20,000 fresh at 0.5.
    assert picked(CHEAP, DEAR, mode=once, pin=warm, **facts) == "dear"
    # Only the 4,000 tokens that were there are warm: at 0.2, and 16,000 at 2.
    part = evolve(warm, tokens=4000)
    assert picked(CHEAP, DEAR, mode=once, pin=part, **facts) == "cheap"
    # On a model other than the pin, nothing is warm.
    elsewhere = evolve(warm, alias="gone")
    assert picked(CHEAP, DEAR, mode=once, pin=elsewhere, **facts) == "cheap"


def test_the_following_calls_of_a_conversation_count() -> None:
    caching = evolve(CHEAP, alias="caching", input_price=0.8, cached_input_price=0.05)
    mode = LowestCost(output_tokens=0)
    assert picked(CHEAP, caching, mode=mode, prompt_tokens=1000) == "cheap"
    facts = {"conversation": "talk", "prompt_tokens": 1000}
    assert picked(CHEAP, caching, mode=mode, **facts) == "caching"
    once = evolve(mode, calls_ahead=0)
    assert picked(CHEAP, caching, mode=once, **facts) == "cheap"


def test_select_passes_the_pin_to_the_mode() -> None:
    policy = Policy(sticky=Sticky.TURN)
    state = PoolState.of(CHEAP, DEAR, policy=policy)
    mode = LowestCost(calls_ahead=0, output_tokens=0)
    call = Call(conversation="talk", prompt_tokens=20_000)
    answer = Succeeded("dear", 0, tokens_in=20_000, conversation="talk")
    state, first = choose(state, mode, NOW, evolve(call, only="dear"))
    assert isinstance(first, Slot)
    state = update(state, evolve(answer, attempt=first.attempt), NOW)
    assert state.pins == (Pin("talk", "dear", NOW, 20_000),)
    _, again = choose(state, mode, NOW, call)
    assert isinstance(again, Slot)
    assert again.endpoint is DEAR
    # After five minutes nothing is warm any more.
    _, late = choose(state, mode, NOW + timedelta(minutes=5), call)
    assert isinstance(late, Slot)
    assert late.endpoint is CHEAP


def config(mode: str = "lowest_cost", **options: object) -> dict[str, object]:
    return {
        "providers": [{"name": "here", "api_base": "http://localhost/v1"}],
        "models": [{"name": "m", "provider": "here", "alias": "m"}],
        "multiplexer": {
            "enabled": True,
            "mode": mode,
            "options": options,
            "pool": [{"model": "m"}],
        },
    }


def test_its_options_are_checked() -> None:
    assert load(config(calls_ahead=0), env={}).strategy == LowestCost(calls_ahead=0)
    with pytest.raises(ConfigError) as caught:
        load(config(calls_ahaed=1, output_tokens=-1), env={})
    assert len(caught.value.problems) == 2
    assert 'did you mean "calls_ahead"?' in str(caught.value)
    assert "multiplexer.options.output_tokens: -1, which is refused" in str(caught.value)


def test_prompts_are_estimated_only_for_modes_that_need_it() -> None:
    for mode, measured in (("lowest_cost", True), ("failover", False)):
        with Multiplexer.from_config(config(mode), env={}) as mux:
            assert mux._runtime.measures_prompts is measured
