"""The OpenAI-compatible dialect, with the variations of its many servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar

from attrs import frozen

from muxcore import jsontext
from muxcore.assembling import clean_usage, move_usage
from muxcore.chat import REASONING, Chat, Json, Reply
from muxcore.core.allowance import Allowance
from muxcore.core.records import Endpoint, Wire
from muxcore.plugins.backend import BEARER, Decoder, Failure, HttpRequest, HttpResponse
from muxcore.plugins.hookspecs import BackendFactory, hookimpl
from muxcore_backends import capabilities
from muxcore_backends.allowances import allowances
from muxcore_backends.capabilities import (
    CUTS_PROMPTS,
    DEVELOPER_ROLE,
    KNOWN_MEMBERS,
    NEEDS_REASONING,
    NINE_CHARACTER_IDS,
    PLAIN_CONTENT,
    REFUSES_REASONING,
    SIGNED_CALLS,
    SINGLE_CALLS,
    STREAMS_WHOLE,
    STRICT_ALTERNATION,
    SYSTEM_FIRST,
    USAGE_UNASKED,
    USER_LAST,
    USER_NOT_AFTER_TOOL,
)
from muxcore_backends.failures import bad_reply, classify, failed_answer, object_of
from muxcore_backends.history import contents, members, reasoning, roles
from muxcore_backends.history.calls import CALLS
from muxcore_backends.history.forms import FORMED, MODERN
from muxcore_backends.history.ids import LENIENT, NINE, UP_TO_40, ids
from muxcore_backends.history.pairs import PAIRS, SPLIT
from muxcore_backends.history.steps import Messages, Rewrite, rewritten
from muxcore_backends.shapes import (
    FailedAnswerError,
    MalformedError,
    finish_reason_of,
    normalise,
)
from muxcore_backends.sizes import clamped, estimated
from muxcore_backends.streaming import GenericDecoder
from muxcore_backends.toolcalls import complete_tool_calls

PATH = "/chat/completions"
LIMITS = ("max_tokens", "max_completion_tokens")
CACHE_KEY = "prompt_cache_key"
UNASSEMBLED = frozenset({"n", "logprobs", "top_logprobs"})
"""Settings whose results are lost when a whole answer is assembled from a stream."""


@frozen
class Generic:
    """OpenAI-compatible chat completions, as most servers speak them.

    A dialect that differs overrides the step in which it does.
    """

    capabilities: ClassVar[Mapping[str, str]] = capabilities.OPENAI_COMPATIBLE

    def request(self, endpoint: Endpoint, chat: Chat) -> HttpRequest:
        """Encode `chat`. Raise TypeError or ValueError if no JSON can hold it."""
        wire = endpoint.wire
        messages, rewrites = self.rewriting(endpoint, chat.messages)
        has = capabilities.of(endpoint)
        others, left_out = self.others(chat.extra, has)
        body = {**self.settings(wire, chat), **others, "model": endpoint.model}
        body.pop("stream", None)
        streams = chat.stream or (STREAMS_WHOLE in has and UNASSEMBLED.isdisjoint(body))
        if not streams or USAGE_UNASKED in has:
            body.pop("stream_options", None)
        if streams:
            body["stream"] = True
            if USAGE_UNASKED not in has:
                self.streaming(body)
        body["messages"] = messages
        text = jsontext.encode(body)
        size = estimated(text)
        limited = clamped(body, LIMITS, endpoint.context_window, size)
        if limited:
            text = jsontext.encode(body)
        return HttpRequest(
            wire.api_base.rstrip("/") + PATH,
            {"Content-Type": "application/json", **dict(wire.extra_headers)},
            text.encode(),
            BEARER if wire.key_variable else None,
            (*rewrites, *left_out, *limited),
            size if CUTS_PROMPTS in has else None,
        )

    def rewriting(
        self, endpoint: Endpoint, messages: Messages
    ) -> tuple[Messages, tuple[str, ...]]:
        """Return the history as this dialect takes it, and the changes in words for users.

        The caller's messages are never changed; those that need no change are not copied.
        """
        return rewritten(messages, self.steps(endpoint))

    def steps(self, endpoint: Endpoint) -> tuple[Rewrite, ...]:
        """Return the steps that a history may need for this endpoint, in order."""
        return _steps(endpoint)

    def others(
        self, extra: Mapping[str, Any], has: frozenset[str]
    ) -> tuple[Json, tuple[str, ...]]:
        """Return the caller's extra members as this dialect takes them, and which were left out."""
        others = dict(extra)
        # OpenAI's own, which clients of the Responses API send: Google refuses all for it.
        if KNOWN_MEMBERS in has and DEVELOPER_ROLE not in has and CACHE_KEY in others:
            del others[CACHE_KEY]
            return others, (f"left out: {CACHE_KEY}",)
        return others, ()

    def settings(self, wire: Wire, chat: Chat) -> Json:
        """Return the settings of the call, else those of the endpoint."""
        settings: Json = {}
        temperature = chat.temperature_for(wire.temperature)
        if temperature is not None:
            settings["temperature"] = temperature
        if wire.top_p is not None:
            settings["top_p"] = wire.top_p
        limit = self.limit(wire, chat)
        if limit is not None:
            settings["max_tokens"] = limit
        settings.update(self.thinking(wire.thinking))
        # Servers refuse an empty list of tools, and a choice among none.
        if chat.tools:
            settings["tools"] = chat.tools
            if chat.tool_choice is not None:
                settings["tool_choice"] = chat.tool_choice
        return settings

    def limit(self, wire: Wire, chat: Chat) -> int | None:
        """Return the limit of the answer in tokens: at most that of the endpoint."""
        if chat.max_tokens is None:
            named = "max_tokens" in chat.extra or "max_completion_tokens" in chat.extra
            return None if named else wire.max_output_tokens
        if wire.max_output_tokens is None:
            return chat.max_tokens
        return min(chat.max_tokens, wire.max_output_tokens)

    def thinking(self, level: str) -> Json:
        """Return the members that ask for a level of thinking."""
        return {} if level == "off" else {"reasoning_effort": level}

    def streaming(self, body: Json) -> None:
        """Ask the stream to report its usage."""
        options = body.get("stream_options") or {}
        body["stream_options"] = {**options, "include_usage": True}

    def reply(self, endpoint: Endpoint, answer: HttpResponse) -> Reply:
        """Decode a whole answer; raise `BadReplyError` for anything but one."""
        raw = object_of(answer)
        try:
            choice = _first_choice(raw)
            if choice.get("error"):
                body = jsontext.encode(choice).encode()
                inner = HttpResponse(answer.status, answer.headers, body)
                raise bad_reply(inner, "the answer ended with an error")
            message = _whole_message(
                choice, endpoint.wire.reasoning_field_name, raw.get("id")
            )
            finish_reason = finish_reason_of(
                choice.get("finish_reason"),
                choice.get("native_finish_reason"),
                calls=bool(message.get("tool_calls")),
            )
        except FailedAnswerError as error:
            raise failed_answer(error) from None
        except MalformedError as error:
            raise bad_reply(answer, f"the answer is malformed: {error}") from None
        choice["finish_reason"] = finish_reason
        move_usage(raw)
        return Reply(message, finish_reason, clean_usage(raw), raw)

    def stream(self, endpoint: Endpoint) -> Decoder:
        return GenericDecoder(endpoint.wire)

    def failure(self, answer: HttpResponse, now: datetime) -> Failure:
        return classify(answer, now)

    def allowances(
        self, headers: Mapping[str, str], now: datetime
    ) -> tuple[Allowance, ...]:
        return allowances(headers, now)


