"""`vibe-mux init`: a pool in `multiplexer.toml` beside vibe's config, and all of it undone.

Vibe's own file stays as it is: only `--move` takes a section out of it, and `--uninstall` undoes
that, and what an older `init` wrote there.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli
from attrs import evolve, frozen

from muxcore.cli.main import FAILED, WELL, WRONG_USAGE
from muxcore.config.read import (
    SECTION,
    SECTION_FILE_NAME,
    Document,
    config_path,
    document_of,
    read_alone,
    with_section,
)
from muxcore.config.resolve import resolve
from muxcore.core.phases import SINGLE
from muxcore.errors import ConfigError
from muxcore.setup import SetupError, files, shims
from muxcore.setup import unknown_servers as finding
from muxcore.setup.files import Note
from muxcore.setup.proposal import (
    FAILOVER,
    LOAD_BALANCE,
    PoolCandidate,
    candidates,
    pool_of,
    wanted_of,
    with_windows,
)
from muxcore.setup.section_edit import Wanted, edited, present, split
from muxcore.setup.shims import Shim
from muxcore.text import printable

MODES = {
    FAILOVER: "the first that can serve",
    LOAD_BALANCE: "all share the load",
}


@frozen
class Target:
    """The files of one config. Links are followed, so that a link stays one."""

    config: Path
    section: Path

    @classmethod
    def of(cls, config: Path) -> Target:
        beside = config.with_name(SECTION_FILE_NAME)
        return cls(files.target(config), files.target(beside))


class _DeclinedError(Exception):
    """The user answered no."""


def run(options: argparse.Namespace) -> int:
    environment = os.environ
    target = Target.of(config_path(options.config, environment))
    if options.uninstall:
        return _uninstall(target, dry=options.dry_run)
    talks = _is_terminal() and not options.yes and not options.dry_run
    try:
        if options.move:
            return _move(target, options, talks=talks)
        code = _set_up(target, options, environment, talks=talks)
        if code == WELL and not options.dry_run:
            _offer_shims(target.section, options, environment, talks=talks)
    except _DeclinedError:
        print("Nothing was written.")
        return WELL
    except EOFError:
        print("\nNothing more was written.", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        # The cursor stands behind a question.
        print(file=sys.stderr)
        raise
    return code


def _set_up(
    target: Target,
    options: argparse.Namespace,
    environment: Mapping[str, str],
    *,
    talks: bool,
) -> int:
    document = read_alone(options.config, environment)
    beside = _read(target.section)
    before = beside.text
    # A section in vibe's file is copied with all its options, and then changed.
    base = before if SECTION in beside.data else split(document.text)[1]
    now = present(base)
    requested = options.mode or options.models or options.fallbacks
    if _is_on(base) and not requested:
        where = target.section if base is before else target.config
        print(f"The multiplexer is on already: {_aliases(now)}, in {where}.")
        return WELL
    found = candidates(document, environment)
    if now is None and not requested:
        talks = talks and any(candidate.is_ready for candidate in found)
        if not talks:
            _report_left_out(found)
        # Before the dialogue: the user may prefer to add one of these to the config first.
        _report_unknown_servers(document.data, found, target.config)
    wanted = _asked(found, now) if talks and not requested else None
    if wanted is None:
        wanted = wanted_of(
            now,
            found,
            mode=options.mode,
            models=options.models,
            fallbacks=options.fallbacks,
        )
    wanted = with_windows(wanted, now, found)
    if not wanted.pool:
        print(
            "vibe-mux: no model is ready to be in a pool; mend one, and run this again",
            file=sys.stderr,
        )
        return FAILED
    after = edited(base, wanted)
    if problems := _problems(document, target.section, after, environment):
        print(*problems, sep="\n", file=sys.stderr)
        print("Nothing was written.", file=sys.stderr)
        return FAILED
    if after == before:
        print(f"{target.section} has this pool already.")
        return WELL
    _report_advice(found, wanted)
    if not _write({target.section: (before, after)}, options, talks=talks):
        return WELL if options.dry_run else WRONG_USAGE
    first = printable(wanted.pool[0].alias)
    print(
        "Next: `vibe-mux run -- vibe`, and to see a failover before you need one:"
        f" `vibe-mux run --break {first}=429@3 -- vibe`"
    )
    return WELL


def _read(file: Path) -> Document:
    """Read a file that need not exist."""
    try:
        return document_of(file, file.read_bytes())
    except FileNotFoundError:
        return Document(str(file), {})
    except OSError as error:
        raise SetupError(f"{file}: cannot be read: {error.strerror}") from None


def _is_on(section: str) -> bool:
    """Whether a section is switched on, with a pool that its mode uses."""
    found = tomli.loads(section).get(SECTION)
    now = present(section)
    return (
        isinstance(found, Mapping)
        and found.get("enabled") is True
        and now is not None
        and now.mode not in {"", SINGLE}
    )


def _aliases(pool: Wanted | None) -> str:
    return ", ".join(printable(entry.alias) for entry in pool.pool) if pool else ""


def _report_left_out(found: Sequence[PoolCandidate]) -> None:
    for candidate in found:
        if not candidate.is_ready:
            print(f"left out: {candidate}", file=sys.stderr)


def _report_advice(found: Sequence[PoolCandidate], wanted: Wanted) -> None:
    aliases = {entry.alias for entry in wanted.pool}
    for candidate in found:
        if candidate.advice and candidate.alias in aliases:
            print(f"{printable(candidate.alias)}: {candidate.advice}", file=sys.stderr)


def _report_unknown_servers(
    data: Mapping[str, Any], found: Sequence[PoolCandidate], file: Path
) -> None:
    """Report servers on this machine that the config does not name."""
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


def _problems(
    document: Document, file: Path, section: str, environment: Mapping[str, str]
) -> tuple[str, ...]:
    """Load the config as it would be, and print its warnings."""
    # Without its text: no file has these lines yet.
    beside = evolve(document_of(file, section.encode()), text="")
    try:
        config = resolve(with_section(document, beside), environment)
    except ConfigError as error:
        return error.problems
    for warning in config.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return ()


# --- writing -------------------------------------------------------------------------------


def _write(
    changes: Mapping[Path, tuple[str, str]], options: argparse.Namespace, *, talks: bool
) -> bool:
    """Show what changes in each file, and write it if that is wanted."""
    for file, (before, after) in changes.items():
        print(_difference(file, before, after))
    if options.dry_run:
        return False
    if not options.yes and not talks:
        print("Nothing was written: add --yes to write it.", file=sys.stderr)
        return False
    names = " and ".join(map(str, changes))
    if talks and not _agrees(f"Write this to {names}?", otherwise=True):
        raise _DeclinedError
    backups = []
    for file, (_, after) in changes.items():
        files.install(file, after)
        if files.backup_of(file).exists():
            backups.append(f" {file.name} was copied to {files.backup_of(file)} before.")
    print(f"Written.{''.join(backups)} `vibe-mux init --uninstall` undoes it.")
    return True


def _difference(file: Path, before: str, after: str) -> str:
    """Show the lines that change, and no others: a config may hold secrets."""
    lines = list(
        difflib.unified_diff(
            before.splitlines(), after.splitlines(), str(file), str(file), lineterm="", n=0
        )
    )
    return "\n".join(lines)


def _move(target: Target, options: argparse.Namespace, *, talks: bool) -> int:
    """Move the section from vibe's file to the one beside it, as it is written."""
    # It says what is wrong with a file that is there, and cannot be read.
    read_alone(options.config, os.environ)
    before = _read(target.config).text
    rest, section = split(before)
    if not section:
        print(f"{target.config} has no [{SECTION}] section: nothing to move.")
        return WELL
    beside = _read(target.section)
    changes = {target.config: (before, rest)}
    if SECTION not in beside.data:
        gap = "\n" if beside.text.strip() else ""
        # First, so that the section stands in one of the files at any moment.
        changes = {target.section: (beside.text, beside.text + gap + section), **changes}
    if not _write(changes, options, talks=talks):
        return WELL if options.dry_run else WRONG_USAGE
    return WELL


