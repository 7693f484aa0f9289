"""What vibe brings without being told: its providers and models, and the names it changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ACTIVE_MODEL = "mistral-medium-3.5"

PROVIDERS: Mapping[str, Mapping[str, Any]] = {
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

MODELS: Mapping[str, Mapping[str, Any]] = {
    ACTIVE_MODEL: {
        "name": "mistral-vibe-cli-latest",
        "provider": "mistral",
        "alias": ACTIVE_MODEL,
        "temperature": 1.0,
        "input_price": 1.5,
        "output_price": 7.5,
        "cached_input_price": 0.15,
        "thinking": "high",
        "supports_images": True,
        "max_context_length": 262_144,
    },
    # The names of vibe 1 and 2, which configs in use still lean on.
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

RENAMED: Mapping[str, str] = {"devstral-2": ACTIVE_MODEL}
"""Aliases that vibe's own migration rewrites in `[[models]]`, but not in the pool."""
