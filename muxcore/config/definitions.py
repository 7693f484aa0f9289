"""Find vibe's models, providers and active model in its tables: the only place that reads them.

Pure: it takes the parsed tables of a file, finds each by its name, and adds vibe's defaults, which
are the data below. It checks no option of a table (`models` does).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

from attrs import field, frozen

from muxcore.config.problems import Problem, shown
from muxcore.config.toml import KeyPath

ACTIVE_MODEL_VARIABLE = "VIBE_ACTIVE_MODEL"

DEFAULT_MODEL = "mistral-medium-3.5"
DEFAULT_API_TIMEOUT = 720
LONGEST_API_TIMEOUT = 365 * 24 * 60 * 60
"""In seconds. A longer one is no limit."""

VIBES_PROVIDERS: Mapping[str, Mapping[str, Any]] = {
    "mistral": {
        "name": "mistral",
        "api_base": "https://api.mistral.ai/v1",
        "api_key_env_var": "MISTRAL_API_KEY",
        "backend": "mistral",
    },
    "llamacpp": {
        "name": "llamacpp",
        "api_base": "http://127.0.0.1:8080/v1",
    },
}

VIBES_TEMPERATURE = 0.2
"""What vibe asks for where the entry of a model has no temperature."""

VIBES_MODELS: Mapping[str, Mapping[str, Any]] = {
    DEFAULT_MODEL: {
        "name": "mistral-vibe-cli-latest",
        "provider": "mistral",
        "alias": DEFAULT_MODEL,
        "temperature": 1.0,
        "input_price": 1.5,
        "output_price": 7.5,
        "cached_input_price": 0.15,
        "thinking": "high",
        "supports_images": True,
        "max_context_length": 262_144,
    },
    # Vibe 1 and 2 had these; configs in use still rely on them.
    "devstral-2": {
        "name": "mistral-vibe-cli-latest",
        "provider": "mistral",
        "alias": "devstral-2",
        "input_price": 0.4,
        "output_price": 2.0,
    },
    "devstral-small": {
        "name": "devstral-small-latest",
        "provider": "mistral",
        "alias": "devstral-small",
        "input_price": 0.1,
        "output_price": 0.3,
    },
    "local": {"name": "devstral", "provider": "llamacpp", "alias": "local"},
}

RENAMED: Mapping[str, str] = {"devstral-2": DEFAULT_MODEL}
"""Aliases that vibe rewrites in its file as it starts, and their new names. It leaves the pool as it is."""


def names_of(alias: str) -> tuple[str, ...]:
    """Return the alias, and its other name if it is the old or the new name of a renamed one."""
    others = [name for pair in RENAMED.items() if alias in pair for name in pair]
    return tuple(dict.fromkeys([alias, *others]))


def known_as(alias: str, aliases: Collection[str]) -> str:
    """Return the one of `aliases` that `alias` means, possibly renamed by vibe; else `alias`."""
    return next((name for name in names_of(alias) if name in aliases), alias)


# The options that name a table; the first one with a value counts.
_NAMED_BY = {"models": ("alias", "name"), "providers": ("name",)}


@frozen
class Definition:
    """The table of one model or provider, with vibe's defaults.

    If the file has another value in place of a table, `table` is that value. `path` is empty for
    one of vibe's own; `repeats` are the places that define the name again: the first one counts.
    """

    name: str
    table: Any
    path: KeyPath = ()
    repeats: tuple[KeyPath, ...] = ()


@frozen
class ActiveModel:
    """The value of `active_model` as it was written, which may be no text.

    If it is not from the file, `path` is empty and `origin` names its source.
    """

    alias: Any
    path: KeyPath = ()
    origin: str = ""

    @property
    def name(self) -> str:
        return self.alias if isinstance(self.alias, str) else DEFAULT_MODEL


@frozen
class Definitions:
    """The models and providers of a file, by name; vibe's own are found by the methods."""

    models: Mapping[str, Definition]
    providers: Mapping[str, Definition]
    problems: tuple[Problem, ...] = field(default=())

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Read `[[models]]` and `[[providers]]`, each a list or a table of tables."""
        problems: list[Problem] = []
        models = {
            alias: _with_defaults(found, _defaults_for_model(found))
            for alias, found in _by_name(data, "models", problems).items()
        }
        providers = {
            name: _with_defaults(found, VIBES_PROVIDERS.get(name, {}), name=name)
            for name, found in _by_name(data, "providers", problems).items()
        }
        return cls(MappingProxyType(models), MappingProxyType(providers), tuple(problems))

    def model(self, alias: str) -> Definition | None:
        """Return a model of the file, or else one of vibe's own."""
        return self.models.get(alias) or _own(VIBES_MODELS, alias)

    def provider(self, name: str) -> Definition | None:
        return self.providers.get(name) or _own(VIBES_PROVIDERS, name)

    def present_alias(self, alias: str) -> str:
        """Return the alias, or its new name if vibe has renamed it in this file."""
        renamed = RENAMED.get(alias, "")
        return renamed if alias not in self.models and renamed in self.models else alias

    def offered(self) -> tuple[str, ...]:
        """Return the aliases to choose from: those of the file, or else vibe's own.

        Of a renamed model, only the new name is among them.
        """
        return tuple(self.models) or tuple(a for a in VIBES_MODELS if a not in RENAMED)


