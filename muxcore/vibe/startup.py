"""What a vibe starts with: the user's config, the project's, variables, and agent profiles.

Read as vibe reads it, as far as it decides which model is asked: the project's file counts if
its folder is trusted, and lies over the user's; variables lie over both, and the profile of an
agent over all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from attrs import frozen

from muxcore.config import keys
from muxcore.config.definitions import (
    DEFAULT_MODEL,
    VIBES_MODELS,
    active_model,
    tables_by_name,
)
from muxcore.config.read import FILE_NAME, Document, document_of, read, vibe_home
from muxcore.errors import ConfigError

FOLDER = ".vibe"
TRUST_FILE = "trusted_folders.toml"
AGENTS = "agents"
DEFAULT_AGENT = "default_agent"

OWN_AGENTS: Mapping[str, Mapping[str, Any]] = {
    "lean": {
        "active_model": "leanstral",
        "models": [{"alias": "leanstral", "provider": "mistral-testing"}],
    },
}
"""Vibe's own agents that ask a model of their own."""

_TABLES = ("models", "providers")
_NOTHING = Document("vibe", {})


@frozen
class Arguments:
    """What vibe's command line says of where it runs, and as which agent."""

    agent: str = ""
    folder: str = ""
    trusts: bool = False

    @classmethod
    def of(cls, command: Sequence[str]) -> Arguments:
        options = {"--agent": "", "--workdir": ""}
        arguments = [part for word in command for part in word.split("=", 1)]
        for position, word in enumerate(arguments[:-1]):
            if word in options:
                options[word] = arguments[position + 1]
        return cls(options["--agent"], options["--workdir"], "--trust" in command)


@frozen
class Agent:
    """The profile of an agent, and the file that holds it; none for vibe's own."""

    name: str
    profile: Document

    @property
    def active_model(self) -> str:
        alias = self.profile.data.get("active_model")
        return alias if isinstance(alias, str) else ""


@frozen
class Startup:
    """What decides which models a vibe asks.

    `data` is what the files and variables come to; `own_active` is what the user's file and
    the variables alone would ask. `undecided` is the project's file if it
    counts as soon as the user trusts the folder. `agent` is the one that vibe starts with,
    None for one without a profile; `agents` are all that have one.
    """

    data: Mapping[str, Any]
    variables: Mapping[str, str]
    own_active: str
    project: Document = _NOTHING
    undecided: Document = _NOTHING
    agent: Agent | None = None
    agents: Sequence[Agent] = ()

    def active_aliases(self) -> list[str]:
        """Return what vibe asks at its start: several where its user has yet to decide."""
        found = [started_with(self.data, self.variables)]
        found += [
            alias for document, alias in self.of_folder() if document is self.undecided
        ]
        if self.agent is not None and self.agent.active_model:
            found.append(self.alias_of(self.agent))
        return list(dict.fromkeys(found))

    def of_folder(self) -> list[tuple[Document, str]]:
        """Return what vibe asks by the project's file, for each way to decide on trust."""
        found = []
        if self.project.data:
            found.append((self.project, started_with(self.data, self.variables)))
        if self.undecided.data:
            laid = _laid_over(self.data, self.undecided.data)
            found.append((self.undecided, started_with(laid, self.variables)))
        return found

    def used_agents(self) -> list[Agent]:
        """Return the agents with a model of their own; vibe's only if they are installed."""
        installed = _texts(self.data.get("installed_agents"))
        return [
            agent
            for agent in self.agents
            if agent.active_model
            and (agent.profile.source or agent is self.agent or agent.name in installed)
        ]

    def alias_of(self, agent: Agent) -> str:
        """Return what vibe asks as this agent, whose profile lies over all else."""
        return started_with(_laid_over(self.data, agent.profile.data), {})


def started_with(data: Mapping[str, Any], variables: Mapping[str, str]) -> str:
    """Return the alias that vibe asks first, after its own fallbacks.

    It passes over an active model that does not exist, or that `allowed_models` excludes.
    """
    models = {DEFAULT_MODEL: VIBES_MODELS[DEFAULT_MODEL], **tables_by_name(data, "models")}
    patterns = _texts(data.get("allowed_models"))
    available = [
        alias
        for alias, table in models.items()
        if not patterns or _matches(str(table.get("name", "")), patterns)
    ] or list(models)
    active = active_model(data, variables).name
    if active in available:
        return active
    return DEFAULT_MODEL if DEFAULT_MODEL in available else available[0]


