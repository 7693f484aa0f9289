"""From a config to the parts of a multiplexer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muxcore import config as configuration
from muxcore.config import keys
from muxcore.config.read import vibe_home
from muxcore.core.records import Endpoint, PoolState
from muxcore.errors import ConfigError
from muxcore.shell.call.member import KeyFinder, Limits, Member, Wrapping

NOT_WRAPPED: Mapping[str, Wrapping] = {}


def parts_of(
    source: configuration.Source,
    env: Mapping[str, str] | None,
    wrappings: Mapping[str, Wrapping] = NOT_WRAPPED,
) -> dict[str, Any]:
    """Return the arguments of `Multiplexer`. Raise `ConfigError`.

    `wrappings` go round the connections of some endpoints, by alias: to look, or to break.
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

    return {
        "members": [member(endpoint) for endpoint in config.endpoints],
        "strategy": config.strategy,
        "state": PoolState.of(*config.endpoints, policy=config.policy),
        "mode": config.mode,
        "enabled": config.enabled,
        "call_timeout": config.call_timeout,
        "origin": f"mode {config.strategy_name} of {mode.origin}",
    }


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
    return Member(endpoint, backend, key, limits, find_key=finder, wrap=wrap)
