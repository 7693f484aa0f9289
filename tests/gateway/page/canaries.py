"""A key and a prompt that must never be seen again."""

from __future__ import annotations

from typing import Any

KEY, PROMPT = "canary-key-0123456789", "canary-prompt"


def with_key(made: dict[str, Any], _upstream: object) -> dict[str, Any]:
    """Return the config with a variable for the key."""
    made["providers"][0]["api_key_env_var"] = "CANARY_KEY"
    return made
