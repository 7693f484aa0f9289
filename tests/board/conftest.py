from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from muxcore import Multiplexer
from muxcore.standin import StandInServer
from tests.board.configs import two_models

Make = Callable[..., Multiplexer]


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    return tmp_path / "vibe-mux" / "state.db"


@pytest.fixture
def config(server: StandInServer, state_file: Path) -> Callable[..., dict[str, Any]]:
    """Make a config of two models whose state is in the file."""

    def config(*pool: dict[str, Any], **section: Any) -> dict[str, Any]:
        options = {"path": str(state_file), "timeout_ms": 2000}
        section = {"state": "file", "state_options": options, **section}
        return two_models(server.url, *pool, **section)

    return config


@pytest.fixture
def make(config: Callable[..., dict[str, Any]]) -> Iterator[Make]:
    """Make a multiplexer, as another process would."""
    made: list[Multiplexer] = []

    def make(*pool: dict[str, Any], **section: Any) -> Multiplexer:
        made.append(Multiplexer.from_config(config(*pool, **section), env={}))
        return made[-1]

    yield make
    for multiplexer in made:
        multiplexer.close()
