"""The mode `least_busy` for vibe-mux."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from attrs import frozen

from muxcore import Call, Candidate, Endpoint, Strategy, hookimpl


@frozen
class LeastBusy:
    """The model with the fewest calls under way."""

    by_weight: bool = False
    """Whether a model of weight 2 may have twice as many."""

    @property
    def uses_weight(self) -> bool:
        return self.by_weight

    def pick(
        self, candidates: Sequence[Candidate], memory: object, call: Call, now: datetime
    ) -> tuple[Endpoint, object]:
        return min(candidates, key=self.load).endpoint, memory

    def load(self, candidate: Candidate) -> float:
        weight = candidate.endpoint.weight if self.by_weight else 1
        return candidate.health.in_flight / weight


@hookimpl
def vibe_mux_register_strategies(
    register: Callable[[str, Callable[..., Strategy]], None],
) -> None:
    register("least_busy", LeastBusy)