@lru_cache(maxsize=256)
def _steps(endpoint: Endpoint) -> tuple[Rewrite, ...]:
    """Choose the steps by the capabilities of this endpoint."""
    has, wire = capabilities.of(endpoint), endpoint.wire
    field = wire.reasoning_field_name
    takes_reasoning = NEEDS_REASONING in has or (
        wire.thinking != "off" and REFUSES_REASONING not in has
    )
    alternates = STRICT_ALTERNATION in has
    known = KNOWN_MEMBERS in has
    nine = NINE_CHARACTER_IDS in has
    form = NINE if nine else LENIENT if alternates else UP_TO_40
    # A closed API that demands such ids, and has no chat template, is Mistral's.
    names = members.MISTRAL if nine and not alternates else members.OPENAI
    signed = SIGNED_CALLS in has
    conditional: tuple[tuple[bool, Rewrite], ...] = (
        (True, MODERN),
        (True, FORMED),
        (True, PAIRS),
        (True, CALLS),
        (True, ids(form)),
        (SINGLE_CALLS in has, SPLIT),
        (DEVELOPER_ROLE not in has, roles.SYSTEM),
        (SYSTEM_FIRST in has, roles.EARLY_SYSTEM),
        (True, reasoning.GATHERED),
        (True, contents.SETTLED),
        (not wire.supports_images, contents.BLIND),
        (wire.supports_images, contents.LIFTED),
        (PLAIN_CONTENT in has, contents.FLAT),
        (PLAIN_CONTENT in has, contents.COMPLETED),
        (not takes_reasoning, reasoning.DROPPED),
        (True, contents.SPOKEN),
        (alternates, roles.MERGED),
        (alternates or USER_NOT_AFTER_TOOL in has, roles.BRIDGED),
        (alternates or USER_LAST in has, roles.OPENED),
        (USER_LAST in has, roles.ENDED),
        (NEEDS_REASONING in has, reasoning.FILLED),
        (takes_reasoning and field != REASONING, reasoning.named(field)),
        (not known, members.own(field if takes_reasoning else "")),
        (
            known,
            members.known(names, field if takes_reasoning else "", signed=signed),
        ),
        (not signed and not known, members.UNSIGNED),
        (signed, members.ALL_SIGNED),
    )
    return tuple(step for applies, step in conditional if applies)


def _first_choice(raw: Json) -> Json:
    choices = raw.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise MalformedError("it has no choices")
    return choices[0]


def _whole_message(choice: Json, reasoning_field: str, completion: object) -> Json:
    message = choice.get("message")
    if not isinstance(message, dict):
        raise MalformedError("it has no message")
    normalise(message, reasoning_field)
    if message.get("tool_calls"):
        complete_tool_calls(message["tool_calls"], completion)
    return message


@hookimpl
def vibe_mux_register_backends(register: Callable[[str, BackendFactory], None]) -> None:
    register("generic", Generic)
