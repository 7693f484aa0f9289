"""Passes copies of a listening socket on to other processes of the same user.

A process with a copy keeps other programs off the port after the server has died, and can
start a new server that takes up the connections that wait.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Generator
from pathlib import Path

IS_POSSIBLE = os.name != "nt"
BACKLOG = 64
SECONDS = 1.0


@contextlib.contextmanager
def sharing(
    listener: socket.socket,
    file: Path,
    watch: Callable[[socket.socket, Callable[[], bool]], None],
) -> Generator[None]:
    """Pass copies of `listener` on at the socket `file` while the block runs.

    `watch` calls back when a socket is readable. Raise `OSError`.
    """
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(_short(file))
        door = stack.enter_context(socket.socket(socket.AF_UNIX))
        file.unlink(missing_ok=True)
        door.bind(path)
        stack.callback(file.unlink, missing_ok=True)
        door.listen(BACKLOG)
        door.settimeout(0)

        def pass_on() -> bool:
            with contextlib.suppress(OSError):
                client, _ = door.accept()
                with client:
                    client.settimeout(0)
                    if _is_mine(client):
                        socket.send_fds(client, [b"!"], [listener.fileno()])
            return door.fileno() >= 0

        watch(door, pass_on)
        yield


def copy_of_listener(file: Path, seconds: float = SECONDS) -> socket.socket:
    """Return a copy of the listening socket that is shared at `file`. Raise `OSError`."""
    with _short(file) as path, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(seconds)
        client.connect(path)
        if not _is_mine(client):
            raise PermissionError("another user passes it on")
        _, descriptors, _, _ = socket.recv_fds(client, 1, 1)
    if not descriptors:
        raise ConnectionError("no socket came")
    return socket.socket(fileno=descriptors[0])


def _is_mine(peer: socket.socket) -> bool:
    """Whether the other end is a process of this user, where the system shows it."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:  # pragma: no cover - elsewhere the directory is the user's alone
        return True
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, option, size))
    return bool(user == os.getuid())


@contextlib.contextmanager
def _short(file: Path) -> Generator[str]:
    """Yield a path of a socket that is short enough: the system allows about a hundred bytes."""
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():  # pragma: no cover - of Linux alone
        yield str(file)
        return
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        yield str(descriptors / str(folder) / file.name)
    finally:
        os.close(folder)
