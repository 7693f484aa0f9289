"""Unmodified vibes, each in an environment of its own, over stand-in models."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from attrs import field, frozen

from muxcore.standin import (
    Answer,
    Behaviour,
    Cut,
    Model,
    Play,
    Received,
    StandInServer,
    ToolCall,
    dead_port,
    rate_limited,
    refusal,
    server_error,
)
from tests.processes import SOURCES
from tests.vibe.conftest import NEWEST, number_of, vibe_python

__all__ = ["vibe_python"]

VERSIONS = (NEWEST, "3.0.2", "2.26.1")
SECONDS = 600
WORD = "heron"

FAULTS: dict[str, Behaviour | None] = {
    "429": rate_limited(),
    "500": server_error(500),
    "401": refusal(401, "Incorrect API key provided", kind="authentication_error"),
    "cut": Cut(0),
    "refused": None,
}

SETTINGS = """\
# Not a byte of this may change.
active_model = "large"
enable_telemetry = false
enable_update_checks = false
{quiet}
[[providers]]
name = "lab"
api_base = "{large}"
api_key_env_var = "LAB_API_KEY"
backend = "generic"

[[providers]]
name = "other"
api_base = "{small}"
backend = "generic"

[[models]]
name = "large-model"
provider = "lab"
alias = "large"
temperature = 0.3
input_price = 0.4
output_price = 2.0

[[models]]
name = "small-model"
provider = "other"
alias = "small"
"""
SECTION = """\
[multiplexer]
enabled = true
mode = "failover"

[[multiplexer.pool]]
model = "large"

[[multiplexer.pool]]
model = "small"
is_fallback = true
"""
QUIET = """\
enable_auto_update = false
enable_connectors = false
disable_welcome_banner_animation = true
"""
QUIETER = """
[experiments]
enable = false

[session_logging]
generate_titles = false
"""
RUN = "import sys; sys.path[:0] = {paths!r}; from muxcore.cli.main import main; sys.exit(main())"


def in_words(received: Received) -> Behaviour:
    """Play a model: it reads a file when it is to, and else says what it was asked."""
    *_, last = received.body["messages"]
    if last["role"] == "tool":
        return Answer(f"It says {WORD}." if WORD in str(last) else "It says nothing.")
    if "read" in str(last["content"]).splitlines()[0]:
        return Answer(tool_calls=(_reading(received.body["tools"]),))
    return Answer(f"pong {len(spoken(received))} from {received.body['model']}")


def _reading(tools: list[Any]) -> ToolCall:
    tool = next(
        t["function"] for t in tools if t["function"]["name"] in {"read_file", "read"}
    )
    path = next(name for name in tool["parameters"]["properties"] if "path" in name)
    return ToolCall(tool["name"], f'{{"{path}": "word.txt"}}')


def spoken(received: Received) -> list[str]:
    """Return what the user has said in a conversation."""
    messages = received.body["messages"]
    return [str(m["content"]) for m in messages if m["role"] == "user"]


@frozen(eq=False)
class Desk:
    """A user with a vibe, a config and two models, the first of them with a fault."""

    vibe: Path
    folder: Path
    version: str
    large: Model
    small: Model
    mend: Callable[[], None]
    more: dict[str, str] = field(factory=dict[str, str])

    @property
    def trusting(self) -> tuple[str, ...]:
        """What lets vibe use this folder; the first ones do not ask."""
        return () if self.version.startswith("1.") else ("--trust",)

    @property
    def config(self) -> Path:
        return self.folder / "home" / "config.toml"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def env(self) -> dict[str, str]:
        kept = {n: v for n, v in os.environ.items() if n in {"PATH", "LANG", "SYSTEMROOT"}}
        return {
            **kept,
            "HOME": str(self.folder),
            "VIBE_HOME": str(self.config.parent),
            "XDG_RUNTIME_DIR": str(self.folder),
            # A proxy that does not exist: vibe must not use it.
            "HTTP_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "example.com",
            "MISTRAL_API_KEY": "unused",
            "LAB_API_KEY": "key-of-the-lab",
            "VIBE_TEST_DISABLE_KEYRING": "1",
            "VIBE_MUX_NO_KEYRING": "1",
            "TERM": "xterm-256color",
            **self.more,
        }

    def rewrite(self, *changes: tuple[str, str], more: str = "") -> None:
        """Change vibe's file as a user would."""
        text = self.config.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.config.write_text(text + more)

    def trust(self) -> None:
        """Trust the folder, as vibe's own question would."""
        file = self.config.with_name("trusted_folders.toml")
        file.write_text(f"trusted = [{str(self.work.resolve())!r}]\n")

    def mux(self, *arguments: str) -> list[str]:
        script = RUN.format(paths=list(map(str, SOURCES)))
        return [sys.executable, "-c", script, *arguments]

    def pooled(self, *arguments: str, options: tuple[str, ...] = ()) -> Ended:
        """Run vibe through the pool."""
        return self.run(*self.mux("run", *options, "--", str(self.vibe), *arguments))

    def bare(self, *arguments: str) -> Ended:
        """Run vibe as it is."""
        return self.run(str(self.vibe), *arguments, NO_PROXY="127.0.0.1")

    def run(self, *command: str, **more: str) -> Ended:
        done = subprocess.run(
            command,
            env={**self.env, **more},
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return Ended(done.returncode, done.stdout.strip(), done.stderr.strip())


@frozen
class Ended:
    """How a program ended, and what it said."""

    code: int
    said: str
    remarks: str


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def desks(
    tmp_path_factory: pytest.TempPathFactory, vibe_python: Callable[[str], Path]
) -> Iterator[Callable[..., Desk]]:
    with ExitStack() as stack:

        def desk_of(version: str, fault: str = "", small: Play = in_words) -> Desk:
            folder = tmp_path_factory.mktemp("desk")
            vibe = vibe_python(version).with_name("vibe")
            large_model = Model("large-model", FAULTS.get(fault) or in_words)
            small_model = Model("small-model", small)
            upstream = stack.enter_context(StandInServer([small_model]))
            if fault == "refused":
                closed = stack.enter_context(ExitStack())
                url = closed.enter_context(dead_port())

                def mend() -> None:
                    closed.close()
                    port = int(url.split(":")[2].split("/")[0])
                    stack.enter_context(StandInServer([large_model], port=port))
            else:
                url = stack.enter_context(StandInServer([large_model])).url

                def mend() -> None:
                    large_model.default = in_words

            made = Desk(vibe, folder, number_of(version), large_model, small_model, mend)
            made.work.mkdir()
            (made.work / "word.txt").write_text(f"{WORD}\n")
            made.config.parent.mkdir()
            quiet = "" if version.startswith("1.") else QUIET
            text = SETTINGS.format(quiet=quiet, large=url, small=upstream.url)
            text += QUIETER if version.startswith("3.") else ""
            made.config.write_text(text)
            # Vibe complains of the section in its own file from 3.0.3 on.
            made.config.with_name("multiplexer.toml").write_text(SECTION)
            return made

        yield desk_of
