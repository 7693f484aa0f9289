"""Runs a program transparently: it gets the terminal, the signals and the job control.

Its exit status becomes that of this process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Generator, Mapping, Sequence

SIGNALLED = 128
"""Shells add this to the number of the signal that ended a program."""

FROM_TERMINAL = ("SIGINT", "SIGQUIT")
"""The terminal sends these to its whole foreground, so to the program as well."""

FORWARDED = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


def run_through(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program to its end, and return its exit status as a shell does."""
    with _passing_signals() as running:
        process = subprocess.Popen(command, env=environment)  # noqa: S603 - what this is for
        running.append(process)
        code = _waited(process)
    return code if code >= 0 else SIGNALLED - code


@contextlib.contextmanager
def _passing_signals() -> Generator[list[subprocess.Popen[bytes]]]:
    """Forward signals to the processes in the list instead of ending by them."""
    running: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _frame: object) -> None:
        for process in running:
            if process.returncode is None and not _has_reached_all(number):
                process.send_signal(number)

    before = {}
    for name in (*FROM_TERMINAL, *FORWARDED):
        number = getattr(signal, name, None)
        # An ignored signal stays ignored in the program, as under nohup.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, pass_on)
    try:
        yield running
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_reached_all(number: int) -> bool:
    if number not in {getattr(signal, name, None) for name in FROM_TERMINAL}:
        return False
    if os.name == "nt":  # pragma: no cover - a console signals all of its programs
        return True
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _waited(process: subprocess.Popen[bytes]) -> int:
    if os.name == "nt":  # pragma: no cover - a signal does not interrupt a long wait
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(0.2)
    while True:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode
        # The program has stopped itself. The shell waits for this process, so stop it as well.
        os.kill(os.getpid(), signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
