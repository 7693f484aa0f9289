"""Make the parts of a multiplexer from a config."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

from attrs import frozen

from muxcore import config as configuration
from muxcore.config import keys
from muxcore.config.read import vibe_home
from muxcore.core.records import AnnouncedLimits, Endpoint, PoolState
from muxcore.core.strategy import Strategy
from muxcore.errors import ConfigError
from muxcore.plugins import catalogue
from muxcore.plugins.board import Board
from muxcore.plugins.catalogue import MEMORY, REDIS
from muxcore.plugins.hookspecs import ObserverFactory
from muxcore.shell import clock
from muxcore.shell.call.member import KeyFinder, Limits, Member, Wrapping


@frozen(eq=False)
class BoardSource:
    """How to open the board, and how long a call may wait for it."""

    open: Callable[[], Board]
    timeout: timedelta


@frozen
class ObserverSource:
    """How to make an observer: its name, its own options, and its factory."""

    name: str
    options: Mapping[str, object]
    make: ObserverFactory


@frozen(eq=False)
class Parts:
    """The parts of a multiplexer, all of which a reload of the config may change."""

    members: Sequence[Member]
    strategy: Strategy
    state: PoolState
    mode: str
    call_timeout: timedelta
    strategy_name: str = ""
    """The mode that runs, which differs for "single" and while it is off."""
    options: object = None
    """The table of the mode's own options."""
    enabled: bool = True
    origin: str = ""
    """The mode and its distribution, for errors."""
    board: BoardSource | None = None
    """What opens the board; None for state in memory alone."""
    observers: tuple[ObserverSource, ...] = ()


DEFAULT_TIMEOUT_MS = 50
NOT_WRAPPED: Mapping[str, Wrapping] = {}


def parts_of(
    source: configuration.Source,
    env: Mapping[str, str] | None,
    wrappings: Mapping[str, Wrapping] = NOT_WRAPPED,
    *,
    state: str = MEMORY,
) -> Parts:
    """Return the parts of a multiplexer. Raise `ConfigError`.

    `wrappings` wrap the connections of some endpoints, by alias, to observe or break them.
    `state` is where the state is kept if the config does not say; a pool that is wrapped
    keeps it in memory, as made-up faults are of no interest to others.
    """
    environment = os.environ if env is None else env
    config = configuration.load(source, env=environment)
    mode = config.catalogue.strategy(config.strategy_name)
    directory = None if config.source is None else config.source.parent
    if source is None:
        directory = directory or vibe_home(environment)

    def member(endpoint: Endpoint) -> Member:
        finder = _key_finder(endpoint, environment, directory)
        return _member(config, endpoint, finder, wrappings.get(endpoint.alias))

    return Parts(
        members=[member(endpoint) for endpoint in config.endpoints],
        strategy=config.strategy,
        state=PoolState.of(*config.endpoints, policy=config.policy),
        mode=config.mode,
        strategy_name=config.strategy_name,
        options=dict(config.options) or None if config.enabled else None,
        enabled=config.enabled,
        call_timeout=config.call_timeout,
        origin=f"mode {config.strategy_name} of {mode.origin}",
        board=None
        if wrappings
        else _board(config, config.state or state, environment, directory),
        observers=_observers(config),
    )


def _observers(config: configuration.Config) -> tuple[ObserverSource, ...]:
    return tuple(
        ObserverSource(name, options, config.catalogue.observer(name).factory)
        for name, options in config.observers.items()
    )


def _board(
    config: configuration.Config,
    name: str,
    environment: Mapping[str, str],
    directory: Path | None,
) -> BoardSource | None:
    if name == MEMORY or not config.enabled:
        return None
    options = dict(config.state_options)
    timeout = options.pop("timeout_ms", DEFAULT_TIMEOUT_MS)
    factory = catalogue.board(name).factory
    if "timeout_ms" in inspect.signature(factory).parameters:
        options["timeout_ms"] = timeout
    if name == REDIS:
        environment = keys.variables(environment, directory)
    opened = partial(factory, now=clock.now, environment=environment, **options)
    return BoardSource(opened, timedelta(milliseconds=timeout))


def _key_finder(
    endpoint: Endpoint, environment: Mapping[str, str], directory: Path | None
) -> KeyFinder | None:
    variable = endpoint.wire.key_variable
    if not variable:
        return None

    def find() -> configuration.Key | None:
        key = keys.find(variable, keys.places(environment, directory))
        return key if key is not None and keys.fault_of(key) is None else None

    return find


def _member(
    config: configuration.Config,
    endpoint: Endpoint,
    finder: KeyFinder | None,
    wrap: Wrapping | None,
) -> Member:
    timeouts = config.timeouts[endpoint.alias]
    limits = Limits(
        timeouts.connect.total_seconds(),
        timeouts.read.total_seconds(),
        timeouts.attempt.total_seconds(),
    )
    entry = config.catalogue.backend(endpoint.dialect)
    try:
        backend = entry.factory()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        text = f"the backend {entry.name} of {entry.origin} cannot be made: {reason}"
        raise ConfigError([text]) from error
    key = config.keys.get(endpoint.alias)
    heeds = config.policy.announced_limits is AnnouncedLimits.HEED
    return Member(
        endpoint, backend, key, limits, find_key=finder, wrap=wrap, heeds_limits=heeds
    )
