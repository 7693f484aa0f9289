"""What `run` gives to each agent that it knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli
from attrs import evolve

from muxcore.agents.programs import launch_of
from muxcore.config import Config, load
from muxcore.gateway.access import Access
from tests.gateway.conftest import config

ACCESS = Access("http://127.0.0.1:4000", "the-token", "abc")
CONFIG = load(config("http://127.0.0.1:1/v1", "large", "small"), env={})


def windowed(*windows: int | None) -> Config:
    pairs = zip(CONFIG.endpoints, windows, strict=True)
    endpoints = tuple(evolve(e, context_window=window) for e, window in pairs)
    return evolve(CONFIG, endpoints=endpoints)


@pytest.mark.parametrize("program", ["codex", "/usr/bin/codex", "Codex.cmd"])
def test_codex_gets_a_provider_of_its_own(program: str) -> None:
    launch = launch_of(Path(program), ACCESS, CONFIG)
    assert launch is not None
    options, values = launch.arguments[::2], launch.arguments[1::2]
    assert set(options) == {"-c"}
    assert tomli.loads("\n".join(values)) == {
        "model": "mux",
        "model_provider": "vibe-mux",
        "model_providers": {
            "vibe-mux": {
                "name": "vibe-mux",
                "base_url": "http://127.0.0.1:4000/run/abc/v1",
                "env_key": "VIBE_MUX_TOKEN",
                "wire_api": "responses",
            }
        },
        "web_search": "disabled",
    }
    # Others on this machine may read the arguments of a program.
    assert "the-token" not in " ".join(launch.arguments)
    assert ACCESS.variables({})["VIBE_MUX_TOKEN"] == "the-token"


def test_codex_knows_the_window_of_the_smallest_primary() -> None:
    launch = launch_of(Path("codex"), ACCESS, windowed(9000, 4000))
    assert launch is not None
    assert launch.arguments[-1] == "model_context_window=9000"


def test_any_other_program_is_not_known() -> None:
    for program in ("vibe", "python", "sh"):
        assert launch_of(Path(program), ACCESS, CONFIG) is None
