"""The options of the subcommands that read journals."""

from __future__ import annotations

import argparse


def add_why(why: argparse.ArgumentParser) -> None:
    which = why.add_mutually_exclusive_group()
    which.add_argument(
        "--last", type=_count, default=1, metavar="N", help="the last N calls (default: 1)"
    )
    which.add_argument(
        "--at",
        metavar="TIME",
        help="the calls at a time, such as 14:03 or 2026-03-01T14:03:20",
    )
    which.add_argument("--call", metavar="ID", help="the call of an X-Mux-Call header")
    why.add_argument("--model", metavar="ALIAS", help="only calls that concern this model")
    why.add_argument(
        "--journal",
        metavar="FILE",
        help="a state file, or an export of one (default: yours)",
    )


def add_replay(replay: argparse.ArgumentParser) -> None:
    _add_journal(replay)
    replay.add_argument(
        "--export", metavar="FILE", help="write the journals to this file, as JSON Lines"
    )


def add_whatif(whatif: argparse.ArgumentParser) -> None:
    whatif.add_argument("other", metavar="NEW.toml", help="the config to compare with")
    _add_journal(whatif)


def _add_journal(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "journal",
        metavar="FILE",
        nargs="?",
        help="a state file, or an export of one (default: yours)",
    )


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of calls: 1 or more")
