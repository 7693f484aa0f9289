"""`vibe-mux`: the parser, the exit codes, and the handling of errors of all subcommands.

Exit codes: 0 success, 1 the config or the call failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, NoReturn

from muxcore.cli.journals import options as journal_options
from muxcore.core.phases import Phase
from muxcore.errors import ConfigError, MultiplexerError

WELL, FAILED, WRONG_USAGE = 0, 1, 2
OF_JOURNALS = frozenset({"page", "replay", "whatif", "why"})
"""The commands in the package `journals`."""
INTERRUPTED = 130
"""The status that shells report after Ctrl-C."""
NARROWEST, WIDE = 20, 80


class UsageError(MultiplexerError):
    """The command line asks for what cannot be, as only the subcommand can tell."""


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage as JSON, if the command line asks for JSON."""

    as_json = False

    def print_help(self, file: Any = None) -> None:
        # As argparse does it, a reader that has left goes unnoticed.
        print(self.format_help(), end="", file=file, flush=True)

    def error(self, message: str) -> NoReturn:
        if self.as_json:
            _report(UsageError(message), as_json=True)
            self.exit(WRONG_USAGE)
        super().error(message)


def parser(asked: str | None = None, *, as_json: bool = False) -> argparse.ArgumentParser:
    """Return the parser of the whole command.

    If `asked` names a subcommand, only that one gets its options: adding an option takes
    `argparse` longer than parsing it.
    """
    page = partial(argparse.HelpFormatter, width=_columns() - 2)
    top = _Parser(
        prog="vibe-mux",
        formatter_class=page,
        description="A pool of models behind every call of a coding agent.",
    )
    top.add_argument("--version", action="store_true", help="print the version and stop")
    top.add_argument("--config", dest="leading_config", help=argparse.SUPPRESS)
    top.as_json = as_json
    # Given no name, `argparse` would work it out by formatting a page of help.
    commands = top.add_subparsers(dest="command", metavar="COMMAND", prog=top.prog)
    for name, (text, add_options) in COMMANDS.items():
        command = commands.add_parser(name, help=text, formatter_class=page)
        command.as_json = as_json
        if asked in {None, name}:
            add_options(command)
            command.set_defaults(parser=command)
    return top


def _columns() -> int:
    """Return the width of the terminal; `argparse` would import `shutil` for it."""
    with suppress(KeyError, ValueError):
        return max(int(os.environ["COLUMNS"]), NARROWEST)
    with suppress(OSError):
        return max(os.get_terminal_size().columns or WIDE, NARROWEST)
    return WIDE


def _add_check(check: argparse.ArgumentParser) -> None:
    check.add_argument(
        "--phase",
        choices=[str(phase) for phase in Phase],
        help="say what a later phase of the roll-out will change for this config",
    )
    check.add_argument(
        "--schema",
        action="store_true",
        help="print the JSON schema of [multiplexer], for editors",
    )
    _add_config(check)
    _add_json(check)


def _add_chat(chat: argparse.ArgumentParser) -> None:
    chat.add_argument(
        "prompt",
        metavar="PROMPT",
        nargs="*",
        help="the question; - reads it from input; without one, a dialogue begins",
    )
    chat.add_argument("--model", metavar="ALIAS", help="ask this model of the pool alone")
    chat.add_argument(
        "--verbose",
        action="store_true",
        help="also print tokens, finish reason and what was rewritten",
    )
    _add_config(chat)
    _add_json(chat)


def _add_doctor(doctor: argparse.ArgumentParser) -> None:
    _add_config(doctor)
    _add_json(doctor)


def _add_status(status: argparse.ArgumentParser) -> None:
    _add_config(status)
    form = status.add_mutually_exclusive_group()
    form.add_argument("--watch", action="store_true", help="keep showing it, live")
    _add_json(form)


def _add_init(init: argparse.ArgumentParser) -> None:
    init.add_argument("--mode", metavar="MODE", help="how the pool works, such as failover")
    init.add_argument(
        "--model",
        dest="models",
        action="append",
        default=[],
        metavar="ALIAS",
        help="have this model in the pool; may be given again, in order of preference",
    )
    init.add_argument(
        "--fallback",
        dest="fallbacks",
        action="append",
        default=[],
        metavar="ALIAS",
        help="have this model as a fallback; may be given again",
    )
    init.add_argument(
        "--shim",
        nargs="?",
        const="",
        metavar="DIR",
        help="make plain `vibe` go through the pool, by a script in DIR (default: one of"
        " your own on PATH)",
    )
    init.add_argument("--yes", action="store_true", help="write it without asking")
    init.add_argument("--dry-run", action="store_true", help="show it, and write nothing")
    init.add_argument(
        "--move",
        action="store_true",
        help="move the section from vibe's config to multiplexer.toml beside it",
    )
    init.add_argument("--uninstall", action="store_true", help="undo all of it")
    _add_config(init)


