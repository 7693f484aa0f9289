"""Writes answers as the events of the Responses API. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define, field, frozen

from muxcore.chat import REASONING, SIGNED_REASONING, Chunk, Json
from muxcore.dialects.reading import object_in
from muxcore.dialects.responses import settings
from muxcore.dialects.responses.items import free_input
from muxcore.dialects.sealing import sealed
from muxcore.gateway.front_doors.completions import error_body
from muxcore.gateway.front_doors.door import CallIds, ClientRequest, Stamp, as_json, event
from muxcore.gateway.http.wire import ErrorResponse

ECHOED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
}
"""Members of a request that its response repeats, each with its value where it is left out."""

NOTHING: Json = {}
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why an answer is not whole, by its finish reason."""


@frozen
class _WordForm:
    """How one kind of words is written: the item, its list of parts, and its events."""

    item: str
    list: str
    part: str
    member: str
    prefix: str
    part_prefix: str
    index: str
    more: Json = field(factory=dict)
    """Further members of the events."""

    def written(self, words: str) -> Json:
        """Write the part that holds these words."""
        more: Json = {"annotations": [], **self.more} if self.more else {}
        return {"type": self.part, self.member: words, **more}


_WORDS = {
    REASONING: _WordForm(
        item="reasoning",
        list="summary",
        part="summary_text",
        member="text",
        prefix="response.reasoning_summary_text",
        part_prefix="response.reasoning_summary_part",
        index="summary_index",
    ),
    "content": _WordForm(
        item="message",
        list="content",
        part="output_text",
        member="text",
        prefix="response.output_text",
        part_prefix="response.content_part",
        index="content_index",
        more={"logprobs": []},
    ),
    "refusal": _WordForm(
        item="message",
        list="content",
        part="refusal",
        member="refusal",
        prefix="response.refusal",
        part_prefix="response.content_part",
        index="content_index",
    ),
}
"""By the member of a message, in the order in which a model says them."""

_PREFIXES = {
    "reasoning": "rs",
    "message": "msg",
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "tool_search_call": "tsc",
}


@define(eq=False)
class _OpenItem:
    """An item under way: its place in the output, and the pieces of its text."""

    place: int
    item: Json
    form: _WordForm | None = None
    pieces: list[str] = field(factory=list)
    at: Json = field(init=False)
    """Where it is, in the words of its events."""
    frame: tuple[bytes, bytes, bytes] | None = None
    """What stands around the number and the text of each event with a piece."""

    def __attrs_post_init__(self) -> None:
        self.at = {"item_id": self.item["id"], "output_index": self.place}
        if self.form is not None:
            self.at[self.form.index] = 0


