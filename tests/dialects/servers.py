"""All dialects behind one real HTTP server, each strict, each with the same scripted model."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from attrs import define, field

from muxcore.chat import Json
from muxcore_backends import capabilities
from tests.dialects.table import DIALECTS, Dialect, Said, native_answer

KEY = "the-key"
Think = Callable[[Any], Said]
"""The model: what it says to a request's body, whatever the dialect."""


def slug(dialect: Dialect) -> str:
    return dialect.name.replace(" ", "-").replace(".", "-")


@define
class Lab:
    """The servers, what they refused, and how many answers they gave."""

    url: str
    refused: list[Any] = field(factory=list)
    served: list[str] = field(factory=list)

    def config(self, **multiplexer: Any) -> dict[str, Any]:
        """Make a config whose pool is every dialect, each set as its host would be guessed."""
        return {
            "active_model": slug(DIALECTS[0]),
            "providers": [_provider(dialect, self.url) for dialect in DIALECTS],
            "models": [_model(dialect) for dialect in DIALECTS],
            "multiplexer": {
                "enabled": True,
                "mode": "load_balance",
                "pool": [{"model": slug(dialect)} for dialect in DIALECTS],
                **multiplexer,
            },
        }


def _provider(dialect: Dialect, url: str) -> dict[str, Any]:
    wire = dialect.endpoint.wire
    name = type(dialect.backend).__name__.lower()
    provider: dict[str, Any] = {
        "name": f"provider of {slug(dialect)}".replace("vllm", "v").replace("ollama", "o"),
        "api_base": f"{url}/{slug(dialect)}/v1",
        "api_key_env_var": "LAB_KEY",
        "backend": name,
        "reasoning_field_name": wire.reasoning_field_name,
    }
    if name == "responses":
        provider |= {"backend": "generic", "api_style": "openai-responses"}
        known = capabilities.RESPONSES.keys()
        has = capabilities.of_responses(dialect.endpoint)
        provider["capabilities"] = [*has, *(f"-{other}" for other in known - has)]
    if name == "generic":
        has = capabilities.of(dialect.endpoint)
        others = capabilities.OPENAI_COMPATIBLE.keys() - has
        provider["capabilities"] = sorted(has) + sorted(f"-{other}" for other in others)
    return provider


def _model(dialect: Dialect) -> dict[str, Any]:
    wire = dialect.endpoint.wire
    return {
        "name": dialect.endpoint.model,
        "provider": _provider(dialect, "")["name"],
        "alias": slug(dialect),
        "thinking": wire.thinking,
        "supports_images": wire.supports_images,
    }