def _add_serve(serve: argparse.ArgumentParser) -> None:
    serve.add_argument(
        "--port", type=_port, default=0, metavar="N", help="the port (default: a free one)"
    )
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="listen here (default: 127.0.0.1); any other than this machine's own needs a"
        " token in VIBE_MUX_TOKEN",
    )
    serve.add_argument(
        "--allow-host",
        action="append",
        default=[],
        dest="hosts",
        metavar="NAME",
        help="also serve requests for this Host, as from a container (may be repeated)",
    )
    serve.add_argument(
        "--page",
        action="store_true",
        help="also print the address of the page for a browser",
    )
    _add_break(serve)
    serve.add_argument(
        "--log",
        nargs="?",
        const="plain",
        choices=("plain", "json"),
        help="write a line for each call that has ended (default: plain)",
    )
    serve.add_argument("--log-file", metavar="FILE", help="append these lines to a file")
    # For `run`: the server ends with its last lease.
    serve.add_argument("--leased", action="store_true", help=argparse.SUPPRESS)
    # Descriptors that `run` passes on: of a listening socket, and of the lock.
    serve.add_argument("--listener", type=int, help=argparse.SUPPRESS)
    serve.add_argument("--lock", type=int, help=argparse.SUPPRESS)
    _add_config(serve)
    _add_json(serve)


def _port(text: str) -> int:
    with suppress(ValueError):
        if (port := int(text)) in range(2**16):
            return port
    raise argparse.ArgumentTypeError(f"{text!r} is no port: a number from 0 to 65535")


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument(
        "--quiet", action="store_true", help="say nothing of the pool, before or after"
    )
    run.add_argument(
        "--log",
        metavar="FILE",
        help="append a line to this file for each call that has ended",
    )
    _add_break(run)
    _add_config(run)
    run.add_argument(
        "program",
        nargs=argparse.REMAINDER,
        metavar="-- COMMAND",
        help="what to run, and its arguments (default: vibe)",
    )


def _add_reset(reset: argparse.ArgumentParser) -> None:
    reset.add_argument(
        "alias", nargs="?", metavar="ALIAS", help="this model alone (default: all)"
    )
    _add_config(reset)


def _add_page(page: argparse.ArgumentParser) -> None:
    _add_config(page)
    _add_json(page)


def _add_why(why: argparse.ArgumentParser) -> None:
    journal_options.add_why(why)
    _add_config(why)
    _add_json(why)


def _add_replay(replay: argparse.ArgumentParser) -> None:
    journal_options.add_replay(replay)
    _add_config(replay)
    _add_json(replay)


def _add_whatif(whatif: argparse.ArgumentParser) -> None:
    journal_options.add_whatif(whatif)
    _add_config(whatif)
    _add_json(whatif)


def _add_break(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--break",
        dest="drills",
        action="append",
        default=[],
        metavar="ALIAS=FAULT@N",
        help="fire drill: this model has the fault 429, 500, 401, refused or cut at its N-th"
        " call; may be given again",
    )


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config", metavar="FILE", help="the config (default: vibe's own config.toml)"
    )


def _add_json(command: argparse._ActionsContainer) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, for programs")


def _add_help(help_: argparse.ArgumentParser) -> None:
    help_.add_argument("topic", metavar="COMMAND", nargs="?", help="show its options")


def _add_nothing(_: argparse.ArgumentParser) -> None:
    """Add no options, for a command that has none."""


COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "demo": (
        "watch it work: no key and no config needed, nothing leaves this machine",
        _add_nothing,
    ),
    "check": ("check a config, and show the pool it makes", _add_check),
    "chat": ("ask through the pool: one question, or a dialogue", _add_chat),
    "modes": ("list the modes and backends at hand", _add_json),
    "init": ("add a pool to your config, or undo that", _add_init),
    "doctor": ("probe every model of the pool", _add_doctor),
    "serve": ("serve the pool to clients of OpenAI's and Anthropic's APIs", _add_serve),
    "run": ("run an agent through the pool: run -- vibe …", _add_run),
    "reset": ("re-enable a disabled model, in every process that shares it", _add_reset),
    "status": ("show the pool of the server that runs", _add_status),
    "page": ("print the address of the pool's page for a browser", _add_page),
    "replay": ("make every decision of the journals again", _add_replay),
    "whatif": ("show what another config would have made of the calls", _add_whatif),
    "why": ("tell the story of a call: who was asked, and why", _add_why),
    "help": ("show how to use a command", _add_help),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Nobody gets a traceback for a mistake of their own, or of their file system.
    """
    _open_closed_streams()
    _use_utf_8()
    as_json = False
    try:
        options = _parsed(sys.argv[1:] if arguments is None else arguments)
        # `run` reads the last line that its server prints on stderr.
        is_leased = getattr(options, "leased", False)
        as_json = getattr(options, "json", False) and not is_leased
        code = _run(options)
        # While the interpreter exits, a reader that has left would cause a traceback.
        sys.stdout.flush()
    except MultiplexerError as error:
        _report(error, as_json=as_json)
        return WRONG_USAGE if isinstance(error, UsageError) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has left.
        _print_nowhere()
        return FAILED
    except OSError as error:
        if error.filename is not None:
            _report(
                MultiplexerError(f"{error.filename}: {error.strerror}"), as_json=as_json
            )
        elif error.errno in {errno.ENOSPC, errno.EIO}:
            _print_nowhere()
            print(f"vibe-mux: {error.strerror}: the output is not whole", file=sys.stderr)
        else:
            raise
        return FAILED
    return code


def _run(options: argparse.Namespace) -> int:
    if options.version:
        from muxcore.plugins.catalogue import version  # noqa: PLC0415 - rarely wanted

        print(f"vibe-mux {version()}")
        return WELL
    if options.command is None:
        parser().print_help()
        return WELL
    if options.command == "help":
        _parsed([*([options.topic] if options.topic else []), "--help"])
    home = "muxcore.cli.journals" if options.command in OF_JOURNALS else "muxcore.cli"
    code: int = import_module(f"{home}.{options.command}").run(options)
    return code


def _parsed(given: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; on wrong usage, say what may be meant, and exit with 2."""
    command = _command_in(given)
    own_words = given[: given.index("--")] if "--" in given else given
    top = parser(command, as_json="--json" in own_words)
    if command is not None and command not in COMMANDS:
        meant = _nearest(command, COMMANDS) or "; `vibe-mux help` lists them"
        top.error(f"there is no command {command!r}{meant}")
    options, unknown = top.parse_known_args(given)
    own: argparse.ArgumentParser = getattr(options, "parser", top)
    if unknown:
        own.error(_unknown(unknown[0], given, own))
    if options.leading_config is not None and command is not None:
        if not hasattr(options, "config"):
            own.error(f"`vibe-mux {command}` reads no config: leave --config out")
        options.config = options.config or options.leading_config
    return options


def _command_in(given: Sequence[str]) -> str | None:
    """Return the first argument that is neither an option nor the value of one."""
    is_value = False
    for text in given:
        if not is_value and not text.startswith("-"):
            return text
        is_value = text == "--config"
    return None


def _unknown(text: str, given: Sequence[str], own: argparse.ArgumentParser) -> str:
    """Describe an argument that no option takes."""
    meant = _nearest(text.partition("=")[0], _options_of(own))
    if not meant and own.prog.endswith(" run"):
        vibes = " ".join(given[given.index(text) :])
        meant = f"; what vibe is to get goes behind `--`: vibe-mux run -- vibe {vibes}"
    return f"{text!r} is not expected here{meant}"


def _nearest(text: str, known: Iterable[str]) -> str:
    from muxcore.config.problems import nearest  # noqa: PLC0415 - only after a mistake

    return nearest(text, known)


def _options_of(own: argparse.ArgumentParser) -> list[str]:
    page = own.format_usage()
    return [word.strip("[]|") for word in page.split() if word.strip("[|").startswith("--")]


def _report(error: MultiplexerError, *, as_json: bool) -> None:
    if not as_json:
        print(f"vibe-mux: {error}", file=sys.stderr)
        return
    import json  # noqa: PLC0415 - not every command needs it

    told: dict[str, object] = {"ok": False, "problems": [str(error)]}
    if isinstance(error, ConfigError):
        told |= {"problems": list(error.problems), "warnings": list(error.warnings)}
    print(json.dumps(told, indent=2))


def _print_nowhere() -> None:
    """Send what is still to be printed nowhere: Python would report it again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_closed_streams() -> None:
    """Give a stream that the shell has closed, which Python makes None, an end."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _use_utf_8() -> None:
    """Print what models write even where the locale lacks the letters."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    sys.exit(main())