def startup_of(arguments: Arguments, environment: Mapping[str, str]) -> Startup:
    """Read what a vibe would start with here: its own file need not be that of the pool."""
    home = vibe_home(environment)
    try:
        own = read(None, environment).data
    except ConfigError:
        # Vibe judges it.
        own = {}
    variables = keys.variables(environment, home)
    return read_startup(own, home, Path.cwd(), arguments, variables)


def read_startup(
    user: Mapping[str, Any],
    home: Path,
    folder: Path,
    arguments: Arguments,
    variables: Mapping[str, str],
) -> Startup:
    """Read what a vibe in `folder` starts with; `home` is the directory of vibe's own files.

    A file that cannot be read counts as empty: vibe judges it.
    """
    folder = (folder / Path(arguments.folder).expanduser()).resolve()
    trusted, declined = _decisions(home)
    if arguments.trusts:
        trusted.add(str(folder))
    file = _project_file(folder, home)
    found = _NOTHING if file is None else _document(file)
    trust = None if file is None else _is_trusted(file.parent, trusted, declined)
    project = found if trust else _NOTHING
    data = _with_variables(_laid_over(user, project.data), variables)
    places = [Path(path).expanduser() for path in _texts(data.get("agent_paths"))]
    if _is_trusted(folder, trusted, declined):
        places.append(folder / FOLDER / AGENTS)
    agents = _agents([*places, home / AGENTS])
    name = arguments.agent or str(
        variables.get("VIBE_DEFAULT_AGENT") or data.get(DEFAULT_AGENT)
    )
    return Startup(
        data=data,
        variables=variables,
        own_active=started_with(_with_variables(user, variables), variables),
        project=project,
        undecided=found if trust is None else _NOTHING,
        agent=agents.get(name),
        agents=tuple(agents.values()),
    )


def _laid_over(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one config over another; models and providers of one name become one."""
    merged = {**lower, **upper}
    for section in _TABLES:
        tables = tables_by_name(lower, section)
        for name, table in tables_by_name(upper, section).items():
            tables[name] = {**tables.get(name, {}), **table}
        if tables:
            merged[section] = tables
    return merged


def _with_variables(
    data: Mapping[str, Any], variables: Mapping[str, str]
) -> Mapping[str, Any]:
    """Lay the variables over it that hold models, providers or settings of these."""
    for name in (*_TABLES, "allowed_models", "compaction_model", "vision_model"):
        with suppress(ValueError):
            if text := variables.get(f"VIBE_{name.upper()}"):
                data = _laid_over(data, {name: json.loads(text)})
    return data


def _decisions(home: Path) -> tuple[set[str], set[str]]:
    data = _document(home / TRUST_FILE).data
    return set(_texts(data.get("trusted"))), set(_texts(data.get("untrusted")))


def _is_trusted(folder: Path, trusted: set[str], declined: set[str]) -> bool | None:
    """Return the decision of the nearest folder that has one, None without any."""
    for path in map(str, (folder, *folder.parents)):
        if path in trusted or path in declined:
            return path in trusted
    return None


def _project_file(folder: Path, home: Path) -> Path | None:
    """Find the project's file in this folder or above, but for the home of vibe itself."""
    if (folder / FOLDER).resolve() == home.resolve():
        return None
    for path in (folder, *folder.parents):
        if path == home.parent:
            return None
        if (file := path / FOLDER / FILE_NAME).is_file():
            return file
    return None


def _agents(folders: Sequence[Path]) -> dict[str, Agent]:
    """Read the profiles; of one name, the first counts, but vibe's own come last."""
    found: dict[str, Agent] = {}
    for file in _profiles(folders):
        found.setdefault(file.stem, Agent(file.stem, _document(file)))
    for name, profile in OWN_AGENTS.items():
        found.setdefault(name, Agent(name, Document("vibe", profile)))
    return found


def _profiles(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        with suppress(OSError):
            yield from sorted(folder.glob("*.toml"))


def _document(file: Path) -> Document:
    try:
        return document_of(file, file.read_bytes())
    except (OSError, ConfigError):
        return _NOTHING


def _texts(value: object) -> list[str]:
    return (
        [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
    )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name matches one of vibe's patterns: globs, or `re:` and an expression."""
    for pattern in map(str.strip, patterns):
        if pattern.startswith("re:"):
            with suppress(re.error):
                if re.fullmatch(pattern.removeprefix("re:"), name, re.IGNORECASE):
                    return True
        elif pattern and fnmatchcase(name.lower(), pattern.lower()):
            return True
    return False
