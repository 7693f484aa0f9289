"""Check the shape of what a backend returns: each function describes the fault; "" if none.

Pure. `check_backends` adds the name of the backend and the case.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import timedelta
from urllib.parse import urlsplit

from muxcore.chat import Chunk, Json
from muxcore.core.outcomes import Fault, Limit, Refusal
from muxcore.core.records import Endpoint
from muxcore.plugins.backend import Failure, HttpRequest

End = tuple[object, object]
"""A decoder's `done` and `ended` after an event."""


def fault_of_request(request: object, endpoint: Endpoint) -> str:
    if not isinstance(request, HttpRequest):
        return f"it returns {request!r}, expected an HttpRequest"
    return _fault_of_target(request, endpoint) or _fault_of_headers(request)


def _fault_of_target(request: HttpRequest, endpoint: Endpoint) -> str:
    own, asked = urlsplit(endpoint.wire.api_base), urlsplit(request.url)
    if (own.scheme, own.netloc) != (asked.scheme, asked.netloc):
        return f"it goes to {request.url}, not to the endpoint's own host"
    if not isinstance(request.body, bytes):
        return f"its body is a {type(request.body).__name__}, expected bytes"
    return ""


def _fault_of_headers(request: HttpRequest) -> str:
    for name, value in request.headers.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            return f"its header {name!r}: {value!r} is not text"
        if _has_control_characters(name + value):
            return f"its header {name!r}: {value!r} has control characters"
    names = {name.lower() for name in request.headers}
    key_header = request.key_header
    if key_header is not None and key_header.name.lower() in names:
        return f"it sets the header {key_header.name}, which the shell sets"
    return ""


def fault_of_failure(failure: object) -> str:
    if not isinstance(failure, Failure):
        return f"it returns {failure!r}, expected a Failure"
    if not isinstance(failure.kind, Limit | Fault | Refusal):
        return f"its kind is {failure.kind!r}, expected a Kind"
    hint = failure.hint
    if hint is not None and not (isinstance(hint, timedelta) and hint >= timedelta()):
        return f"its hint is {hint!r}, expected a timedelta of zero or more"
    if _has_control_characters(failure.message):
        return f"its message {failure.message!r} has control characters"
    return ""


def _has_control_characters(text: str) -> bool:
    """Whether it holds what ends lines or steers terminals, or half a character."""
    return any(unicodedata.category(character) in {"Cc", "Cs"} for character in text)


def fault_of_chunk(chunk: object) -> str:
    if not isinstance(chunk, Chunk):
        return f"it yields {chunk!r}, expected a Chunk"
    choices = chunk.raw.get("choices")
    if not isinstance(choices, list):
        return f"it yields a chunk without a list of choices: {chunk.raw!r}"
    for choice in choices:
        if not isinstance(choice, dict) or not isinstance(choice.get("delta"), dict):
            return f"it yields a choice without a delta: {chunk.raw!r}"
    return _fault_of_deltas(choices)


def _fault_of_deltas(choices: Sequence[Json]) -> str:
    for delta in (choice["delta"] for choice in choices):
        for name in ("content", "reasoning_content"):
            if not isinstance(delta.get(name), str | None):
                return f"it yields a delta whose {name} is not text: {delta!r}"
        if fault := _fault_of_calls(delta.get("tool_calls")):
            return f"{fault}: {delta!r}"
    return ""


def _fault_of_calls(calls: object) -> str:
    if calls is None:
        return ""
    if not isinstance(calls, list):
        return "it yields tool calls that are not a list"
    for call in calls:
        if not isinstance(call, dict):
            return "it yields a piece of a tool call that is not an object"
        function = call.get("function")
        if not isinstance(call.get("index"), int) or not isinstance(function, dict):
            return "it yields a piece of a tool call without an index or a function"
        if not isinstance(function.get("arguments"), str | None):
            return "it yields a tool call whose arguments are not text"
    return ""


def fault_of_end(before: End, after: End) -> str:
    for name, earlier, later in zip(("done", "ended"), before, after, strict=True):
        if type(later) is not bool:
            return f"its `{name}` is {later!r}, expected True or False"
        if earlier and not later:
            return f"its `{name}` was True before, and is False again"
    return ""
