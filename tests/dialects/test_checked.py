"""The built-in backends pass the check for third-party ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from muxcore.plugins.backend import Backend
from muxcore.testing import Sample, check_backend
from muxcore_backends.anthropic import Anthropic
from muxcore_backends.generic import Generic
from muxcore_backends.mistral import Mistral
from muxcore_backends.openai_responses import Responses
from tests.dialects.servers import streamed
from tests.dialects.table import BY_NAME, Dialect, Said, native_answer

CALLS = (("look", '{"n": "a.py"}'), ("write_file", "{}"))
SAID = {
    "text": Said("Grüße, 世界 👋"),
    "reasoning": Said("4", "Two and two."),
    "tool calls": Said("", "", CALLS),
    "all": Said("Let me look.", "I must look.", CALLS),
}
OVERLOADED = {
    "type": "error",
    "error": {"type": "overloaded_error", "message": "Overloaded"},
}
ERROR = f"event: error\ndata: {json.dumps(OVERLOADED)}\n\n".encode()


def sample(dialect: Dialect, name: str) -> Sample:
    raw = native_answer(dialect, SAID[name], 1)
    message = dialect.answer(SAID[name], 1)
    said: dict[str, Any] = {
        member: message[member]
        for member in ("content", "reasoning_content", "tool_calls")
        if member in message
    }
    finish = "tool_calls" if SAID[name].calls else "stop"
    body = json.dumps(raw).encode()
    return Sample(name, body, b"".join(streamed(raw)), said, finish, ERROR)


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (Generic, "openai"),
        (Generic, "deepseek"),
        (Mistral, "mistral-reasoning"),
        (Anthropic, "claude-thinking"),
        (Responses, "responses-reasoning"),
    ],
)
def test_a_backend(make: type[Backend], name: str) -> None:
    check_backend(make, samples=[sample(BY_NAME[name], said) for said in SAID], runs=20)
