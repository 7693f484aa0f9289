"""The codec: a request out, an answer in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from attrs import frozen

from muxcore import jsontext
from muxcore.chat import ORIGIN, THINKING_BLOCKS, Chat, Reply
from muxcore.core.records import Endpoint
from muxcore.dialects.messages.blocks import answer_of
from muxcore.dialects.messages.options import chat_usage
from muxcore.dialects.reading import MalformedItemError
from muxcore.plugins.backend import Decoder, HttpRequest, HttpResponse, KeyHeader
from muxcore_backends import capabilities
from muxcore_backends.allowances import allowances
from muxcore_backends.anthropic.settings import settings_of
from muxcore_backends.anthropic.stream import AnthropicDecoder
from muxcore_backends.anthropic.turns import conversation, steps
from muxcore_backends.failures import bad_reply, classify, failed_answer, object_of
from muxcore_backends.history.reasoning import origin_of
from muxcore_backends.history.steps import rewritten
from muxcore_backends.shapes import (
    FailedAnswerError,
    MalformedError,
    completion,
    finish_reason_of,
)
from muxcore_backends.sizes import clamped, estimated

VERSION = "2023-06-01"
VERSIONED = "/v1"
PATH = "/messages"


@frozen
class Anthropic:
    """Anthropic's Messages API, with its own streams and signed thinking."""

    capabilities: ClassVar[Mapping[str, str]] = capabilities.ANTHROPICS

    def request(self, endpoint: Endpoint, chat: Chat) -> HttpRequest:
        wire = endpoint.wire
        messages, rewrites = rewritten(chat.messages, steps(endpoint))
        said = conversation(messages)
        body, remarks = settings_of(endpoint, chat, said)
        body |= {"model": endpoint.model, "messages": said.turns}
        if said.system:
            body["system"] = said.system
        if chat.stream:
            body["stream"] = True
        text = jsontext.encode(body)
        limited = clamped(body, ("max_tokens",), endpoint.context_window, estimated(text))
        if limited:
            if body.get("thinking", {}).get("budget_tokens", 0) >= body["max_tokens"]:
                del body["thinking"]
            text = jsontext.encode(body)
        return HttpRequest(
            _address(wire.api_base),
            {
                "Content-Type": "application/json",
                "anthropic-version": VERSION,
                **dict(wire.extra_headers),
            },
            text.encode(),
            KeyHeader("x-api-key", "") if wire.key_variable else None,
            (*rewrites, *remarks, *limited),
        )

    def reply(self, endpoint: Endpoint, answer: HttpResponse) -> Reply:
        raw = object_of(answer)
        blocks = raw.get("content")
        if not isinstance(blocks, list) or not all(isinstance(b, dict) for b in blocks):
            raise bad_reply(answer, "the answer is malformed: it has no content")
        origin = origin_of(endpoint)
        try:
            message = answer_of(
                blocks, lambda block: {THINKING_BLOCKS: [{**block, ORIGIN: origin}]}
            )
        except MalformedItemError as error:
            raise bad_reply(answer, f"the answer is malformed: {error}") from None
        try:
            reason = finish_reason_of(raw.get("stop_reason"), calls="tool_calls" in message)
        except FailedAnswerError as error:
            raise failed_answer(error) from None
        except MalformedError as error:
            raise bad_reply(answer, f"the answer is malformed: {error}") from None
        return completion(raw, endpoint, message, reason, chat_usage(raw.get("usage")))

    def stream(self, endpoint: Endpoint) -> Decoder:
        return AnthropicDecoder(endpoint.model, origin_of(endpoint))

    failure = staticmethod(classify)
    allowances = staticmethod(allowances)


def _address(api_base: str) -> str:
    """Accept a base with the version, as other providers have it, or without, as vibe has it."""
    base = api_base.rstrip("/")
    return base + PATH if base.endswith(VERSIONED) else base + VERSIONED + PATH
