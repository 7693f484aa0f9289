"""`lowest_cost`: the cheapest open model for this call and the calls that follow it.

Guarantee: no open model of the tier costs less for the expected tokens. Of equally cheap
models, the first in pool order is picked.

The expected tokens are the estimated prompt of the call and the average answer of the shown
models (`output_tokens` until one has answered). On the model that served the conversation
last, the part of the prompt that it has seen counts as cached. So another model must be
cheaper by more than the warm cache is worth. Each call of a conversation is assumed to be
followed by `calls_ahead` more, which find their prompt cached on the model picked now: the
cheapest model for one cold call is seldom the cheapest for an agent's turn.

It assumes that the prices in the config are right (a model without prices is free, like a
local one), that the models' answers are about equally long, and that a warm cache is used.

Choose it when several models are good enough and cost matters more than latency.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from attrs import field, frozen, validators

from muxcore.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from muxcore.core.records import Call, Candidate, Endpoint
    from muxcore.core.strategy import Strategy

UNKNOWN_PROMPT = 10_000
"""Tokens of a prompt of unknown size: about those of an agent's first call."""


@frozen
class LowestCost:
    """The cheapest for this call and those that follow, counting what is probably cached."""

    needs_prompt_tokens: ClassVar[bool] = True

    output_tokens: int = field(default=500, validator=validators.ge(0))
    calls_ahead: int = field(default=10, validator=validators.ge(0))

    def pick(
        self,
        candidates: Sequence[Candidate],
        memory: object,
        call: Call,
        now: datetime,  # noqa: ARG002 - the protocol's
    ) -> tuple[Endpoint, object]:
        prompt, answer = self._expected(candidates, call)
        # Without a conversation no calls are assumed to follow.
        ahead = 0 if call.conversation is None else self.calls_ahead
        endpoints = [candidate.endpoint for candidate in candidates]
        cheapest = min(endpoints, key=lambda one: _price(one, call, prompt, answer, ahead))
        return cheapest, memory

    def _expected(self, candidates: Sequence[Candidate], call: Call) -> tuple[float, float]:
        """Return the expected tokens of this prompt and of its answer."""
        served = tokens_in = tokens_out = 0
        for candidate in candidates:
            tally = candidate.tally
            served += tally.succeeded
            tokens_in += tally.tokens_in
            tokens_out += tally.tokens_out
        answer = tokens_out / served if served else self.output_tokens
        if call.prompt_tokens is not None:
            return call.prompt_tokens, answer
        return (tokens_in / served if served else UNKNOWN_PROMPT), answer


def _price(
    endpoint: Endpoint, call: Call, prompt: float, answer: float, ahead: int
) -> float:
    """Return the cost on this endpoint, in millionths of a dollar."""
    cached = 0.0
    if call.pin is not None and call.pin.alias == endpoint.alias:
        cached = min(call.pin.tokens, prompt)
    cached_price = endpoint.cached_input_price
    if cached_price is None:
        cached_price = endpoint.input_price
    fresh = (prompt - cached) * endpoint.input_price
    warm = (cached + ahead * prompt) * cached_price
    return fresh + warm + (1 + ahead) * answer * endpoint.output_price


@hookimpl
def vibe_mux_register_strategies(
    register: Callable[[str, Callable[..., Strategy]], None],
) -> None:
    register("lowest_cost", LowestCost)
