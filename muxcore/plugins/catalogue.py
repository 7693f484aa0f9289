"""The catalogue of modes, backends, boards and observers: built-in ones by module, others by entry point.

A third party's code is imported only when a name is needed that is not built in, so a broken
plugin affects only the pools that use it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy
from attrs import Factory, evolve, field, frozen

from muxcore.plugins import hookspecs

if TYPE_CHECKING:
    # To read a config needs none of these.
    from importlib import metadata

    from muxcore.core.strategy import Strategy
    from muxcore.plugins.backend import Backend
    from muxcore.plugins.board import Board
    from muxcore.plugins.observer import Observer

DISTRIBUTION = "vibe-mux"
BACKENDS = {
    "generic": "muxcore_backends.generic",
    "mistral": "muxcore_backends.mistral",
    "anthropic": "muxcore_backends.anthropic",
    "openai-responses": "muxcore_backends.openai_responses",
}
BUILT_IN = (
    "muxcore_strategies.failover",
    "muxcore_strategies.load_balance",
    "muxcore_strategies.lowest_cost",
    "muxcore_strategies.lowest_latency",
    *BACKENDS.values(),
    "muxcore.board.file",
)
WITH_EXTRAS = ("muxcore.board.engine.redis",)
"""They need what only an extra installs, so they are imported only where a config names them."""

HOOKS = {
    "mode": "vibe_mux_register_strategies",
    "backend": "vibe_mux_register_backends",
    "board": "vibe_mux_register_boards",
    "observer": "vibe_mux_register_observers",
}
"""The hook of each kind of plugin, by what an error calls the kind."""

MEMORY = "memory"
"""The value of `state` for which there is no board."""
FILE = "file"
"""The value that `run`, `serve` and `chat` use if the config does not say."""
REDIS = "redis"
"""The value for which many machines share a Redis."""

T = TypeVar("T")


class PluginError(Exception):
    """A plugin that is not available: the text gives the reason and the distribution.

    `known` are the names that are available.
    """

    def __init__(self, message: str, known: Iterable[str] = ()) -> None:
        self.known = tuple(known)
        super().__init__(message)


@frozen
class Registration(Generic[T]):
    """One mode, backend, board or observer: its name, its factory, and its distribution."""

    name: str
    factory: Callable[..., T]
    distribution: str = DISTRIBUTION
    version: str = ""

    @property
    def summary(self) -> str:
        """The first line of its documentation."""
        return (self.factory.__doc__ or "").strip().partition("\n")[0]

    @property
    def origin(self) -> str:
        """The distribution with its version, for display."""
        return f"{self.distribution} {self.version}".rstrip()

    @property
    def is_built_in(self) -> bool:
        return self.distribution == DISTRIBUTION


@frozen
class _Origin:
    distribution: str
    version: str
    load: Callable[[], object]
    label: str
    """Its name in an error: its distribution and entry point."""


@frozen
class Catalogue:
    """All available modes, backends, boards and observers. `problems` describes the plugins that failed."""

    strategies: Mapping[str, Registration[Strategy]]
    backends: Mapping[str, Registration[Backend]]
    problems: tuple[str, ...] = ()
    boards: Mapping[str, Registration[Board]] = field(factory=dict)
    observers: Mapping[str, Registration[Observer]] = field(factory=dict)

    def strategy(self, name: str) -> Registration[Strategy]:
        return _entry(self.strategies, name, "mode", self.problems)

    def backend(self, name: str) -> Registration[Backend]:
        return _entry(self.backends, name, "backend", self.problems)

    def board(self, name: str) -> Registration[Board]:
        return _entry(self.boards, name, "board", self.problems)

    def observer(self, name: str) -> Registration[Observer]:
        return _entry(self.observers, name, "observer", self.problems)


def _entry(
    entries: Mapping[str, Registration[T]], name: str, kind: str, problems: Iterable[str]
) -> Registration[T]:
    if name in entries:
        return entries[name]
    lines = [f"there is no {kind} {name!r}", *problems]
    raise PluginError("; ".join(lines), known=entries)


class _OwnBackends(Mapping[str, "Registration[Backend]"]):
    """Backends that are built in, each imported when it is looked up.

    A command that reads a config and calls no model starts sooner by a tenth without them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> Registration[Backend]:
        if name not in self._names:
            raise KeyError(name)
        held = _built_in((BACKENDS[name],))
        return _entry(held.backends, name, "backend", held.problems)


