"""`vibe-mux init`: a `[multiplexer]` section in the config that there is, and all of it undone."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve

from muxcore.cli.main import FAILED, WELL, WRONG_USAGE
from muxcore.config.read import FILE_NAME, read, vibe_home
from muxcore.config.resolve import resolve
from muxcore.core.text import printable
from muxcore.errors import ConfigError
from muxcore.setup import files, shims
from muxcore.setup import unknown_servers as finding
from muxcore.setup.files import Note
from muxcore.setup.proposal import (
    FAILOVER,
    LOAD_BALANCE,
    PoolCandidate,
    candidates,
    document_of,
    pool_of,
    wanted_of,
)
from muxcore.setup.section_edit import Wanted, edited, present
from muxcore.setup.shims import Shim

MODES = {
    FAILOVER: "the first that can serve",
    LOAD_BALANCE: "all share the load",
}


def run(options: argparse.Namespace) -> int:
    environment = os.environ
    given = options.config or vibe_home(environment) / FILE_NAME
    file = files.target(Path(given).expanduser())
    if options.uninstall:
        return _uninstall(file, dry=options.dry_run)
    talks = _is_terminal() and not options.yes and not options.dry_run
    try:
        code = _set_up(file, options, environment, talks=talks)
        if code == WELL and not options.dry_run:
            _offer_shims(file, options, environment, talks=talks)
    except _DeclinedError:
        print("Nothing was written.")
        return WELL
    except EOFError:
        print("\nNothing more was written.", file=sys.stderr)
        return FAILED
    return code


class _DeclinedError(Exception):
    """The user has said no."""


def _set_up(
    file: Path, options: argparse.Namespace, environment: Mapping[str, str], *, talks: bool
) -> int:
    before = files.text_of(file.read_bytes()) if file.exists() else ""
    document = read(file, environment) if file.exists() else document_of("", file)
    found = candidates(document, environment)
    now = present(before)
    said = options.mode or options.models or options.fallbacks
    if now is None and not said:
        if not talks:
            _tell_left_out(found)
        # Before the dialogue: who wants one of these edits the config first.
        _tell_of_unknown(document.data, found, file)
    wanted = _asked(found, now) if talks and not said else None
    if wanted is None:
        wanted = wanted_of(
            now,
            found,
            mode=options.mode,
            models=options.models,
            fallbacks=options.fallbacks,
        )
    if not wanted.pool:
        print("vibe-mux: no model is ready to be in a pool", file=sys.stderr)
        return FAILED
    after = edited(before, wanted)
    if problems := _problems(after, file, environment):
        print(*problems, sep="\n", file=sys.stderr)
        print("Nothing was written.", file=sys.stderr)
        return FAILED
    if after == before:
        print(f"{file} has this pool already.")
        return WELL
    print(_difference(file, before, after))
    return _written(file, after, wanted, options, talks=talks)


def _tell_left_out(found: Sequence[PoolCandidate]) -> None:
    for candidate in found:
        if not candidate.is_ready:
            print(f"left out: {candidate}", file=sys.stderr)


def _tell_of_unknown(
    data: Mapping[str, Any], found: Sequence[PoolCandidate], file: Path
) -> None:
    """Tell of servers on this machine that the config does not know."""
    aliases = [candidate.alias for candidate in found]
    for server in finding.unknown_servers(data):
        first, *others = server.models
        also = f" (and {', '.join(others)})" if others else ""
        text = (
            f"\n{server.provider} answers on this machine with {first}{also}, and the config"
            f" does not know it. To have it in the pool, add to {file} and run this again:"
            f"\n\n{finding.lines_for(server, aliases)}\n"
        )
        if not data.get("models"):
            text += (
                "\nVibe before 3 forgets its own models when a config names some: name those"
                " that you use, too.\n"
            )
        print(text, file=sys.stderr)


def _written(
    file: Path, after: str, wanted: Wanted, options: argparse.Namespace, *, talks: bool
) -> int:
    if options.dry_run:
        return WELL
    if not options.yes and not talks:
        print("Nothing was written: add --yes to write it.", file=sys.stderr)
        return WRONG_USAGE
    if talks and not _agrees(f"Write this to {file}?", otherwise=True):
        raise _DeclinedError
    backup = files.backup_of(file)
    files.install(file, after)
    kept = f" It was copied to {backup} before." if backup.exists() else ""
    print(f"Written.{kept} `vibe-mux init --uninstall` undoes it.")
    first = printable(wanted.pool[0].alias)
    print(
        "Next: `vibe-mux run -- vibe`, and to see a failover before you need one:"
        f" `vibe-mux run --break {first}=429@3 -- vibe`"
    )
    return WELL


def _problems(text: str, file: Path, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Load the config as it would be; say its warnings at once."""
    try:
        config = resolve(document_of(text, file), environment)
    except ConfigError as error:
        return error.problems
    for warning in config.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return ()