# --- the dialogue --------------------------------------------------------------------------


def _asked(found: Sequence[PoolCandidate], now: Wanted | None) -> Wanted | None:
    """Ask which models, and how; None keeps a pool that is there."""
    if now is not None:
        print("The config has a pool:", _aliases(now))
        if _agrees("Keep it, and switch the multiplexer on?", otherwise=True):
            return None
    for number, candidate in enumerate(found, start=1):
        print(f"  {number}. {candidate}")
    proposed = " ".join(
        str(number) for number, candidate in enumerate(found, start=1) if candidate.is_ready
    )
    while True:
        answer = input(f"Which of them, in order of preference? [{proposed}] ") or proposed
        if chosen := _numbers(answer, len(found)):
            break
        print("Numbers of the list, with spaces between them, please.")
    for name, meaning in MODES.items():
        print(f"  {name}: {meaning}")
    while (mode := input(f"Which mode? [{FAILOVER}] ") or FAILOVER) not in MODES:
        print(f"One of {', '.join(MODES)}, please.")
    aliases = [found[number - 1].alias for number in dict.fromkeys(chosen)]
    return Wanted(mode, pool_of(aliases, mode))


def _numbers(answer: str, highest: int) -> list[int]:
    words = answer.replace(",", " ").split()
    numbers = [int(word) for word in words if word.isdecimal()]
    right = len(numbers) == len(words) and all(1 <= n <= highest for n in numbers)
    return numbers if right else []


