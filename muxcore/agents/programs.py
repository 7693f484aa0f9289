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
from muxcore.gateway.access import Access
from muxcore.gateway.api.listing import POOL
from muxcore.gateway.api.routing import run_path
from muxcore.gateway.discovery import TOKEN_VARIABLE

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


def _codex(access: Access, config: Config) -> Launch:
    provider = f"model_providers.{PROVIDER}"
    options: dict[str, object] = {
        "model": POOL,
        "model_provider": PROVIDER,
        f"{provider}.name": PROVIDER,
        f"{provider}.base_url": access.url + run_path(access.label),
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


def general_variables(access: Access) -> dict[str, str]:
    """Return the variables that bring programs of OpenAI's own libraries to the pool."""
    return {
        "OPENAI_BASE_URL": access.url + run_path(access.label),
        "OPENAI_API_KEY": access.token,
        # Its traces go to OpenAI's own host, whatever the base: prompts, with the token as a key.
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
    }


PROGRAMS: Mapping[str, Callable[[Access, Config], Launch]] = {"codex": _codex}
"""By the name of the program, without its extension."""

INSTALLED_BY: Mapping[str, str] = {
    **dict.fromkeys(("vibe", "vibe-acp"), "uv tool install mistral-vibe"),
    "codex": "npm install -g @openai/codex",
}
"""By the same name: the command that installs it."""
