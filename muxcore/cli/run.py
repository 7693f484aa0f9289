"""`vibe-mux run -- vibe …`: runs an unmodified agent through the pool, and edits no file."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import frozen

from muxcore import config as configuration
from muxcore.agents.leasing import Lease, leasing
from muxcore.agents.process import run_through
from muxcore.agents.programs import INSTALLED_BY, general_variables, launch_of
from muxcore.board.state_dir import default_path, is_to_be_made
from muxcore.cli.main import FAILED, WELL, WRONG_USAGE
from muxcore.config import Config, addresses
from muxcore.config.read import SECTION_FILE_NAME, config_path, read
from muxcore.errors import ConfigError
from muxcore.gateway import runtime_dir, skill_file
from muxcore.gateway.access import Access
from muxcore.gateway.runtime_dir import temporary_directory
from muxcore.plugins.catalogue import FILE
from muxcore.setup import shims
from muxcore.text import printable
from muxcore.vibe.bypass import Bypass, past_the_pool
from muxcore.vibe.environment import settings
from muxcore.vibe.release import Release, is_vibe, release_of
from muxcore.vibe.startup import Arguments, startup_of

if TYPE_CHECKING:
    from muxcore.gateway.faults.spec import Drill

NOT_FOUND, NOT_RUNNABLE = 127, 126
"""The statuses that shells report."""

MOST_LINES = 15
SKILLS = "vibe-mux-skills-"

ABOUT_ITSELF = frozenset({"-h", "--help", "-v", "-V", "--version"})
"""With one of these as its first argument, a program calls no model."""

ALONE = frozenset({"-p", "--prompt", "--prompt-file"})
"""With these, vibe is not interactive and does not clear the screen."""


def run(options: argparse.Namespace) -> int:
    name, *arguments = _command(options.program)
    try:
        drills = _drills(options.drills)
    except ValueError as error:
        return _failed(f"--break: {error}", WRONG_USAGE)
    environment = dict(os.environ)
    program = _found(name, environment)
    if program is None:
        how = INSTALLED_BY.get(Path(name).stem.lower())
        hint = f"; `{how}` installs it" if how else ""
        return _failed(f"{printable(name)}: not found{hint}", NOT_FOUND)
    command = [program, *arguments]
    if not ABOUT_ITSELF.isdisjoint(arguments[:1]):
        return _started(command, environment)
    return _run(command, options, drills, environment)


def _drills(texts: Sequence[str]) -> list[Drill]:
    if not texts:
        return []
    # vibe waits for each import, and a start with a drill is rare.
    from muxcore.gateway.faults.spec import parse_drill  # noqa: PLC0415

    return [parse_drill(text) for text in texts]


def _command(program: Sequence[str]) -> Sequence[str]:
    command = program[1:] if program[:1] == ["--"] else program
    return command or ["vibe"]


def _run(
    command: Sequence[str],
    options: argparse.Namespace,
    drills: Sequence[Drill],
    environment: Mapping[str, str],
) -> int:
    # A link is not followed: `multiplexer.toml` stands beside it.
    file = config_path(options.config, environment).absolute()
    try:
        config = configuration.load(options.config and file, env=environment)
    except ConfigError as error:
        _report(_broken(error, command[0]))
        _let_read(command, options)
        return _started(command, environment)
    if not config.enabled:
        if options.drills:
            return _failed("--break: there is no pool, as the multiplexer is off", FAILED)
        if not options.quiet:
            lines = _off(config, file, environment, command[0])
            _report(lines)
            if len(lines) > 1:
                _let_read(command, options)
        return _started(command, environment)
    for drill in drills:
        drill.expect_known([endpoint.alias for endpoint in config.endpoints])
    return _through_pool(command, config, file, options, environment)


def _through_pool(
    command: Sequence[str],
    config: Config,
    file: Path,
    options: argparse.Namespace,
    environment: Mapping[str, str],
) -> int:
    label = secrets.token_hex(8)
    # Looked for before the server starts, which makes it.
    new_file = None if options.drills else _new_state_file(config)
    with (
        ExitStack() as stack,
        leasing(
            file,
            environment,
            options.drills,
            label=label,
            keys=config.keys,
            log=None if options.log is None else Path(options.log).absolute(),
            report=lambda line: _report([printable(line)]),
        ) as lease,
    ):
        if options.log is not None and lease.joined:
            _report(
                ["--log has no effect: another run has started the server of this config"]
            )
        access = Access(lease.url, lease.server.token, label)
        start = _start(command, config, access, environment, stack)
        if not options.quiet:
            _report(_welcome(config, options.drills, start.advice, new_file))
            if any(bypass.at_start for bypass in start.past):
                _let_read(command, options)
        # A shim that is called inside the program must not start a second `run`.
        passed = {shims.OFF_VARIABLE: "1", **start.variables}
        code = _started(start.command, {**environment, **passed})
        if not options.quiet:
            _report([_receipt(lease, command[0], start.past)])
    if lost := lease.lost_calls:
        _report([f"{lost} call{'' if lost == 1 else 's'} lost when the server ended"])
    return code or (FAILED if lost else WELL)


@frozen
class _Start:
    """A program as it is started, and what its user should know before."""

    command: Sequence[str]
    variables: Mapping[str, str]
    advice: Sequence[str] = ()
    past: Sequence[Bypass] = ()


def _start(
    command: Sequence[str],
    config: Config,
    access: Access,
    environment: Mapping[str, str],
    stack: ExitStack,
) -> _Start:
    """Bring a known agent to the pool; any other program may be vibe, or start it."""
    launch = launch_of(Path(command[0]), access, config)
    if launch is not None:
        own = {**access.variables(environment), **launch.variables}
        return _Start([command[0], *launch.arguments, *command[1:]], own)
    folder = stack.enter_context(_skills())
    startup = startup_of(Arguments.of(command), environment)
    release = release_of(Path(command[0]))
    past = past_the_pool(startup, config)
    file = config_path(None, environment).absolute()
    advice = [*advice_on_section(config, file, release), *map(str, past)]
    variables = settings(startup, config, access, folder, release)
    if not is_vibe(Path(command[0])):
        variables = {**general_variables(access), **variables}
    return _Start(command, variables, advice, past)


def _found(name: str, environment: Mapping[str, str]) -> str | None:
    """Find the program, skipping our shim, which would only start `run` again."""
    found = shutil.which(name, path=environment.get("PATH"))
    if found is not None and shims.is_ours(Path(found)):
        real = shims.find(Path(name).stem, environment)
        return None if real is None else str(real)
    return found


def _started(command: Sequence[str], environment: Mapping[str, str]) -> int:
    try:
        return run_through(command, environment)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return _failed(f"{printable(command[0])}: {reason}", NOT_RUNNABLE)


@contextmanager
def _skills() -> Generator[Path | None]:
    """Hold a directory with the `/mux` skill while the block runs; None if it cannot be made."""
    with ExitStack() as stack:
        folder = None
        try:
            folder = stack.enter_context(temporary_directory(SKILLS))
            file = folder / skill_file.FILE
            file.parent.mkdir()
            file.parent.chmod(runtime_dir.ONLY_MINE)
            runtime_dir.write_private(file, skill_file.TEXT)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            _report([f"there is no /mux in vibe: its file cannot be written ({reason})"])
            folder = None
        yield folder


# --- messages -----------------------------------------------------------------------------


def _failed(text: str, code: int) -> int:
    print(f"vibe-mux: {text}", file=sys.stderr)
    return code


def _report(lines: Sequence[str]) -> None:
    """Print lines on stderr, which may be closed."""
    with suppress(OSError):
        for line in lines:
            print(f"vibe-mux: {line}" if line else "", file=sys.stderr)
        sys.stderr.flush()


def _let_read(command: Sequence[str], options: argparse.Namespace) -> None:
    """Wait for Enter, as vibe would clear the screen at once."""
    interactive = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    if options.quiet or not interactive or not ALONE.isdisjoint(command):
        return
    print("Enter starts it, Ctrl-C does not. ", end="", file=sys.stderr, flush=True)
    sys.stdin.readline()


def advice_on_section(config: Config, own: Path, release: Release) -> list[str]:
    """Return how to silence a vibe that complains about the section in its own file."""
    if config.section_file != own or not release.complains_of_section:
        return []
    return [
        (
            f"this vibe complains about [multiplexer] in {own.name}; `vibe-mux init --move` moves"
            f" it to {SECTION_FILE_NAME} beside it"
        )
    ]


def _new_state_file(config: Config) -> Path | None:
    """Return the path of the state file, if the server of this run is to make it."""
    if config.state not in {None, FILE}:
        return None
    named = config.state_options.get("path")
    file = default_path(os.environ) if named is None else Path(named).expanduser()
    return file if is_to_be_made(file) else None


def _welcome(
    config: Config, drills: Sequence[str], advice: Sequence[str], new_file: Path | None
) -> list[str]:
    """Describe the pool, where a prompt may go, and what to know of this vibe."""
    here, away = [], dict[str, list[str]]()
    for endpoint in config.endpoints:
        if addresses.is_loopback(endpoint.wire.api_base):
            here.append(endpoint.alias)
        else:
            host = urlsplit(endpoint.wire.api_base).hostname or ""
            away.setdefault(host, []).append(endpoint.alias)
    parts = [f"{host} ({', '.join(aliases)})" for host, aliases in away.items()]
    places = [f"prompts may go to {', '.join(parts)}"] if parts else []
    if here:
        places.append(f"on this machine: {', '.join(here)}")
    else:
        places.append("no model is on this machine")
    lines = [f"{config.mode}; {'; '.join(places)}", *config.warnings, *advice]
    if new_file is not None:
        lines.append(f"what the pool learns is kept in {new_file}")
    return [
        printable(line) for line in (*lines, *(f"fire drill: {drill}" for drill in drills))
    ]


def _off(
    config: Config, file: Path, environment: Mapping[str, str], program: str
) -> list[str]:
    """Say that the program runs without the pool, and how to change that."""
    # Where there is a pool, it is not needed, and vibe would wait for the import.
    from muxcore.gateway.api.status_page import SwitchOnHint  # noqa: PLC0415

    document = read(file if config.source is not None else None, environment)
    off = SwitchOnHint.of(config.active_model, document.section_file, document.data)
    section = document.data.get("multiplexer")
    title = f"the multiplexer is off; {_name_of(program)} runs as it is"
    if isinstance(section, Mapping) and section.get("enabled") is False:
        # The user switched it off, and needs no advice.
        return [title]
    where = printable(str(document.section_file))
    command = "" if off.has_section else "run `vibe-mux init`, or "
    to_do = f"to switch it on, {command}{off.action} {where}"
    return [title, f"{to_do}\n\n{off.lines.strip()}\n"]


def _broken(error: ConfigError, program: str) -> list[str]:
    problems = [printable(problem) for problem in error.problems]
    shown = problems[:MOST_LINES]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more; see `vibe-mux check`")
    name = _name_of(program)
    return ["the config cannot be used:", *shown, f"{name} runs as it is, without the pool"]


def _name_of(program: str) -> str:
    return printable(Path(program).stem)


def _receipt(lease: Lease, program: str, past: Sequence[Bypass]) -> str:
    receipt = lease.receipt()
    if receipt is None:
        line = printable(lease.last_line)
        return f"the server has ended before {_name_of(program)}{line and f': {line}'}"
    uncounted = [
        f"{bypass.who} asked {bypass.alias}" for bypass in past if not bypass.counted
    ]
    text = f"; not counted: what {', '.join(uncounted)} past the pool" if uncounted else ""
    if not receipt["calls"] and not receipt["failed_calls"]:
        return f"no model was called{printable(text and ' through the pool' + text)}"
    return receipt_line(receipt) + printable(text)


def receipt_line(receipt: Mapping[str, Any]) -> str:
    """Summarise the receipt of a run in one line."""
    avoided, saved = receipt["interruptions_avoided"], receipt["waiting_saved_ms"] // 1000
    first = [f"{avoided} interruption{'' if avoided == 1 else 's'} avoided"]
    if saved:
        first.append(f"{_duration(saved)} of waiting saved")
    calls = receipt["calls"]
    number = sum(calls.values())
    by_model = ", ".join(f"{printable(alias)} {count}" for alias, count in calls.items())
    rest = [f"{number} call{'' if number == 1 else 's'}{by_model and f' ({by_model})'}"]
    for alias, count in receipt["refuted"].items():
        rest.append(f"{printable(alias)} refused {count} which another took")
    if receipt["failed_calls"]:
        rest.append(f"{receipt['failed_calls']} failed")
    if receipt["tokens_in"]:
        rest.append(f"{receipt['cached_share']:.0%} cached")
    if receipt["cost"]:
        rest.append(f"${receipt['cost']:.2f}")
    return f"{', '.join(first)}; {', '.join(rest)}"


def _duration(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
