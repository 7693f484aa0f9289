"""`load_balance`: by weight, within one request of the exact share at every moment.

Promise: while the set of open models does not change, the number of calls that each has had
is within one of its weight's share, after every single call (rule 10). As in Pfair
scheduling (Baruah et al., 1996): among the models whose next turn has been released, that is
whose share so far exceeds their turns so far, the one whose turn is due first; if none is
released, the one that is due first.

A model's *lag* is its share less its turns. While a model is busy, its lag is kept as it is;
one that was disabled starts again at zero, so that nothing is owed and no burst follows.
Lags are whole numbers over a common denominator: nothing is ever rounded.

Choose it when the models are alike, and you want to spread the load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from math import lcm
from typing import ClassVar, TypedDict, cast

from attrs import frozen

from muxcore.core.records import Call, Candidate, Endpoint
from muxcore.core.strategy import Strategy
from muxcore.plugins.hookspecs import hookimpl


class BalanceMemory(TypedDict):
    """Plain JSON: each model's lag in units of 1/denominator, and its disablings so far."""

    denominator: int
    lags: dict[str, int]
    disablings: dict[str, int]


@frozen
class LoadBalance:
    """By weight, within one request of the exact share at every moment."""

    uses_weight: ClassVar[bool] = True

    def pick(
        self,
        candidates: Sequence[Candidate],
        memory: object,
        call: Call,  # noqa: ARG002 - the protocol's
        now: datetime,  # noqa: ARG002
    ) -> tuple[Endpoint, object]:
        total = sum(candidate.endpoint.weight for candidate in candidates)
        denominator, lags, disablings = _recalled(memory, total)
        share = denominator // total
        best = candidates[0].endpoint
        best_lag, best_released = 0, False
        for candidate in candidates:
            endpoint, tally = candidate.endpoint, candidate.tally
            alias, weight = endpoint.alias, endpoint.weight
            # Every rate limit and failure disables, so their count tells of a return.
            disabled = tally.rate_limited + tally.failed
            lag = lags.get(alias, 0) if disablings.get(alias, 0) == disabled else 0
            lag += weight * share
            lags[alias] = lag
            disablings[alias] = disabled
            released = lag > 0
            # Its turn is due in (denominator - lag) / weight: compared without dividing.
            if endpoint is best or (
                (denominator - lag) * best.weight < (denominator - best_lag) * weight
                if released == best_released
                else released
            ):
                best, best_lag, best_released = endpoint, lag, released
        lags[best.alias] -= denominator
        return best, BalanceMemory(
            denominator=denominator, lags=lags, disablings=disablings
        )


def _recalled(memory: object, total: int) -> tuple[int, dict[str, int], dict[str, int]]:
    """Return copies of what is remembered, in units that divide by `total`."""
    if memory is None:
        return total, {}, {}
    known = cast("BalanceMemory", memory)
    denominator = lcm(known["denominator"], total)
    factor = denominator // known["denominator"]
    lags = {alias: lag * factor for alias, lag in known["lags"].items()}
    return denominator, lags, dict(known["disablings"])


@hookimpl
def vibe_mux_register_strategies(
    register: Callable[[str, Callable[..., Strategy]], None],
) -> None:
    register("load_balance", LoadBalance)
