"""The environment that sends an unmodified vibe through the gateway. Pure.

None of the user's files change. Vibe takes any setting from the environment as JSON, so its
models are passed with another provider: the active model becomes the pool, each further member
of the pool that model alone. The aliases are the user's, so a session can continue without the
pool.

A vibe that merges models by alias gets what changes, and no more: all else comes from the
files, so a project's own settings count, and nothing is passed that a later vibe may refuse.
Earlier and unknown ones get all models with every field.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from muxcore.config import Config
from muxcore.config.definitions import (
    RENAMED,
    VIBES_MODELS,
    VIBES_PROVIDERS,
    Definition,
    Definitions,
    names_of,
)
from muxcore.gateway.access import TOKEN_VARIABLE, Access
from muxcore.gateway.api.paths import base_path
from muxcore.shell.masking import is_secret
from muxcore.vibe.release import Release
from muxcore.vibe.startup import Startup
from muxcore.vibe.windows import (
    THRESHOLD,
    USUAL_THRESHOLD,
    WINDOW,
    accepted,
    narrowed,
    usual_threshold,
)

Raw: TypeAlias = dict[str, Any]

SKILL_PATHS = "VIBE_SKILL_PATHS"
PROVIDER = "vibe-mux"
EXTRA_HEADERS = "extra_headers"


def settings(
    startup: Startup, config: Config, access: Access, skills: Path | None, release: Release
) -> dict[str, str]:
    """Return the variables that send vibe to the gateway.

    `config` is the config of the pool, maybe from another file than vibe's own. `skills` is
    the directory that holds the `/mux` skill, if there is one.
    """
    data, variables = startup.data, startup.variables
    providers = redirected(startup, config)
    models = _models(Definitions.of(data), providers)
    changes = _changes(models, providers, config, data, release)
    own = list(_own_providers(providers, access))
    made: dict[str, object] = {}
    if skills is not None:
        # Lists are joined with those of the files by whatever merges models, too.
        listed = {} if release.merges_models else data
        made[SKILL_PATHS] = [*_skill_paths(listed, variables), str(skills)]
    if release.merges_models:
        made["VIBE_MODELS"] = [
            {name: models[alias].get(name) for name in ("alias", "name", "provider")}
            | changed
            for alias, changed in changes.items()
            if not _is_renamed(alias, models)
        ]
        made["VIBE_PROVIDERS"] = own
        # Else an experiment may choose another model for a user who has chosen none.
        first = startup.active_aliases()[0]
        chosen = RENAMED[first] if _is_renamed(first, models) else first
        made["VIBE_ROUTED_DEFAULT_MODEL"] = chosen
    else:
        whole = [table | changes.get(alias, {}) for alias, table in models.items()]
        made["VIBE_MODELS"] = (
            list(map(accepted, whole)) if release.checks_thresholds else whole
        )
        made["VIBE_PROVIDERS"] = [*_providers(Definitions.of(data), providers), *own]
    if limit := _common_threshold(changes, providers, data, release):
        made["VIBE_AUTO_COMPACT_THRESHOLD"] = limit
    if isinstance(compaction := data.get("compaction_model"), Mapping):
        # Vibe rejects a compaction model with another provider than the active model's.
        made["VIBE_COMPACTION_MODEL"] = {**compaction, "provider": PROVIDER}
    if vision := _vision_model(models, data, startup.active_aliases()[0]):
        provider = providers.get(vision["alias"], vision["provider"])
        made["VIBE_VISION_MODEL"] = {**accepted(vision), "provider": provider}
    return {
        **{
            name: value if isinstance(value, str) else json.dumps(value, default=str)
            for name, value in made.items()
        },
        **access.variables(variables),
    }


def redirected(startup: Startup, config: Config) -> dict[str, str]:
    """Return the provider of each alias that goes to the gateway.

    What vibe asks at its start is the pool; a pool of the active model alone stands for no
    other. A vibe renames some aliases in its file as it starts, so the other name is the pool,
    too, where the file has none of that name.
    """
    known = Definitions.of(startup.data)
    members = [endpoint.alias for endpoint in config.endpoints]
    offered = known.models or VIBES_MODELS
    active = startup.active_aliases()
    if members == [config.active_model]:
        active = [alias for alias in active if alias in {startup.own_active, *members}]
    return {
        name: provider
        for provider, aliases in (
            *((f"{PROVIDER}-{alias}", [alias]) for alias in members if alias in offered),
            (PROVIDER, active),
        )
        for alias in aliases
        for name in names_of(alias)
        if known.model(name) and (name == alias or name not in known.models)
    }


def _models(definitions: Definitions, providers: Mapping[str, str]) -> dict[str, Raw]:
    """Return the tables of vibe's models by alias: those of the file, else vibe's own.

    Redirected ones that vibe has by itself are added. One that vibe renames keeps its limits.
    """
    models = _tables(definitions.models) or {
        alias: dict(table) for alias, table in VIBES_MODELS.items()
    }
    for alias in providers:
        limits = {
            option: value
            for name in names_of(alias)
            for option, value in models.get(name, {}).items()
            if option in {WINDOW, THRESHOLD}
        }
        models.setdefault(alias, {**VIBES_MODELS.get(alias, {}), **limits})
    return models


def _changes(
    models: Mapping[str, Raw],
    providers: Mapping[str, str],
    config: Config,
    data: Mapping[str, Any],
    release: Release,
) -> dict[str, Raw]:
    """Return what is passed of each model in place of the user's own settings."""
    window = config.smallest_window
    changes: dict[str, Raw] = {}
    for alias, model in models.items():
        is_pool = providers.get(alias) == PROVIDER
        changed: Raw = dict(
            narrowed(
                model,
                window if is_pool else None,
                model.get(THRESHOLD, data.get(THRESHOLD)),
                release,
            )
        )
        if alias in providers:
            changed["provider"] = providers[alias]
        if changed:
            changes[alias] = changed
    if not release.merges_models and any(WINDOW in changed for changed in changes.values()):
        # Vibes before 2.26 know no windows, and have one threshold for all models but those
        # with their own.
        for alias, model in models.items():
            changed = changes.setdefault(alias, {})
            if THRESHOLD not in changed and _is_unset(model.get(THRESHOLD)):
                own = changed.get(WINDOW, model.get(WINDOW))
                changed[THRESHOLD] = usual_threshold(own) if own else _default(data)
    return changes


