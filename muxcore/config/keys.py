"""Finding keys where vibe finds them. Their bytes are never shown, logged or stored."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import NoReturn

from attrs import frozen

from muxcore.config import keyring
from muxcore.config.keyring import Keyring
from muxcore.config.problems import listed
from muxcore.config.toml import TYPOGRAPHIC_QUOTES

DOTENV = ".env"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A long run of letters and digits without an underscore: a key, not a variable's name.
_LIKE_A_KEY = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9]{24,}")


class Key:
    """A key, with the variable that names it and the place where it was found.

    Its text is hidden and stays in the process; only `reveal` returns it.
    """

    __slots__ = ("_text", "place", "variable")

    def __init__(self, text: str, variable: str = "", place: str = "") -> None:
        self._text = text
        self.variable = variable
        self.place = place

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Key(<hidden>, variable={self.variable!r}, place={self.place!r})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a key cannot be pickled or copied")


@frozen
class Place:
    """A place where keys may be: its name for people, and how to look there.

    `remark` describes what cannot be read there; "" for nothing.
    """

    name: str
    find: Callable[[str], str | None]
    remark: Callable[[], str] = str

    def __str__(self) -> str:
        remark = self.remark()
        return f"{self.name} ({remark})" if remark else self.name


def places(environment: Mapping[str, str], directory: Path | None) -> tuple[Place, ...]:
    """Return the places in the order of search. Only a file has those beside the environment."""
    found = [Place("the environment", environment.get)]
    if directory is not None:
        file = directory / DOTENV
        values, remark = _read_dotenv(file, environment)
        found.append(Place(str(file), values.get, lambda: remark))
        if keyring.is_wanted() and keyring.is_installed():
            system = Keyring()
            found.append(Place(keyring.NAME, system.find, lambda: _remark(system.fault)))
    return tuple(found)


def _remark(fault: str) -> str:
    return f"which cannot be read: {fault}" if fault else ""


def hint(among: tuple[Place, ...]) -> str:
    """Name a place that an extra would add to the search; "" for none."""
    from_file = len(among) > 1
    if from_file and keyring.is_wanted() and not keyring.is_installed():
        return keyring.HINT
    return ""


def find(variable: str, among: tuple[Place, ...]) -> Key | None:
    """Return the first key that is not empty."""
    for place in among:
        if text := place.find(variable):
            return Key(text, variable, place.name)
    return None


def fault_of(key: Key) -> str | None:
    """Describe why no header can carry a key, without showing it. None if one can."""
    text = key.reveal()
    if any(quote in text for quote in TYPOGRAPHIC_QUOTES):
        return "holds a typographic quote"
    if text != text.strip():
        return "begins or ends with a space or a line break"
    if not text.isprintable():
        return "holds a character that cannot be printed"
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return "holds a character that is not of Latin-1"
    return None


def is_variable(name: str) -> bool:
    """Whether this can be a variable's name. If not, it may be a key in the wrong place."""
    return bool(_VARIABLE.fullmatch(name)) and not _LIKE_A_KEY.fullmatch(name)


def variables(environment: Mapping[str, str], directory: Path | None) -> Mapping[str, str]:
    """Return the variables as vibe has them once it has read the `.env` in its directory."""
    if directory is None:
        return environment
    values, _ = _read_dotenv(directory / DOTENV, environment)
    return {**values, **{name: value for name, value in environment.items() if value}}


def parse_dotenv(
    text: str, environment: Mapping[str, str]
) -> tuple[dict[str, str], tuple[int, ...]]:
    """Read the text of a `.env` as vibe does; return its values, and the lines without sense.

    `${NAME}` means an earlier line of the file, else the environment.
    """
    # Only needed where there is a `.env`.
    from dotenv.parser import parse_stream  # noqa: PLC0415
    from dotenv.variables import parse_variables  # noqa: PLC0415

    values: dict[str, str | None] = {}
    scope = ChainMap(values, dict[str, str | None](environment))
    senseless = []
    for binding in parse_stream(StringIO(text)):
        if binding.error:
            senseless.append(binding.original.line)
        elif binding.key is not None:
            atoms = None if binding.value is None else parse_variables(binding.value)
            values[binding.key] = (
                None if atoms is None else "".join(atom.resolve(scope) for atom in atoms)
            )
    # As for vibe, a variable that is empty is not set.
    return {name: value for name, value in values.items() if value}, tuple(senseless)


def _read_dotenv(file: Path, environment: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Return the values of a file, and a remark on what of it cannot be read."""
    try:
        # Unlike vibe, without the mark with which some editors begin a file.
        values, senseless = parse_dotenv(file.read_text("utf-8-sig"), environment)
    except FileNotFoundError:
        return {}, ""
    except OSError as error:
        return {}, f"which cannot be read: {error.strerror or type(error).__name__}"
    except UnicodeDecodeError:
        return {}, "which cannot be read: it is not UTF-8"
    if not senseless:
        return values, ""
    lines = listed(map(str, senseless), "and")
    return values, f"where line {lines} is not of the form NAME=value"
