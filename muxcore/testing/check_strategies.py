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
from muxcore.testing.histories import HISTORIES, START, CallMade, History, describe_history
from muxcore.testing.purity import watch

LONG, LONGER = 200, 2000
"""Picks after which the memory is measured, to see whether it grows."""

SPARE = 4096
"""Characters by which a memory may be larger the second time."""

Answer = tuple[Endpoint, object]


def check_strategy(make: Callable[[], Strategy], *, runs: int = 200) -> None:
    """Drive a mode through thousands of made-up calls, outcomes and clock steps.

    `make` is its factory, or what calls it with options. Raise a `FaultyPluginError`, with
    the smallest history found, if the mode raises, picks what it was not shown, is impure,
    or keeps a memory that is not plain JSON or grows without end.
    """
    search(HISTORIES, lambda history: _play(history, make), runs)
    _check_growth(make)


def _play(history: History, make: Callable[[], Strategy]) -> None:
    """Go through one history; raise at the first thing that is wrong."""
    mode = _CheckedStrategy(make, history)
    state = PoolState.of(*history.pool, policy=history.policy)
    now = START
    under_way: list[tuple[Slot, str | None]] = []
    for step in history.steps:
        now += step.passed
        mode.tell(_passed(step.passed))
        event = step.event
        if isinstance(event, CallMade):
            call = event.call(state)
            state, choice = _choose(state, mode, now, call)
            if isinstance(choice, Slot):
                mode.tell(f"a call goes to {choice.endpoint.alias}")
                under_way.append((choice, call.conversation))
        elif under_way:
            place = event.which % len(under_way)
            slot, conversation = under_way[place]
            outcome = _of_attempt(event.what, slot, conversation)
            told_of = f"attempt {slot.attempt} on {slot.endpoint.alias}"
            mode.tell(f"{told_of}: {_outcome(outcome)}")
            state = update(state, outcome, now)
            if not isinstance(outcome, Responding):
                del under_way[place]
    mode.look_back()


def _of_attempt(
    what: Responding | End, slot: Slot, conversation: str | None
) -> Responding | End:
    outcome = evolve(what, alias=slot.endpoint.alias, attempt=slot.attempt)
    if isinstance(outcome, Succeeded):
        return evolve(outcome, conversation=conversation)
    return outcome


def _choose(
    state: PoolState, mode: _CheckedStrategy, now: datetime, call: Call
) -> tuple[PoolState, object]:
    try:
        return choose(state, mode, now, call)
    except StrategyError as error:
        # The mode is asked by `_Checked`, so its own words are the cause.
        assert isinstance(error.__cause__, FaultyPluginError)  # noqa: S101, PT017
        raise error.__cause__ from None


class _CheckedStrategy:
    """A mode under test: asks the real one, more than once, and judges each answer."""

    def __init__(self, make: Callable[[], Strategy], history: History) -> None:
        self._make = make
        self._mode = make()
        self._pool = history.pool
        self._log: list[str] = []
        self._kept: list[tuple[object, str]] = []

    def tell(self, line: str) -> None:
        if line:
            self._log.append(line)

    def pick(
        self, candidates: Sequence[Candidate], memory: object, call: Call, now: datetime
    ) -> Answer:
        before = _text(memory)
        self._log.append(_question(candidates, before, call))
        watched = watch(lambda: self._mode.pick(candidates, memory, call, now))
        if watched.error is not None:
            raise self._fault(f"it raises {_named(watched.error)}")
        answer = self._judged(watched.value, candidates)
        if watched.effect:
            raise self._fault(f"it is impure: it {watched.effect}")
        if _text(memory) != before:
            text = f"it changes the memory it was given, {before} to {_text(memory)}"
            raise self._fault(f"it is impure: {text}")
        said = _describe_history(answer)
        for another, who in ((self._mode, "it"), (self._make(), "a new one")):
            again = self._again(another, candidates, before, call, now)
            if again != said:
                text = f"asked the same again, {who} answers {again} instead of {said}"
                raise self._fault(f"it is impure: {text}")
        self._kept.append((answer[1], _text(answer[1])))
        return answer

    def look_back(self) -> None:
        """See whether any memory that was handed out has changed since."""
        for memory, text in self._kept:
            if _text(memory) != text:
                changed = f"a memory it gave, {text}, became {_text(memory)} later"
                raise self._fault(f"it is impure: {changed}")

    def _judged(self, answer: object, candidates: Sequence[Candidate]) -> Answer:
        if not (isinstance(answer, tuple) and len(answer) == 2):  # noqa: PLR2004
            raise self._fault(f"it returns {answer!r}, expected (endpoint, memory)")
        endpoint, memory = answer
        shown = [candidate.endpoint for candidate in candidates]
        if endpoint not in shown:
            aliases = ", ".join(one.alias for one in shown)
            picked = (
                describe_history(endpoint)
                if isinstance(endpoint, Endpoint)
                else repr(endpoint)
            )
            raise self._fault(f"it picks a stranger: {picked}; it was shown {aliases}")
        if fault := unplain(memory):
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
        """Ask once more, with the memory as it comes back from where states are stored."""
        try:
            return _describe_history(
                mode.pick(tuple(candidates), json.loads(memory), call, now)
            )
        except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything
            return _named(error)

    def _fault(self, text: str) -> FaultyPluginError:
        name = f"{type(self._mode).__module__}.{type(self._mode).__qualname__}"
        pool = ", ".join(map(describe_history, self._pool))
        steps = [f"  {number}. {line}" for number, line in enumerate(self._log, start=1)]
        lines = [f"{name}: {text}", f"with the pool {pool}, after", *steps]
        return FaultyPluginError("\n".join(lines))


def unplain(value: object, where: str = "memory", depth: int = 100) -> str:
    """Say what in `value` JSON does not give back as it was; "" if nothing."""
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
                return f"{where} has the key {name!r}, and JSON's are text"
            members.append((f"{where}[{name!r}]", member))
    elif type(value) is list:
        members = [(f"{where}[{place}]", member) for place, member in enumerate(value)]
    else:
        return f"{where} is a {type(value).__name__}: {value!r}"
    faults = (unplain(member, place, depth - 1) for place, member in members)
    return next(filter(None, faults), "")


def _check_growth(make: Callable[[], Strategy]) -> None:
    """Give many calls to a small pool: what is kept of them must have an end."""
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
            sizes.append(len(_text(state.memory)))
    first, second = sizes
    if second > 2 * first + SPARE:
        text = (
            f"its memory has {first} characters after {LONG} picks, {second} after {LONGER}"
        )
        raise FaultyPluginError(
            f"{type(mode).__qualname__}: {text}, so it grows without end"
        )


def _text(memory: object) -> str:
    return json.dumps(memory, sort_keys=True, default=repr)


def _describe_history(answer: object) -> str:
    """Write an answer so that two that are the same are the same text."""
    if isinstance(answer, tuple) and answer and isinstance(answer[0], Endpoint):
        return f"{answer[0].alias}, memory {_text(answer[1:])[1:-1]}"
    return repr(answer)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _passed(passed: timedelta) -> str:
    if not passed:
        return ""
    seconds = passed.total_seconds()
    return f"{seconds:g} s pass" if seconds > 0 else f"the clock is set back {-seconds:g} s"


def _outcome(outcome: Outcome) -> str:
    kind = getattr(outcome, "kind", "")
    return f"{type(outcome).__name__}{f' ({kind})' if kind else ''}"


def _question(candidates: Sequence[Candidate], memory: str, call: Call) -> str:
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
