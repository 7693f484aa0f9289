"""The codec: a request out, an answer in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar

from attrs import frozen

from muxcore import jsontext
from muxcore.chat import REASONING_ITEMS, Chat, Reply
from muxcore.core.records import Endpoint
from muxcore.dialects.reading import MalformedItemError
from muxcore.dialects.responses.items import answer_of, items_of
from muxcore.dialects.responses.settings import chat_usage
from muxcore.plugins.backend import BEARER, Decoder, HttpRequest, HttpResponse
from muxcore_backends import capabilities
from muxcore_backends.allowances import allowances
from muxcore_backends.failures import bad_reply, classify, failed_answer, object_of
from muxcore_backends.history import contents, reasoning, roles
from muxcore_backends.history.calls import CALLS
from muxcore_backends.history.forms import FORMED, MODERN
from muxcore_backends.history.ids import UP_TO_64, ids
from muxcore_backends.history.pairs import PAIRS
from muxcore_backends.history.reasoning import origin_of
from muxcore_backends.history.steps import Rewrite, rewritten
from muxcore_backends.openai_responses.settings import LIMIT, settings_of
from muxcore_backends.openai_responses.stream import (
    ResponsesDecoder,
    finish_reason_of_response,
)
from muxcore_backends.shapes import FailedAnswerError, completion
from muxcore_backends.sizes import clamped, estimated

PATH = "/responses"


@frozen
class Responses:
    """OpenAI's Responses API, without its state: the whole conversation is sent each time."""

    capabilities: ClassVar[Mapping[str, str]] = capabilities.RESPONSES

    def request(self, endpoint: Endpoint, chat: Chat) -> HttpRequest:
        wire = endpoint.wire
        messages, rewrites = rewritten(chat.messages, steps(endpoint))
        items = items_of(messages)
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
            BEARER if wire.key_variable else None,
            (*rewrites, *remarks, *limited),
        )

    def reply(self, endpoint: Endpoint, answer: HttpResponse) -> Reply:
        raw = object_of(answer)
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
        return completion(raw, endpoint, message, reason, chat_usage(raw.get("usage")))

    def stream(self, endpoint: Endpoint) -> Decoder:
        return ResponsesDecoder(endpoint.model, origin_of(endpoint))

    failure = staticmethod(classify)
    allowances = staticmethod(allowances)


@lru_cache(maxsize=256)
def steps(endpoint: Endpoint) -> tuple[Rewrite, ...]:
    """Return the steps that a history needs before it is put into items."""
    always = (
        MODERN,
        FORMED,
        PAIRS,
        CALLS,
        ids(UP_TO_64),
        roles.SYSTEM,
        reasoning.GATHERED,
        reasoning.foreign_dropped(REASONING_ITEMS, origin_of(endpoint)),
        contents.SPOKEN,
    )
    return always if endpoint.wire.supports_images else (*always, contents.BLIND)
