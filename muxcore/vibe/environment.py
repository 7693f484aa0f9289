"""The environment that sends an unmodified vibe through the gateway. Pure.

None of the user's files change. Vibe takes any setting from the environment as JSON, so all of
its models are passed with every field, and only their provider is replaced: the active model
becomes the pool, each further member of the pool that model alone. The aliases are the user's,
so a session can continue without the pool.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from attrs import frozen

from muxcore.config import Config
from muxcore.config.definitions import (
    RENAMED,
    VIBES_MODELS,
    VIBES_PROVIDERS,
    Definition,
    Definitions,
    active_model,
)
from muxcore.gateway.api.routing import base_path
from muxcore.gateway.discovery import TOKEN_VARIABLE
from muxcore.gateway.http.listening import LOOPBACK

Raw: TypeAlias = dict[str, Any]

SKILL_PATHS = "VIBE_SKILL_PATHS"
PROVIDER = "vibe-mux"
NO_PROXY = ("NO_PROXY", "no_proxy")
THRESHOLD = "auto_compact_threshold"
WINDOW = "max_context_length"

LARGEST_THRESHOLD = 200_000
"""Vibe's default number of tokens at which it compacts a conversation."""

SHARE_OF_WINDOW = 0.8
"""The share of a known context window at which vibe 3 compacts a conversation."""


@frozen
class Access:
    """Where the gateway is, and the label under which it counts this vibe's calls."""

    url: str
    token: str
    label: str


def settings(
    data: Mapping[str, Any],
    config: Config,
    access: Access,
    skills: Path | None,
    environment: Mapping[str, str],
) -> dict[str, str]:
    """Return the variables that send vibe to the gateway.

    `data` is vibe's own config as it was read; `config` is the config of the pool, maybe from
    another file. `skills` is the directory that holds the `/mux` skill, if there is one.
    """
    definitions = Definitions.of(data)
    models = _models(definitions)
    active = active_model(data, environment).name
    providers = _shadowing(models, definitions, config, active)
    window = _smallest_window(config)
    pooled = [alias for alias, provider in providers.items() if provider == PROVIDER]
    narrowed = [alias for alias in pooled if _is_narrower(window, models[alias], data)]
    if window is not None and narrowed:
        # Vibe 1 has one threshold for all models; in later ones, a model's own comes first.
        for model in models.values():
            model.setdefault(THRESHOLD, _threshold(model, data))
        for alias in narrowed:
            models[alias] |= {WINDOW: window, THRESHOLD: _within(window)}
    for alias, provider in providers.items():
        models[alias]["provider"] = provider
    made: dict[str, object] = {
        "VIBE_MODELS": list(models.values()),
        "VIBE_PROVIDERS": [
            *_providers(definitions, providers),
            *_own_providers(providers, access),
        ],
    }
    if skills is not None:
        made[SKILL_PATHS] = [*_skill_paths(data, environment), str(skills)]
    if window is not None and narrowed:
        made["VIBE_AUTO_COMPACT_THRESHOLD"] = _within(window)
    if isinstance(compaction := data.get("compaction_model"), Mapping):
        # Vibe rejects a compaction model with another provider than the active model's.
        made["VIBE_COMPACTION_MODEL"] = {**compaction, "provider": PROVIDER}
    return {
        **{name: json.dumps(value, default=str) for name, value in made.items()},
        TOKEN_VARIABLE: access.token,
        **dict.fromkeys(NO_PROXY, _unproxied(environment)),
    }


def _shadowing(
    models: dict[str, Raw], definitions: Definitions, config: Config, active: str
) -> dict[str, str]:
    """Return the provider of each alias that goes to the server: the active model is the pool.

    A vibe renames some aliases in its file as it starts, and without an active model it uses
    one of these; so the other name is the pool, too, where the file has none of that name.
    What vibe has by itself is added to `models`.
    """
    names = [active]
    for old, new in RENAMED.items():
        others = _others(active, old, new)
        names += [name for name in others if name not in definitions.models]
    for name in names:
        if name in VIBES_MODELS:
            models.setdefault(name, dict(VIBES_MODELS[name]))
    members = [endpoint.alias for endpoint in config.endpoints]
    providers = {alias: f"{PROVIDER}-{alias}" for alias in members if alias in models}
    return providers | {name: PROVIDER for name in names if name in models}


def _others(name: str, old: str, new: str) -> Sequence[str]:
    return {old: (new,), new: (old,)}.get(name, ())


def _models(definitions: Definitions) -> dict[str, Raw]:
    """Return the tables of vibe's models by alias: those of the file, else vibe's own."""
    written = _tables(definitions.models)
    return written or {alias: dict(table) for alias, table in VIBES_MODELS.items()}


def _providers(definitions: Definitions, ours: Mapping[str, str]) -> list[Raw]:
    """Return vibe's own providers: a vibe before 3 knows only those that are named here."""
    found = {name: dict(table) for name, table in VIBES_PROVIDERS.items()}
    found |= _tables(definitions.providers)
    return [table for name, table in found.items() if name not in ours.values()]


def _tables(found: Mapping[str, Definition]) -> dict[str, Raw]:
    return {
        name: dict(definition.table)
        for name, definition in found.items()
        if isinstance(definition.table, Mapping)
    }


def _own_providers(providers: Mapping[str, str], access: Access) -> Iterator[Raw]:
    alone = {name: alias for alias, name in providers.items() if name != PROVIDER}
    for name, only in {PROVIDER: None, **alone}.items():
        yield {
            "name": name,
            "api_base": access.url + base_path(access.label, only),
            "api_key_env_var": TOKEN_VARIABLE,
            "backend": "generic",
        }


def _smallest_window(config: Config) -> int | None:
    """Return the smallest known context window of the primaries, None if none is known."""
    windows = [e.context_window for e in config.endpoints if not e.is_fallback]
    return min((window for window in windows if window is not None), default=None)


def _is_narrower(window: int | None, model: Raw, data: Mapping[str, Any]) -> bool:
    """Whether vibe could let a conversation with this model grow beyond that window."""
    return window is not None and _within(window) < _threshold(model, data)


def _threshold(model: Raw, data: Mapping[str, Any]) -> int:
    """Return the number of tokens at which vibe compacts a conversation with this model."""
    window = model.get(WINDOW)
    own = SHARE_OF_WINDOW * window if isinstance(window, int) else LARGEST_THRESHOLD
    named = model.get(THRESHOLD, data.get(THRESHOLD))
    # 0 means never.
    return named if isinstance(named, int) and named >= 0 else int(own)


def _within(window: int) -> int:
    return int(SHARE_OF_WINDOW * window)


def _skill_paths(data: Mapping[str, Any], environment: Mapping[str, str]) -> list[str]:
    """Return the user's own paths: the environment replaces those of the file."""
    try:
        paths = json.loads(environment[SKILL_PATHS])
    except (KeyError, ValueError):
        paths = data.get("skill_paths")
    return [str(path) for path in paths] if isinstance(paths, list) else []


def _unproxied(environment: Mapping[str, str]) -> str:
    """Return the hosts that bypass the proxy: vibe would use it for loopback, too."""
    # The lower-case variable counts first, as in the HTTP clients that vibe uses.
    own = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = [host.strip() for host in own.split(",") if host.strip()]
    return ",".join(hosts if {"*", LOOPBACK} & set(hosts) else [*hosts, LOOPBACK])
