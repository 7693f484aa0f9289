"""The list of models, as OpenAI's clients read it. Pure."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from muxcore.chat import Json


def listing(names: Collection[str], created: int) -> Json:
    """List the valid values of `model`."""
    return {"object": "list", "data": [listed(name, created) for name in names]}


def listed(name: str, created: int) -> Json:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "vibe-mux",
        # Mistral's client demands a type, Anthropic's the rest.
        "type": "model",
        "display_name": name,
        "created_at": datetime.fromtimestamp(created, UTC).isoformat(),
    }
