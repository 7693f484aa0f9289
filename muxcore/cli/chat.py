"""`vibe-mux chat`: one question through the user's own pool, the answer as it arrives."""

from __future__ import annotations

import argparse
import json
import sys

from muxcore.chat import AttemptReport, Reply
from muxcore.cli.main import FAILED, WELL
from muxcore.config.definitions import known_as
from muxcore.core.text import printable, printable_lines
from muxcore.errors import StreamInterruptedError
from muxcore.plugins.catalogue import FILE
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.shell.factory import parts_of


def run(options: argparse.Namespace) -> int:
    prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
    messages = [{"role": "user", "content": prompt}]
    with Multiplexer(parts_of(options.config, None, state=FILE)) as multiplexer:
        aliases = [c.endpoint.alias for c in multiplexer.state.candidates]
        model = options.model and known_as(options.model, aliases)
        if options.json:
            reply = multiplexer.complete(messages, model=model)
            print(json.dumps(_as_json(reply), indent=2))
            return WELL
        try:
            with multiplexer.stream(messages, model=model) as stream:
                for chunk in stream:
                    print(printable_lines(chunk.text), end="", flush=True)
                reply = stream.reply
        except StreamInterruptedError as error:
            print()
            print(f"vibe-mux: {error}", file=sys.stderr)
            return FAILED
    print()
    for line in answered_by(reply, verbose=options.verbose):
        print(line, file=sys.stderr)
    return WELL


def answered_by(reply: Reply, *, verbose: bool) -> list[str]:
    """Describe which model answered, and which were passed over."""
    *passed, last = reply.attempts
    lines = [f"passed over {_describe_attempt(attempt)}" for attempt in passed]
    lines.append(f"answered by {printable(last.alias)}")
    if verbose:
        usage = reply.usage
        lines[-1] += (
            f": {_count(usage.prompt_tokens)} tokens in ({_count(usage.cached_tokens)} cached),"
            f" {_count(usage.completion_tokens)} out, finish reason {reply.finish_reason}"
        )
        lines += [
            f"rewritten for {printable(attempt.alias)}: {', '.join(attempt.rewrites)}"
            for attempt in reply.attempts
            if attempt.rewrites
        ]
    return lines


def _count(tokens: int | None) -> str:
    return "unknown" if tokens is None else str(tokens)


def _describe_attempt(attempt: AttemptReport) -> str:
    text = f"{printable(attempt.alias)}: {attempt.outcome}"
    if attempt.refuted_by:
        text += f", which {printable(attempt.refuted_by)} took"
    return f"{text} ({attempt.message})" if attempt.message else text


def _as_json(reply: Reply) -> dict[str, object]:
    return {
        "model": reply.model,
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "usage": {
            "prompt_tokens": reply.usage.prompt_tokens,
            "completion_tokens": reply.usage.completion_tokens,
            "cached_tokens": reply.usage.cached_tokens,
        },
        "attempts": [
            {
                "model": a.alias,
                "outcome": a.outcome,
                "message": a.message,
                "rewrites": a.rewrites,
                "refuted_by": a.refuted_by,
            }
            for a in reply.attempts
        ],
    }
