"""Start the server of a `run` as a separate process, and read why it ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from attrs import field, frozen

from muxcore.errors import MultiplexerError
from muxcore.gateway.access import TOKEN_VARIABLE
from muxcore.gateway.http.listening import LOOPBACK

ENDING_SECONDS = 1.0
"""A process whose connections have broken ends within this time, or is still finishing calls."""


class NotStartedError(MultiplexerError):
    """The server could not be started; the message holds its last output."""


@frozen(eq=False)
class ServerProcess:
    """A server that was started, with what it prints."""

    process: subprocess.Popen[bytes]
    _output: IO[bytes] | None = field(repr=False)

    @property
    def last_line(self) -> str:
        """The last line that it printed on stderr; an indented one shows where the fault is."""
        lines = (line for line in reversed(self.output.split("\n")) if line[:1] != " ")
        return next(lines, "")

    @property
    def output(self) -> str:
        if self._output is None:
            return ""
        self._output.seek(0)
        text = self._output.read().decode("utf-8", "replace").strip()
        return text.removeprefix("vibe-mux: ")

    def describe_end(self) -> str:
        """Say how the process ended, as far as that is known: a signal, or its last line."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDING_SECONDS)
        code = self.process.returncode
        if code is not None and code < 0:
            return f"by signal {signal.Signals(-code).name}"
        return self.last_line

    def release(self) -> None:
        """Forget the process: it outlives this one where it serves others, too."""
        self.process.poll()
        # Otherwise Python warns of a child that still runs.
        self.process.returncode = self.process.returncode or 0
        if self._output is not None:
            self._output.close()


@frozen
class Launcher:
    """What every server of one `run` is started with."""

    config: Path
    environment: Mapping[str, str]
    drills: Sequence[str] = ()
    log: Path | None = None
    """The file that gets a line for each call."""

    def hand_over(
        self, listener: socket.socket, host: str, token: str, lock: int | None
    ) -> ServerProcess:
        """Start a server on a listening socket, with the lock of the config if there is one.

        It need not be waited for: what is asked meanwhile waits in the socket. Raise
        `NotStartedError`.
        """
        passed = {"listener": listener.fileno(), "lock": lock}
        given = {name: number for name, number in passed.items() if number is not None}
        options = [text for name, n in given.items() for text in (f"--{name}", str(n))]
        return self._start(
            [*self._command(host), *options],
            {**self.environment, TOKEN_VARIABLE: token},
            stdout=subprocess.DEVNULL,
            pass_fds=tuple(given.values()),
        )

    def wait_for(
        self, host: str = LOOPBACK, port: int = 0, token: str = ""
    ) -> tuple[ServerProcess, dict[str, Any]]:
        """Start a server and wait until it serves; return what it announces as JSON.

        This is the way where no descriptors are inherited. Raise `NotStartedError`.
        """
        environment = {n: v for n, v in self.environment.items() if n != TOKEN_VARIABLE}
        if token:
            environment[TOKEN_VARIABLE] = token
        command = [*self._command(host), "--port", str(port)]
        started = self._start(command, environment, stdout=subprocess.PIPE)
        stdout = started.process.stdout
        assert stdout is not None  # noqa: S101 - it is a pipe
        with stdout:
            try:
                return started, json.loads(stdout.readline())
            except ValueError:
                started.process.kill()
                started.process.wait()
                output = started.output
        started.release()
        raise NotStartedError(output or "the server did not start")

    def _command(self, host: str) -> list[str]:
        log = [] if self.log is None else ["--log-file", str(self.log)]
        return [*command(self.config, self.drills, host), *log]

    def _start(
        self, command: Sequence[str], environment: Mapping[str, str], **options: Any
    ) -> ServerProcess:
        output: IO[bytes] | None = None
        with contextlib.suppress(OSError):
            # Not the terminal, which is the agent's. A full disk costs its last line only.
            output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the lease
        try:
            process = subprocess.Popen(  # noqa: S603 - this very program
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL if output is None else output,
                **_apart(),
                **options,
            )
        except OSError as error:
            if output is not None:
                output.close()
            reason = error.strerror or type(error).__name__
            raise NotStartedError(f"the server cannot be started: {reason}") from None
        return ServerProcess(process, output)


def command(config: Path, drills: Sequence[str] = (), host: str = LOOPBACK) -> list[str]:
    """Return the command of a server for a `run`."""
    # Not by -m alone: that looks for modules in the user's directory first.
    script = (
        f"import sys; sys.path += {_homes()!r};"
        " from muxcore.__main__ import command; sys.exit(command())"
    )
    words = [sys.executable, "-P", "-c", script, "serve", "--leased", "--json"]
    for drill in drills:
        words += ["--break", drill]
    if host != LOOPBACK:
        words += ["--host", host]
    return [*words, "--config", str(config)]


def _homes() -> list[str]:
    """Return where this project's packages are: a checkout need not be installed."""
    specs = map(find_spec, ("muxcore", "muxcore_strategies", "muxcore_backends"))
    origins = [spec.origin for spec in specs if spec is not None and spec.origin]
    return list(dict.fromkeys(str(Path(origin).resolve().parents[1]) for origin in origins))


def _apart() -> dict[str, Any]:
    """Return the options that keep Ctrl-C and the end of the terminal from a process."""
    if os.name == "nt":  # pragma: no cover - of Windows alone
        flags = "CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW"
        return {"creationflags": sum(getattr(subprocess, flag) for flag in flags)}
    return {"start_new_session": True}
