"""The OpenAI-compatible dialect: what most servers speak, each in its own way."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from attrs import frozen

from muxcore.assembling import usage_of
from muxcore.chat import Chat, Json, Reply
from muxcore.core.records import Endpoint, Wire
from muxcore.plugins.backend import Answer, Decoder, Failure, HttpRequest, KeyHeader
from muxcore.plugins.hookspecs import BackendFactory, hookimpl
from muxcore_backends.failures import bad_reply, classify
from muxcore_backends.shapes import (
    REASONING,
    MalformedError,
    complete_tool_calls,
    normalise,
)
from muxcore_backends.streaming import GenericDecoder

Messages: TypeAlias = Sequence[Mapping[str, Any]]

PATH = "/chat/completions"


@frozen
class Generic:
    """OpenAI-compatible chat completions, as most servers speak them.

    A dialect that differs overrides the step in which it does.
    """

    def request(self, endpoint: Endpoint, chat: Chat) -> HttpRequest:
        """Encode `chat`. Raise TypeError or ValueError if no JSON can hold it."""
        wire = endpoint.wire
        messages, rewrites = self.rewriting(endpoint, chat.messages)
        body = {
            **self.settings(wire, chat),
            **chat.extra,
            "model": endpoint.model,
            "messages": messages,
        }
        if chat.stream:
            body["stream"] = True
            self.streaming(body)
        else:
            body.pop("stream", None)
            body.pop("stream_options", None)
        return HttpRequest(
            wire.api_base.rstrip("/") + PATH,
            {"Content-Type": "application/json", **dict(wire.extra_headers)},
            _encode(body).encode(),
            KeyHeader() if wire.key_variable else None,
            rewrites,
        )

    def rewriting(
        self, endpoint: Endpoint, messages: Messages
    ) -> tuple[Messages, tuple[str, ...]]:
        """Return the history as this dialect takes it, and what that took, for people.

        What the caller handed in is never changed; what needs nothing is not copied.
        """
        field = endpoint.wire.reasoning_field_name
        if field == REASONING or not any(REASONING in message for message in messages):
            return messages, ()
        # Not worth telling: the same words under the name that this provider has for them.
        return [_with_reasoning_as(field, message) for message in messages], ()

    def settings(self, wire: Wire, chat: Chat) -> Json:
        """Return what the call asks for; where it is silent, the member's own settings."""
        settings: Json = {}
        temperature = wire.temperature if chat.temperature is None else chat.temperature
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
        """Return the most tokens to answer with: never more than the member may."""
        if chat.max_tokens is None:
            named = "max_tokens" in chat.extra or "max_completion_tokens" in chat.extra
            return None if named else wire.max_output_tokens
        if wire.max_output_tokens is None:
            return chat.max_tokens
        return min(chat.max_tokens, wire.max_output_tokens)

    def thinking(self, level: str) -> Json:
        """Return how a level of thinking is asked for."""
        return {} if level == "off" else {"reasoning_effort": level}

    def streaming(self, body: Json) -> None:
        """Ask for what a stream needs besides `stream`: that it tells its usage."""
        options = body.get("stream_options") or {}
        body["stream_options"] = {**options, "include_usage": True}

    def reply(self, endpoint: Endpoint, answer: Answer) -> Reply:
        """Decode a whole answer; raise `BadReplyError` for anything but one."""
        try:
            raw = json.loads(answer.body)
        except (ValueError, RecursionError):
            raise bad_reply(answer, "the answer is cut off, or no JSON") from None
        if not isinstance(raw, dict) or raw.get("error"):
            raise bad_reply(answer, "the answer is an error without words")
        try:
            choice = _first_choice(raw)
            message = _whole_message(
                choice, endpoint.wire.reasoning_field_name, raw.get("id")
            )
        except MalformedError as error:
            raise bad_reply(answer, f"the answer is malformed: {error}") from None
        finish_reason = choice.get("finish_reason")
        if finish_reason == "error" or choice.get("error"):
            inner = Answer(answer.status, answer.headers, json.dumps(choice).encode())
            raise bad_reply(inner, "the answer ended with an error")
        return Reply(message, finish_reason, usage_of(raw), raw)

    def stream(self, endpoint: Endpoint) -> Decoder:
        return GenericDecoder(endpoint.wire)

    def failure(self, answer: Answer, now: datetime) -> Failure:
        return classify(answer, now)


def _with_reasoning_as(field: str, message: Mapping[str, Any]) -> Mapping[str, Any]:
    if REASONING not in message:
        return message
    return {field if name == REASONING else name: value for name, value in message.items()}


def _first_choice(raw: Json) -> Json:
    choices = raw.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise MalformedError("it has no choices")
    finish_reason = choices[0].get("finish_reason")
    if finish_reason is not None and not isinstance(finish_reason, str):
        raise MalformedError("the finish reason is no text")
    return choices[0]


def _whole_message(choice: Json, reasoning_field: str, completion: object) -> Json:
    message = choice.get("message")
    if not isinstance(message, dict):
        raise MalformedError("it has no message")
    normalise(message, reasoning_field)
    if message.get("tool_calls") is not None:
        complete_tool_calls(message["tool_calls"], completion)
    return message


def _plain(value: object) -> object:
    """Let JSON hold any mapping and sequence: callers may hand in frozen ones."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return list(value)
    raise TypeError(f"a {type(value).__name__} cannot be sent as JSON")


# Escaping what is not ASCII also carries the halves of characters that UTF-8 refuses.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_plain).encode


@hookimpl
def vibe_mux_register_backends(register: Callable[[str, BackendFactory], None]) -> None:
    register("generic", Generic)
