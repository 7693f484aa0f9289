"""The story of each call: who was asked and why, who was passed over, what came, what it cost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import assert_never

from attrs import define, field

from muxcore.core.entries import Asked, CallResult, Chosen, Ended, Entry
from muxcore.core.outcomes import (
    Cancelled,
    End,
    Failed,
    RateLimited,
    Refuted,
    Rejected,
    Responding,
    Started,
    Succeeded,
)
from muxcore.core.records import Call, Exhausted, PoolState, Wait
from muxcore.explaining.folding import fold
from muxcore.explaining.steps import (
    Alternatives,
    CallWaited,
    ModelAnswered,
    ModelAsked,
    NobodyLeft,
    ProvedWrong,
    StoryStep,
)
from muxcore.explaining.story import Story
from muxcore.journal.recent import Journal


def stories(journal: Journal) -> Iterator[Story]:
    """Yield the story of each call that began in this journal, in the order of their ends.

    Those that have not ended come last.
    """
    reader = StoryReader()
    for folded in fold(journal):
        _, now, entry = folded.line
        story = reader.read(now, entry, folded.before, folded.after)
        if story is not None:
            yield story
    for open_call in reader.calls.values():
        yield open_call.story(None, None)


@define
class _CallUnderWay:
    """A call under way in the journal."""

    asked: Asked
    began: datetime
    call: Call
    steps: list[StoryStep] = field(factory=list)
    attempts: set[int] = field(factory=set)

    def story(self, ended: datetime | None, result: CallResult | None) -> Story:
        asked = self.asked
        call_id = asked.id or str(asked.number)
        steps = tuple(self.steps)
        return Story(call_id, self.began, asked.mode, asked.call, steps, ended, result)


@define
class _AttemptUnderWay:
    """An attempt under way."""

    call: _CallUnderWay
    since: datetime
    first_content: timedelta | None = None


@define
class StoryReader:
    """Reads a journal entry by entry, and returns each story when its call has ended."""

    calls: dict[int, _CallUnderWay] = field(factory=dict)
    attempts: dict[int, _AttemptUnderWay] = field(factory=dict)
    """By the number of the attempt."""

    def read(
        self, now: datetime, entry: Entry, before: PoolState, after: PoolState
    ) -> Story | None:
        """Read one entry, with the states around it; return the story that it ends."""
        match entry:
            case Asked():
                self.calls[entry.number] = _CallUnderWay(entry, now, entry.call)
            case Chosen() if entry.number in self.calls:
                _choose(self.calls[entry.number], entry, before, now)
            case Started(call=int(number)) if number in self.calls:
                self._start(self.calls[number], entry, before, now, after.attempts)
            case Responding() if entry.attempt in self.attempts:
                self.attempts[entry.attempt].first_content = entry.after
            case Succeeded() | RateLimited() | Failed() | Rejected() | Cancelled():
                attempt = self.attempts.pop(entry.attempt, None)
                if attempt is not None:
                    attempt.call.steps.append(_answered(entry, attempt, now, before, after))
            case Refuted():
                self._refute(entry, now)
            case Ended() if entry.number in self.calls:
                return self.calls.pop(entry.number).story(now, entry.result)
        return None

    def _start(
        self,
        open_call: _CallUnderWay,
        started: Started,
        state: PoolState,
        now: datetime,
        attempt: int,
    ) -> None:
        alias = started.alias
        others = Alternatives(state, open_call.call, now, alias)
        open_call.steps.append(ModelAsked(now, alias, started.reason, others))
        open_call.attempts.add(attempt)
        self.attempts[attempt] = _AttemptUnderWay(open_call, now)

    def _refute(self, refuted: Refuted, now: datetime) -> None:
        for open_call in self.calls.values():
            if refuted.attempt in open_call.attempts:
                open_call.steps.append(ProvedWrong(now, refuted.alias, refuted.by))


def _choose(
    open_call: _CallUnderWay, chosen: Chosen, state: PoolState, now: datetime
) -> None:
    open_call.call, others = chosen.call, Alternatives(state, chosen.call, now)
    match chosen.choice:
        case Wait(until=until, reason=reason):
            open_call.steps.append(CallWaited(now, until, reason, others))
        case Exhausted(retry_at=retry_at, reason=reason):
            open_call.steps.append(NobodyLeft(now, retry_at, reason, others))


def _answered(
    outcome: End,
    attempt: _AttemptUnderWay,
    now: datetime,
    before: PoolState,
    after: PoolState,
) -> ModelAnswered:
    alias, took = outcome.alias, now - attempt.since
    match outcome:
        case Succeeded(tokens_in=read, tokens_cached=cached, tokens_out=written):
            first = outcome.after or attempt.first_content
            candidate = before.find(alias)
            cost = 0.0
            if candidate is not None:
                cost = candidate.endpoint.cost_of(read, cached, written)
            return ModelAnswered(
                now, alias, "answered", took, first, "", read, cached, written, cost
            )
        case Cancelled(reason=reason):
            return ModelAnswered(now, alias, f"cancelled ({reason})", took)
        case RateLimited() | Failed() | Rejected():
            return ModelAnswered(
                now,
                alias,
                str(outcome.kind),
                took,
                attempt.first_content,
                outcome.message,
                disabled_until=_disabled_until(alias, now, before, after),
                asked_for=None if isinstance(outcome, Rejected) else outcome.hint,
            )
        case _ as never:
            assert_never(never)


def _disabled_until(
    alias: str, now: datetime, before: PoolState, after: PoolState
) -> datetime | None:
    """Return the end of the cooldown which this entry began or lengthened."""
    candidate, former = after.find(alias), before.find(alias)
    if candidate is None:
        return None
    cooldown = candidate.health.active_cooldown(now)
    known = () if former is None else former.health.cooldowns
    return None if cooldown is None or cooldown in known else cooldown.until
