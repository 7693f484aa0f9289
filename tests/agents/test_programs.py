"""What `run` gives to each agent that it knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tomli
from attrs import evolve

from muxcore.agents.programs import general_variables, launch_of
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


def test_claude_code_gets_the_pool_for_every_model_that_it_names() -> None:
    launch = launch_of(Path("claude"), ACCESS, windowed(9000, 4000))
    assert launch is not None
    assert not launch.arguments
    variables = dict(launch.variables)
    assert variables.pop("ANTHROPIC_BASE_URL") == "http://127.0.0.1:4000/run/abc"
    assert variables.pop("ANTHROPIC_AUTH_TOKEN") == "the-token"
    assert variables.pop("ANTHROPIC_API_KEY") == ""
    assert variables.pop("CLAUDE_CODE_ATTRIBUTION_HEADER") == "0"
    assert variables.pop("CLAUDE_CODE_AUTO_COMPACT_WINDOW") == "9000"
    assert variables.pop("CLAUDE_CODE_MAX_CONTEXT_TOKENS") == "9000"
    assert {name.removesuffix("_MODEL") for name in variables} == {
        "ANTHROPIC",
        *(f"ANTHROPIC_DEFAULT_{name}" for name in ("OPUS", "SONNET", "HAIKU", "FABLE")),
    }
    assert set(variables.values()) == {"mux"}


def test_opencode_gets_a_provider_of_its_own() -> None:
    launch = launch_of(Path("opencode"), ACCESS, windowed(9000, 4000))
    assert launch is not None
    settings = json.loads(launch.variables["OPENCODE_CONFIG_CONTENT"])
    provider = settings["provider"]["vibe-mux"]
    assert (settings["model"], settings["small_model"]) == ("vibe-mux/mux",) * 2
    assert provider["options"] == {
        "baseURL": "http://127.0.0.1:4000/run/abc/v1",
        "apiKey": "{env:VIBE_MUX_TOKEN}",
    }
    assert list(provider["models"]) == ["mux", "large", "small"]
    assert provider["models"]["mux"]["limit"] == {"context": 9000, "output": 0}


def test_qwen_code_gets_arguments_before_those_of_the_user() -> None:
    launch = launch_of(Path("qwen"), ACCESS, CONFIG)
    assert launch is not None
    options = dict(zip(launch.arguments[::2], launch.arguments[1::2], strict=True))
    assert options == {
        "--auth-type": "openai",
        "--openai-base-url": "http://127.0.0.1:4000/run/abc/v1",
        "--model": "mux",
    }
    assert launch.variables == {"OPENAI_API_KEY": "the-token"}


def test_any_other_program_gets_the_variables_of_both_makers() -> None:
    variables = general_variables(ACCESS)
    urls = {name: url for name, url in variables.items() if "BASE" in name}
    assert urls == {
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:4000/run/abc",
        "OPENAI_BASE_URL": "http://127.0.0.1:4000/run/abc/v1",
        "OPENAI_API_BASE": "http://127.0.0.1:4000/run/abc/v1",
    }
    keys = ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "OPENAI_API_KEY")
    assert {variables[name] for name in keys} == {"the-token"}


def test_any_other_program_is_not_known() -> None:
    for program in ("vibe", "python", "sh"):
        assert launch_of(Path(program), ACCESS, CONFIG) is None
