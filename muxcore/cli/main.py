"""`vibe-mux`: the parser, and what every subcommand shares: exit codes and errors.

0: it went well. 1: the config or the call failed. 2: wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from muxcore.errors import MultiplexerError

WELL, FAILED = 0, 1
INTERRUPTED = 130
"""As shells report an end by Ctrl-C."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    top = argparse.ArgumentParser(
        prog="vibe-mux",
        description="A pool of models behind every call of a coding agent.",
    )
    top.add_argument("--version", action="store_true", help="print the version and stop")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    commands.add_parser(
        "demo",
        help="watch it work: no key and no config needed, nothing leaves this machine",
    )
    check = commands.add_parser("check", help="check a config, and show the pool it makes")
    _add_config(check)
    _add_json(check)
    chat = commands.add_parser("chat", help="ask one question through the pool")
    chat.add_argument(
        "prompt", metavar="PROMPT", help="the question; - reads it from input"
    )
    chat.add_argument("--model", metavar="ALIAS", help="ask this model of the pool alone")
    chat.add_argument(
        "--verbose", action="store_true", help="say what each model answered, and was asked"
    )
    _add_config(chat)
    _add_json(chat)
    modes = commands.add_parser("modes", help="list the modes and backends at hand")
    _add_json(modes)
    return top


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config", metavar="FILE", help="the config (default: vibe's own config.toml)"
    )


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, for programs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    _speak_utf_8()
    top = parser()
    options = top.parse_args(arguments)
    if options.version:
        from muxcore.plugins.catalogue import version  # noqa: PLC0415 - rarely wanted

        print(f"vibe-mux {version()}")
        return WELL
    if options.command is None:
        top.print_help()
        return WELL
    try:
        code: int = import_module(f"muxcore.cli.{options.command}").run(options)
    except MultiplexerError as error:
        print(f"vibe-mux: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has left. Python would complain once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def _speak_utf_8() -> None:
    """Print what models say even where the locale has no such letters."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    sys.exit(main())
