"""`failover`: the first open model in the order of the pool.

Guarantee: a model is used only while no earlier model of its tier is open.
Choose it when the models differ and you prefer some to others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from attrs import frozen

from muxcore.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from muxcore.core.records import Call, Candidate, Endpoint
    from muxcore.core.strategy import Strategy


@frozen
class Failover:
    """The first open model in pool order: the others only while it cannot serve."""

    def pick(
        self,
        candidates: Sequence[Candidate],
        memory: object,
        call: Call,  # noqa: ARG002 - the protocol's
        now: datetime,  # noqa: ARG002
    ) -> tuple[Endpoint, object]:
        return candidates[0].endpoint, memory


@hookimpl
def vibe_mux_register_strategies(
    register: Callable[[str, Callable[..., Strategy]], None],
) -> None:
    register("failover", Failover)
