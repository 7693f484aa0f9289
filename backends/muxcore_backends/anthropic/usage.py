"""Count tokens as OpenAI does: cached tokens are part of the prompt."""

from __future__ import annotations

from typing import Any

from muxcore.assembling import count_of
from muxcore.chat import Json


def openai_usage(usage: Any) -> Json | None:
    """Return the usage in OpenAI's shape; None if the server did not give it."""
    counts = usage if isinstance(usage, dict) else {}
    fresh, completion = map(count_of, map(counts.get, ("input_tokens", "output_tokens")))
    if fresh is None or completion is None:
        return None
    cached = count_of(counts.get("cache_read_input_tokens")) or 0
    prompt = fresh + cached + (count_of(counts.get("cache_creation_input_tokens")) or 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
