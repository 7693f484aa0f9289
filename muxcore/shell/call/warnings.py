"""What is worth saying of an answer that came well: that the model read half the question."""

from __future__ import annotations

from muxcore.chat import Usage

FAR_BELOW = 0.5
"""Estimates are rough, by far less than this."""


def truncated_prompt_warning(expected: int | None, usage: Usage) -> tuple[str, ...]:
    """Say so if a server has read far less than it was sent.

    `expected` is the estimate of a request to a server that is known to do that, else None.
    """
    read = usage.prompt_tokens or 0
    if expected is None or not 0 < read < expected * FAR_BELOW:
        return ()
    scope = f"the server read only {read} of about {expected} tokens: it cut the history's front"
    return (
        f"{scope} (raise its context length; for Ollama OLLAMA_CONTEXT_LENGTH or num_ctx)",
    )
