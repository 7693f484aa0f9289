"""Responses of real servers, byte for byte, and their classification.

llama.cpp's `llama-server` (W1 to W15) and LiteLLM's proxy (W16, W17), as they were seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from muxcore.assembling import Assembler
from muxcore.core.outcomes import Fault, Kind, Limit, Refusal
from muxcore.core.records import Endpoint
from muxcore.plugins.backend import Failure, HttpResponse, ServerEvent
from muxcore_backends import failures, words
from muxcore_backends.generic import Generic
from muxcore_backends.mistral import Mistral

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LLAMA = {"server": "llama.cpp", "content-type": "application/json; charset=utf-8"}


def classified(status: int, body: Any, headers: Mapping[str, str] = LLAMA) -> Failure:
    answer = HttpResponse(status, headers, json.dumps(body).encode())
    return Generic().failure(answer, NOW)


def llama(code: int, message: str, kind: str = "invalid_request_error", **more: Any) -> Any:
    return {"error": {"code": code, "message": message, "type": kind, **more}}


FRAME = (
    "Unable to generate parser for this template. Automatic parser generation failed: \n"
    "------------\nWhile executing CallExpression at line 62, column 36 in source:\n"
    '...9 %}↵                {{- raise_exception("x...\n          ^\nError: Jinja Exception: '
)
TOO_LONG = "request (3031 tokens) exceeds the available context size (1024 tokens)"
BROKEN_ARGUMENTS = (
    "Failed to parse tool call arguments as JSON: [json.exception.parse_error.101] parse error"
    " at line 1, column 2: syntax error while parsing object key - invalid literal; last read:"
    " '{b'; expected string literal"
)
NO_IMAGES = (
    "image input is not supported - hint: if this is unexpected, you may need to provide the"
    " mmproj"
)
CALL_IDS = "Tool call IDs should be alphanumeric strings with length 9!"

BLOCKS: dict[str, tuple[int, Any, Kind, int | None]] = {
    "W1, too long": (
        400,
        llama(
            400,
            f"{TOO_LONG}, try increasing it",
            "exceed_context_size_error",
            n_prompt_tokens=3031,
            n_ctx=1024,
        ),
        Refusal.TOO_LONG,
        1024,
    ),
    "W3, loading": (
        503,
        llama(503, "Loading model", "unavailable_error"),
        Fault.TRANSIENT,
        None,
    ),
    "W4, key": (
        401,
        llama(401, "Invalid API Key", "authentication_error"),
        Fault.AUTH,
        None,
    ),
    "W5, an image": (500, llama(500, NO_IMAGES, "server_error"), Refusal.TEMPLATE, None),
    "W6, path": (
        404,
        llama(404, "File Not Found", "not_found_error"),
        Fault.NOT_FOUND,
        None,
    ),
    "W7, arguments": (
        500,
        llama(500, BROKEN_ARGUMENTS, "server_error"),
        Refusal.TEMPLATE,
        None,
    ),
    "W8, field": (
        400,
        llama(400, "Field 'temperature': type must be number, but is string"),
        Refusal.REQUEST,
        None,
    ),
    "W8, schema": (
        400,
        llama(400, f"{FRAME[:80]} JSON schema error at #: unrecognized type objekt"),
        Refusal.REQUEST,
        None,
    ),
    "W9, ids": (400, llama(400, FRAME + CALL_IDS), Refusal.REQUEST, None),
    "W10, parallel calls": (
        400,
        llama(400, f"{FRAME}This model only supports single tool-calls at once!"),
        Refusal.REQUEST,
        None,
    ),
    "W11, template at rendering": (
        500,
        llama(
            500, "Error: Jinja Exception: No user query found in messages.", "server_error"
        ),
        Refusal.TEMPLATE,
        None,
    ),
    "W14, router": (400, llama(400, "model 'nobody' not found"), Fault.NOT_FOUND, None),
    "W14, no name": (
        400,
        llama(400, "model name is missing from the request"),
        Refusal.REQUEST,
        None,
    ),
    "W16, a limit": (
        429,
        {
            "error": {
                "message": "litellm.RateLimitError: slow down. No fallback was attempted.",
                "type": "throttling_error",
                "param": None,
                "code": "429",
            }
        },
        Limit.RATE,
        None,
    ),
    "W16, too long": (
        400,
        llama(
            400,
            "litellm.ContextWindowExceededError: litellm.BadRequestError:"
            f" ContextWindowExceededError: OpenAIException - {TOO_LONG}, try increasing it",
        ),
        Refusal.TOO_LONG,
        1024,
    ),
    "W16, connection": (
        500,
        llama(
            500,
            "litellm.InternalServerError: InternalServerError: OpenAIException - Connection"
            " error.",
            "internal_server_error",
        ),
        Fault.TRANSIENT,
        None,
    ),
    "W16, model": (
        400,
        llama(
            400,
            "/chat/completions: Invalid model name passed in model=nobody. Call `/v1/models`"
            " to view available models for your key.",
        ),
        Fault.NOT_FOUND,
        None,
    ),
    "W17, wrong key": (
        400,
        llama(400, "No connected db.", "no_db_connection"),
        Fault.AUTH,
        None,
    ),
}


@pytest.mark.parametrize("block", BLOCKS)
def test_each_recorded_response_is_classified(block: str) -> None:
    status, body, kind, window = BLOCKS[block]
    found = classified(status, body)
    assert (found.kind, found.window) == (kind, window)


def test_the_stream_of_a_local_server_is_decoded() -> None:
    """W12: a role with null content, usage with timings, then the end."""
    pieces: list[Any] = [
        {"choices": [{"finish_reason": None, "index": 0, "delta": {"role": "assistant",
         "content": None}}], "created": 1, "id": "chatcmpl-1", "model": "/models/x.gguf",
         "object": "chat.completion.chunk"},
        {"choices": [{"finish_reason": None, "index": 0, "delta": {"content": "Hi"}}]},
        {"choices": [{"finish_reason": "length", "index": 0, "delta": {}}]},
        {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1,
         "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 8}},
         "timings": {"prompt_ms": 5.5}},
    ]  # fmt: skip
    decoder, assembler = Generic().stream(Endpoint("a")), Assembler()
    for data in [*map(json.dumps, pieces), "[DONE]"]:
        for chunk in decoder.feed(ServerEvent(data)):
            assembler.add(chunk)
    reply = assembler.reply()
    assert (reply.text, reply.finish_reason, decoder.ended) == ("Hi", "length", True)
    assert (reply.usage.prompt_tokens, reply.usage.cached_tokens) == (9, 8)


def test_an_answer_that_fills_the_context_is_cut_and_no_failure() -> None:
    """W2: the whole context of 1,024 tokens is used, and the server says so by "length"."""
    usage = {"prompt_tokens": 24, "completion_tokens": 1_000, "total_tokens": 1_024}
    message = {"role": "assistant", "content": "on and on"}
    choice = {"finish_reason": "length", "index": 0, "message": message}
    body = {"choices": [choice], "object": "chat.completion", "usage": usage}
    reply = Generic().reply(
        Endpoint("a"), HttpResponse(200, LLAMA, json.dumps(body).encode())
    )
    assert (reply.text, reply.finish_reason) == ("on and on", "length")
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (24, 1_000)


def test_a_router_is_not_advised_to_pull_a_model() -> None:
    body = llama(404, "model 'nobody' not found", "not_found_error")
    assert classified(404, body).message == "model 'nobody' not found"
    assert classified(400, body, {}).message == "model 'nobody' not found"
    ollama = classified(404, body, {}).message
    assert ollama == "model 'nobody' not found (`ollama pull nobody`)"


def test_mistrals_refused_key_may_be_a_spent_plan() -> None:
    answer = HttpResponse(401, {}, b'{"message": "Unauthorized"}')
    found = Mistral().failure(answer, NOW)
    expected = "Unauthorized; Mistral says the same of a plan that is spent"
    assert (found.kind, found.message) == (Fault.AUTH, expected)
    assert Generic().failure(answer, NOW).message == "Unauthorized"
    other = HttpResponse(500, {}, b'{"message": "x"}')
    assert Mistral().failure(other, NOW).message == "x"


TABLES = ("TOO_LONG", "QUOTA", "FILTERED", "KEY_REFUSED", "NO_SUCH_MODEL")
SAID = (
    "maximum context length is 4096 tokens",
    "Your credit balance is too low",
    "content_filter",
    "Incorrect API key provided",
    "The model `x` does not exist",
    "Unsupported value: 'temperature' does not support 0.2 with this model",
    "thinking is enabled but reasoning_content is missing",
    "registry.ollama.ai/library/gemma3:4b does not support tools",
    "",
)


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("said", SAID)
def test_a_refusal_without_a_known_wording_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    """§3: words save an attempt or teach something. None decides whether others are asked."""
    known = classified(status, llama(status, said)).kind
    assert isinstance(known, Refusal | Fault)
    for table in TABLES:
        monkeypatch.setattr(failures, table, words.Words(r"(?!)"))
    assert classified(status, llama(status, said)).kind is Refusal.REQUEST
