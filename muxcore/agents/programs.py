"""How agents other than vibe are brought to the pool: by arguments and variables. Pure.

No file of theirs is changed. The model that they name is the pool, but for an alias, which is that
model alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import field, frozen

from muxcore.config import Config
from muxcore.gateway.access import POOL, TOKEN_VARIABLE, Access
from muxcore.gateway.api.paths import run_path

PROVIDER = "vibe-mux"


@frozen
class Launch:
    """What brings a program to the pool: arguments before its own, and variables."""

    arguments: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(factory=dict[str, str])


def launch_of(program: Path, access: Access, config: Config) -> Launch | None:
    """Return the launch of a known agent, None for any other program."""
    make = PROGRAMS.get(program.stem.lower())
    return None if make is None else make(access, config)


def _base(access: Access) -> str:
    return access.url + run_path(access.label)


def _codex(access: Access, config: Config) -> Launch:
    provider = f"model_providers.{PROVIDER}"
    options: dict[str, object] = {
        "model": POOL,
        "model_provider": PROVIDER,
        f"{provider}.name": PROVIDER,
        f"{provider}.base_url": _base(access),
        f"{provider}.env_key": TOKEN_VARIABLE,
        f"{provider}.wire_api": "responses",
        # Only OpenAI's own servers can run this tool.
        "web_search": "disabled",
    }
    if config.smallest_window is not None:
        options["model_context_window"] = config.smallest_window
    # Each value is TOML, which has the texts and numbers of JSON.
    pairs = (("-c", f"{name}={json.dumps(value)}") for name, value in options.items())
    return Launch(tuple(word for pair in pairs for word in pair))


def _opencode(access: Access, config: Config) -> Launch:
    model: dict[str, object] = {}
    if config.smallest_window is not None:
        # It takes no limit without both; 0 is its own value where none is known.
        model["limit"] = {"context": config.smallest_window, "output": 0}
    names = (POOL, *(endpoint.alias for endpoint in config.endpoints))
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": PROVIDER,
        "options": {"baseURL": _base(access), "apiKey": f"{{env:{TOKEN_VARIABLE}}}"},
        "models": {name: {"name": name, **model} for name in names},
    }
    named = f"{PROVIDER}/{POOL}"
    settings = {
        "provider": {PROVIDER: provider},
        "model": named,
        "small_model": named,
    }
    return Launch(variables={"OPENCODE_CONFIG_CONTENT": json.dumps(settings)})


def _qwen(access: Access, _: Config) -> Launch:
    base = ("--auth-type", "openai", "--openai-base-url", _base(access), "--model", POOL)
    # Others on this machine may read arguments, so the token is in the variable alone.
    return Launch(base, {"OPENAI_API_KEY": access.token})


CLAUDE_MODELS = ("OPUS", "SONNET", "HAIKU", "FABLE")
"""The models that Claude Code may name for itself."""


CLAUDE_WINDOWS = ("CLAUDE_CODE_MAX_CONTEXT_TOKENS", "CLAUDE_CODE_AUTO_COMPACT_WINDOW")
"""Newer and older versions read the window of a model that they do not know from these."""


def _claude(access: Access, config: Config) -> Launch:
    variables = {
        **_anthropic(access),
        "ANTHROPIC_MODEL": POOL,
        **{f"ANTHROPIC_DEFAULT_{name}_MODEL": POOL for name in CLAUDE_MODELS},
        # A key beside the token would be sent as well, or asked about.
        "ANTHROPIC_API_KEY": "",
        # It would put a line for Anthropic's accounts into each system prompt.
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
    }
    if config.smallest_window is not None:
        window = str(config.smallest_window)
        variables |= dict.fromkeys(CLAUDE_WINDOWS, window)
    return Launch(variables=variables)


def _anthropic(access: Access) -> dict[str, str]:
    return {
        # These libraries add the version to the path.
        "ANTHROPIC_BASE_URL": _base(access).removesuffix("/v1"),
        "ANTHROPIC_AUTH_TOKEN": access.token,
    }


def general_variables(access: Access) -> dict[str, str]:
    """Return the variables that bring programs of both makers' own libraries to the pool."""
    return {
        **_anthropic(access),
        # Some read this variable alone.
        "ANTHROPIC_API_KEY": access.token,
        "OPENAI_BASE_URL": _base(access),
        # Older programs, and those of LiteLLM's, read this one.
        "OPENAI_API_BASE": _base(access),
        "OPENAI_API_KEY": access.token,
        # Its traces go to OpenAI's own host, whatever the base: prompts, with the token as a key.
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
    }


PROGRAMS: Mapping[str, Callable[[Access, Config], Launch]] = {
    "claude": _claude,
    "codex": _codex,
    "opencode": _opencode,
    "qwen": _qwen,
}
"""By the name of the program, without its extension."""

INSTALLED_BY: Mapping[str, str] = {
    **dict.fromkeys(("vibe", "vibe-acp"), "uv tool install mistral-vibe"),
    "claude": "npm install -g @anthropic-ai/claude-code",
    "codex": "npm install -g @openai/codex",
    "opencode": "npm install -g opencode-ai",
    "qwen": "npm install -g @qwen-code/qwen-code",
}
"""By the same name: the command that installs it."""
