"""The list of models, as the clients of each maker read it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from muxcore.chat import Json

ANTHROPICS = "anthropic-version"
"""The header field that all of Anthropic's clients send."""


def listing(names: Collection[str], created: int, fields: Mapping[str, str]) -> Json:
    """List the valid values of `model` for a client that sends these header fields."""
    listed = [model_card(name, created, fields) for name in names]
    if ANTHROPICS not in fields:
        return {"object": "list", "data": listed}
    first, last = listed[0]["id"], listed[-1]["id"]
    return {"data": listed, "has_more": False, "first_id": first, "last_id": last}


def model_card(name: str, created: int, fields: Mapping[str, str]) -> Json:
    if ANTHROPICS in fields:
        since = datetime.fromtimestamp(created, UTC).isoformat()
        return {"type": "model", "id": name, "display_name": name, "created_at": since}
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "vibe-mux",
        # Mistral's client takes no model without these.
        "type": "base",
        "capabilities": {"completion_chat": True, "function_calling": True},
    }
