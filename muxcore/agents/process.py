"""Running a program as if nobody stood between it and the shell.

It has the terminal, its signals and its job control; its end becomes this process's own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Generator, Mapping, Sequence

SIGNALLED = 128
"""What shells add to the number of the signal that ended a program."""

FROM_TERMINAL = ("SIGINT", "SIGQUIT")
"""The terminal sends these to all that run in its foreground, so to the program as well."""

FORWARDED = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


def run_through(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program to its end, and return its exit status as a shell tells it."""
    with _passing_signals() as running:
        process = subprocess.Popen(command, env=environment)  # noqa: S603 - what this is for
        running.append(process)
        code = _waited(process)
    return code if code >= 0 else SIGNALLED - code


@contextlib.contextmanager
def _passing_signals() -> Generator[list[subprocess.Popen[bytes]]]:
    """Hand signals on to the program that is put into the list, and outlive them."""
    running: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _frame: object) -> None:
        for process in running:
            if process.returncode is None and not _has_reached_all(number):
                process.send_signal(number)

    before = {}
    for name in (*FROM_TERMINAL, *FORWARDED):
        number = getattr(signal, name, None)
        # What was ignored is inherited so, as by any program under nohup.
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
    if os.name == "nt":  # pragma: no cover - there, a console tells all of its programs
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
    if os.name == "nt":  # pragma: no cover - there, no signal is noticed in a long wait
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(0.2)
    while True:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode
        # A program that stops itself gives the terminal back to the shell, which waits for
        # this process and not for that one.
        os.kill(os.getpid(), signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
