"""Real vibes in environments of their own, and stand-ins for vibe's types."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

import pytest

from tests.processes import PYTHONPATH

OWN = ("attrs", "cattrs", "pluggy", "python-dotenv", "requests", "tomli", "urllib3")
NEWEST = "newest"
"""The newest vibe that the registry has."""
KNOWN_NEWEST = "3.0.3"
"""Where the registry cannot be asked, this one is taken for it."""
# 1.3.5 asks for any mcp, and breaks with the second.
BESIDE = {"1.3.5": ("mcp<2",)}
MOST_LOOSENED = 10
MINUTES = 10 * 60


def python_for_vibe() -> str | None:
    """Return a Python that vibe runs on, the present one if it does."""
    if sys.version_info >= (3, 12):
        return sys.executable
    for minor in (13, 12, 14):
        if found := shutil.which(f"python3.{minor}"):
            return found
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found_there = [*home.glob("3.1[2-9].*/bin/python")]
    return str(max(found_there)) if found_there else None


@cache
def number_of(version: str) -> str:
    """Return the number of a version, asking the registry for the newest."""
    if version != NEWEST:
        return version
    asked = [sys.executable, "-m", "pip", "index", "versions", "mistral-vibe"]
    with suppress(OSError, subprocess.SubprocessError):
        if found := re.match(r"mistral-vibe \(([\d.]+)\)", run(asked)):
            return found[1]
    return KNOWN_NEWEST


@pytest.fixture(scope="session")
def vibe_python(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """Give the Python of an environment that has this version of vibe, made when missing.

    They are kept between runs, in `MUXCORE_TEST_VIBES` or in pytest's own cache.
    """
    cache = pytestconfig.cache
    assert cache is not None
    given = os.environ.get("MUXCORE_TEST_VIBES")
    folder = Path(given) if given else Path(cache.mkdir("vibes"))

    def give(version: str) -> Path:
        number = number_of(version)
        # Two Pythons may run their tests side by side.
        environment = folder / f"{number}-{sys.version_info.major}.{sys.version_info.minor}"
        tools = environment / ("Scripts" if os.name == "nt" else "bin")
        own = tools / "python"
        whole = environment / "whole"
        if whole.exists():
            return own
        base = python_for_vibe()
        if base is None:
            pytest.skip(f"no real vibe {version}: it needs a Python from 3.12 on")
        shutil.rmtree(environment, ignore_errors=True)
        try:
            run([str(base), "-m", "venv", str(environment)])
            install(own, number)
        except (OSError, subprocess.SubprocessError) as error:
            last = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
            pytest.skip(f"no real vibe {version}: not installed: {' '.join(last)}")
        whole.touch()
        return own

    return give


def install(python: Path, number: str) -> None:
    """Install a vibe with what it pins, but for versions that the registry does not have."""
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    run([*pip, "--no-deps", f"mistral-vibe=={number}"])
    listing = (
        "from importlib.metadata import requires;"
        " print(*(r for r in requires('mistral-vibe') if 'extra ==' not in r), sep='\\n')"
    )
    wanted = [
        *run([str(python), "-c", listing]).splitlines(),
        *BESIDE.get(number, ()),
        *OWN,
    ]
    for _ in range(MOST_LOOSENED):
        try:
            run([*pip, *wanted])
        except subprocess.CalledProcessError as error:
            missing = re.search(
                r"No matching distribution found for ([\w.-]+)==", error.stderr
            )
            if missing is None:
                raise
            pinned = re.compile(rf"{re.escape(missing[1])}==[^ ;]+")
            wanted = [pinned.sub(missing[1], each) for each in wanted]
        else:
            return


def run(command: list[str], **environment: str) -> str:
    """Run a program to its end and return what it says, without this project's own paths."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "VIBE_", "MISTRAL_"))
    }
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=MINUTES,
        check=True,
        env={**kept, **environment},
    )
    return done.stdout


@pytest.fixture
def run_in_vibe(vibe_python: Callable[[str], Path]) -> Callable[..., str]:
    """Run a script in an environment with a real vibe and this very checkout."""

    def run_it(version: str, script: Path) -> str:
        return run([str(vibe_python(version)), str(script)], PYTHONPATH=PYTHONPATH)

    return run_it


class Role(StrEnum):
    user = "user"
    assistant = "assistant"
    tool = "tool"


class Loose:
    """A record as vibe's are: made of a mapping, read by attribute, dumped again."""

    parts: ClassVar[dict[str, type[Loose]]] = {}
    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update({**self.defaults, **fields})

    @classmethod
    def model_validate(cls, raw: dict[str, Any]) -> Self:
        return cls(**{name: cls._made(name, value) for name, value in raw.items()})

    @classmethod
    def _made(cls, name: str, value: Any) -> Any:
        kind = cls.parts.get(name)
        if kind is None or value is None:
            return value
        if isinstance(value, list):
            return [kind.model_validate(part) for part in value]
        return kind.model_validate(value)

    def model_dump(self, **options: Any) -> dict[str, Any]:
        return dict(vars(self))


class FunctionCall(Loose):
    defaults: ClassVar[dict[str, Any]] = {"name": None, "arguments": None}


class ToolCall(Loose):
    parts: ClassVar[dict[str, type[Loose]]] = {"function": FunctionCall}
    defaults: ClassVar[dict[str, Any]] = {"id": None, "index": None, "type": "function"}


class Message(Loose):
    parts: ClassVar[dict[str, type[Loose]]] = {"tool_calls": ToolCall}
    defaults: ClassVar[dict[str, Any]] = {
        "role": Role.user,
        "content": None,
        "images": None,
        "reasoning_content": None,
        "tool_calls": None,
        "name": None,
        "tool_call_id": None,
    }


class LLMChunk(Loose):
    parts: ClassVar[dict[str, type[Loose]]] = {
        "message": Message,
        "usage": Loose,
        "stop": Loose,
    }
    defaults: ClassVar[dict[str, Any]] = {"usage": None, "stop": None}


class BackendError(RuntimeError):
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)
        super().__init__(str(fields["reason"]))


class Vibe:
    """What a test needs of the stand-in for vibe."""

    Role = Role
    Message = Message
    ToolCall = ToolCall
    Loose = Loose
    BackendError = BackendError

    def __init__(self) -> None:
        self.factories: dict[str, Callable[..., Any]] = {
            "mistral": lambda **options: "mistral's own",
            "generic": lambda **options: "generic's own",
        }

    def said(self, text: str, **fields: Any) -> Any:
        return Message(content=text, **fields)

    def model(self, alias: str = "large") -> Any:
        return Loose(name=f"{alias}-model", alias=alias, temperature=0.2)


@pytest.fixture
def vibe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vibe]:
    """Put a stand-in where vibe would be imported from."""
    made = Vibe()
    contents: dict[str, dict[str, Any]] = {
        "vibe": {},
        "vibe.core": {},
        "vibe.core.llm": {},
        "vibe.core.llm.backend": {},
        "vibe.core.types": {"LLMChunk": LLMChunk},
        "vibe.core.llm.exceptions": {"BackendError": BackendError, "PayloadSummary": Loose},
        "vibe.core.llm.backend.factory": {"BACKEND_FACTORY": made.factories},
    }
    for name, members in contents.items():
        module = ModuleType(name)
        module.__dict__.update(members, __path__=[])
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "muxcore.vibe.backend", raising=False)
    yield made
    sys.modules.pop("muxcore.vibe.backend", None)
