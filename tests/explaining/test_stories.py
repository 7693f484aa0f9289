"""The story of a call, in words that need no knowledge of the code."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from attrs import evolve

from muxcore.core.outcomes import (
    Cancelled,
    CancelReason,
    Failed,
    Fault,
    Limit,
    RateLimited,
    Refusal,
    Rejected,
    Started,
    Succeeded,
)
from muxcore.core.protocol import Slot
from muxcore.core.records import Call, Endpoint, Policy
from muxcore.explaining.stories import stories
from muxcore.explaining.story import Story, story_json
from muxcore.shell.pool.waiter import Waiter
from tests.explaining.recording import Answers, Recording

LARGE = Endpoint("large", input_price=2.0, output_price=6.0, cached_input_price=0.5)
SMALL = Endpoint("small", is_fallback=True)


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    if hasattr(time, "tzset"):
        time.tzset()
    yield
    monkeypatch.undo()
    if hasattr(time, "tzset"):
        time.tzset()


def served(tokens_in: int = 0, cached: int = 0, out: int = 0) -> Answers:
    def answer(slot: Slot) -> Succeeded:
        alias, first = slot.endpoint.alias, timedelta(seconds=1)
        return Succeeded(alias, slot.attempt, tokens_in, cached, out, first)

    return answer


def limited(seconds: float | None = None, text: str = "") -> Answers:
    hint = None if seconds is None else timedelta(seconds=seconds)
    return lambda slot: RateLimited(
        slot.endpoint.alias, slot.attempt, Limit.RATE, hint, text
    )


def failed(kind: Fault = Fault.TRANSIENT) -> Answers:
    return lambda slot: Failed(slot.endpoint.alias, slot.attempt, kind)


def refused(kind: Refusal = Refusal.REQUEST, window: int | None = None) -> Answers:
    return lambda slot: Rejected(slot.endpoint.alias, slot.attempt, kind, window, "SECRET")


def told(recording: Recording, call_id: str) -> str:
    (story,) = [s for s in stories(recording.journal()) if s.call_id == call_id]
    return re.sub(r"[0-9a-f]{8}-", "call-", str(story))


def test_a_call_that_is_served_at_once() -> None:
    recording = Recording(LARGE, SMALL)
    call = recording.call(
        (3.2, served(12_400, 11_284, 340)), call=Call(prompt_tokens=12_000)
    )
    assert told(recording, call) == (
        "Call call-1, 2026-03-01 12:00:00, about 12k tokens: served by large in 3.2 s\n"
        "  12:00:00.000  asked large: the choice of the mode failover\n"
        "                small is open, but a fallback\n"
        "  12:00:03.200  large: answered after 3.2 s, the first content after 1.0 s;"
        " 12k tokens in (91% cached), 340 out, $0.0099"
    )


def test_a_switch_and_why_the_next_call_is_not_back() -> None:
    recording = Recording(LARGE, SMALL)
    switched = recording.call((0.9, limited(90, "Slow down")), (2.5, served(10, 0, 5)))
    recording.seconds = 20
    later = recording.call((1.5, served(10, 0, 5)))
    assert told(recording, switched) == (
        "Call call-1, 2026-03-01 12:00:00: served by small in 3.4 s\n"
        "  12:00:00.000  asked large: the choice of the mode failover\n"
        "                small is open, but a fallback\n"
        "  12:00:00.900  large: rate limited after 900 ms, its server asks for 90.0 s: Slow down\n"
        "                large is disabled until 12:01:30\n"
        "  12:00:00.900  asked small: no primary can serve\n"
        "                large was tried in this call, and is disabled until 12:01:30"
        " (rate limited)\n"
        "  12:00:03.400  small: answered after 2.5 s, the first content after 1.0 s;"
        " 10 tokens in, 5 out\n"
        "  In all: 2 attempts"
    )
    assert "large is disabled until 12:01:30 (rate limited)" in told(recording, later)


def test_a_call_that_waits_for_a_model_says_for_what_and_how_long() -> None:
    recording = Recording(LARGE, policy=Policy(max_wait=timedelta(seconds=30)))
    call = recording.call((0.5, limited(10)), (1.0, served(10, 0, 5)))
    assert told(recording, call).splitlines()[3:] == [
        "                large is disabled until 12:01:00",
        (
            "  12:00:00.500  waits until 12:00:10 at the latest: every model that could serve"
            " is disabled"
        ),
        (
            "                large was tried in this call, and is disabled until 12:01:00"
            " (rate limited)"
        ),
        "  12:00:10.500  asked large: the last resort, as nobody else can serve",
        "  12:00:11.500  large: answered after 1.0 s; 10 tokens in, 5 out, less than $0.0001",
        "  In all: 2 attempts, 10.0 s of waiting, less than $0.0001",
    ]


def test_a_call_waits_for_a_busy_primary_before_it_goes_to_a_fallback() -> None:
    recording = Recording(evolve(LARGE, max_concurrent=1), SMALL)
    recording.pool.choose(Call(), Waiter())
    call = recording.call((1.0, served()))
    lines = told(recording, call).splitlines()
    assert lines[1].endswith("at the latest: every primary that could serve is busy")
    assert "large has as many calls under way as its max_concurrent allows" in lines[2]
    assert "small is open, but a fallback" in lines[3]
    assert lines[4].endswith("asked small: no primary can serve")


def test_a_call_that_no_model_can_serve() -> None:
    recording = Recording(LARGE, SMALL, policy=Policy(max_wait=timedelta()))
    call = recording.call((0.1, failed(Fault.AUTH)), (0.1, limited(60)))
    lines = told(recording, call).splitlines()
    assert lines[0].endswith("no model could serve it after 200 ms")
    assert lines[-4].endswith(
        "gave up: every model that could serve is disabled; one may be tried at 12:00:15"
    )


def test_a_refusal_that_another_model_proves_wrong() -> None:
    recording = Recording(LARGE, SMALL)
    call = recording.call((0.1, refused()), (1.0, served()))
    text = told(recording, call)
    assert "large: request refused after 100 ms\n" in text
    assert "asked small: another model refused it\n" in text
    assert "small took what large had refused, so large was wrong\n" in text
    assert "SECRET" not in text


def test_a_prompt_that_is_too_long_for_a_model() -> None:
    recording = Recording(Endpoint("narrow", context_window=8_000), LARGE)
    call = recording.call((1.0, served()), call=Call(prompt_tokens=20_000))
    assert "narrow is too small for the prompt: 8k tokens" in told(recording, call)


def test_a_turn_stays_on_its_model() -> None:
    recording = Recording(LARGE, SMALL)
    turn = Call(conversation="s", new_turn=False)
    recording.call((0.1, limited(5)), (1.0, served()), call=Call(conversation="s"))
    recording.seconds = 70
    call = recording.call((1.0, served()), call=turn)
    text = told(recording, call)
    assert "asked small: this turn of the conversation is there\n" in text
    assert "large is open, too" in text


def test_a_caller_that_leaves_and_one_that_asks_for_one_model() -> None:
    recording = Recording(LARGE, SMALL)

    def leave(slot: Slot) -> Cancelled:
        return Cancelled(slot.endpoint.alias, slot.attempt, CancelReason.LEFT)

    call = recording.call((2.0, leave), call=Call(only="small"))
    text = told(recording, call)
    assert text.startswith("Call call-1, 2026-03-01 12:00:00, for small alone: cancelled")
    assert "asked small: the caller asked for it" in text
    assert "large is not what the caller asked for" in text
    assert "small: cancelled (the caller left) after 2.0 s" in text


def test_a_call_that_has_not_ended_is_a_story_too() -> None:
    recording = Recording(LARGE)
    recording.call((1.0, served()))
    journal = recording.journal()
    begun = [line for line in journal.lines if not isinstance(line.entry, Succeeded)][:2]
    assert isinstance(begun[1].entry, Started)
    (story,) = stories(type(journal)(journal.base, begun))
    assert story.result is None
    assert "it has not ended, as far as the journal goes" in str(story)


def test_the_story_for_programs_has_the_same_facts() -> None:
    recording = Recording(LARGE, SMALL)
    recording.call((0.5, limited(90)), (2.0, served(100, 50, 7)))
    (story,) = stories(recording.journal())
    plain = story_json(story)
    assert plain["result"] == "served"
    assert plain["served_by"] == "small"
    assert [step["type"] for step in plain["steps"]] == [
        "ModelAsked",
        "ModelAnswered",
    ] * 2
    assert plain["steps"][1]["took"] == 0.5
    assert plain["steps"][1]["disabled_until"] == "2026-03-01T12:01:30.500000+00:00"
    assert plain["steps"][3]["tokens_cached"] == 50


@pytest.mark.parametrize(("alias", "concerned"), [("large", True), ("small", False)])
def test_a_story_concerns_the_models_that_were_asked_or_could_not_be(
    alias: str, concerned: bool
) -> None:
    recording = Recording(LARGE, SMALL)
    recording.call((1.0, served()))
    (story,) = stories(recording.journal())
    assert isinstance(story, Story)
    assert story.concerns(alias) is concerned
