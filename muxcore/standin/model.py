"""A stand-in model: the queue of what it plays, and the requests that it received."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition
from typing import final

from attrs import evolve, frozen

from muxcore.standin.gate import Gate
from muxcore.standin.script import Answer, Behaviour, Ending, Framing, Play, Received


@final
class Model:
    """Plays its queue, then its default. Thread-safe.

    Two models may share a name if their providers differ: a server has them under
    `/PROVIDER/v1`, and a model without a provider under `/v1`.
    """

    def __init__(
        self,
        name: str,
        default: Play = Answer(),  # noqa: B008 - an immutable record
        *,
        provider: str = "",
        framing: Framing = Framing.CHUNKED,
    ) -> None:
        self.name = name
        self.provider = provider
        self.default = default
        self.framing = framing
        self._changed = Condition()
        self._queue: deque[Play] = deque()
        self._requests: list[Received] = []
        self._in_flight = 0
        self._max_in_flight = 0
        self._is_held = False
        self._release = Gate()

    @property
    def label(self) -> str:
        return f"{self.provider}/{self.name}" if self.provider else self.name

    @property
    def requests(self) -> tuple[Received, ...]:
        """All requests, in the order of their arrival."""
        with self._changed:
            return tuple(self._requests)

    @property
    def in_flight(self) -> int:
        """The requests under way: from the last byte received to just before the last byte sent.

        So a client that has its whole answer is not counted, and cannot overlap itself.
        """
        return self._in_flight

    @property
    def max_in_flight(self) -> int:
        return self._max_in_flight

    def then(self, *plays: Play) -> None:
        """Queue plays for the next requests, one for each."""
        with self._changed:
            self._queue.extend(plays)

    def hold(self) -> None:
        """Let requests arrive, but answer none until `release`."""
        with self._changed:
            self._is_held = True

    def release(self) -> None:
        """Continue every request that is held or silent now, and stop holding."""
        with self._changed:
            self._is_held = False
            gate, self._release = self._release, Gate()
        gate.open()

    def wait_for(self, condition: Callable[[Model], bool], timeout: float = 5.0) -> None:
        """Wait until the condition is true of this model; raise TimeoutError after `timeout` s."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), timeout):
                raise TimeoutError(
                    f"waited {timeout:g} s for the stand-in {self.label!r}, with"
                    f" {self._in_flight} in flight of {self._requests}"
                )

    def arrive(self, received: Received, instead: Behaviour | None = None) -> Visit:
        """Record a new request. `instead` replaces what the script would play."""
        with self._changed:
            numbered = evolve(received, number=len(self._requests))
            self._requests.append(numbered)
            self._in_flight += 1
            self._max_in_flight = max(self._max_in_flight, self._in_flight)
            self._changed.notify_all()
            is_held = self._is_held and instead is None
            # The play and the gate are taken here: so the order of arrival decides, and a
            # release after the arrival cannot be missed.
            return Visit(self, numbered, instead or self._next(), self._release, is_held)

    def leave(self, number: int, ending: Ending) -> None:
        """Record the end of a request. A second call corrects the ending."""
        with self._changed:
            if self._requests[number].ending is None:
                self._in_flight -= 1
            self._requests[number] = evolve(self._requests[number], ending=ending)
            self._changed.notify_all()

    def _next(self) -> Play:
        return self._queue.popleft() if self._queue else self.default


@frozen
class Visit:
    """One request at its model: what to play, and the gate that `Model.release` opens."""

    model: Model
    received: Received
    play: Play
    gate: Gate
    is_held: bool

    def end(self, ending: Ending) -> None:
        self.model.leave(self.received.number, ending)
