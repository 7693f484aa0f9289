"""`check_strategy`: whether a mode keeps what the core relies on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from attrs import evolve

from muxcore.core.outcomes import End, Outcome, Responding, Succeeded
from muxcore.core.protocol import Slot, choose
from muxcore.core.records import Call, Candidate, Endpoint, PoolState
from muxcore.core.strategy import Strategy
from muxcore.core.updating import update
from muxcore.errors import StrategyError
from muxcore.testing.faults import FaultyPluginError, search
from muxcore.testing.histories import HISTORIES, START, CallMade, History, describe_endpoint
from muxcore.testing.purity import trace

LONG, LONGER = 200, 2000
"""Picks after which the memory is measured, to see whether it grows."""

SPARE = 4096
"""Characters by which a memory may be larger the second time."""

Answer = tuple[Endpoint, object]


def check_strategy(make: Callable[[], Strategy], *, runs: int = 200) -> None:
    """Drive a mode through thousands of generated calls, outcomes and clock steps.

    `make` is its factory, or a function that calls it with options. Raise a
    `FaultyPluginError`, with the smallest history found, if the mode raises, picks an
    endpoint that it was not shown, is impure, or returns a memory that is not plain JSON or
    that grows without end.
    """
    search(HISTORIES, lambda history: _play(history, make), runs)
    _check_growth(make)


def _play(history: History, make: Callable[[], Strategy]) -> None:
    """Play one history; raise at the first fault."""
    mode = _CheckedStrategy(make, history)
    state = PoolState.of(*history.pool, policy=history.policy)
    now = START
    under_way: list[tuple[Slot, str | None]] = []
    for step in history.steps:
        now += step.passed
        mode.log(_describe_passed(step.passed))
        event = step.event
        if isinstance(event, CallMade):
            call = event.call(state)
            state, choice = _choose(state, mode, now, call)
            if isinstance(choice, Slot):
                mode.log(f"a call goes to {choice.endpoint.alias}")
                under_way.append((choice, call.conversation))
        elif under_way:
            place = event.which % len(under_way)
            slot, conversation = under_way[place]
            outcome = _outcome_of(event.outcome, slot, conversation)
            attempt = f"attempt {slot.attempt} on {slot.endpoint.alias}"
            mode.log(f"{attempt}: {_describe_outcome(outcome)}")
            state = update(state, outcome, now)
            if not isinstance(outcome, Responding):
                del under_way[place]
    mode.check_old_memories()


def _outcome_of(
    template: Responding | End, slot: Slot, conversation: str | None
) -> Responding | End:
    outcome = evolve(template, alias=slot.endpoint.alias, attempt=slot.attempt)
    if isinstance(outcome, Succeeded):
        return evolve(outcome, conversation=conversation)
    return outcome


def _choose(
    state: PoolState, mode: _CheckedStrategy, now: datetime, call: Call
) -> tuple[PoolState, object]:
    try:
        return choose(state, mode, now, call)
    except StrategyError as error:
        # `_CheckedStrategy` raises the cause, which has the details.
        assert isinstance(error.__cause__, FaultyPluginError)  # noqa: S101, PT017
        raise error.__cause__ from None


class _CheckedStrategy:
    """A mode under test: asks it more than once, and judges each answer."""

    def __init__(self, make: Callable[[], Strategy], history: History) -> None:
        self._make = make
        self._mode = make()
        self._pool = history.pool
        self._log: list[str] = []
        self._returned: list[tuple[object, str]] = []

    def log(self, line: str) -> None:
        if line:
            self._log.append(line)

    def pick(
        self, candidates: Sequence[Candidate], memory: object, call: Call, now: datetime
    ) -> Answer:
        before = _dump(memory)
        self._log.append(_describe_question(candidates, before, call))
        traced = trace(lambda: self._mode.pick(candidates, memory, call, now))
        if traced.error is not None:
            raise self._fault(f"it raises {_describe_error(traced.error)}")
        answer = self._judge(traced.value, candidates)
        if traced.effect:
            raise self._fault(f"it is impure: it {traced.effect}")
        if _dump(memory) != before:
            text = f"it changes the memory it was given, {before} to {_dump(memory)}"
            raise self._fault(f"it is impure: {text}")
        text = _describe_answer(answer)
        for another, name in ((self._mode, "it"), (self._make(), "a new one")):
            again = self._again(another, candidates, before, call, now)
            if again != text:
                changed = f"asked the same again, {name} answers {again} instead of {text}"
                raise self._fault(f"it is impure: {changed}")
        self._returned.append((answer[1], _dump(answer[1])))
        return answer

    def check_old_memories(self) -> None:
        """Check that no memory has changed since the mode returned it."""
        for memory, text in self._returned:
            if _dump(memory) != text:
                changed = f"a memory it returned, {text}, became {_dump(memory)} later"
                raise self._fault(f"it is impure: {changed}")

    def _judge(self, answer: object, candidates: Sequence[Candidate]) -> Answer:
        if not (isinstance(answer, tuple) and len(answer) == 2):  # noqa: PLR2004
            raise self._fault(f"it returns {answer!r}, expected (endpoint, memory)")
        endpoint, memory = answer
        shown = [candidate.endpoint for candidate in candidates]
        if endpoint not in shown:
            aliases = ", ".join(one.alias for one in shown)
            picked = (
                describe_endpoint(endpoint)
                if isinstance(endpoint, Endpoint)
                else repr(endpoint)
            )
            text = f"it picks {picked}, which it was not shown; it was shown {aliases}"
            raise self._fault(text)
        if fault := fault_of_json(memory):
            raise self._fault(f"its memory is not plain JSON: {fault}")
        return endpoint, memory

    def _again(
        self,
        mode: Strategy,
        candidates: Sequence[Candidate],
        memory: str,
        call: Call,
        now: datetime,
    ) -> str:
        """Ask once more, with the memory as it is after being stored and read back."""
        try:
            return _describe_answer(
                mode.pick(tuple(candidates), json.loads(memory), call, now)
            )
        except Exception as error:  # noqa: BLE001 - a plugin's code may raise anything
            return _describe_error(error)

    def _fault(self, text: str) -> FaultyPluginError:
        name = f"{type(self._mode).__module__}.{type(self._mode).__qualname__}"
        pool = ", ".join(map(describe_endpoint, self._pool))
        steps = [f"  {number}. {line}" for number, line in enumerate(self._log, start=1)]
        lines = [f"{name}: {text}", f"with the pool {pool}, after", *steps]
        return FaultyPluginError("\n".join(lines))


def fault_of_json(value: object, where: str = "memory", depth: int = 100) -> str:
    """Say which part of `value` a round trip through JSON would change; "" if none."""
    if depth == 0:
        return f"{where} is nested too deeply"
    if value is None or type(value) in {bool, int, str}:
        return ""
    if type(value) is float:
        return "" if math.isfinite(value) else f"{where} is {value}"
    members: list[tuple[str, object]] = []
    if type(value) is dict:
        for name, member in value.items():
            if type(name) is not str:
                return f"{where} has the key {name!r}, expected text"
            members.append((f"{where}[{name!r}]", member))
    elif type(value) is list:
        members = [(f"{where}[{place}]", member) for place, member in enumerate(value)]
    else:
        return f"{where} is a {type(value).__name__}: {value!r}"
    faults = (fault_of_json(member, place, depth - 1) for place, member in members)
    return next(filter(None, faults), "")


def _check_growth(make: Callable[[], Strategy]) -> None:
    """Give many calls to a small pool, and check that the memory stays bounded."""
    mode = make()
    state = PoolState.of(Endpoint("a"), Endpoint("b", weight=2))
    sizes = []
    for number in range(1, LONGER + 1):
        now = START + timedelta(seconds=number)
        try:
            call = Call(conversation=f"conversation {number}")
            state, choice = choose(state, mode, now, call)
        except StrategyError as error:
            raise FaultyPluginError(f"{error} at the pick {number} of two models") from None
        assert isinstance(choice, Slot)  # noqa: S101 - nothing fails here
        outcome = Succeeded(
            choice.endpoint.alias, choice.attempt, after=timedelta(seconds=1)
        )
        state = update(state, outcome, now)
        if number in {LONG, LONGER}:
            sizes.append(len(_dump(state.memory)))
    first, second = sizes
    if second > 2 * first + SPARE:
        text = (
            f"its memory has {first} characters after {LONG} picks, {second} after {LONGER}"
        )
        raise FaultyPluginError(
            f"{type(mode).__qualname__}: {text}, so it grows without end"
        )


def _dump(memory: object) -> str:
    return json.dumps(memory, sort_keys=True, default=repr)


def _describe_answer(answer: object) -> str:
    """Describe an answer so that equal answers have equal texts."""
    if isinstance(answer, tuple) and answer and isinstance(answer[0], Endpoint):
        return f"{answer[0].alias}, memory {_dump(answer[1:])[1:-1]}"
    return repr(answer)


def _describe_error(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _describe_passed(passed: timedelta) -> str:
    if not passed:
        return ""
    seconds = passed.total_seconds()
    return f"{seconds:g} s pass" if seconds > 0 else f"the clock is set back {-seconds:g} s"


def _describe_outcome(outcome: Outcome) -> str:
    kind = getattr(outcome, "kind", "")
    return f"{type(outcome).__name__}{f' ({kind})' if kind else ''}"


def _describe_question(candidates: Sequence[Candidate], memory: str, call: Call) -> str:
    shown = ", ".join(candidate.endpoint.alias for candidate in candidates)
    facts = [
        f"{name}={value!r}"
        for name, value in (
            ("conversation", call.conversation),
            ("prompt_tokens", call.prompt_tokens),
            ("tried", call.tried),
        )
        if value
    ]
    return f"pick([{shown}], memory={memory}, Call({', '.join(facts)}))"
