"""`vibe-mux chat`: a question, or a dialogue, through the user's own pool."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

from muxcore.chat import AttemptReport, Reply
from muxcore.cli.main import WELL
from muxcore.config.definitions import known_as
from muxcore.errors import MultiplexerError
from muxcore.plugins.catalogue import FILE
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.shell.factory import parts_of
from muxcore.text import printable, printable_lines

GREETING = (
    "A dialogue through the pool. /mux shows its status, /model ALIAS asks that model alone,"
    " /model asks the pool again; Ctrl-C ends an answer, Ctrl-D the dialogue."
)
WAITING, ERASED = "waiting for an answer …", "\r\x1b[K"


def run(options: argparse.Namespace) -> int:
    prompt = " ".join(options.prompt)
    with Multiplexer(parts_of(options.config, None, state=FILE)) as multiplexer:
        aliases = [c.endpoint.alias for c in multiplexer.state.candidates]
        model = options.model and known_as(options.model, aliases)
        if not prompt and not options.json:
            return converse(multiplexer, model, verbose=options.verbose)
        if prompt in {"", "-"}:
            prompt = sys.stdin.read()
        messages = [{"role": "user", "content": prompt}]
        if options.json:
            reply = multiplexer.complete(messages, model=model)
            print(json.dumps(_as_json(reply), indent=2))
        else:
            _ask(multiplexer, messages, model, verbose=options.verbose)
    return WELL


def converse(multiplexer: Multiplexer, model: str | None, *, verbose: bool) -> int:
    """Read a line, ask, and print the answer, until the input ends."""
    with suppress(ImportError):
        # `input` then edits lines, and remembers them.
        import_module("readline")
    print(GREETING, file=sys.stderr)
    messages: list[dict[str, Any]] = []
    while (line := _line()) is not None:
        match line.split():
            case []:
                continue
            case ["/mux"]:
                print(printable_lines(str(multiplexer.status())))
            case ["/model", *names]:
                aliases = [c.endpoint.alias for c in multiplexer.state.candidates]
                model = known_as(names[0], aliases) if names else None
                if names and model not in aliases:
                    known = ", ".join(map(printable, aliases))
                    print(f"no model {names[0]!r}; known: {known}", file=sys.stderr)
                    model = None
                print(f"asking {printable(model or 'the pool')}", file=sys.stderr)
            case _:
                asked = [*messages, {"role": "user", "content": line}]
                try:
                    reply = _ask(multiplexer, asked, model, verbose=verbose)
                except KeyboardInterrupt:
                    print(
                        "\nvibe-mux: the answer was ended; it is forgotten", file=sys.stderr
                    )
                except MultiplexerError as error:
                    print(f"vibe-mux: {error}", file=sys.stderr)
                else:
                    messages = [*asked, dict(reply.message)]
    return WELL


def _line() -> str | None:
    """Read a line of the user's; None at the end of the input."""
    try:
        return input("> " if sys.stdin.isatty() else "")
    except KeyboardInterrupt:
        print()
        return ""
    except EOFError:
        if sys.stdin.isatty():
            print()
        return None


def _ask(
    multiplexer: Multiplexer,
    messages: list[dict[str, Any]],
    model: str | None,
    *,
    verbose: bool,
) -> Reply:
    """Print an answer as it arrives, and then which model it is from."""
    waits = sys.stderr.isatty()
    if waits:
        print(WAITING, end="", file=sys.stderr, flush=True)
    last = "\n"
    try:
        with multiplexer.stream(messages, model=model) as stream:
            for chunk in stream:
                text = printable_lines(chunk.text)
                if waits and text:
                    print(ERASED, end="", file=sys.stderr, flush=True)
                    waits = False
                print(text, end="", flush=True)
                last = text[-1:] or last
            reply = stream.reply
    finally:
        if waits:
            print(ERASED, end="", file=sys.stderr, flush=True)
        if last != "\n":
            print(flush=True)
    for line in answered_by(reply, verbose=verbose):
        print(line, file=sys.stderr)
    return reply


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
