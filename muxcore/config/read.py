"""From a file or a mapping to plain tables, with what is needed to name a place in them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli
from attrs import field, frozen

from muxcore.config.lines import line_of, lines_of
from muxcore.config.problems import Problem
from muxcore.errors import ConfigError

FILE_NAME = "config.toml"


@frozen
class Document:
    """A config as it was read. `directory` is where a `.env` may lie beside it.

    `source` is None for a mapping and for a file that does not exist; `text` is then empty.
    """

    label: str
    data: Mapping[str, Any] = field(repr=False)
    source: Path | None = None
    directory: Path | None = None
    text: str = field(default="", repr=False)

    def located(self, problems: Iterable[Problem]) -> tuple[str, ...]:
        """Write problems with their lines, in the order of the file, each once."""
        # Two models may share a provider, and so its problems.
        unique = dict.fromkeys(problems)
        places = lines_of(self.text) if unique else {}
        lines = {problem: line_of(problem.path, places) for problem in unique}
        ordered = sorted(lines, key=lambda problem: lines[problem] or 0)
        return tuple(f"{self._place(lines[problem])}: {problem}" for problem in ordered)

    def _place(self, line: int | None) -> str:
        return self.label if line is None else f"{self.label}:{line}"


def read(
    source: str | os.PathLike[str] | Mapping[str, Any] | None,
    environment: Mapping[str, str],
) -> Document:
    """Read a config. Without a source it is vibe's own file, which need not exist."""
    if isinstance(source, Mapping):
        return Document("config", source)
    own = vibe_home(environment) / FILE_NAME
    file = own if source is None else Path(source).expanduser()
    try:
        content = file.read_bytes()
    except OSError as error:
        if source is None and isinstance(error, FileNotFoundError):
            return Document(str(file), {}, directory=file.parent)
        raise ConfigError([_unreadable(file, error)]) from None
    return _parse(file, content)


def vibe_home(environment: Mapping[str, str]) -> Path:
    """Give the directory of vibe's own files: `$VIBE_HOME`, else `~/.vibe`."""
    if home := environment.get("VIBE_HOME"):
        return Path(home).expanduser()
    user = environment.get("USERPROFILE" if os.name == "nt" else "HOME")
    return (Path(user) if user else Path.home()) / ".vibe"


def _parse(file: Path, content: bytes) -> Document:
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
        raise ConfigError([_syntax(file, text, str(error))]) from None


def _syntax(file: Path, text: str, message: str) -> str:
    position = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if position is None:
        line = text.rstrip().count("\n") + 1
        return f"{file}:{line}: not valid TOML: {message}"
    reason = message[: position.start()]
    return f"{file}:{position[1]}: not valid TOML: {reason} (column {position[2]})"


def _unreadable(file: Path, error: OSError) -> str:
    # Windows reports a directory as a lack of permission.
    if file.is_dir():
        name = file / FILE_NAME
        return f"{file}: a directory, expected a TOML file; did you mean {name}?"
    return f"{file}: cannot be read: {error.strerror or type(error).__name__}"
