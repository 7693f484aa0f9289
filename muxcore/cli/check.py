"""`vibe-mux check`: all mistakes of a config at once, or a picture of its pool."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any
from urllib.parse import urlsplit

from muxcore import config as configuration
from muxcore.cli import phase_report as phasing
from muxcore.cli.main import FAILED, WELL
from muxcore.config import Config
from muxcore.core.phases import PRESENT, Phase
from muxcore.core.records import Endpoint
from muxcore.core.strategy import uses_weight
from muxcore.errors import ConfigError
from muxcore.setup.schema import section_schema
from muxcore.text import printable
from muxcore.vibe.bypass import past_the_pool
from muxcore.vibe.startup import Arguments, startup_of


def run(options: argparse.Namespace) -> int:
    if options.schema:
        print(json.dumps(section_schema(), indent=2))
        return WELL
    phase = Phase(options.phase or PRESENT)
    try:
        present = configuration.load(options.config)
    except ConfigError as error:
        return _refuse(error, options)
    try:
        config = present
        if phase is not PRESENT:
            config = configuration.load(options.config, phase=phase)
    except ConfigError as error:
        return _refuse(
            error, options, f"This config works today, and not in phase {phase}:"
        )
    warnings = config.warnings
    if options.json:
        asked = phasing.changes_json(present, config, phase) if options.phase else {}
        print(json.dumps({**picture_json(config), **asked}, indent=2))
        return WELL
    if options.phase:
        print(phasing.describe_changes(present, config, phase))
        warnings = tuple(warning for warning in warnings if warning in present.warnings)
    print(picture(config))
    for warning in (*warnings, *_past_the_pool(config, options)):
        print(f"warning: {warning}", file=sys.stderr)
    return WELL


def _past_the_pool(config: Config, options: argparse.Namespace) -> list[str]:
    """Describe what a vibe that starts here would ask without the pool."""
    if not config.enabled or options.config is not None:
        return []
    startup = startup_of(Arguments(), os.environ)
    return [printable(str(bypass)) for bypass in past_the_pool(startup, config)]


def _refuse(error: ConfigError, options: argparse.Namespace, title: str = "") -> int:
    if options.json:
        raise error
    warnings = [f"warning: {warning}" for warning in error.warnings]
    for line in (title, *error.problems, error.excerpt, *warnings):
        if line:
            print(line, file=sys.stderr)
    return FAILED


def picture(config: Config) -> str:
    """Draw the pool for people."""
    where = "vibe's defaults (no config file)" if config.source is None else config.source
    lines = [f"Config: {where}"]
    if config.section_file not in {None, config.source} and config.section_file.exists():
        lines.append(f"Multiplexer: {config.section_file}")
    if config.enabled:
        lines.append(f"Mode: {config.mode}")
    else:
        lines.append("The multiplexer is off: the active model alone is called.")
    lines.append("Pool, in order:" if len(config.endpoints) > 1 else "Pool:")
    width = max(len(printable(endpoint.alias)) for endpoint in config.endpoints)
    for place, endpoint in enumerate(config.endpoints, start=1):
        facts = [
            f"{printable(endpoint.model)} at {_host(endpoint)}",
            "fallback" if endpoint.is_fallback else "primary",
            *_share(config, endpoint),
            *_sizes(endpoint),
            _key(config, endpoint),
        ]
        lines.append(f"  {place}. {printable(endpoint.alias):<{width}}  {', '.join(facts)}")
    return "\n".join(lines)


def picture_json(config: Config) -> dict[str, Any]:
    """Draw the pool for programs."""
    return {
        "ok": True,
        "source": None if config.source is None else str(config.source),
        "enabled": config.enabled,
        "mode": config.mode,
        "warnings": list(config.warnings),
        "pool": [
            {
                "alias": endpoint.alias,
                "model": endpoint.model,
                "provider": endpoint.provider,
                "host": _host(endpoint),
                "backend": endpoint.dialect,
                "is_fallback": endpoint.is_fallback,
                "weight": endpoint.weight,
                "share": _share_of(config, endpoint),
                "max_concurrent": endpoint.max_concurrent,
                "context_window": endpoint.context_window,
                "key_variable": endpoint.wire.key_variable or None,
                "key_present": endpoint.alias in config.keys,
            }
            for endpoint in config.endpoints
        ],
    }


def _share_of(config: Config, endpoint: Endpoint) -> float:
    """Return the endpoint's share of the weight of its tier."""
    tier = [e.weight for e in config.endpoints if e.is_fallback == endpoint.is_fallback]
    return endpoint.weight / sum(tier)


def _share(config: Config, endpoint: Endpoint) -> list[str]:
    if not uses_weight(config.strategy):
        return []
    share = _share_of(config, endpoint)
    return [f"weight {endpoint.weight} ({share:.0%} of its tier)"]


def _sizes(endpoint: Endpoint) -> list[str]:
    facts = []
    if endpoint.max_concurrent is not None:
        facts.append(f"at most {endpoint.max_concurrent} at once")
    if endpoint.context_window is not None:
        facts.append(f"{endpoint.context_window:,} tokens")
    return facts


def _key(config: Config, endpoint: Endpoint) -> str:
    variable = printable(endpoint.wire.key_variable)
    if not variable:
        return "no key"
    key = config.keys.get(endpoint.alias)
    return (
        f"key {variable} missing" if key is None else f"key {variable} found ({key.place})"
    )


def _host(endpoint: Endpoint) -> str:
    parts = urlsplit(endpoint.wire.api_base)
    return printable(parts.netloc.rpartition("@")[2])
