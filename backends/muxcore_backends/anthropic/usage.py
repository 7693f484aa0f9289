"""Tokens, counted as OpenAI does: what came from the cache is part of the prompt."""

from __future__ import annotations

from typing import Any

from muxcore.chat import Json


def openai_usage(usage: Any) -> Json:
    counts = usage if isinstance(usage, dict) else {}
    cached = _count(counts.get("cache_read_input_tokens"))
    written = _count(counts.get("cache_creation_input_tokens"))
    prompt = _count(counts.get("input_tokens")) + cached + written
    completion = _count(counts.get("output_tokens"))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _count(value: object) -> int:
    return value if type(value) is int and value > 0 else 0
