"""Looks for the server that other runs of a config share, and takes a lease of it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path

from attrs import field, frozen

from muxcore.agents.server_process import Launcher
from muxcore.gateway import discovery
from muxcore.gateway.client import (
    Channel,
    NotReachableError,
    RefusedByServerError,
    connected,
    lease_path,
)
from muxcore.gateway.discovery import Server
from muxcore.gateway.proof import Secret, keys_fingerprint
from muxcore.gateway.socket_sharing import copy_of_listener
from muxcore.shell import clock

PAUSE_SECONDS = 0.01
STARTING_SECONDS = 0.1
"""How often it is checked that a server which starts is still there."""

SHARING_SECONDS = 0.5
"""A server shares its socket an instant after it can be found."""

CAN_HAND_OVER = os.name != "nt"
"""Whether a process can pass its descriptors on to the server that it starts."""

Report = Callable[[str], object]
"""Is called with a line for the user, from any thread."""


@frozen
class Terms:
    """What a lease is for: the config, the label of its calls, and the keys it relies on."""

    launcher: Launcher
    label: str
    keys: Mapping[str, Secret] = field(repr=False)

    @property
    def config(self) -> Path:
        return self.launcher.config

    @property
    def environment(self) -> Mapping[str, str]:
        return self.launcher.environment

    def path(self, token: str) -> str:
        return lease_path(self.label, keys_fingerprint(token, self.keys))


@frozen(eq=False)
class HeldLease:
    """A connection that keeps its server alive, and what was read of it already.

    `listener` is a copy of the server's socket, None if none was to be had.
    """

    server: Server
    connection: socket.socket
    read: bytes = b""
    listener: socket.socket | None = None


def join(terms: Terms, server: Server, until: float, report: Report) -> HeldLease | None:
    """Take a lease of a server that was found; if there is none to be had, report why."""
    try:
        with connected(server, max(0.0, until - clock.elapsed())) as channel:
            channel.prove()
            channel.send(terms.path(server.token))
            channel.read_head()
            connection, read = channel.release()
    except RefusedByServerError as error:
        if error.status == HTTPStatus.CONFLICT:
            reason = "has other keys than this run"
        else:
            reason = f"gives no lease ({error})"
    except NotReachableError as error:
        reason = f"does not answer ({error})"
    else:
        listener = _copy_of_listener(terms) if CAN_HAND_OVER else None
        return HeldLease(server, connection, read, listener)
    report(
        f"the server of this config (process {server.pid}) {reason};"
        " this run has a server of its own"
    )
    return None


def join_own(terms: Terms, server: Server, seconds: float) -> HeldLease:
    """Take a lease of a server on a socket that this process holds; it need not be ready.

    The connection times out now and then until it is. Raise `OSError`.
    """
    with Channel(server, seconds) as channel:
        channel.send(terms.path(server.token))
        connection, read = channel.release()
    connection.settimeout(STARTING_SECONDS)
    return HeldLease(server, connection, read)


def find_soon(terms: Terms, until: float) -> Server | None:
    """Return the server that another process is just starting, None if it does not in time.

    Raise `MultiplexerError` if there is no runtime directory.
    """
    pause = threading.Event()
    while (found := discovery.find(terms.config, terms.environment)) is None:
        if clock.elapsed() > until:
            return None
        pause.wait(PAUSE_SECONDS)
    return found


def _copy_of_listener(terms: Terms) -> socket.socket | None:
    file = discovery.socket_file(terms.config, terms.environment)
    until = clock.elapsed() + SHARING_SECONDS
    pause = threading.Event()
    while clock.elapsed() < until:
        with contextlib.suppress(OSError):
            return copy_of_listener(file)
        pause.wait(PAUSE_SECONDS)
    return None
