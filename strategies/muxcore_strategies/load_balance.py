"""`load_balance`: by weight, within one request of the exact share at every moment.

Guarantee: while the set of open models stays the same, each model's number of calls is within
one of its weight's share, after every call (rule 10). As in Pfair scheduling (Baruah et al.,
1996), a model's next turn is *released* once its share so far exceeds its turns so far. The
released model whose turn is due first is picked; if none is released, the one due first.

A model's *lag* is its share minus its turns. A busy model keeps its lag; a model that was
disabled starts again at zero, so it gets no burst of calls to catch up. Lags are integers
over a common denominator, so nothing is rounded.

Where limits are heeded, the model that served a conversation last may go first, if each other
still gets its turn in time: there a prompt is cached, and takes least of the limits.

Choose it when the models are alike and you want to spread the load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from math import lcm
from typing import TYPE_CHECKING, ClassVar, TypedDict, cast

from attrs import frozen

from muxcore.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from muxcore.core.records import Call, Candidate, Endpoint
    from muxcore.core.strategy import Strategy


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
        call: Call,
        now: datetime,  # noqa: ARG002
    ) -> tuple[Endpoint, object]:
        total = sum(candidate.endpoint.weight for candidate in candidates)
        denominator, lags, disablings = _read_memory(memory, total)
        share = denominator // total
        best = candidates[0].endpoint
        best_lag, best_released = 0, False
        last, warm = None if call.pin is None else call.pin.alias, None
        for candidate in candidates:
            endpoint, tally = candidate.endpoint, candidate.tally
            alias, weight = endpoint.alias, endpoint.weight
            # Every rate limit and failure disables, so a new count means that it has come back.
            disabled = tally.rate_limited + tally.failed
            lag = lags.get(alias, 0) if disablings.get(alias, 0) == disabled else 0
            lag += weight * share
            lags[alias] = lag
            disablings[alias] = disabled
            released = lag > 0
            if alias == last and released and candidate.headroom is not None:
                warm = endpoint
            # Its turn is due in (denominator - lag) / weight: compared without dividing.
            if endpoint is best or (
                (denominator - lag) * best.weight < (denominator - best_lag) * weight
                if released == best_released
                else released
            ):
                best, best_lag, best_released = endpoint, lag, released
        if (
            warm is not None
            and warm is not best
            and _goes_first(warm, candidates, lags, denominator, share)
        ):
            best = warm
        lags[best.alias] -= denominator
        return best, BalanceMemory(
            denominator=denominator, lags=lags, disablings=disablings
        )


def _goes_first(
    warm: Endpoint,
    candidates: Sequence[Candidate],
    lags: Mapping[str, int],
    denominator: int,
    share: int,
) -> bool:
    """Whether each other still gets its turn in time if this one goes before all."""
    # From the call that its own is due at, the order is as if it had not gone first.
    due = -((lags[warm.alias] - denominator) // (warm.weight * share))
    earlier: list[int] = []
    for candidate in candidates:
        endpoint = candidate.endpoint
        if endpoint is not warm:
            lag, gain = lags[endpoint.alias], endpoint.weight * share
            turns = (lag + (due - 1) * gain) // denominator
            earlier += (-((lag - n * denominator) // gain) for n in range(1, turns + 1))
    return all(at > calls for calls, at in enumerate(sorted(earlier)))


def _read_memory(memory: object, total: int) -> tuple[int, dict[str, int], dict[str, int]]:
    """Return the denominator, a multiple of `total`, and copies of lags and disablings."""
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
