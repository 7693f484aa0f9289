"""The dialects between which a conversation moves: how each is set, judges, and answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from muxcore.chat import Chat, Json
from muxcore.core.records import Endpoint, Wire
from muxcore.plugins.backend import Backend, HttpRequest, HttpResponse
from muxcore_backends.anthropic import Anthropic
from muxcore_backends.anthropic.turns import steps as claude_steps
from muxcore_backends.generic import Generic
from muxcore_backends.history.steps import Rewrite
from muxcore_backends.mistral import Mistral
from muxcore_backends.openai_responses import Responses
from muxcore_backends.openai_responses.codec import steps as response_steps
from tests.dialects import refusals
from tests.dialects.refusals import Judge

SIGNATURE = "c2lnbmVk"

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "A tool.",
            "parameters": {"type": "object", "properties": {"n": {"type": "string"}}},
        },
    }
    for name in ("look", "write_file")
]


@frozen
class Said:
    """One answer of a model, before it is put into its server's words."""

    text: str = ""
    thoughts: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    """Each a name and its arguments as JSON."""


def digits(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@frozen
class Dialect:
    """One server with one model.

    `identify` makes an id for the n-th call of the n-th answer; an empty one is left to us.
    """

    name: str
    backend: Backend
    endpoint: Endpoint
    judge: Judge
    identify: Callable[[int, int, str], str]
    takes_thoughts: bool = False

    def request(self, messages: Sequence[Any], **more: Any) -> HttpRequest:
        return self.backend.request(self.endpoint, Chat(messages, TOOLS, **more))

    def body(self, messages: Sequence[Any]) -> Any:
        return json.loads(self.request(messages).body)

    def steps(self, endpoint: Endpoint) -> tuple[Rewrite, ...]:
        match self.backend:
            case Generic() as backend:
                return backend.steps(endpoint)
            case Responses():
                return response_steps(endpoint)
            case _:
                return claude_steps(endpoint)

    @property
    def sees(self) -> bool:
        return self.endpoint.wire.supports_images

    def answer(self, said: Said, number: int) -> Json:
        """Return an answer as the caller gets it, who keeps it in the history."""
        raw = native_answer(self, said, number)
        answer = HttpResponse(200, {}, json.dumps(raw).encode())
        return self.backend.reply(self.endpoint, answer).message


def native_answer(dialect: Dialect, said: Said, number: int) -> Json:
    """Write an answer in the server's own shape."""
    if dialect.name.startswith("claude"):
        return _anthropic_answer(dialect, said, number)
    if dialect.name.startswith("responses"):
        return _response(dialect, said, number)
    content: Any = said.text or (None if said.calls else "")
    message: Json = {"role": "assistant", "content": content}
    if said.thoughts and dialect.name == "mistral-reasoning":
        parts = [
            {"type": "thinking", "thinking": [{"type": "text", "text": said.thoughts}]},
            {"type": "text", "text": said.text},
        ]
        message["content"] = parts
    elif said.thoughts and dialect.takes_thoughts:
        message[dialect.endpoint.wire.reasoning_field_name] = said.thoughts
    calls = [
        {
            "id": dialect.identify(number, place, name),
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for place, (name, arguments) in enumerate(said.calls)
    ]
    if calls and dialect.name == "google":
        calls[0]["extra_content"] = {"google": {"thought_signature": f"sig{number}"}}
    if dialect.name == "kimi" or calls:
        message["tool_calls"] = calls
    if dialect.name.startswith("openai"):
        message |= {"refusal": None, "annotations": []}
    return {
        "id": f"cmpl-{number}",
        "object": "chat.completion",
        "created": 1,
        "model": dialect.endpoint.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": "tool_calls" if calls else "stop",
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }


def _anthropic_answer(dialect: Dialect, said: Said, number: int) -> Json:
    content: list[Json] = []
    if said.thoughts and dialect.takes_thoughts:
        thought = {"thinking": said.thoughts, "signature": SIGNATURE + dialect.name}
        content.append({"type": "thinking", **thought})
    if said.text:
        content.append({"type": "text", "text": said.text})
    for place, (name, arguments) in enumerate(said.calls):
        identity = dialect.identify(number, place, name)
        call = {"id": identity, "name": name, "input": json.loads(arguments)}
        content.append({"type": "tool_use", **call})
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": dialect.endpoint.model,
        "content": content,
        "stop_reason": "tool_use" if said.calls else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 4,
            "cache_read_input_tokens": 6,
            "cache_creation_input_tokens": 0,
            "output_tokens": 5,
        },
    }


def _response(dialect: Dialect, said: Said, number: int) -> Json:
    output: list[Json] = []
    if dialect.takes_thoughts:
        # A model that reasons sends an item each time; the words are there if it sums up.
        words = [{"type": "summary_text", "text": said.thoughts}] if said.thoughts else []
        item = {"id": f"rs_{number}", "type": "reasoning", "summary": words}
        output.append({**item, "encrypted_content": SIGNATURE + dialect.name})
    if said.text:
        part = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
        head = {"id": f"msg_{number}", "type": "message", "role": "assistant"}
        output.append({**head, "status": "completed", "content": [part]})
    for place, (name, arguments) in enumerate(said.calls):
        call = {"call_id": dialect.identify(number, place, name), "name": name}
        head = {"id": f"fc_{number}_{place}", "type": "function_call"}
        output.append({**head, "status": "completed", **call, "arguments": arguments})
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": dialect.endpoint.model,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 10,
            "input_tokens_details": {"cached_tokens": 6},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 1},
            "total_tokens": 15,
        },
    }


