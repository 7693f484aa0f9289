"""The contents of a request of any dialect: text, calls and results, in their order."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import field, frozen

TOKEN = re.compile(r"[wcri]\d+e")
"""All text of a generated history consists of such tokens, each used once: words,
calls (in their arguments), results and images."""


@frozen
class Call:
    identity: str
    name: str
    arguments: Any
    results: list[str] = field(factory=list)

    @property
    def tokens(self) -> list[str]:
        return TOKEN.findall(json.dumps(self.arguments))


@frozen
class Meaning:
    """The words by speaker (the system's count as the user's), and the calls."""

    words: list[tuple[str, str]]
    calls: list[Call]
    order: list[str]
    """Words and calls, as they come."""
    images: list[str]


def meaning_of(body: Any) -> Meaning:
    turns = list(turns_of(body))
    words: list[tuple[str, str]] = []
    calls: list[Call] = []
    order: list[str] = []
    images: list[str] = []
    waiting: list[Call] = []
    for speaker, kind, value in turns:
        if kind == "text":
            found = TOKEN.findall(value)
            words += [(speaker, token) for token in found]
            order += found
        elif kind == "image":
            images += TOKEN.findall(value)
        elif kind == "call":
            calls.append(value)
            waiting.append(value)
            order += value.tokens
        else:
            identity, text = value
            call = next(call for call in waiting if call.identity == identity)
            waiting.remove(call)
            call.results.append(text)
    return Meaning(words, calls, order, images)


def turns_of(body: Any) -> Iterator[tuple[str, str, Any]]:
    if "input" in body:
        for item in body["input"]:
            yield from _item(item)
        return
    if isinstance(body.get("system"), list):
        for block in body["system"]:
            yield "user", "text", block["text"]
    for message in body["messages"]:
        role = message["role"]
        speaker = "assistant" if role == "assistant" else "user"
        if role == "tool":
            # As far as the test server looks, an image of a result is the user's.
            yield "tool", "result", (message["tool_call_id"], _text(message.get("content")))
            continue
        content = message.get("content")
        for part in [content] if isinstance(content, str) else content or []:
            yield from _part(speaker, part)
        for call in message.get("tool_calls") or ():
            function = call["function"]
            arguments = json.loads(function["arguments"])
            yield speaker, "call", Call(call["id"], function["name"], arguments)


def _item(item: Any) -> Iterator[tuple[str, str, Any]]:
    match item["type"]:
        case "message":
            speaker = "assistant" if item["role"] == "assistant" else "user"
            for part in item["content"]:
                yield from _part(speaker, part)
        case "function_call":
            call = Call(item["call_id"], item["name"], json.loads(item["arguments"]))
            yield "assistant", "call", call
        case "function_call_output":
            output = item["output"]
            parts = output if isinstance(output, list) else []
            words = "\n\n".join(p["text"] for p in parts if p["type"] == "input_text")
            said = output if isinstance(output, str) else words
            yield "tool", "result", (item["call_id"], said)
            for part in parts:
                if part["type"] == "input_image":
                    yield "user", "image", json.dumps(part)
        case _:
            pass


def _part(speaker: str, part: Any) -> Iterator[tuple[str, str, Any]]:
    if isinstance(part, str):
        yield speaker, "text", part
        return
    match part["type"]:
        case "text" | "input_text" | "output_text":
            yield speaker, "text", part["text"]
        case "image_url" | "image" | "input_image":
            yield speaker, "image", json.dumps(part)
        case "tool_use":
            yield speaker, "call", Call(part["id"], part["name"], part["input"])
        case "tool_result":
            content = part.get("content", [])
            texts = [inner for inner in content if inner["type"] == "text"]
            yield "tool", "result", (part["tool_use_id"], _text(texts))
            for inner in content:
                if inner["type"] == "image":
                    yield speaker, "image", json.dumps(inner)
        case _:
            pass


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n\n".join(part["text"] for part in content or () if part["type"] == "text")


def system_and_turns(messages: Sequence[Any]) -> Any:
    return {"messages": messages}