def _common_threshold(
    changes: Mapping[str, Raw],
    providers: Mapping[str, str],
    data: Mapping[str, Any],
    release: Release,
) -> int | None:
    """Return the threshold for all models, where vibe has no other or refuses the user's."""
    is_refused = release.checks_thresholds and data.get(THRESHOLD) == 0
    if release.merges_models and not is_refused:
        return None
    limits = [
        changes[alias][THRESHOLD]
        for alias, provider in providers.items()
        if provider == PROVIDER and THRESHOLD in changes[alias]
    ]
    return min(limits, default=None)


def _is_unset(threshold: object) -> bool:
    return not isinstance(threshold, int) or threshold < 0


def _default(data: Mapping[str, Any]) -> int:
    return USUAL_THRESHOLD if _is_unset(data.get(THRESHOLD)) else int(data[THRESHOLD])


def _is_renamed(alias: str, models: Mapping[str, Raw]) -> bool:
    """Whether a vibe that merges models renames this one in its file as it starts."""
    new = RENAMED.get(alias)
    return (
        new is not None
        and alias in models
        and models[alias].get("name") == VIBES_MODELS[new]["name"]
    )


def _vision_model(
    models: Mapping[str, Raw], data: Mapping[str, Any], active: str
) -> Raw | None:
    """Return the model that vibe has images described by, if it chooses one by itself.

    It takes the first of the active model's provider, which the pool's is not.
    """
    own = models.get(active, {})
    if own.get("supports_images") or isinstance(data.get("vision_model"), Mapping):
        return None
    able = (
        model
        for model in models.values()
        if model.get("supports_images") and model.get("provider") == own.get("provider")
    )
    return next(able, None)


def _providers(definitions: Definitions, ours: Mapping[str, str]) -> list[Raw]:
    """Return vibe's own providers: a vibe before 3 knows only those that are named here.

    Of their `extra_headers`, those that may hold a secret are left out, as keys are: the
    tools of vibe inherit its environment. The gateway reads its own from the config.
    """
    found = {name: dict(table) for name, table in VIBES_PROVIDERS.items()}
    found |= _tables(definitions.providers)
    return [
        _without_secrets(table)
        for name, table in found.items()
        if name not in ours.values()
    ]


def _without_secrets(provider: Raw) -> Raw:
    headers = provider.get(EXTRA_HEADERS)
    if not isinstance(headers, Mapping):
        return provider
    kept = {n: v for n, v in headers.items() if not any(map(is_secret, str(v).split()))}
    return {**provider, EXTRA_HEADERS: kept}


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


def _skill_paths(data: Mapping[str, Any], environment: Mapping[str, str]) -> list[str]:
    """Return the user's own paths: the environment replaces those of the file."""
    try:
        paths = json.loads(environment[SKILL_PATHS])
    except (KeyError, ValueError):
        paths = data.get("skill_paths")
    return [str(path) for path in paths] if isinstance(paths, list) else []
