"""What models answer in a world, and the thread which consumes a stream."""

from __future__ import annotations

from collections import deque
from datetime import timedelta

from attrs import define, field

from muxcore.chat import AttemptReport, Chat, Chunk
from muxcore.core.outcomes import (
    End,
    Failed,
    Fault,
    Limit,
    RateLimited,
    Refusal,
    Rejected,
    Responding,
    Succeeded,
)
from muxcore.core.protocol import Slot
from muxcore.errors import (
    CallCancelledError,
    ClosedError,
    MultiplexerError,
    StreamInterruptedError,
)
from muxcore.shell.call.arguments import CallOptions
from muxcore.shell.call.attempts import Answered, Opened
from muxcore.shell.call.member import Runtime
from muxcore.shell.call.runner import CallRun
from muxcore.shell.call.stream import Stream
from muxcore.shell.http.cancel_scope import CancelScope
from muxcore.shell.http.transport import TransportError
from muxcore.testing.simulation.labels import INTERRUPTED, STREAMED
from muxcore.testing.simulation.observation import Caller, demand
from muxcore.testing.simulation.worlds import Arrival, Course, Manner, SimulatedModel

PIECES = 4
"""Pieces of content in one stream."""


class OpenedCall(CallRun):
    """A call whose stream already has its first content."""

    def __init__(
        self, runtime: Runtime, caller: Caller, answered: Answered[Opened]
    ) -> None:
        super().__init__(runtime, Chat(()), CallOptions())
        self.call = caller.call
        self.reports = (AttemptReport(answered.slot.endpoint.alias, "responding"),)
        self._waiter = caller.waiter
        self._answered = answered

    def open(self) -> Answered[Opened]:
        return self._answered


class SimulatedExchange:
    """An answer as it arrives. The simulation reads it when something has arrived, or at its end."""

    def __init__(self) -> None:
        self.arrived: deque[bytes | TransportError] = deque()

    def read(self) -> bytes:
        piece = self.arrived.popleft() if self.arrived else b""
        if isinstance(piece, TransportError):
            raise piece
        return piece

    def close(self, *, drain: bool = False) -> None:
        """Do nothing: there is no connection."""


@define(eq=False)
class SimulatedStream:
    """A stream after its first content, and what its caller has received."""

    stream: Stream
    exchange: SimulatedExchange
    scope: CancelScope
    label: str
    whole: bool
    received: list[str] = field(factory=list)
    calls: set[str] = field(factory=set)

    def read(self, *, end: bool) -> str | None:
        """Read what has arrived; return how the stream ended, None if it continues."""
        try:
            while self.exchange.arrived or end:
                self._take(next(self.stream))
        except StopIteration:
            demand(self.whole, 8, "an incomplete stream ended cleanly")
            return STREAMED
        except StreamInterruptedError:
            demand(not self.whole or self.scope.reason, 8, "a complete stream failed")
            return INTERRUPTED
        except MultiplexerError as error:
            expected = isinstance(error, ClosedError | CallCancelledError)
            demand(expected, 8, f"a stream raised {error}")
            return str(error)
        return None

    def check(self, ended: str, *, has_tools: bool) -> None:
        """Check rule 8 on what the caller has received of the stream."""
        reply = self.stream.reply
        words = [f"{self.label}:{number} " for number in range(PIECES)]
        received = self.received
        demand(received == words[: len(received)], 8, f"{self.label} sent {received}")
        demand(
            reply.text == "".join(received), 8, f"the reply has another text: {reply.text}"
        )
        demand(reply.model == self.label.split(":")[0], 8, "the reply names another model")
        if ended == STREAMED:
            demand(
                len(received) == PIECES, 8, f"{len(received)} of {PIECES} pieces arrived"
            )
        if has_tools and ended == STREAMED:
            demand(len(self.calls) == 1, 8, "its tool call did not arrive")

    def _take(self, chunk: Chunk) -> None:
        if chunk.text:
            self.received.append(chunk.text)
        for call in chunk.delta.get("tool_calls") or ():
            if "id" in call:
                new = call["id"] not in self.calls
                demand(new, 8, f"the tool call {call['id']} arrived twice")
                self.calls.add(call["id"])


def outcome_of(
    arrival: Arrival,
    model: SimulatedModel,
    slot: Slot,
    manner: Manner,
    began: int,
    silence: int,
) -> tuple[Responding | End, int]:
    """Return the outcome of the attempt, and when it is known."""
    alias, number = slot.endpoint.alias, slot.attempt
    over = began + manner.delay
    hint = None if manner.hint is None else timedelta(microseconds=manner.hint)
    after = timedelta(microseconds=manner.delay)
    kind = manner.kind
    if kind is None and model.refuses(arrival):
        kind = Refusal.REQUEST
    match kind:
        case Limit():
            return RateLimited(alias, number, kind, hint), over
        case Fault():
            return Failed(alias, number, kind, hint), over
        case None if arrival.stream:
            return Responding(alias, number, after), over
        case None if manner.course is Course.WHOLE:
            over += manner.lasts
            return Succeeded(alias, number, 900, 100, 60, after), over
        case None:
            silent = manner.course is Course.SILENT
            over += silence if silent else manner.lasts
            return Failed(alias, number, message=manner.course), over
        case _:
            return Rejected(alias, number, kind), over


def arrivals_of(
    label: str, manner: Manner, silence: int, arrival: Arrival
) -> list[tuple[int, bytes | TransportError | None]]:
    """Return what arrives after the first content, each with its delay; None is the end."""
    pieces = [_event({"content": f"{label}:{number} "}) for number in range(PIECES)]
    if arrival.tools:
        call = f'{{"index":0,"id":"{label}","function":{{"name":"f","arguments":"{{}}"}}}}'
        pieces.append(
            f'data: {{"choices":[{{"delta":{{"tool_calls":[{call}]}}}}]}}\n\n'.encode()
        )
    pace = manner.lasts // (len(pieces) + 1)
    script: list[tuple[int, bytes | TransportError | None]] = [
        (number * pace, piece) for number, piece in enumerate(pieces)
    ]
    match manner.course:
        case Course.WHOLE:
            end = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
            return [
                *script,
                (manner.lasts, end + b"data: [DONE]\n\n"),
                (manner.lasts + 1, None),
            ]
        case Course.UNFINISHED:
            return [*script, (manner.lasts, None)]
        case Course.ERROR:
            error = b'data: {"error":{"message":"overloaded","code":503}}\n\n'
            return [*script[:2], (manner.lasts, error)]
        case Course.CUT:
            half = pieces[2][: len(pieces[2]) // 2]
            cut = TransportError("the connection was cut")
            return [*script[:2], (manner.lasts, half), (manner.lasts + 1, cut)]
        case Course.SILENT:
            silent = TransportError("nothing arrived for too long")
            return [*script[:1], (silence, silent)]


def _event(delta: dict[str, str]) -> bytes:
    content = delta["content"]
    return f'data: {{"choices":[{{"delta":{{"content":"{content}"}}}}]}}\n\n'.encode()
