"""A config file in its own directory, loaded with stand-ins for the wire dialects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import field, frozen, validators

from muxcore.config import Config
from muxcore.config.read import read
from muxcore.config.resolve import resolve
from muxcore.core.strategy import Strategy
from muxcore.errors import ConfigError
from muxcore.plugins.catalogue import Catalogue, Registration
from muxcore_strategies.failover import Failover
from muxcore_strategies.load_balance import LoadBalance

ENVIRONMENT = {"MISTRAL_API_KEY": "key-of-mistral", "MY_API_KEY": "key-of-mine"}

Load = Callable[..., Config]
Problems = Callable[..., list[str]]


@frozen
class Tuned(Failover):
    """A mode with options."""

    depth: int = 1
    names: tuple[str, ...] = ()
    _hidden: float = field(default=0.5, validator=validators.lt(1))


@frozen
class Veiled(Failover):
    """A mode whose annotations are for type checkers only."""

    depth: Unseen = 1  # type: ignore[name-defined] # noqa: F821


def plain_factory(*, depth: int = 1) -> Failover:
    if depth > 9:
        raise ValueError("too deep")
    return Failover()


def catalogue(*, mode: str, backends: Iterable[str]) -> Catalogue:
    strategies: dict[str, Callable[..., Strategy]] = {
        "failover": Failover,
        "load_balance": LoadBalance,
        "tuned": Tuned,
        "veiled": Veiled,
        "plain": plain_factory,
    }
    dialects = ("generic", "mistral", "anthropic")
    return Catalogue(
        {name: Registration(name, factory) for name, factory in strategies.items()},
        {name: Registration(name, lambda: None) for name in dialects},  # type: ignore[arg-type,return-value]
    )


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a text, as a file, or a mapping."""

    def load_it(
        source: str | Mapping[str, Any],
        env: Mapping[str, str] = ENVIRONMENT,
        catalogue: Callable[..., Catalogue] = catalogue,
    ) -> Config:
        if isinstance(source, str):
            file = tmp_path / "config.toml"
            file.write_text(source, encoding="utf-8")
            return resolve(read(file, env), env, catalogue)
        return resolve(read(source, env), env, catalogue)

    return load_it


@pytest.fixture
def problems(load: Load, tmp_path: Path) -> Problems:
    """Return the problems of a config, without the directory of the file."""

    def problems_of(*args: Any, **options: Any) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(*args, **options)
        return [p.replace(f"{tmp_path}/", "") for p in caught.value.problems]

    return problems_of
