"""The codec: a request out, an answer in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import ClassVar

from attrs import frozen

from muxcore import jsontext
from muxcore.assembling import usage_of
from muxcore.chat import ORIGIN, REASONING, REASONING_ITEMS, Chat, Json, Reply
from muxcore.core.allowance import Allowance
from muxcore.core.records import Endpoint
from muxcore.dialects.responses.items import MalformedItemError, answer_of, items_of
from muxcore.dialects.responses.settings import chat_usage
from muxcore.plugins.backend import Decoder, Failure, HttpRequest, HttpResponse, KeyHeader
from muxcore_backends import capabilities
from muxcore_backends.allowances import allowances
from muxcore_backends.failures import bad_reply, classify, failed_answer
from muxcore_backends.history import contents, phrases, reasoning, roles
from muxcore_backends.history.calls import CALLS
from muxcore_backends.history.ids import UP_TO_64, ids
from muxcore_backends.history.pairs import PAIRS
from muxcore_backends.history.steps import Message, Rewrite, each, rewritten, without
from muxcore_backends.openai_responses.settings import LIMIT, settings_of
from muxcore_backends.openai_responses.stream import (
    ResponsesDecoder,
    finish_reason_of_response,
)
from muxcore_backends.shapes import FailedAnswerError
from muxcore_backends.sizes import clamped, estimated

PATH = "/responses"


@frozen
class Responses:
    """OpenAI's Responses API, without its state: the whole conversation is sent each time."""

    capabilities: ClassVar[Mapping[str, str]] = capabilities.RESPONSES

    def request(self, endpoint: Endpoint, chat: Chat) -> HttpRequest:
        wire = endpoint.wire
        messages, rewrites = rewritten(chat.messages, steps(endpoint))
        items = items_of(messages, phrases.UNKNOWN_PART)
        settings, remarks = settings_of(endpoint, chat)
        body = {**settings, "model": endpoint.model, "input": items}
        if chat.stream:
            body["stream"] = True
        text = jsontext.encode(body)
        limited = clamped(body, (LIMIT,), endpoint.context_window, estimated(text))
        if limited:
            text = jsontext.encode(body)
        return HttpRequest(
            wire.api_base.rstrip("/") + PATH,
            {"Content-Type": "application/json", **dict(wire.extra_headers)},
            text.encode(),
            KeyHeader() if wire.key_variable else None,
            (*rewrites, *remarks, *limited),
        )

    def reply(self, endpoint: Endpoint, answer: HttpResponse) -> Reply:
        try:
            raw = jsontext.decode(answer.body)
        except (ValueError, RecursionError):
            raise bad_reply(answer, "the answer is cut off, or no JSON") from None
        if not isinstance(raw, dict) or raw.get("error"):
            raise bad_reply(answer, "the answer is an error without words")
        output = raw.get("output")
        if not isinstance(output, list) or not all(isinstance(i, dict) for i in output):
            raise bad_reply(answer, "the answer is malformed: it has no output")
        try:
            message = answer_of(output, origin_of(endpoint))
            reason = finish_reason_of_response(raw, calls="tool_calls" in message)
        except MalformedItemError as error:
            raise bad_reply(answer, f"the answer is malformed: {error}") from None
        except FailedAnswerError as error:
            raise failed_answer(error) from None
        whole: Json = {
            "id": str(raw.get("id") or ""),
            "object": "chat.completion",
            # A codec reads no clock.
            "created": 0,
            "model": str(raw.get("model") or endpoint.model),
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": chat_usage(raw.get("usage")),
        }
        return Reply(message, reason, usage_of(whole), whole)

    def stream(self, endpoint: Endpoint) -> Decoder:
        return ResponsesDecoder(endpoint.model, origin_of(endpoint))

    def failure(self, answer: HttpResponse, now: datetime) -> Failure:
        return classify(answer, now)

    def allowances(
        self, headers: Mapping[str, str], now: datetime
    ) -> tuple[Allowance, ...]:
        return allowances(headers, now)


def origin_of(endpoint: Endpoint) -> str:
    """Return the name of the endpoint that encrypts its reasoning: no other can read it."""
    return f"{endpoint.provider}/{endpoint.model}"


@lru_cache(maxsize=256)
def steps(endpoint: Endpoint) -> tuple[Rewrite, ...]:
    """Return the steps that a history needs before it is put into items."""
    always = (
        PAIRS,
        CALLS,
        ids(UP_TO_64),
        roles.SYSTEM,
        reasoning.GATHERED,
        _foreign_reasoning_dropped(endpoint),
        contents.SPOKEN,
    )
    return always if endpoint.wire.supports_images else (*always, contents.BLIND)


def _foreign_reasoning_dropped(endpoint: Endpoint) -> Rewrite:
    """Make the step that leaves out reasoning which this endpoint has not encrypted."""
    origin = origin_of(endpoint)

    def change(message: Message) -> Message:
        items = message.get(REASONING_ITEMS) or ()
        own = [item for item in items if item.get(ORIGIN) == origin]
        if own and len(own) == len(items):
            return message
        if not message.get(REASONING) and not items:
            return message
        rest = without(message, REASONING, REASONING_ITEMS)
        return {**rest, REASONING_ITEMS: own} if own else rest

    return Rewrite(reasoning.DROPPED.words, each(change))
