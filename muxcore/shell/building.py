"""From a config to the parts of a multiplexer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muxcore import config as configuration
from muxcore.core.records import Endpoint, PoolState
from muxcore.shell.members import Limits, Member


def parts_of(source: configuration.Source, env: Mapping[str, str] | None) -> dict[str, Any]:
    """Return the arguments of `Multiplexer`. Raise `ConfigError`."""
    config = configuration.load(source, env=env)
    return {
        "members": [_member(config, endpoint) for endpoint in config.endpoints],
        "strategy": config.strategy,
        "state": PoolState.of(*config.endpoints, policy=config.policy),
        "mode": config.mode,
        "enabled": config.enabled,
        "call_timeout": config.call_timeout,
    }


def _member(config: configuration.Config, endpoint: Endpoint) -> Member:
    timeouts = config.timeouts[endpoint.alias]
    limits = Limits(
        timeouts.connect.total_seconds(),
        timeouts.read.total_seconds(),
        timeouts.attempt.total_seconds(),
    )
    backend = config.catalogue.backend(endpoint.dialect).factory()
    key = config.keys.get(endpoint.alias)
    return Member(endpoint, backend, key, limits)
