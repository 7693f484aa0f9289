"""Writes answers as the events of Anthropic's Messages API, and errors in its shape. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from attrs import define, field

from muxcore.chat import REASONING, SIGNED_REASONING, Chunk, Json
from muxcore.dialects.messages.blocks import call_block
from muxcore.dialects.messages.options import STOP_REASONS, message_usage
from muxcore.dialects.sealing import sealed
from muxcore.gateway.front_doors.door import (
    CallIds,
    ClientRequest,
    Stamp,
    as_json,
    event,
)
from muxcore.gateway.http.wire import ErrorResponse

WORDS = {REASONING: "thinking", "content": "text", "refusal": "text"}
"""The type of a block of words, by the member of a delta that holds a piece of it."""

DELTAS = {
    "thinking": ("thinking_delta", "thinking"),
    "text": ("text_delta", "text"),
    "tool_use": ("input_json_delta", "partial_json"),
}
"""By the type of a block: the type of a piece, and the member with its text."""

KINDS: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_too_large",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "overloaded_error",
}
"""Types of errors by their status."""

TOO_LONG = "prompt is too long: "
"""The API's own words, on which clients shorten a conversation."""


def error_body(response: ErrorResponse) -> Json:
    usual = "invalid_request_error" if response.status < 500 else "api_error"  # noqa: PLR2004
    is_too_long = response.code == "context_length_exceeded"
    text = TOO_LONG + response.message if is_too_long else response.message
    error = {"type": KINDS.get(response.status, usual), "message": text}
    return {"type": "error", "error": error, "request_id": None}


@define(eq=False)
class _OpenBlock:
    """A block under way: as it begins, and the pieces of its text."""

    begun: Json
    pieces: list[str] = field(factory=list)
    seal: str = ""
    """Of thinking: what its signer needs to take it back."""

    @property
    def kind(self) -> str:
        return str(self.begun["type"])

    def whole(self) -> Json:
        text = "".join(self.pieces)
        match self.kind:
            case "tool_use":
                function = {"name": self.begun["name"]}
                return call_block({"id": self.begun["id"], "function": function}, text)
            case "thinking":
                return {**self.begun, "thinking": text, "signature": self.seal}
            case kind:
                return {**self.begun, kind: text}


class MessagesEncoder:
    """Writes chunks as the events of a message.

    Its blocks come one after another. Words end when another block begins; a call stays open
    until the end, as servers mix the pieces of parallel ones, and what follows it waits.
    """

    def __init__(self, request: ClientRequest, stamp: Stamp) -> None:
        self.message: Json = {
            "id": f"msg_{stamp.id}",
            "type": "message",
            "role": "assistant",
            "model": request.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": message_usage(None),
        }
        """The message as far as it has come."""
        self._ids = CallIds(request, stamp, "toolu")
        self._written: list[bytes] = []
        """The events of this chunk so far."""
        self._begun = False
        self._blocks: list[_OpenBlock] = []
        self._calls: dict[int, _OpenBlock] = {}
        self._written_blocks = 0
        """How many are closed; the next one, if there is one, is being written."""
        self._head = b""
        """The beginning of each event that holds a piece of that block."""
        self._finish_reason: str | None = None

    def feed(self, chunk: Chunk) -> bytes:
        raw, delta = chunk.raw, chunk.delta
        if not self._begun:
            self._begun = True
            self.message["model"] = raw.get("model") or self.message["model"]
            self._write("message_start", message=self.message)
        if delta:
            for name, kind in WORDS.items():
                if words := delta.get(name):
                    self._add(self._words(kind), words)
                if name == REASONING and not delta.keys().isdisjoint(SIGNED_REASONING):
                    self._words(kind).seal = sealed(delta)
            for fragment in delta.get("tool_calls") or ():
                self._add_to_call(fragment)
        if usage := raw.get("usage"):
            self.message["usage"] = message_usage(usage)
        self._finish_reason = chunk.finish_reason or self._finish_reason
        return self._taken()

    def end(self) -> bytes:
        while self._written_blocks < len(self._blocks):
            self._close()
        reason = STOP_REASONS.get(self._finish_reason or "", "end_turn")
        delta = {"stop_reason": reason, "stop_sequence": None}
        self.message |= delta
        self._write("message_delta", delta=delta, usage=self.message["usage"])
        self._write("message_stop")
        return self._taken()

    def fail(self, error: ErrorResponse) -> bytes:
        return event(error_body(error), "error")

    def _write(self, kind: str, **members: Any) -> None:
        self._written.append(event({"type": kind, **members}, kind))

    def _taken(self) -> bytes:
        written = b"".join(self._written)
        self._written.clear()
        return written

    # --- blocks -----------------------------------------------------------------------------

    def _words(self, kind: str) -> _OpenBlock:
        """Return the block that further words of this kind belong to."""
        last = self._blocks[-1] if self._blocks else None
        if last is not None and last.kind == kind and not last.seal:
            return last
        begun = {"type": kind, kind: ""}
        return self._open({**begun, "signature": ""} if kind == "thinking" else begun)

    def _add_to_call(self, fragment: Json) -> None:
        function, index = fragment.get("function") or {}, fragment.get("index", 0)
        opened = self._calls.get(index)
        if opened is None:
            identity = self._ids.own(fragment.get("id") or "")
            named: Json = {"id": identity, "name": function.get("name") or "", "input": {}}
            opened = self._calls[index] = self._open({"type": "tool_use", **named})
        if piece := function.get("arguments"):
            self._add(opened, piece)

    def _open(self, begun: Json) -> _OpenBlock:
        opened = _OpenBlock(begun)
        self._blocks.append(opened)
        if self._blocks[self._written_blocks] is opened:
            self._start()
        elif self._blocks[self._written_blocks].kind != "tool_use":
            self._close()
        return opened

    def _add(self, opened: _OpenBlock, piece: str) -> None:
        opened.pieces.append(piece)
        if self._blocks[self._written_blocks] is opened:
            self._write_piece(piece)

    def _write_piece(self, piece: str) -> None:
        self._written.append(self._head + as_json(piece) + b"}}\n\n")

    def _start(self) -> None:
        """Begin the next block, with all that has come of it."""
        opened, index = self._blocks[self._written_blocks], self._written_blocks
        self._write("content_block_start", index=index, content_block=opened.begun)
        kind, member = DELTAS[opened.kind]
        # Nearly all of a stream is pieces: only their text is written anew for each.
        self._head = (
            b"event: content_block_delta\n"
            b'data: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"%b","%b":' % (index, kind.encode(), member.encode())
        )
        if opened.pieces:
            self._write_piece("".join(opened.pieces))

    def _close(self) -> None:
        """End the block that is being written, and begin the one that waits."""
        opened, index = self._blocks[self._written_blocks], self._written_blocks
        if opened.kind == "thinking":
            # Clients take no thought without a signature.
            opened.seal = opened.seal or sealed({})
            delta = {"type": "signature_delta", "signature": opened.seal}
            self._write("content_block_delta", index=index, delta=delta)
        self._write("content_block_stop", index=index)
        self.message["content"].append(opened.whole())
        self._written_blocks += 1
        if self._written_blocks < len(self._blocks):
            self._start()
