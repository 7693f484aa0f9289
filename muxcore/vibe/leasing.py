"""A server for as long as a vibe runs: the one that runs for its config, or one of its own.

All vibes of a config share a server, so that caps and what is known of a model's health are
shared; it is a process of its own, and ends when the last of them has.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from attrs import frozen

from muxcore.errors import MultiplexerError
from muxcore.gateway.joining import NotReachableError, Server, ask_json, find
from muxcore.vibe.launching import LOOPBACK, TOKEN_VARIABLE

ASK_SECONDS = 5.0
OK = 200


class NotStartedError(MultiplexerError):
    """The server could not be started, with what it said."""


@frozen
class Lease:
    """A server that lasts until this has ended. `joined`: others have it, too."""

    server: Server
    joined: bool

    @property
    def url(self) -> str:
        host = f"[{self.server.host}]" if ":" in self.server.host else self.server.host
        return f"http://{host}:{self.server.port}"

    def receipt(self, label: str) -> dict[str, Any] | None:
        """Return what the calls under a label came to; None if the server has ended."""
        try:
            told: dict[str, Any] = ask_json(self.server, f"/receipt?label={label}")
        except (NotReachableError, ValueError):
            return None
        return told


@contextlib.contextmanager
def leasing(
    config: Path, environment: Mapping[str, str], drills: Sequence[str] = ()
) -> Generator[Lease]:
    """Hold a lease while the block runs. Raise `NotStartedError`.

    A server with a fire drill is nobody else's.
    """
    with contextlib.ExitStack() as stack:
        server = None if drills else _joined(config, environment, stack)
        if server is not None:
            yield Lease(server, joined=True)
            return
        server, is_found = _start(config, environment, drills)
        # Two that start at once: the other's is the one that a third will find.
        other = None if is_found or drills else _joined(config, environment, stack)
        if other is None and not _hold(server, stack):
            raise NotStartedError("the server ended as soon as it had started")
        yield Lease(other or server, joined=other is not None)


def _joined(
    config: Path, environment: Mapping[str, str], stack: contextlib.ExitStack
) -> Server | None:
    try:
        server = find(config, environment)
    except MultiplexerError:
        # There is no place where one could be found.
        return None
    return server if server is not None and _hold(server, stack) else None


def _hold(server: Server, stack: contextlib.ExitStack) -> bool:
    """Take a lease that ends with the stack; return whether the server is there at all."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=ASK_SECONDS)
    try:
        connection.request(
            "GET", "/lease", headers={"Authorization": f"Bearer {server.token}"}
        )
        answer = connection.getresponse()
        if answer.status != OK:
            connection.close()
            return False
    except (OSError, http.client.HTTPException):
        connection.close()
        return False
    stack.callback(connection.close)
    stack.callback(answer.close)
    return True


def _start(
    config: Path,
    environment: Mapping[str, str],
    drills: Sequence[str],
) -> tuple[Server, bool]:
    """Start a server, and return whether others find it."""
    # Not the terminal, which is vibe's.
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(  # noqa: S603 - this very program
            _command(config, drills),
            env={n: value for n, value in environment.items() if n != TOKEN_VARIABLE},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            **_apart(),
        )
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        with process.stdout as stdout:
            try:
                told = json.loads(stdout.readline())
            except ValueError:
                process.kill()
                process.wait()
                raise NotStartedError(_last_words(said)) from None
    # It outlives this process, where it serves others, too.
    process.returncode = 0
    server = Server(LOOPBACK, told["port"], told["token"], told["pid"], str(config))
    return server, told["published"]


def _command(config: Path, drills: Sequence[str]) -> list[str]:
    # Not by -m alone: that looks for modules in the user's directory first.
    script = (
        f"import sys; sys.path += {_homes()!r};"
        " from muxcore.__main__ import command; sys.exit(command())"
    )
    command = [sys.executable, "-P", "-c", script, "serve", "--leased", "--json"]
    for drill in drills:
        command += ["--break", drill]
    return [*command, "--config", str(config)]


def _homes() -> list[str]:
    """Return where this project's packages are: a checkout need not be installed."""
    specs = map(find_spec, ("muxcore", "muxcore_strategies", "muxcore_backends"))
    origins = [spec.origin for spec in specs if spec is not None and spec.origin]
    return list(dict.fromkeys(str(Path(origin).resolve().parents[1]) for origin in origins))


def _apart() -> dict[str, Any]:
    """Keep Ctrl-C and the end of the terminal from it."""
    if os.name == "nt":  # pragma: no cover - of Windows alone
        flags = "CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW"
        return {"creationflags": sum(getattr(subprocess, flag) for flag in flags)}
    return {"start_new_session": True}


def _last_words(said: IO[bytes]) -> str:
    said.seek(0)
    text = said.read().decode("utf-8", "replace").strip()
    return text.removeprefix("vibe-mux: ") or "the server did not start"
