"""What a journal says of requests and places: who asked when, and what came of each attempt."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeAlias

from attrs import define, field, frozen

from muxcore.core.entries import Asked, CallResult, Ended
from muxcore.core.outcomes import (
    Cancelled,
    End,
    Failed,
    RateLimited,
    Rejected,
    Responding,
    Started,
    Succeeded,
)
from muxcore.core.records import Call, Endpoint
from muxcore.explaining.folding import FoldedLine, fold
from muxcore.journal.recent import Journal
from muxcore.journal.redaction import bare_url

LONGEST_RETRY = timedelta(minutes=1)
"""A call that follows a failed one of its conversation within this repeats it."""
UNSERVED = frozenset({CallResult.EXHAUSTED, CallResult.BROKEN, CallResult.FAILED})

PlaceKey: TypeAlias = tuple[str, ...]


def place_key(endpoint: Endpoint) -> PlaceKey:
    """Return what names a place in a journal, which holds no key."""
    wire = endpoint.wire
    base = bare_url(wire.api_base) or endpoint.provider
    return (endpoint.dialect, base, endpoint.model or endpoint.alias, wire.key_variable)


@frozen
class Observation:
    """An attempt as the journal has it: `first` is the time to its first content."""

    at: datetime
    place: PlaceKey
    outcome: End
    took: timedelta
    first: timedelta | None
    streamed: bool
    request: int
    """The position of the request that it was for."""
    cost: float = 0.0

    @property
    def is_served(self) -> bool:
        return isinstance(self.outcome, Succeeded)

    @property
    def is_broken(self) -> bool:
        """Whether it failed after its first content."""
        return isinstance(self.outcome, Failed) and self.streamed


@define
class RecordedCall:
    """One call: None for an end that the journal does not have."""

    began: datetime
    call: Call
    ended: datetime | None = None
    result: CallResult | None = None


@define
class RecordedRequest:
    """A call, and those that repeat it because it failed.

    `follows` is the position of the request that it followed after `think`: from the end of that
    one, or from its beginning if both were under way at once. None: it began at its own moment.
    """

    calls: list[RecordedCall]
    follows: int | None = None
    think: timedelta = timedelta()
    overlaps: bool = False

    @property
    def call(self) -> Call:
        return self.calls[0].call


@define
class RequestRecord:
    """All requests, in the order of their beginning, and all observations."""

    requests: list[RecordedRequest] = field(factory=list)
    observations: list[Observation] = field(factory=list)


@define
class _Attempted:
    at: datetime
    endpoint: Endpoint
    request: int
    first: timedelta | None = None
    streamed: bool = False


def record_of(journal: Journal) -> RequestRecord:
    """Read a journal. A call whose end it does not have has none in the record."""
    reader = _RecordReader()
    for folded in fold(journal):
        reader.read(folded)
    return reader.record


@define
class _RecordReader:
    record: RequestRecord = field(factory=RequestRecord)
    calls: dict[int, tuple[int, RecordedCall]] = field(factory=dict)
    """The request of a call under way, and the call, by its number."""
    attempts: dict[int, _Attempted] = field(factory=dict)
    latest: dict[str, int] = field(factory=dict)
    """The last request of each conversation."""

    def read(self, folded: FoldedLine) -> None:
        _, now, entry = folded.line
        match entry:
            case Asked():
                self._ask(entry, now)
            case Started(call=int(number)) if number in self.calls:
                candidate = folded.before.find(entry.alias)
                if candidate is not None:
                    attempted = _Attempted(now, candidate.endpoint, self.calls[number][0])
                    self.attempts[folded.after.attempts] = attempted
            case Responding() if entry.attempt in self.attempts:
                attempted = self.attempts[entry.attempt]
                attempted.first, attempted.streamed = entry.after, True
            case Succeeded() | RateLimited() | Failed() | Rejected() | Cancelled():
                found = self.attempts.pop(entry.attempt, None)
                if found is not None:
                    self.record.observations.append(_observation(entry, found, now))
            case Ended() if entry.number in self.calls:
                _, call = self.calls.pop(entry.number)
                call.ended, call.result = now, entry.result

    def _ask(self, asked: Asked, now: datetime) -> None:
        requests, conversation = self.record.requests, asked.call.conversation
        call = RecordedCall(now, asked.call)
        position = None if conversation is None else self.latest.get(conversation)
        request = RecordedRequest([call])
        if position is not None:
            before = requests[position].calls[-1]
            if _repeats(before, call):
                requests[position].calls.append(call)
                self.calls[asked.number] = position, call
                return
            request.follows, request.overlaps = position, before.ended is None
            request.think = now - (before.ended or before.began)
        requests.append(request)
        self.calls[asked.number] = len(requests) - 1, call
        if conversation is not None:
            self.latest[conversation] = len(requests) - 1


def _repeats(before: RecordedCall, call: RecordedCall) -> bool:
    return (
        before.ended is not None
        and before.result in UNSERVED
        and before.call.new_turn == call.call.new_turn
        and call.began - before.ended <= LONGEST_RETRY
    )


def _observation(outcome: End, attempted: _Attempted, now: datetime) -> Observation:
    first, cost = attempted.first, 0.0
    if isinstance(outcome, Succeeded):
        first = first or outcome.after
        tokens = outcome.tokens_in, outcome.tokens_cached, outcome.tokens_out
        cost = attempted.endpoint.cost_of(*tokens)
    return Observation(
        attempted.at,
        place_key(attempted.endpoint),
        outcome,
        now - attempted.at,
        first,
        attempted.streamed,
        attempted.request,
        cost,
    )


def observed_at(
    observations: Sequence[Observation], place: PlaceKey
) -> tuple[Observation, ...]:
    """Return those of one place, in the order of their beginning."""
    return tuple(
        sorted((one for one in observations if one.place == place), key=lambda one: one.at)
    )
