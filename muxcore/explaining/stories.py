"""The story of each call: who was asked and why, who was passed over, what came, what it cost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import assert_never

from attrs import define, field

from muxcore.core.entries import Asked, CallResult, Chosen, Ended
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
from muxcore.core.selection import explain
from muxcore.explaining.folding import FoldedLine, fold
from muxcore.explaining.steps import (
    CallWaited,
    ModelAnswered,
    ModelAsked,
    NobodyLeft,
    PassedOver,
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
        story = reader.read(folded)
        if story is not None:
            yield story
    for opened in reader.opened.values():
        yield opened.story(None, None)


@define
class _Opened:
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
class _Tried:
    """An attempt under way."""

    opened: _Opened
    since: datetime
    first_content: timedelta | None = None


@define
class StoryReader:
    """Reads a journal line by line, and returns each story when its call has ended."""

    opened: dict[int, _Opened] = field(factory=dict)
    tried: dict[int, _Tried] = field(factory=dict)
    """By the number of the attempt."""

    def read(self, folded: FoldedLine) -> Story | None:
        """Read one line; return the story that it ends."""
        _, now, entry = folded.line
        match entry:
            case Asked():
                self.opened[entry.number] = _Opened(entry, now, entry.call)
            case Chosen() if entry.number in self.opened:
                _choose(self.opened[entry.number], entry, folded.before, now)
            case Started(call=int(number)) if number in self.opened:
                self._start(self.opened[number], entry, folded)
            case Responding() if entry.attempt in self.tried:
                self.tried[entry.attempt].first_content = entry.after
            case Succeeded() | RateLimited() | Failed() | Rejected() | Cancelled():
                tried = self.tried.pop(entry.attempt, None)
                if tried is not None:
                    tried.opened.steps.append(_answered(entry, tried, folded))
            case Refuted():
                self._refute(entry, now)
            case Ended() if entry.number in self.opened:
                return self.opened.pop(entry.number).story(now, entry.result)
        return None

    def _start(self, opened: _Opened, started: Started, folded: FoldedLine) -> None:
        now, alias, attempt = folded.line.now, started.alias, folded.after.attempts
        others = _others(folded.before, now, opened.call, alias)
        opened.steps.append(ModelAsked(now, alias, started.reason, others))
        opened.attempts.add(attempt)
        self.tried[attempt] = _Tried(opened, now)

    def _refute(self, refuted: Refuted, now: datetime) -> None:
        for opened in self.opened.values():
            if refuted.attempt in opened.attempts:
                opened.steps.append(ProvedWrong(now, refuted.alias, refuted.by))


def _choose(opened: _Opened, chosen: Chosen, state: PoolState, now: datetime) -> None:
    opened.call, others = chosen.call, _others(state, now, chosen.call)
    match chosen.choice:
        case Wait(until=until, reason=reason):
            opened.steps.append(CallWaited(now, until, reason, others))
        case Exhausted(retry_at=retry_at, reason=reason):
            opened.steps.append(NobodyLeft(now, retry_at, reason, others))


def _others(
    state: PoolState, now: datetime, call: Call, asked: str | None = None
) -> tuple[PassedOver, ...]:
    """Return where all others of the pool stand."""
    return tuple(
        PassedOver(
            verdict.alias,
            verdict.standing,
            verdict.until,
            verdict.cause,
            candidate.endpoint.is_fallback,
            candidate.context_window,
        )
        for verdict, candidate in zip(
            explain(state, now, call), state.candidates, strict=True
        )
        if verdict.alias != asked
    )


def _answered(outcome: End, tried: _Tried, folded: FoldedLine) -> ModelAnswered:
    now, alias = folded.line.now, outcome.alias
    took = now - tried.since
    match outcome:
        case Succeeded(tokens_in=read, tokens_cached=cached, tokens_out=written):
            first = outcome.after or tried.first_content
            candidate = folded.before.find(alias)
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
                tried.first_content,
                outcome.message,
                disabled_until=_disabled_until(folded, alias),
                asked_for=None if isinstance(outcome, Rejected) else outcome.hint,
            )
        case _ as never:
            assert_never(never)


def _disabled_until(folded: FoldedLine, alias: str) -> datetime | None:
    """Return the end of the cooldown which this entry began or lengthened."""
    after = folded.after.find(alias)
    if after is None:
        return None
    cooldown = after.health.active_cooldown(folded.line.now)
    before = folded.before.find(alias)
    known = () if before is None else before.health.cooldowns
    return None if cooldown is None or cooldown in known else cooldown.until
