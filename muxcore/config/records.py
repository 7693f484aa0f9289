"""The records of the config: the options of a file, field by field, and the result."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from attrs import field, frozen

from muxcore.config.keys import Key
from muxcore.core.endpoints import AnnouncedLimits, Endpoint, Policy, Sticky
from muxcore.core.strategy import Strategy
from muxcore.plugins.catalogue import Catalogue

YEAR_MS = 365 * 24 * 60 * 60 * 1000
"""The longest duration that is accepted, so that no clock overflows."""


@frozen
class Bounds:
    """The range of a number, in a field's metadata under the name "bounds"."""

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None


def at_least(minimum: int) -> dict[str, Bounds]:
    return {"bounds": Bounds(minimum)}


def milliseconds(minimum: int) -> dict[str, Bounds]:
    return {"bounds": Bounds(minimum, YEAR_MS)}


NOT_EMPTY = {"not_empty": True}


@frozen
class PoolEntry:
    """One `[[multiplexer.pool]]`."""

    model: str = field(metadata=NOT_EMPTY)
    weight: int = field(default=1, metadata=at_least(1))
    max_concurrent: int | None = field(default=None, metadata=at_least(1))
    is_fallback: bool = False
    context_window: int | None = field(default=None, metadata=at_least(1))
    capabilities: tuple[str, ...] = ()


class UnseenImages(StrEnum):
    """What the server does with an image that none of its models can see."""

    REFUSE = "refuse"
    LEAVE_OUT = "leave_out"


@frozen
class MultiplexerConfig:
    """`[multiplexer]`. The entries of its pool are raw; each is checked separately.

    A timeout of None depends on whether the host is a loopback one.
    """

    enabled: bool | None = None
    mode: str = "single"
    rate_limit_disable_duration_ms: int = field(default=60_000, metadata=milliseconds(1000))
    persistent_error_disable_duration_ms: int = field(
        default=15_000, metadata=milliseconds(1000)
    )
    sticky: Sticky = Sticky.TURN
    max_wait_ms: int = field(default=30_000, metadata=milliseconds(0))
    connect_timeout_ms: int = field(default=10_000, metadata=milliseconds(1))
    read_timeout_ms: int | None = field(default=None, metadata=milliseconds(1))
    attempt_timeout_ms: int | None = field(default=None, metadata=milliseconds(1))
    call_timeout_ms: int = field(default=1_200_000, metadata=milliseconds(1))
    announced_limits: AnnouncedLimits = AnnouncedLimits.HEED
    unseen_images: UnseenImages = UnseenImages.REFUSE
    options: dict[str, Any] = field(factory=dict)
    state: str | None = field(default=None, metadata=NOT_EMPTY)
    state_options: dict[str, Any] = field(factory=dict)
    observers: dict[str, Any] = field(factory=dict)
    """The table of each observer's own options, by its name."""
    pool: tuple[Any, ...] = ()


@frozen
class StateOptions:
    """`[multiplexer.state_options]` of the file."""

    path: str | None = field(default=None, metadata=NOT_EMPTY)
    timeout_ms: int = field(default=50, metadata=milliseconds(1))


@frozen
class RedisOptions:
    """`[multiplexer.state_options]` of a Redis.

    Leases are renewed every five seconds, so `lease_ms` is at least twice that.
    """

    url_env_var: str = field(default="VIBE_MUX_REDIS_URL", metadata=NOT_EMPTY)
    name: str = field(default="default", metadata=NOT_EMPTY)
    lease_ms: int = field(default=20_000, metadata=milliseconds(10_000))
    timeout_ms: int = field(default=50, metadata=milliseconds(1))


@frozen
class ProviderConfig:
    """One of vibe's `[[providers]]`, with the options that are used here."""

    name: str = field(metadata=NOT_EMPTY)
    api_base: str
    api_key_env_var: str = ""
    backend: str = "generic"
    api_style: str = "openai"
    extra_headers: dict[str, str] = field(factory=dict, metadata={"secret": True})
    reasoning_field_name: str = "reasoning_content"
    emits_finish_reason: bool = True
    capabilities: tuple[str, ...] = ()


@frozen
class ModelConfig:
    """One of vibe's `[[models]]`, with the options that are used here.

    `model_id`, where it is given, is the model's name on the wire.
    """

    name: str = field(metadata=NOT_EMPTY)
    provider: str = field(metadata=NOT_EMPTY)
    alias: str = field(metadata=NOT_EMPTY)
    model_id: str = ""
    temperature: float | None = None
    top_p: float | None = field(
        default=None, metadata={"bounds": Bounds(above=0, maximum=1)}
    )
    max_output_tokens: int | None = field(default=None, metadata=at_least(1))
    thinking: str = "off"
    input_price: float = 0.0
    output_price: float = 0.0
    cached_input_price: float | None = None
    supports_images: bool = False
    max_context_length: int | None = field(default=None, metadata=at_least(1))
    capabilities: tuple[str, ...] = ()


@frozen
class Timeouts:
    """The limits of one attempt: to connect, of one silence, and in total."""

    connect: timedelta
    read: timedelta
    attempt: timedelta


@frozen
class Config:
    """A config that can be used: every alias resolved, every key found.

    `mode` is what the user wrote; `strategy_name` is the mode that runs, which differs for
    "single" and when the multiplexer is off. The keys of `keys` and `timeouts` are aliases of
    endpoints; an endpoint whose provider names no key has none. `section_file` is where the
    `[multiplexer]` section stands, or the place for a new one.
    """

    source: Path | None
    enabled: bool
    mode: str
    strategy_name: str
    strategy: Strategy
    options: Mapping[str, Any]
    active_model: str
    policy: Policy
    endpoints: tuple[Endpoint, ...]
    timeouts: Mapping[str, Timeouts]
    call_timeout: timedelta
    keys: Mapping[str, Key] = field(repr=False, eq=False)
    catalogue: Catalogue = field(repr=False, eq=False)
    warnings: tuple[str, ...] = ()
    section_file: Path | None = None
    state: str | None = None
    """Where the state is kept; None if the config does not say."""
    state_options: Mapping[str, Any] = field(factory=dict)
    observers: Mapping[str, Mapping[str, Any]] = field(factory=dict)
    """The options of each observer, by its name."""
    unseen_images: UnseenImages = UnseenImages.REFUSE

    @property
    def smallest_window(self) -> int | None:
        """The smallest known context window of the primaries, None if none is known."""
        windows = [e.context_window for e in self.endpoints if not e.is_fallback]
        return min((window for window in windows if window is not None), default=None)