@frozen
class _Registry:
    """What the plugins have registered so far."""

    registered: dict[str, dict[str, Registration[Any]]] = field(
        factory=lambda: {kind: {} for kind in HOOKS}
    )
    """By the kind, and then by the name."""
    problems: list[str] = Factory(list)

    def load(self, origin: _Origin) -> None:
        """Load one plugin and add what it registers, all of it or nothing."""
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        offered: dict[str, list[tuple[str, Callable[..., Any]]]] = {}
        try:
            manager.register(origin.load())
            manager.check_pending()
            for kind, hook in HOOKS.items():
                offered[kind] = []
                getattr(manager.hook, hook)(register=_collect(offered[kind]))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's code may raise anything
            reason = f"{type(error).__name__}: {error}"
            self.problems.append(f"the plugin {origin.label} cannot be used: {reason}")
            return
        if not any(offered.values()):
            text = "registers nothing; is @hookimpl missing on its hook?"
            self.problems.append(f"the plugin {origin.label} {text}")
        for kind, each in offered.items():
            self._add(origin, kind, each)

    def _add(
        self, origin: _Origin, kind: str, offered: list[tuple[str, Callable[..., Any]]]
    ) -> None:
        registered = self.registered[kind]
        for name, factory in offered:
            if not (isinstance(name, str) and name and callable(factory)):
                self.problems.append(
                    f"{origin.label} registers the {kind} {name!r} as {factory!r}: expected"
                    " a name and a factory"
                )
            elif name in registered:
                self.problems.append(
                    f"{origin.label} registers the {kind} {name!r}, which"
                    f" {registered[name].distribution} has registered already: the first one counts"
                )
            else:
                registered[name] = Registration(
                    name, factory, origin.distribution, origin.version
                )


def _collect(into: list[tuple[str, Callable[..., Any]]]) -> Callable[[str, Any], None]:
    def register(name: str, factory: Callable[..., Any]) -> None:
        into.append((name, factory))

    return register


def built_in() -> Catalogue:
    """Return the catalogue of this package's own modes and backends, without other imports."""
    return _built_in(BUILT_IN)


@cache
def _built_in(modules: tuple[str, ...]) -> Catalogue:
    # Without the version: importing `importlib.metadata` for it takes a tenth of the time of
    # a small command.
    return _catalogue(modules, [], "")


def everything() -> Catalogue:
    """Return the catalogue of all that is installed. This imports every plugin."""
    return _catalogue(BUILT_IN, _third_party(), version())


def board(name: str) -> Registration[Board]:
    """Return the board of this name. It imports plugins only if it is not built in."""
    small = _built_in(_modules_of({name}))
    return (small if name in small.boards else everything()).board(name)


def _modules_of(names: Collection[str]) -> tuple[str, ...]:
    """Return the modules of the built-ins with these names, so that no other is imported.

    A built-in has the name of its module, which has "_" for a "-".
    """
    own = {name.replace("-", "_") for name in names}
    return tuple(
        module for module in (*BUILT_IN, *WITH_EXTRAS) if module.rpartition(".")[2] in own
    )


def holding(
    *,
    mode: str,
    backends: Iterable[str],
    board: str = MEMORY,
    observers: Collection[str] = (),
) -> Catalogue:
    """Return a catalogue with these names. It imports plugins only if one is not built in."""
    small = _built_in(_modules_of({mode, board}))
    has_board = board == MEMORY or board in small.boards
    has_backends = BACKENDS.keys() >= set(backends)
    # No observer is built in.
    if mode in small.strategies and has_backends and has_board and not observers:
        return evolve(small, backends=_OwnBackends(backends))
    return everything()


def _catalogue(
    modules: Iterable[str], third_party: Iterable[_Origin], own_version: str
) -> Catalogue:
    registry = _Registry()
    for module in modules:
        load = _importer(module)
        registry.load(_Origin(DISTRIBUTION, own_version, load, module))
    for origin in third_party:
        registry.load(origin)
    return Catalogue(
        registry.registered["mode"],
        registry.registered["backend"],
        tuple(registry.problems),
        registry.registered["board"],
        registry.registered["observer"],
    )


def _importer(module: str) -> Callable[[], object]:
    return lambda: importlib.import_module(module)


def _third_party() -> list[_Origin]:
    from importlib import metadata  # noqa: PLC0415 - see `built_in`

    # By label: sys.path may list a directory twice, and an editable install has its metadata twice.
    found: dict[str, _Origin] = {}
    for distribution in metadata.distributions():
        try:
            points = distribution.entry_points
        except Exception:  # noqa: BLE001, S112 - garbled metadata, hardly of a plugin
            continue
        for point in points:
            if point.group == hookspecs.PROJECT:
                origin = _origin(distribution, point)
                found.setdefault(origin.label, origin)
    # Sorted, so that the first to register is always the same, whatever the order of sys.path.
    return [found[label] for label in sorted(found)]


def _origin(
    distribution: metadata.Distribution, entry_point: metadata.EntryPoint
) -> _Origin:
    about = distribution.metadata
    # Reading a missing key is deprecated, and the protocol of Python 3.11 has no `get`.
    keys = ("Name", "Version")
    name, version = (about[key] if key in about else "" for key in keys)  # noqa: SIM401
    name = name or "unknown"
    label = f"{name} ({entry_point.value})"
    return _Origin(name, version, entry_point.load, label)


def version() -> str:
    """Return the version of this package; "" in a checkout that is not installed."""
    from importlib import metadata  # noqa: PLC0415 - see `built_in`

    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return ""
