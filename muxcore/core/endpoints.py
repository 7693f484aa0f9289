"""The records that a config becomes: what a pool is made of, and how it behaves.

All are frozen, with slots. Durations are `timedelta`s, sizes are tokens. They stand apart from
the records of a pool's state, so that a command which only reads a config imports no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any

from attrs import Attribute, field, frozen

from muxcore.errors import InvalidArgumentError


class Sticky(StrEnum):
    """For how long the calls of one conversation stay on one model."""

    CALL = "call"
    TURN = "turn"
    SESSION = "session"


class AnnouncedLimits(StrEnum):
    """What to do about limits that providers announce before they are met."""

    HEED = "heed"
    IGNORE = "ignore"


@frozen(cache_hash=True)
class Wire:
    """How a backend speaks to an endpoint.

    The core reads only what tells servers and accounts apart: address, key variable, headers.

    `key_variable` names the environment variable of the key ("" for none). The key itself is
    never in a record.
    """

    api_base: str = ""
    key_variable: str = ""
    extra_headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    reasoning_field_name: str = "reasoning_content"
    emits_finish_reason: bool = True
    temperature: float | None = None
    top_p: float | None = None
    thinking: str = "off"
    max_output_tokens: int | None = None
    supports_images: bool = False
    capabilities: tuple[str, ...] = ()


def _at_least_one(
    instance: Endpoint,
    attribute: Attribute[Any],
    value: object,
) -> None:
    if value is None and attribute.default is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidArgumentError(
            f"{attribute.name} of the endpoint {instance.alias!r} is {value!r}, expected a"
            " whole number of at least 1"
        )


def _a_name(_: Endpoint, attribute: Attribute[str], value: object) -> None:
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(
            f"{attribute.name} of an endpoint is {value!r}, expected a name"
        )


@frozen(cache_hash=True)
class Endpoint:
    """One pool entry, resolved to its model and provider; `alias` names it everywhere.

    Two endpoints never share state, even when their model names are equal. Prices are dollars
    for a million tokens; without a price of their own, cached tokens cost what others cost.
    """

    alias: str = field(validator=_a_name)
    model: str = ""
    provider: str = ""
    weight: int = field(default=1, validator=_at_least_one)
    max_concurrent: int | None = field(default=None, validator=_at_least_one)
    is_fallback: bool = False
    context_window: int | None = field(default=None, validator=_at_least_one)
    input_price: float = 0.0
    output_price: float = 0.0
    cached_input_price: float | None = None
    dialect: str = "generic"
    wire: Wire = Wire()

    @property
    def server(self) -> str:
        """The host and port which serve it, or its provider where no address is known."""
        address = self.wire.api_base.partition("://")[2]
        host = address.partition("/")[0].rpartition("@")[2]
        return host.lower() or self.provider

    def cost_of(self, tokens_in: int, tokens_cached: int, tokens_out: int) -> float:
        """Return the dollars that so many tokens cost; `tokens_in` includes the cached."""
        cached_price = self.cached_input_price
        if cached_price is None:
            cached_price = self.input_price
        fresh = tokens_in - tokens_cached
        spent = fresh * self.input_price + tokens_cached * cached_price
        return (spent + tokens_out * self.output_price) / 1_000_000


@frozen
class Policy:
    """The settings which the core obeys.

    `direct` means that the multiplexer is off: one attempt, nothing disabled, no waiting.
    """

    rate_limit_disable_duration: timedelta = timedelta(minutes=1)
    persistent_error_disable_duration: timedelta = timedelta(seconds=15)
    max_wait: timedelta = timedelta(seconds=30)
    sticky: Sticky = Sticky.TURN
    direct: bool = False
    announced_limits: AnnouncedLimits = AnnouncedLimits.HEED


def expect_distinct(endpoints: Sequence[Endpoint]) -> None:
    """Raise `InvalidArgumentError` for what is no endpoint, or two of the same alias."""
    seen: set[str] = set()
    for endpoint in endpoints:
        if not isinstance(endpoint, Endpoint):
            raise InvalidArgumentError(
                f"{endpoint!r} is no Endpoint, such as Endpoint('a')"
            )
        if endpoint.alias in seen:
            raise InvalidArgumentError(
                f"two endpoints have the alias {endpoint.alias!r}, expected one for each"
            )
        seen.add(endpoint.alias)