@contextmanager
def lab(think: Think) -> Generator[Lab]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    found = Lab(f"http://127.0.0.1:{server.server_port}")
    server.lab = found  # type: ignore[attr-defined]
    server.think = think  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        pass

    def do_POST(self) -> None:
        server: Any = self.server
        size = int(self.headers["content-length"])
        body = json.loads(self.rfile.read(size))
        _, name, _, path = self.path.split("/", 3)
        dialect = next(one for one in DIALECTS if slug(one) == name)
        is_claude = name.startswith("claude")
        plain = "responses" if name.startswith("responses") else "chat/completions"
        assert path == ("messages" if is_claude else plain)
        if is_claude:
            assert self.headers["x-api-key"] == KEY
            assert self.headers["anthropic-version"] == "2023-06-01"
        else:
            assert self.headers["authorization"] == f"Bearer {KEY}"
        refusal = dialect.judge(body)
        if refusal is not None:
            server.lab.refused.append((name, refusal, body))
            self._send(refusal[0], json.dumps(refusal[1]).encode(), "application/json")
            return
        number = len(server.lab.served)
        server.lab.served.append(name)
        answer = native_answer(dialect, server.think(body), number)
        if body.get("stream"):
            self._send(200, b"".join(streamed(answer)), "text/event-stream")
        else:
            self._send(200, json.dumps(answer).encode(), "application/json")

    def _send(self, status: int, data: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def streamed(answer: Json) -> Iterator[bytes]:
    """Cut a whole answer into the events of its dialect."""
    if answer.get("type") == "message":
        for data in _anthropic_events(answer):
            yield f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()
        return
    if answer["object"] == "response":
        for number, data in enumerate(_response_events(answer)):
            event = {**data, "sequence_number": number}
            yield f"event: {data['type']}\ndata: {json.dumps(event)}\n\n".encode()
        return
    for chunk in _chunks(answer):
        yield b"data: " + json.dumps(chunk).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


def halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


def _chunks(answer: Json) -> Iterator[Json]:
    choice = answer["choices"][0]
    message = choice["message"]
    head = {
        **{n: answer[n] for n in ("id", "created", "model")},
        "object": "chat.completion.chunk",
    }

    def chunk(delta: Json, reason: str | None = None) -> Json:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    yield chunk({"role": "assistant", "content": ""})
    content = message["content"]
    for part in content if isinstance(content, list) else ():
        yield chunk({"content": [part]})
    for name, value in message.items():
        if isinstance(value, str) and name != "role" and value:
            for half in halves(value):
                yield chunk({name: half})
    for index, call in enumerate(message.get("tool_calls") or ()):
        first, second = halves(call["function"]["arguments"])
        opening = {**call["function"], "arguments": first}
        yield chunk({"tool_calls": [{**call, "index": index, "function": opening}]})
        rest: Json = {"index": index, "function": {"arguments": second}}
        if isinstance(content, list):
            # Mistral repeats both.
            rest = {**call, "index": index, "function": {**opening, "arguments": second}}
        yield chunk({"tool_calls": [rest]})
    yield chunk({}, choice["finish_reason"]) | {"usage": answer["usage"]}


def _anthropic_events(answer: Json) -> Iterator[Json]:
    start = {**answer, "content": [], "stop_reason": None}
    yield {"type": "message_start", "message": start}
    yield {"type": "ping"}
    for index, block in enumerate(answer["content"]):
        yield from _block_events(index, block)
    delta = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
    usage = {"output_tokens": answer["usage"]["output_tokens"]}
    yield {"type": "message_delta", "delta": delta, "usage": usage}
    yield {"type": "message_stop"}


def _block_events(index: int, block: Json) -> Iterator[Json]:
    kinds = {
        "text": ("text", "text_delta", "text"),
        "thinking": ("thinking", "thinking_delta", "thinking"),
        "tool_use": ("input", "input_json_delta", "partial_json"),
    }
    member, delta_type, delta_member = kinds[block["type"]]
    whole = json.dumps(block["input"]) if member == "input" else block[member]
    empty = {**block, member: {} if member == "input" else ""}
    if "signature" in empty:
        empty["signature"] = ""
    at = {"index": index}
    yield {"type": "content_block_start", **at, "content_block": empty}
    for half in halves(whole):
        delta = {"type": delta_type, delta_member: half}
        yield {"type": "content_block_delta", **at, "delta": delta}
    if "signature" in block:
        delta = {"type": "signature_delta", "signature": block["signature"]}
        yield {"type": "content_block_delta", **at, "delta": delta}
    yield {"type": "content_block_stop", **at}


def _response_events(answer: Json) -> Iterator[Json]:
    start = {**answer, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": start}
    yield {"type": "response.in_progress", "response": start}
    for index, item in enumerate(answer["output"]):
        yield from _item_events(item, {"output_index": index})
    yield {"type": "response.completed", "response": answer}


def _item_events(item: Json, at: Json) -> Iterator[Json]:
    whole = {name: [] if isinstance(v, list) else v for name, v in item.items()}
    if item["type"] == "function_call":
        whole["arguments"] = ""
    yield {"type": "response.output_item.added", **at, "item": whole}
    inner = {**at, "item_id": item["id"]}
    match item:
        case {"type": "function_call"}:
            kind = "response.function_call_arguments"
            for half in halves(item["arguments"]):
                yield {"type": f"{kind}.delta", **inner, "delta": half}
            yield {"type": f"{kind}.done", **inner, "arguments": item["arguments"]}
        case {"type": "reasoning", "summary": parts}:
            kind = "response.reasoning_summary"
            yield from _part_events(parts, f"{kind}_part", f"{kind}_text", inner)
        case {"content": parts}:
            kind = "response.output_text"
            yield from _part_events(parts, "response.content_part", kind, inner)
    yield {"type": "response.output_item.done", **at, "item": item}


def _part_events(parts: list[Json], part_kind: str, kind: str, at: Json) -> Iterator[Json]:
    for part in parts:
        yield {"type": f"{part_kind}.added", **at, "part": {**part, "text": ""}}
        for half in halves(part["text"]):
            yield {"type": f"{kind}.delta", **at, "delta": half}
        yield {"type": f"{kind}.done", **at, "text": part["text"]}
        yield {"type": f"{part_kind}.done", **at, "part": part}
