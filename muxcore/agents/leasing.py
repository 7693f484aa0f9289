"""A server for as long as a vibe runs: the one that runs for its config, or one of its own.

All vibes of a config share a server, so that caps and what is known of a model's health are
shared; it is a process of its own, and ends when the last of them has.

Nobody waits for a server to start: whoever starts it listens for it, publishes it, and hands
both over. What is asked until it is ready waits in the socket. Where no descriptors are
inherited (Windows), its start is waited for.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from attrs import field, frozen

from muxcore.errors import MultiplexerError
from muxcore.gateway import discovery as joining
from muxcore.gateway.discovery import (
    ASK_SECONDS,
    TOKEN_VARIABLE,
    NotReachableError,
    Server,
    ask_json,
    find,
)
from muxcore.gateway.http.listening import LOOPBACK, listening

OK = b"200"
LOOKS, LOOK_SECONDS = 200, 0.01
"""How often, and how far apart, one looks for a server that another is just starting."""

CAN_HAND_OVER = os.name != "nt"


class NotStartedError(MultiplexerError):
    """The server could not be started, with what it said."""


@frozen
class Lease:
    """A server that lasts until this has ended. `joined`: others have it, too."""

    server: Server
    joined: bool
    _said: IO[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://{self.server.authority}"

    def receipt(self, label: str) -> dict[str, Any] | None:
        """Return what the calls under a label came to; None if the server has ended."""
        try:
            told: dict[str, Any] = ask_json(self.server, f"/receipt?label={label}")
        except (NotReachableError, ValueError):
            return None
        return told

    @property
    def last_words(self) -> str:
        """The last line that the server has said, if it was started for this lease."""
        return "" if self._said is None else _words(self._said).rpartition("\n")[2]


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
        elif CAN_HAND_OVER:
            yield _handed_over(config, environment, drills, stack)
        else:
            yield _waited_for(config, environment, drills, stack)


def _joined(
    config: Path, environment: Mapping[str, str], stack: contextlib.ExitStack
) -> Server | None:
    try:
        server = find(config, environment)
    except MultiplexerError:
        # There is no place where one could be found.
        return None
    return server if server is not None and _hold(server, stack) else None


def _joined_soon(
    config: Path, environment: Mapping[str, str], stack: contextlib.ExitStack
) -> Server | None:
    """Join a server whose claim another has, who may be about to publish it."""
    pause = threading.Event()
    for _ in range(LOOKS):
        if server := _joined(config, environment, stack):
            return server
        pause.wait(LOOK_SECONDS)
    return None


def _hold(server: Server, stack: contextlib.ExitStack) -> bool:
    """Take a lease that ends with the stack; return whether the server is there at all."""
    try:
        lease = _asked(server, stack)
        answer = lease.recv(len(b"HTTP/1.1 200"))
    except OSError:
        return False
    return answer.endswith(OK)


def _asked(server: Server, stack: contextlib.ExitStack) -> socket.socket:
    """Ask for a lease, which lasts as long as this connection. Raise `OSError`."""
    address = (server.host, server.port)
    lease = stack.enter_context(socket.create_connection(address, ASK_SECONDS))
    lines = (
        "GET /lease HTTP/1.1",
        f"Host: {server.authority}",
        f"Authorization: Bearer {server.token}",
    )
    lease.sendall("\r\n".join([*lines, "", ""]).encode())
    return lease


# --- starting one --------------------------------------------------------------------------


def _handed_over(
    config: Path,
    environment: Mapping[str, str],
    drills: Sequence[str],
    stack: contextlib.ExitStack,
) -> Lease:
    """Start a server and hold the first lease; it need not be ready for that."""
    with contextlib.ExitStack() as handing:
        claim = None
        if not drills:
            # Where there is no place to be found at, each has a server of its own.
            with contextlib.suppress(MultiplexerError, OSError):
                claim = handing.enter_context(joining.lock(config, environment))
                if claim is None and (other := _joined_soon(config, environment, stack)):
                    return Lease(other, joined=True)
        listener = handing.enter_context(listening())
        said = stack.enter_context(tempfile.TemporaryFile())
        token = secrets.token_urlsafe(32)
        passed = {"listener": listener.fileno(), "claim": claim}
        given = {name: number for name, number in passed.items() if number is not None}
        options = [text for name, n in given.items() for text in (f"--{name}", str(n))]
        process = _process(
            [*_command(config, drills), *options],
            {**environment, TOKEN_VARIABLE: token},
            said,
            stdout=subprocess.DEVNULL,
            pass_fds=tuple(given.values()),
        )
        port = listener.getsockname()[1]
        server = Server(LOOPBACK, port, token, process.pid, str(config))
        if claim is not None:
            with contextlib.suppress(OSError):
                joining.publish(server, environment)
        _asked(server, stack)
        # Here the listener is closed: nobody but the server is to listen on, should it end.
    # It outlives this process, where it serves others, too.
    process.returncode = 0
    return Lease(server, joined=False, said=said)


def _waited_for(
    config: Path,
    environment: Mapping[str, str],
    drills: Sequence[str],
    stack: contextlib.ExitStack,
) -> Lease:
    server, is_found = _start(config, environment, drills)
    # Two that start at once: the other's is the one that a third will find.
    other = None if is_found or drills else _joined_soon(config, environment, stack)
    if other is None and not _hold(server, stack):
        raise NotStartedError("the server ended as soon as it had started")
    return Lease(other or server, joined=other is not None)


def _start(
    config: Path,
    environment: Mapping[str, str],
    drills: Sequence[str],
) -> tuple[Server, bool]:
    """Start a server, and return whether others find it."""
    with tempfile.TemporaryFile() as said:
        own = {n: value for n, value in environment.items() if n != TOKEN_VARIABLE}
        process = _process(_command(config, drills), own, said, stdout=subprocess.PIPE)
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        with process.stdout as stdout:
            try:
                told = json.loads(stdout.readline())
            except ValueError:
                process.kill()
                process.wait()
                raise NotStartedError(_words(said) or "the server did not start") from None
    process.returncode = 0
    server = Server(LOOPBACK, told["port"], told["token"], told["pid"], str(config))
    return server, told["published"]


def _process(
    command: Sequence[str], environment: Mapping[str, str], said: IO[bytes], **more: Any
) -> subprocess.Popen[bytes]:
    # Not the terminal, which is vibe's.
    return subprocess.Popen(  # noqa: S603 - this very program
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stderr=said,
        **_apart(),
        **more,
    )


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


def _words(said: IO[bytes]) -> str:
    said.seek(0)
    text = said.read().decode("utf-8", "replace").strip()
    return text.removeprefix("vibe-mux: ")