def endpoint(
    name: str, model: str, base: str, *, sees: bool = False, **wire: Any
) -> Endpoint:
    return Endpoint(name, model, name, wire=Wire(base, supports_images=sees, **wire))


def _prefixed(prefix: str, length: int) -> Callable[[int, int, str], str]:
    return lambda number, place, name: prefix + digits(prefix, number, place)[:length]


DIALECTS: tuple[Dialect, ...] = (
    Dialect(
        "mistral-reasoning",
        Mistral(),
        endpoint(
            "m1",
            "mistral-medium-3.5",
            "https://api.mistral.ai/v1",
            sees=True,
            thinking="high",
        ),
        refusals.mistral(reasons=True, sees=True),
        _prefixed("", 9),
        takes_thoughts=True,
    ),
    Dialect(
        "mistral",
        Mistral(),
        endpoint("m2", "devstral-small-latest", "https://api.mistral.ai/v1"),
        refusals.mistral(reasons=False, sees=False),
        _prefixed("", 9),
    ),
    Dialect(
        "mistral as generic",
        Generic(),
        endpoint("m3", "codestral-latest", "https://api.mistral.ai/v1"),
        refusals.mistral(reasons=False, sees=False),
        _prefixed("", 9),
    ),
    Dialect(
        "openai",
        Generic(),
        endpoint("o", "gpt-5", "https://api.openai.com/v1", sees=True, thinking="high"),
        refusals.openai(sees=True),
        _prefixed("call_", 24),
    ),
    Dialect(
        "groq",
        Generic(),
        endpoint("g", "gpt-oss-120b", "https://api.groq.com/openai/v1"),
        refusals.groq(sees=False),
        _prefixed("", 9),
    ),
    Dialect(
        "google",
        Generic(),
        endpoint(
            "gg",
            "gemini-3-pro",
            "https://generativelanguage.googleapis.com/v1beta/openai",
            sees=True,
        ),
        refusals.google(sees=True),
        lambda number, place, name: "",
    ),
    Dialect(
        "deepseek",
        Generic(),
        endpoint("d", "deepseek-reasoner", "https://api.deepseek.com", thinking="high"),
        refusals.judged(refusals.deepseek),
        _prefixed("call_00_", 24),
        takes_thoughts=True,
    ),
    Dialect(
        "kimi",
        Generic(),
        endpoint("k", "kimi-k2-thinking", "https://api.moonshot.ai/v1", sees=True),
        refusals.kimi(sees=True),
        lambda number, place, name: f"functions.{name}:{place}",
        takes_thoughts=True,
    ),
    Dialect(
        "llama.cpp",
        Generic(),
        endpoint("l", "devstral", "http://127.0.0.1:8080/v1"),
        refusals.template(nine=True, sees=False),
        _prefixed("", 32),
        takes_thoughts=True,
    ),
    Dialect(
        "llama.cpp Llama 3",
        Generic(),
        endpoint("l3", "Llama-3.1-8B-Instruct", "http://127.0.0.1:8081/v1"),
        refusals.both(
            refusals.judged(refusals.single), refusals.template(nine=True, sees=False)
        ),
        _prefixed("", 32),
        takes_thoughts=True,
    ),
    Dialect(
        "ollama",
        Generic(),
        endpoint("ol", "qwen3", "http://127.0.0.1:11434/v1", sees=True, thinking="medium"),
        refusals.both(
            refusals.judged(refusals.ollama), refusals.template(nine=False, sees=True)
        ),
        _prefixed("call_", 8),
        takes_thoughts=True,
    ),
    Dialect(
        "vllm",
        Generic(),
        endpoint(
            "v",
            "Qwen/Qwen3-Coder",
            "http://10.1.2.3:8000/v1",
            thinking="high",
            reasoning_field_name="reasoning",
        ),
        refusals.template(nine=False, sees=False),
        _prefixed("chatcmpl-tool-", 32),
        takes_thoughts=True,
    ),
    Dialect(
        "claude-thinking",
        Anthropic(),
        endpoint(
            "c1",
            "claude-sonnet-4-5",
            "https://api.anthropic.com/v1",
            sees=True,
            thinking="high",
        ),
        refusals.anthropic(sees=True, signature=SIGNATURE + "claude-thinking"),
        _prefixed("toolu_01", 22),
        takes_thoughts=True,
    ),
    Dialect(
        "claude",
        Anthropic(),
        endpoint("c2", "claude-haiku-4-5", "https://api.anthropic.com/v1", temperature=0.2),
        refusals.anthropic(sees=False, signature=""),
        _prefixed("toolu_01", 22),
    ),
    Dialect(
        "claude-adaptive",
        Anthropic(),
        endpoint(
            "c3",
            "claude-opus-5",
            "https://api.anthropic.com/v1",
            sees=True,
            thinking="high",
        ),
        refusals.anthropic(
            sees=True, signature=SIGNATURE + "claude-adaptive", adaptive=True
        ),
        _prefixed("toolu_01", 22),
        takes_thoughts=True,
    ),
    Dialect(
        "responses-reasoning",
        Responses(),
        endpoint("r1", "gpt-5", "https://api.openai.com/v1", sees=True, thinking="high"),
        refusals.responses(sees=True, signature=SIGNATURE + "responses-reasoning"),
        _prefixed("call_", 24),
        takes_thoughts=True,
    ),
    Dialect(
        "responses",
        Responses(),
        endpoint("r2", "gpt-4.1", "https://api.openai.com/v1", temperature=0.2),
        refusals.responses(sees=False, signature=""),
        _prefixed("call_", 24),
    ),
)
BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