def _agrees(question: str, *, otherwise: bool) -> bool:
    answer = input(f"{question} [{'Y/n' if otherwise else 'y/N'}] ").strip().lower()
    return otherwise if not answer else answer.startswith("y")


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
    except SetupError:
        if options.shim is None:
            # It was not asked for, and is not possible here.
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
    verb = "go" if len(planned) > 1 else "goes"
    print(f"Plain {names} now {verb} through the pool, by scripts in {folder}.")
    if not shims.is_before_vibe(folder, environment):
        print(f"Put {folder} first on PATH: they are found only then.", file=sys.stderr)


def _folder(given: str | None, environment: Mapping[str, str]) -> Path:
    if given:
        return Path(given).expanduser().absolute()
    return shims.folder_for(environment)


def _is_there(shim: Shim) -> bool:
    return shim.path.exists() and shim.path.read_bytes() == shim.content


def _put(planned: Sequence[Shim], file: Path) -> None:
    note = files.read_note(file) or Note(file.exists())
    written = {str(shim.path): files.digest(shim.content) for shim in planned}
    # The note first, so that it always names all that was written.
    files.write_note(file, evolve(note, scripts={**note.scripts, **written}))
    for shim in planned:
        files.replace(shim.path, shim.content)
        shim.path.chmod(0o755)


# --- undoing it ----------------------------------------------------------------------------


def _uninstall(target: Target, *, dry: bool) -> int:
    notes = {
        file: note
        for file in (target.section, target.config)
        if (note := files.read_note(file)) is not None
    }
    if not notes:
        print(f"There is nothing to undo for {target.config}.")
    for file, note in notes.items():
        if dry:
            for path in note.scripts:
                print(f"Would remove {path}")
            if note.after:
                print(f"Would {'put' if note.existed else 'remove'} {file}", end="")
                print(" back as it was" if note.existed else "")
            continue
        for path, expected in note.scripts.items():
            print(_removed(Path(path), expected))
        if report := files.restore(file, note):
            print(report)
        files.note_of(file).unlink()
    return WELL


def _removed(path: Path, expected: str) -> str:
    if not path.exists():
        return f"{path} is gone already"
    if files.digest(path.read_bytes()) != expected:
        return f"{path} was changed since and is left: remove it yourself"
    path.unlink()
    return f"{path} is removed"
