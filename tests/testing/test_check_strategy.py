"""`check_strategy` finds each kind of fault that a mode may have, with its smallest case."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from muxcore.core.records import Endpoint
from muxcore.testing import FaultyPluginError, check_strategy
from muxcore.testing.check_strategies import fault_of_json

Pick = Callable[..., Any]
COUNTED = [0]


def mode(pick: Pick) -> Callable[[], Any]:
    """Make the factory of a mode with state of its own."""

    class Planted:
        def __init__(self) -> None:
            self.count = 0
            self.seen: list[Any] = []

        def pick(self, candidates: Any, memory: Any, call: Any, now: Any) -> Any:
            return pick(self, candidates, memory, call, now)

    return Planted


def fault_found(pick: Pick) -> str:
    with pytest.raises(FaultyPluginError) as caught:
        check_strategy(mode(pick))
    return str(caught.value)


def raises(self: Any, shown: Any, memory: Any, call: Any, now: Any) -> Any:
    return shown[1 if call.tried else 0].endpoint, memory


def picks_an_endpoint_it_was_not_shown(
    self: Any, shown: Any, memory: Any, call: Any, now: Any
) -> Any:
    return (shown[0].endpoint if len(shown) > 1 else Endpoint("unknown")), memory


def picks_one_it_was_shown_before(
    self: Any, shown: Any, memory: Any, call: Any, now: Any
) -> Any:
    self.seen.append(shown[0].endpoint)
    return self.seen[0], memory


def picks_an_alias(self: Any, shown: Any, memory: Any, call: Any, now: Any) -> Any:
    return shown[0].endpoint.alias, memory


def returns_no_memory(self: Any, shown: Any, memory: Any, call: Any, now: Any) -> Any:
    return shown[0].endpoint


def remembers_a_set(self: Any, shown: Any, memory: Any, call: Any, now: Any) -> Any:
    return shown[0].endpoint, {"tried": set(call.tried)}


def remembers_a_time(self: Any, shown: Any, memory: Any, call: Any, now: Any) -> Any:
    return shown[0].endpoint, [{"at": now}]


def depends_on_its_own_count(
    self: Any, shown: Any, memory: Any, call: Any, now: Any
) -> Any:
    self.count += 1
    return shown[self.count % len(shown)].endpoint, memory


def depends_on_its_own_count_slowly(
    self: Any, shown: Any, memory: Any, call: Any, now: Any
) -> Any:
    self.count += 1
    return shown[0 if self.count % 9 else -1].endpoint, memory


def rolls_dice(self: Any, shown: Any, memory: Any, call: Any, now: Any) -> Any:
    return random.choice(shown).endpoint, memory


def reads_the_clock(self: Any, shown: Any, memory: Any, call: Any, now: Any) -> Any:
    late = datetime.now(now.tzinfo) < now
    return shown[-1 if late else 0].endpoint, memory


def reads_the_clock_under_another_name(
    self: Any, shown: Any, memory: Any, call: Any, now: Any
) -> Any:
    return shown[int(time.monotonic()) * 0].endpoint, memory


def prints(self: Any, shown: Any, memory: Any, call: Any, now: Any) -> Any:
    print("picking", end="")
    return shown[0].endpoint, memory


def changes_its_memory(self: Any, shown: Any, memory: Any, call: Any, now: Any) -> Any:
    kept = memory or {"picks": 0}
    kept["picks"] += 1
    return shown[0].endpoint, kept


def changes_an_old_memory(self: Any, shown: Any, memory: Any, call: Any, now: Any) -> Any:
    # Only what it returned before, never what it is given: that would be found at once.
    kept = {"picks": 0}
    for old in self.seen[:-3]:
        old["picks"] += 1
    self.seen.append(kept)
    return shown[0].endpoint, kept


def depends_on_identity(self: Any, shown: Any, memory: Any, call: Any, now: Any) -> Any:
    """Differ only once the memory has been stored and read back."""
    kept = memory or ["a list"]
    again = any(memory is old for old in self.seen)
    self.seen.append(kept)
    return shown[0 if again or memory is None else -1].endpoint, kept


def depends_on_a_global(self: Any, shown: Any, memory: Any, call: Any, now: Any) -> Any:
    COUNTED[0] += 1
    return shown[COUNTED[0] % 7 % len(shown)].endpoint, memory


def raises_the_second_time(self: Any, shown: Any, memory: Any, call: Any, now: Any) -> Any:
    self.count += 1
    if self.count % 2 == 0:
        raise RuntimeError("again?")
    return shown[0].endpoint, memory


def answers_oddly_the_second_time(
    self: Any, shown: Any, memory: Any, call: Any, now: Any
) -> Any:
    self.count += 1
    return (shown[0].endpoint, memory) if self.count % 2 else None


def keeps_every_conversation(
    self: Any, shown: Any, memory: Any, call: Any, now: Any
) -> Any:
    return shown[0].endpoint, [*(memory or []), call.conversation]


def raises_after_many_picks(self: Any, shown: Any, memory: Any, call: Any, now: Any) -> Any:
    picks = (memory or 0) + 1
    if picks > 300:
        raise OverflowError("so many")
    return shown[0].endpoint, picks


PLANTED: dict[Pick, str] = {
    raises_after_many_picks: "OverflowError: so many at the pick 301 of two models",
    raises: "it raises IndexError: tuple index out of range",
    picks_an_endpoint_it_was_not_shown: "it picks unknown, which it was not shown; it was shown a",
    picks_one_it_was_shown_before: ", which it was not shown; it was shown ",
    picks_an_alias: "it picks 'a', which it was not shown; it was shown a",
    returns_no_memory: "expected (endpoint, memory)",
    remembers_a_set: "its memory is not plain JSON: memory['tried'] is a set: set()",
    remembers_a_time: "its memory is not plain JSON: memory[0]['at'] is a datetime",
    depends_on_its_own_count: "it is impure: asked the same again, it answers",
    depends_on_its_own_count_slowly: "it is impure: asked the same again, ",
    rolls_dice: "it is impure: it rolls dice (Random.",
    reads_the_clock: "it is impure: it reads the clock (datetime.now)",
    reads_the_clock_under_another_name: "it is impure: it reads the clock (time.monotonic)",
    prints: "it is impure: it prints",
    changes_its_memory: "it is impure: it changes the memory it was given, ",
    changes_an_old_memory: "it is impure: a memory it returned, ",
    depends_on_identity: "it is impure: asked the same again, ",
    depends_on_a_global: "it is impure: asked the same again, ",
    raises_the_second_time: "it answers RuntimeError: again? instead of a, memory null",
    answers_oddly_the_second_time: "it answers None instead of a, memory null",
    keeps_every_conversation: "characters after 200 picks, 40893 after 2000, so it grows without",
}


@pytest.mark.unmeasured
@pytest.mark.parametrize("pick", PLANTED, ids=lambda pick: pick.__name__)
def test_a_planted_fault_is_found(pick: Pick) -> None:
    assert PLANTED[pick] in fault_found(pick)


def test_the_case_is_the_smallest_one() -> None:
    """Two models and one call are enough, so no more are shown."""

    def avoids_the_first(self: Any, shown: Any, memory: Any, call: Any, now: Any) -> Any:
        return (shown[0].endpoint if len(shown) < 2 else Endpoint("x", weight=2)), memory

    name = __name__
    assert fault_found(avoids_the_first).splitlines() == [
        f"{name}.mode.<locals>.Planted: it picks x (weight 2), which it was not shown; it was shown a, b",
        "with the pool a, b, after",
        "  1. pick([a, b], memory=null, Call())",
    ]


@pytest.mark.unmeasured
def test_the_case_shows_the_steps_before_it() -> None:
    def fails_after_a_limit(self: Any, shown: Any, memory: Any, call: Any, now: Any) -> Any:
        if any(one.tally.rate_limited for one in shown):
            raise ValueError("limited")
        return shown[0].endpoint, memory

    lines = fault_found(fails_after_a_limit).splitlines()
    assert "it raises ValueError: limited" in lines[0]
    assert any("attempt 1 on a: RateLimited (rate limited)" in line for line in lines)
    assert any(line.endswith(" s pass") for line in lines)
    # At most 40 steps are made up; hypothesis may stop at a case that is not the smallest.
    assert len(lines) <= 20


@pytest.mark.unmeasured
def test_the_same_case_every_time() -> None:
    assert fault_found(depends_on_its_own_count) == fault_found(depends_on_its_own_count)


def test_a_fault_that_occurs_only_once_is_reported() -> None:
    raised: list[object] = []

    def fails_once(self: Any, shown: Any, memory: Any, call: Any, now: Any) -> Any:
        if len(shown) > 1 and not raised:
            raised.append(shown)
            raise ValueError("never again")
        return shown[0].endpoint, memory

    text = fault_found(fails_once)
    assert "it raises ValueError: never again" in text
    assert text.endswith("(but not each time: it is not a function of what it is shown)")


def test_an_error_of_the_factory_is_raised_as_it_is() -> None:
    def broken() -> Any:
        raise RuntimeError("no such luck")

    with pytest.raises(RuntimeError, match="no such luck"):
        check_strategy(broken)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (None, ""),
        ({"a": [1, 2.5, "text", True, None, {}]}, ""),
        ((1,), "memory is a tuple: (1,)"),
        ({1: 2}, "memory has the key 1, expected text"),
        ([[float("nan")]], "memory[0][0] is nan"),
        ({"a": {"b": b""}}, "memory['a']['b'] is a bytes: b''"),
    ],
)
def test_a_value_that_json_changes_is_a_fault(value: object, fault: str) -> None:
    assert fault_of_json(value) == fault


def test_a_list_that_contains_itself_is_a_fault() -> None:
    knot: list[object] = []
    knot.append(knot)
    assert fault_of_json(knot).endswith("is nested too deeply")