class ResponsesEncoder:
    """Writes chunks as the events of a response.

    An item of words ends when another begins. Calls stay open until the end: servers mix the
    pieces of parallel ones.
    """

    def __init__(self, request: ClientRequest, stamp: Stamp) -> None:
        self._stamp = stamp
        echoed = {
            name: usual if (value := request.body.get(name)) is None else value
            for name, usual in ECHOED.items()
        }
        self.response: Json = {
            "id": f"resp_{stamp.id}",
            "object": "response",
            "created_at": stamp.created,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": request.model,
            "output": [],
            "previous_response_id": None,
            "truncation": "disabled",
            "usage": None,
            **echoed,
        }
        """The response as far as it has come."""
        self._functions = {
            settings.chat_name(function): function
            for function in settings.functions_of(request.body)
        }
        self._ids = CallIds(request, stamp, "call")
        self._number = 0
        self._written: list[bytes] = []
        """The events of this chunk so far."""
        self._begun = False
        self._words: _OpenItem | None = None
        self._calls: dict[int, _OpenItem] = {}
        self._finish_reason: str | None = None

    def feed(self, chunk: Chunk) -> bytes:
        raw, delta = chunk.raw, chunk.delta
        if not self._begun:
            self._begun = True
            self.response["model"] = raw.get("model") or self.response["model"]
            self._write("response.created", response=self.response)
            self._write("response.in_progress", response=self.response)
        if delta:
            for name, form in _WORDS.items():
                if words := delta.get(name):
                    self._add_words(form, words)
                if name == REASONING and not delta.keys().isdisjoint(SIGNED_REASONING):
                    self._seal(delta)
            for fragment in delta.get("tool_calls") or ():
                self._add_to_call(fragment)
        if usage := raw.get("usage"):
            self.response["usage"] = settings.response_usage(usage)
        self._finish_reason = chunk.finish_reason or self._finish_reason
        return self._taken()

    def end(self) -> bytes:
        reason = INCOMPLETE.get(self._finish_reason or "")
        status = "completed" if reason is None else "incomplete"
        self._close_words(status)
        for opened in self._calls.values():
            self._close_call(opened, status)
        self.response["status"] = status
        if reason is not None:
            self.response["incomplete_details"] = {"reason": reason}
        self._write(f"response.{status}", response=self.response)
        return self._taken()

    def fail(self, error: ErrorResponse) -> bytes:
        """Write both events that clients know: of the response, and of the stream."""
        code = error.code if error.code == "rate_limit_exceeded" else "server_error"
        cause = {"code": code, "message": error.message}
        self.response |= {"status": "failed", "error": cause}
        self._write("response.failed", response=self.response)
        # The official client raises what stands in the member that chat completions have.
        self._write("error", **cause, param=None, **error_body(error))
        return self._taken()

    def _write(self, kind: str, **members: Any) -> None:
        value = {"type": kind, "sequence_number": self._number, **members}
        self._written.append(event(value, kind))
        self._number += 1

    def _write_piece(
        self, opened: _OpenItem, kind: str, piece: str, more: Json = NOTHING
    ) -> None:
        """Write the event of one piece. Nearly all of a stream is these: most is written once."""
        if opened.frame is None:
            head, end = (
                f'event: {kind}\ndata: {{"type":"{kind}","sequence_number":',
                b"}\n\n",
            )
            at, rest = as_json(opened.at)[1:-1], as_json(more)[1:-1]
            middle = b"," + at + b',"delta":'
            opened.frame = head.encode(), middle, b"," + rest + end if rest else end
        first, middle, last = opened.frame
        self._written.append(first + b"%d" % self._number + middle + as_json(piece) + last)
        self._number += 1

    def _taken(self) -> bytes:
        written = b"".join(self._written)
        self._written.clear()
        return written

    def _open(self, item: Json, form: _WordForm | None = None) -> _OpenItem:
        """Begin an item; its place is kept in the output."""
        output = self.response["output"]
        identity = f"{_PREFIXES[item['type']]}_{self._stamp.id}{len(output)}"
        opened = _OpenItem(len(output), {"id": identity, **item}, form)
        output.append(opened.item)
        name = "response.output_item.added"
        self._write(name, output_index=opened.place, item=opened.item)
        return opened

    def _close(self, opened: _OpenItem) -> None:
        name = "response.output_item.done"
        self._write(name, output_index=opened.place, item=opened.item)

    # --- words ------------------------------------------------------------------------------

    def _add_words(self, form: _WordForm, words: str) -> None:
        opened = self._words
        if opened is None or opened.form is not form:
            opened = self._open_words(form)
        if not opened.pieces:
            self._write(f"{form.part_prefix}.added", **opened.at, part=form.written(""))
        opened.pieces.append(words)
        self._write_piece(opened, f"{form.prefix}.delta", words, form.more)

    def _open_words(self, form: _WordForm) -> _OpenItem:
        self._close_words("completed")
        item: Json = {"type": form.item, form.list: []}
        if form.item == "message":
            item |= {"role": "assistant", "status": "in_progress"}
        self._words = self._open(item, form)
        return self._words

    def _close_words(self, status: str) -> None:
        opened, self._words = self._words, None
        if opened is None or opened.form is None:
            return
        if opened.pieces:
            form, words = opened.form, "".join(opened.pieces)
            part, said = form.written(words), {form.member: words, **form.more}
            self._write(f"{form.prefix}.done", **opened.at, **said)
            self._write(f"{form.part_prefix}.done", **opened.at, part=part)
            opened.item[form.list] = [part]
        if "status" in opened.item:
            opened.item["status"] = status
        self._close(opened)

    def _seal(self, delta: Json) -> None:
        """End the reasoning with what its signer needs to take it back."""
        opened, form = self._words, _WORDS[REASONING]
        if opened is None or opened.form is not form:
            opened = self._open_words(form)
        opened.item["encrypted_content"] = sealed(delta)
        self._close_words("completed")

    # --- calls ------------------------------------------------------------------------------

    def _add_to_call(self, fragment: Json) -> None:
        function, index = fragment.get("function") or {}, fragment.get("index", 0)
        opened = self._calls.get(index)
        if opened is None:
            self._close_words("completed")
            opened = self._open(self._begun_call(fragment, function.get("name") or ""))
            self._calls[index] = opened
        if piece := function.get("arguments"):
            opened.pieces.append(piece)
            # The text of a free input is in the arguments: it is read when they are whole.
            if opened.item["type"] == "function_call":
                self._write_piece(opened, "response.function_call_arguments.delta", piece)

    def _begun_call(self, fragment: Json, name: str) -> Json:
        known = self._functions.get(name, {"name": name})
        named: Json = {n: known[n] for n in ("name", "namespace") if n in known}
        begun = {
            "status": "in_progress",
            "call_id": self._ids.own(fragment.get("id") or ""),
        }
        match known.get("type"):
            case "custom":
                return {"type": "custom_tool_call", **begun, **named, "input": ""}
            case "tool_search":
                search = {"execution": "client", "arguments": {}}
                return {"type": "tool_search_call", **begun, **search}
            case _:
                return {"type": "function_call", **begun, **named, "arguments": ""}

    def _close_call(self, opened: _OpenItem, status: str) -> None:
        arguments = "".join(opened.pieces)
        whole: Json = {}
        match opened.item["type"]:
            case "function_call":
                whole = {"name": opened.item["name"], "arguments": arguments}
                self._write("response.function_call_arguments.done", **opened.at, **whole)
            case "custom_tool_call":
                whole = {"input": free_input(arguments)}
                name = "response.custom_tool_call_input"
                self._write(f"{name}.delta", **opened.at, delta=whole["input"])
                self._write(f"{name}.done", **opened.at, **whole)
            case _:
                whole = {"arguments": object_in(arguments)}
        opened.item |= {**whole, "status": status}
        self._close(opened)
