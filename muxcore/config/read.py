"""From files or a mapping to plain tables, with their text, which gives a mistake its line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli
from attrs import evolve, field, frozen

from muxcore.config.problems import Problem
from muxcore.errors import ConfigError

FILE_NAME = "config.toml"
SECTION_FILE_NAME = "multiplexer.toml"
"""A file beside the config that holds the section alone. Vibe does not know it."""

SECTION = "multiplexer"


@frozen
class Document:
    """A config as it was read. `directory` is where a `.env` may be.

    `source` is None for a mapping and for a file that does not exist; `text` is then empty.
    `section` is the `multiplexer.toml` beside it, if its section counts; `data` contains that.
    """

    label: str
    data: Mapping[str, Any] = field(repr=False)
    source: Path | None = None
    directory: Path | None = None
    text: str = field(default="", repr=False)
    section: Document | None = None
    warnings: tuple[str, ...] = ()

    @property
    def section_file(self) -> Path | None:
        """Where the section stands, or the place for a new one; None for a mapping."""
        if self.section is None and SECTION in self.data:
            return self.source
        return None if self.directory is None else self.directory / SECTION_FILE_NAME

    def located(self, problems: Iterable[Problem]) -> tuple[str, ...]:
        """Write problems with their lines, in the order of the files, each once."""
        # Two models may share a provider, and so its problems.
        unique = tuple(dict.fromkeys(problems))
        if self.section is None:
            return self._located(unique)
        of_section = [problem for problem in unique if problem.path[:1] == (SECTION,)]
        others = [problem for problem in unique if problem not in of_section]
        return (*self._located(others), *self.section.located(of_section))

    def _located(self, problems: Sequence[Problem]) -> tuple[str, ...]:
        if not problems:
            return ()
        # Only a mistake needs it, and every start of a command would wait for it.
        from muxcore.config.toml.lines import line_of, lines_of  # noqa: PLC0415

        places = lines_of(self.text)
        lines = {problem: line_of(problem.path, places) for problem in problems}
        ordered = sorted(lines, key=lambda problem: lines[problem] or 0)
        return tuple(f"{self._place(lines[problem])}: {problem}" for problem in ordered)

    def _place(self, line: int | None) -> str:
        return self.label if line is None else f"{self.label}:{line}"


def read(
    source: str | os.PathLike[str] | Mapping[str, Any] | None,
    environment: Mapping[str, str],
) -> Document:
    """Read a config, with the `multiplexer.toml` beside it.

    Without a source it is vibe's own file, which need not exist.
    """
    if isinstance(source, Mapping):
        return Document("config", source)
    document = read_alone(source, environment)
    file = config_path(source, environment)
    if file.name == SECTION_FILE_NAME:
        return document
    return with_section(document, _section_beside(file))


def read_alone(
    source: str | os.PathLike[str] | None, environment: Mapping[str, str]
) -> Document:
    """Read the config's own file, and nothing beside it."""
    file = config_path(source, environment)
    try:
        return document_of(file, file.read_bytes())
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError) and not file.is_symlink()
        if source is None and is_missing:
            return Document(str(file), {}, directory=file.parent)
        raise ConfigError([_unreadable(file, error)]) from None


def config_path(
    source: str | os.PathLike[str] | None, environment: Mapping[str, str]
) -> Path:
    """Return the path of a config, by default of vibe's own."""
    return vibe_home(environment) / FILE_NAME if source is None else _expanded(source)


def document_of(file: Path, content: bytes) -> Document:
    """Parse the content of a file, or raise a `ConfigError` with the line."""
    try:
        # Some editors begin a file with a byte order mark, which means nothing here.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = f"{file}:{line}: not UTF-8, expected a text file; save it as UTF-8"
        raise ConfigError([problem]) from None
    try:
        return Document(str(file), tomli.loads(text), file, file.parent, text)
    except tomli.TOMLDecodeError as error:
        from muxcore.config.toml.syntax import fault_of  # noqa: PLC0415 - as above

        fault = fault_of(error)
        problem = (
            f"{file}:{fault.line}: not valid TOML: {fault.reason} (column {fault.column})"
        )
        raise ConfigError([problem], excerpt=fault.excerpt) from None
    except RecursionError:
        raise ConfigError([f"{file}: lists or tables nest too deeply"]) from None
    except ValueError:
        raise ConfigError([f"{file}: a number has too many digits"]) from None


def with_section(document: Document, section: Document | None) -> Document:
    """Return the config with the section of a `multiplexer.toml`, if that has one.

    It counts more than a section of the config itself.
    """
    if section is None:
        return document
    warnings = _misplaced(section)
    if SECTION not in section.data:
        return evolve(document, warnings=warnings)
    if SECTION in document.data:
        problem = Problem(
            (SECTION,),
            f"does not count, as {section.label} has the section; remove it here"
            " (`vibe-mux init --move` does)",
        )
        warnings = (*document.located([problem]), *warnings)
    data = {**document.data, SECTION: section.data[SECTION]}
    return evolve(document, data=data, section=section, warnings=warnings)


def _section_beside(file: Path) -> Document | None:
    beside = file.with_name(SECTION_FILE_NAME)
    try:
        return document_of(beside, beside.read_bytes())
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not beside.is_symlink():
            return None
        raise ConfigError([_unreadable(beside, error)]) from None


def _misplaced(section: Document) -> tuple[str, ...]:
    """Warn of what a `multiplexer.toml` has beside the section: it has no effect there."""
    others = [name for name in section.data if name != SECTION]
    text = (
        f"has no effect in this file, expected [{SECTION}] and its tables only; models,"
        f" providers and other settings belong to {FILE_NAME}"
    )
    return section.located(Problem((name,), text) for name in others)


def vibe_home(environment: Mapping[str, str]) -> Path:
    """Return the directory of vibe's own files: `$VIBE_HOME`, else `~/.vibe`."""
    if home := environment.get("VIBE_HOME"):
        return _expanded(home)
    user = environment.get("USERPROFILE" if os.name == "nt" else "HOME")
    return _expanded(user or "~") / ".vibe"


def _expanded(path: str | os.PathLike[str]) -> Path:
    # Unlike `Path.expanduser`, this leaves the name of an unknown user as it is.
    return Path(os.path.expanduser(path))  # noqa: PTH111


def _unreadable(file: Path, error: OSError) -> str:
    # Windows reports a directory as a lack of permission.
    if os.path.isdir(file):  # noqa: PTH112 - `Path.is_dir` raises where it may not look
        inside = file / FILE_NAME
        meant = f"; did you mean {inside}?" if os.path.lexists(inside) else ""
        return f"{file}: a directory, expected a TOML file{meant}"
    if isinstance(error, FileNotFoundError) and file.is_symlink():
        target = os.path.realpath(file)
        return f"{file}: a link to {target}, which does not exist; expected a TOML file"
    return f"{file}: cannot be read: {error.strerror or type(error).__name__}"
