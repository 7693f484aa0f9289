"""The `Strategy` protocol: what the core expects of a mode."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    # A command that only reads a config knows no state.
    from muxcore.core.endpoints import Endpoint
    from muxcore.core.records import Call, Candidate


class Strategy(Protocol):
    """A mode: picks one of the open endpoints of one tier. It is shown no others.

    `pick` is pure: the same arguments give the same answer, and it changes nothing. The
    `memory` that it returns, made of plain JSON values, is passed to its next pick (None at
    the first). It returns the endpoint of one of the `candidates`: at least one, in pool
    order.

    Two class attributes are optional, and False where a strategy has none. Set
    `needs_prompt_tokens = True` to have `call.prompt_tokens` filled in; estimating it costs
    time. Set `uses_weight = True` if `pick` reads `endpoint.weight`: without it, `check` warns
    that a weight has no effect.
    """

    def pick(
        self,
        candidates: Sequence[Candidate],
        memory: object,
        call: Call,
        now: datetime,
    ) -> tuple[Endpoint, object]:
        """Return the endpoint to attempt and the memory to keep."""
        ...


def uses_weight(strategy: Strategy) -> bool:
    """Whether a weight in the config has an effect on what the strategy picks."""
    return bool(getattr(strategy, "uses_weight", False))