def active_model(data: Mapping[str, Any], variables: Mapping[str, str]) -> ActiveModel:
    """Return the model that vibe uses without a pool. An empty value means vibe's default."""
    if from_environment := variables.get(ACTIVE_MODEL_VARIABLE):
        return ActiveModel(from_environment, (), ACTIVE_MODEL_VARIABLE)
    if written := data.get("active_model"):
        return ActiveModel(written, ("active_model",))
    return ActiveModel(DEFAULT_MODEL, (), "active_model (vibe's default)")


def api_timeout_ms(data: Mapping[str, Any]) -> int | None:
    """Return the longest silence of a call that the file sets, in milliseconds.

    Vibe's own default counts as unset: older vibes wrote it into each new file.
    """
    seconds = data.get("api_timeout")
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return None
    if seconds == DEFAULT_API_TIMEOUT or not 0 < seconds < LONGEST_API_TIMEOUT:
        return None
    return max(1, round(seconds * 1000))


def tables_by_name(data: Mapping[str, Any], section: str) -> dict[str, Mapping[str, Any]]:
    """Return the tables of `models` or `providers` as they were written, without defaults."""
    tables = data.get(section)
    if not isinstance(tables, Mapping | list | tuple):
        return {}
    found: dict[str, Mapping[str, Any]] = {}
    for _, _, name, table in _named(section, tables):
        if isinstance(table, Mapping):
            found.setdefault(name, table)
    return found


def _own(own: Mapping[str, Mapping[str, Any]], name: str) -> Definition | None:
    return Definition(name, own[name]) if name in own else None


def _by_name(
    data: Mapping[str, Any], section: str, problems: list[Problem]
) -> dict[str, Definition]:
    tables = data.get(section, ())
    if not isinstance(tables, Mapping | list | tuple):
        text = f"{shown(tables)}, expected a list of tables: [[{section}]]"
        problems.append(Problem((section,), text))
        return {}
    found: dict[str, Definition] = {}
    for path, key, name, table in _named(section, tables):
        first = found.get(name)
        if first is None:
            found[name] = Definition(name, table, path)
        else:
            found[name] = Definition(
                name, first.table, first.path, (*first.repeats, (*path, key))
            )
    return found


def _named(
    section: str, tables: Mapping[str, Any] | Sequence[Any]
) -> Iterator[tuple[KeyPath, str, str, Any]]:
    """Yield path, naming option, name and table. A member of a list may have no name."""
    if isinstance(tables, Mapping):
        for name, table in tables.items():
            yield (section, str(name)), "", str(name), table
        return
    for index, table in enumerate(tables):
        options = table if isinstance(table, Mapping) else {}
        for key in _NAMED_BY[section]:
            if isinstance(options.get(key), str) and options[key]:
                yield (section, index), key, options[key], table
                break


def _defaults_for_model(found: Definition) -> Mapping[str, Any]:
    """Return vibe's defaults for a model. A complete table gets none, except the default model's."""
    table = found.table if isinstance(found.table, Mapping) else {}
    is_whole = table.get("name") and table.get("provider")
    if is_whole and found.name != DEFAULT_MODEL:
        return {"alias": found.name}
    return {"alias": found.name, **VIBES_MODELS.get(found.name, {})}


def _with_defaults(
    found: Definition, defaults: Mapping[str, Any], **fixed: str
) -> Definition:
    """Return the table with defaults. An empty value does not override a default."""
    if not isinstance(found.table, Mapping):
        return found
    written = {
        option: value
        for option, value in found.table.items()
        if option not in defaults or (value is not None and value != "")
    }
    table = {**defaults, **written, **fixed}
    return Definition(found.name, table, found.path, found.repeats)