def _difference(file: Path, before: str, after: str) -> str:
    """Show what changes, and nothing beside it: a config may hold secrets."""
    lines = list(
        difflib.unified_diff(
            before.splitlines(), after.splitlines(), str(file), str(file), lineterm="", n=0
        )
    )
    return "\n".join(lines)


# --- the dialogue --------------------------------------------------------------------------


def _asked(found: Sequence[PoolCandidate], now: Wanted | None) -> Wanted | None:
    """Ask which models, and how; None keeps a pool that is there."""
    if now is not None:
        print("The config has a pool:", ", ".join(printable(e.alias) for e in now.pool))
        if _agrees("Keep it, and switch the multiplexer on?", otherwise=True):
            return None
    for number, candidate in enumerate(found, start=1):
        print(f"  {number}. {candidate}")
    proposed = " ".join(
        str(number) for number, candidate in enumerate(found, start=1) if candidate.is_ready
    )
    while True:
        said = input(f"Which of them, in order of preference? [{proposed}] ") or proposed
        if chosen := _numbers(said, len(found)):
            break
        print("Numbers of the list, with spaces between them, please.")
    for name, meaning in MODES.items():
        print(f"  {name}: {meaning}")
    while (mode := input(f"Which mode? [{FAILOVER}] ") or FAILOVER) not in MODES:
        print(f"One of {', '.join(MODES)}, please.")
    aliases = [found[number - 1].alias for number in dict.fromkeys(chosen)]
    return Wanted(mode, pool_of(aliases, mode))


def _numbers(said: str, highest: int) -> list[int]:
    words = said.replace(",", " ").split()
    numbers = [int(word) for word in words if word.isdecimal()]
    right = len(numbers) == len(words) and all(1 <= n <= highest for n in numbers)
    return numbers if right else []


def _agrees(question: str, *, otherwise: bool) -> bool:
    said = input(f"{question} [{'Y/n' if otherwise else 'y/N'}] ").strip().lower()
    return otherwise if not said else said.startswith("y")


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


# --- plain `vibe` --------------------------------------------------------------------------


def _offer_shims(
    file: Path, options: argparse.Namespace, environment: Mapping[str, str], *, talks: bool
) -> None:
    if options.shim is None and not talks:
        return
    try:
        folder = _folder(options.shim, environment)
        planned = shims.planned(folder, environment)
    except files.SetupError:
        if options.shim is None:
            # Nobody asked for it, and it cannot be had.
            return
        raise
    if all(_is_there(shim) for shim in planned):
        print(f"Plain `vibe` goes through the pool already, by {planned[0].path}.")
        return
    names = " and ".join(f"`{shim.path.stem}`" for shim in planned)
    question = f"Make plain {names} go through the pool, by small scripts in {folder}?"
    if options.shim is None and not _agrees(question, otherwise=False):
        return
    _put(planned, file)
    print(f"Plain {names} now go through the pool, by scripts in {folder}.")
    if not shims.is_before_vibe(folder, environment):
        print(f"Put {folder} first on PATH: they are found only then.", file=sys.stderr)


def _folder(said: str | None, environment: Mapping[str, str]) -> Path:
    if said:
        return Path(said).expanduser().absolute()
    return shims.folder_for(environment)


def _is_there(shim: Shim) -> bool:
    return shim.path.exists() and shim.path.read_bytes() == shim.content


def _put(planned: Sequence[Shim], file: Path) -> None:
    note = files.read_note(file) or Note(file.exists())
    written = {str(shim.path): files.digest(shim.content) for shim in planned}
    # The note first: what is there is always known.
    files.write_note(file, evolve(note, scripts={**note.scripts, **written}))
    for shim in planned:
        files.replace(shim.path, shim.content)
        shim.path.chmod(0o755)


# --- undoing it ----------------------------------------------------------------------------


def _uninstall(file: Path, *, dry: bool) -> int:
    note = files.read_note(file)
    if note is None:
        print(f"There is nothing to undo for {file}.")
        return WELL
    if dry:
        print(*(f"Would remove {path}" for path in note.scripts), sep="\n")
        print(f"Would put {file} back as it was" if note.after else "")
        return WELL
    for path, expected in note.scripts.items():
        print(_removed(Path(path), expected))
    if told := files.restore(file, note):
        print(told)
    files.note_of(file).unlink()
    return WELL


def _removed(path: Path, expected: str) -> str:
    if not path.exists():
        return f"{path} is gone already"
    if files.digest(path.read_bytes()) != expected:
        return f"{path} was changed since and is left: remove it yourself"
    path.unlink()
    return f"{path} is removed"
