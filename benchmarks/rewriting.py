"""Measure the time to rewrite a history, as a share of the time to encode it as JSON.

`python benchmarks/rewriting.py` makes an agent's history of 200 messages (parallel calls,
reasoning, results of a few hundred words) and rewrites it for each dialect: a history of
another server, and one of the same server, which needs no change. Rewriting and encoding are
timed alternately in one process, and the medians of many rounds are printed.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "backends"), str(ROOT / "strategies")]

from muxcore import jsontext  # noqa: E402 - needs the path above
from muxcore.core.records import Endpoint, Wire  # noqa: E402 - needs the path above
from muxcore_backends.anthropic.turns import conversation  # noqa: E402 - needs the path above
from muxcore_backends.anthropic.turns import steps as claude_steps  # noqa: E402 - needs the path above
from muxcore_backends.generic import Generic  # noqa: E402 - needs the path above
from muxcore_backends.history.steps import Messages, Rewrite, rewritten  # noqa: E402 - needs the path above
from muxcore_backends.mistral import Mistral  # noqa: E402 - needs the path above

MESSAGES = 200
ROUNDS = 300
WORDS = "the quick brown fox jumps over the lazy dog and goes on to the next line\n"


def endpoint(base: str, model: str, **wire: Any) -> Endpoint:
    return Endpoint("a", model, "p", wire=Wire(base, thinking="high", **wire))


def history(identify: Callable[[int], str], reasoning: str) -> list[dict[str, Any]]:
    """Make turns of an agent: a question, four rounds of two calls, an answer.

    It ends with a question. Turns without calls fill it up.
    """
    messages: list[dict[str, Any]] = [{"role": "system", "content": WORDS * 40}]
    number = 0
    while len(messages) < MESSAGES - 1:
        messages.append({"role": "user", "content": WORDS * 2})
        for _ in range(4 if len(messages) + 14 < MESSAGES else 0):
            made = []
            for _ in range(2):
                number += 1
                arguments = json.dumps({"path": f"src/{number}.py", "content": WORDS * 5})
                function = {"name": "write_file", "arguments": arguments}
                made.append(
                    {"id": identify(number), "type": "function", "function": function}
                )
            answer = {"role": "assistant", "content": "", "tool_calls": made}
            messages.append({**answer, reasoning: WORDS * 4} if reasoning else answer)
            messages += [
                {"role": "tool", "tool_call_id": call["id"], "content": WORDS * 20}
                for call in made
            ]
        answer = {"role": "assistant", "content": WORDS * 3}
        messages.append({**answer, reasoning: WORDS} if reasoning else answer)
    return [*messages, {"role": "user", "content": WORDS}]


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def nine(number: int) -> str:
    return f"{number:09d}"


def forty(number: int) -> str:
    return f"call_{number:024d}"


Case = tuple[str, tuple[Rewrite, ...], Callable[[Messages], object], list[dict[str, Any]]]


def cases() -> list[Case]:
    mistral = Mistral().steps(endpoint("https://api.mistral.ai/v1", "m"))
    openai = Generic().steps(endpoint("https://api.openai.com/v1", "m"))
    local = Generic().steps(endpoint("http://127.0.0.1:8080/v1", "devstral"))
    deepseek = Generic().steps(endpoint("https://api.deepseek.com", "m"))
    claude = claude_steps(endpoint("https://api.anthropic.com/v1", "claude-opus-5"))
    foreign = history(forty, "reasoning_content")
    own = history(nine, "")
    return [
        ("mistral, from another model", mistral, len, foreign),
        ("mistral, its own", mistral, len, own),
        ("openai, from another model", openai, len, foreign),
        ("openai, its own", openai, len, history(forty, "")),
        ("llama.cpp, from another model", local, len, foreign),
        ("llama.cpp, its own", local, len, history(nine, "reasoning_content")),
        ("deepseek, from another model", deepseek, len, own),
        ("anthropic, from another model (with its turns)", claude, conversation, foreign),
    ]


def measured(case: Case) -> str:
    name, steps, after, messages = case
    rewriting, encoding = [], []
    for _ in range(ROUNDS):
        rewriting.append(seconds(lambda: after(rewritten(messages, steps)[0])))
        encoding.append(seconds(lambda: jsontext.encode(messages)))
    cost, whole = statistics.median(rewriting), statistics.median(encoding)
    untouched = " (untouched)" if rewritten(messages, steps)[0] is messages else ""
    times = f"{cost * 1e6:6.0f} µs of {whole * 1e6:6.0f} µs"
    return f"{name:40} {times}: {cost / whole:4.0%}{untouched}"


def main() -> None:
    messages = history(forty, "")
    print(f"{len(messages)} messages, {len(jsontext.encode(messages)) // 1024} KiB of JSON")
    for case in cases():
        print(measured(case))


if __name__ == "__main__":
    main()
