"""`leasing`: keep a server running while an agent runs, shared by all agents of a config.

They share it so that caps and the health of models are shared. The server is a separate process
and ends with the last lease. The `run` that starts it opens the listening socket, publishes it,
and passes it to the server, so no client waits for the start.

Each `run` keeps a copy of the socket. So no other program gets the port while its agent lives, and
if the server ends, the `run` starts another one on the same socket with the same token. Where
descriptors are not inherited (Windows), the `run` waits for the start, and a new server takes the
port again. `joining` finds and joins a server, `server_process` starts one; threads here watch it.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from attrs import evolve

from muxcore.agents import joining
from muxcore.agents.joining import HeldLease, Report, Terms, find_soon, join, join_own
from muxcore.agents.server_process import Launcher, NotStartedError, ServerProcess
from muxcore.errors import MultiplexerError
from muxcore.gateway import discovery
from muxcore.gateway.client import ASK_SECONDS, NotReachableError, ask_json
from muxcore.gateway.discovery import Server
from muxcore.gateway.http.listening import LOOPBACK, listening
from muxcore.gateway.lease_events import BEGAN, DRAINING, ENDED, HELD, RELEASED
from muxcore.gateway.proof import Secret
from muxcore.shell import clock

LOOK_SECONDS = 2.0
"""The time for all attempts to reach servers that may hang, before this run starts one."""

SHORT_LIFE_SECONDS = 5.0
MOST_SHORT_LIVES = 3
"""After this many servers in a row that ended so soon, no other is started."""

PIECE = 4096
NO_KEYS: Mapping[str, Secret] = {}


@contextlib.contextmanager
def leasing(
    config: Path,
    environment: Mapping[str, str],
    drills: Sequence[str] = (),
    *,
    label: str = "",
    keys: Mapping[str, Secret] = NO_KEYS,
    log: Path | None = None,
    report: Report = str,
) -> Generator[Lease]:
    """Hold a lease while the block runs. Raise `NotStartedError`.

    A server with a fire drill is not shared, and neither is one with other `keys`. `report` is
    called with a line for whatever the user should know.
    """
    launcher = Launcher(config, environment, drills, log)
    with Lease(Terms(launcher, label, keys), report) as lease:
        yield lease


class Lease:
    """A lease on a server, which is replaced if it ends before the lease does."""

    server: Server

    def __init__(self, terms: Terms, report: Report) -> None:
        self._terms = terms
        self._report = report
        # Held during a replacement, so that leaving waits for it.
        self._lock = threading.Lock()
        self._closing = False
        self._hangs = False
        self._held: list[HeldLease] = []
        self._processes: list[ServerProcess] = []
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self._began = 0.0
        self._short_lives = 0
        self.joined = False
        """Whether another process had started the server."""
        self.lost_calls = 0
        """Calls that were running when their server ended."""

    @property
    def url(self) -> str:
        return f"http://{self.server.authority}"

    @property
    def last_line(self) -> str:
        """The last line that the server printed, "" if this lease did not start it."""
        return self._processes[-1].last_line if self._processes else ""

    def receipt(self) -> dict[str, Any] | None:
        """Return the receipt of the lease's label; None if no server answers."""
        path = f"/receipt?label={self._terms.label}"
        try:
            receipt: dict[str, Any] = ask_json(self.server, path)
        except (NotReachableError, ValueError):
            return None
        return receipt

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closing = True
        # The server confirms the release, which distinguishes it from its death at this moment.
        self._shut(socket.SHUT_WR)
        until = clock.elapsed() + LOOK_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - clock.elapsed()))
        self._hangs = any(thread.is_alive() for thread in self._threads)
        self._shut(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for held in self._held:
            held.connection.close()
        for process in self._processes:
            process.release()
        if self._listener is not None:
            self._listener.close()
        with contextlib.suppress(MultiplexerError, OSError):
            discovery.remove_dead(self._terms.environment)

    def _shut(self, how: int) -> None:
        for held in self._held:
            # Its server may have ended already.
            with contextlib.suppress(OSError):
                held.connection.shutdown(how)

    def _begin(self) -> None:
        terms, until = self._terms, clock.elapsed() + LOOK_SECONDS
        if terms.launcher.drills:
            self._start(None)
            return
        with contextlib.ExitStack() as stack:
            lock = None
            try:
                found = discovery.find(terms.config, terms.environment)
                if found is None and joining.CAN_HAND_OVER:
                    discovery.remove_dead(terms.environment)
                    lock = stack.enter_context(
                        discovery.lock(terms.config, terms.environment)
                    )
                    found = None if lock is not None else find_soon(terms, until)
            except (MultiplexerError, OSError) as error:
                self._report(f"this run has a server of its own: {error}")
                found = None
            held = None if found is None else join(terms, found, until, self._report)
            if held is None:
                self._start(lock, is_shared=found is None)
            else:
                self.joined = True
                self._hold(held)

    # --- starting a server --------------------------------------------------------------

    def _start(self, lock: int | None, *, is_shared: bool = False) -> None:
        """Start the first server of this lease, published if it has the lock."""
        if joining.CAN_HAND_OVER:
            self._listener = listening()
            port = self._listener.getsockname()[1]
            self._hand_over(LOOPBACK, port, secrets.token_urlsafe(32), lock)
            return
        process, announced = self._terms.launcher.wait_for()
        self._processes.append(process)
        server = self._server(LOOPBACK, announced["port"], announced["token"], process)
        if is_shared and not announced["published"]:
            # Two runs start at once: other runs will find the server of the other one.
            until = clock.elapsed() + LOOK_SECONDS
            other = find_soon(self._terms, until)
            held = other and join(self._terms, other, until, self._report)
            if held:
                self.joined = True
                self._hold(held)
                return
        self._hold_own(server, process)

    def _hand_over(self, host: str, port: int, token: str, lock: int | None) -> None:
        """Start a server on this lease's socket and take its lease."""
        assert self._listener is not None  # noqa: S101 - the callers check it
        process = self._terms.launcher.hand_over(self._listener, host, token, lock)
        self._processes.append(process)
        server = self._server(host, port, token, process)
        if lock is not None:
            try:
                discovery.publish(server, self._terms.environment)
            except (MultiplexerError, OSError) as error:
                self._report(f"other runs cannot find the server of this one: {error}")
        self._hold_own(server, process)

    def _server(self, host: str, port: int, token: str, process: ServerProcess) -> Server:
        return Server(host, port, token, process.process.pid, str(self._terms.config))

    def _hold_own(self, server: Server, process: ServerProcess | None) -> None:
        try:
            held = join_own(self._terms, server, ASK_SECONDS)
        except OSError as error:
            text = f"the server ended as soon as it had started ({type(error).__name__})"
            raise NotStartedError(text) from None
        self._hold(held, process)

    # --- while it runs ------------------------------------------------------------------

    def _hold(self, held: HeldLease, process: ServerProcess | None = None) -> None:
        self.server = held.server
        self._began = clock.elapsed()
        self._held.append(held)
        self._listener = held.listener or self._listener
        thread = threading.Thread(
            target=self._watch, args=(held, process), name="vibe-mux lease", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            self._report(f"the server is not replaced if it ends ({error})")
        else:
            self._threads.append(thread)

    def _watch(self, held: HeldLease, process: ServerProcess | None) -> None:
        """Read the events of a lease; when its server ends, replace it."""
        running, is_replaced = 0, False
        for event in self._events(held, process):
            running += (event == BEGAN) - (event == ENDED)
            if event == DRAINING:
                is_replaced = self._replace(held.server, "it is stopping")
            if event == RELEASED:
                return
        if self._hangs:
            return
        if not (is_replaced or self._closing):
            how = "" if process is None else process.describe_end()
            is_replaced = self._replace(held.server, how)
        if is_replaced or self._closing:
            self.lost_calls += running

    def _events(self, held: HeldLease, process: ServerProcess | None) -> Iterator[bytes]:
        """Yield the lines of a lease until its server closes it, or has ended."""
        buffer = held.read
        while True:
            *lines, buffer = buffer.split(b"\n")
            yield from lines
            if HELD in lines:
                held.connection.settimeout(None)
            try:
                data = held.connection.recv(PIECE)
            except TimeoutError:
                if not self._is_starting(held.server, process):
                    return
            except OSError:
                return
            else:
                if not data:
                    return
                buffer += data

    def _is_starting(self, server: Server, process: ServerProcess | None) -> bool:
        """Whether a server that has not accepted the lease yet is still alive.

        Its end would not show on the connection, which waits in the listening socket.
        """
        if process is not None:
            return process.process.poll() is None
        with contextlib.suppress(MultiplexerError, OSError):
            return discovery.find(self._terms.config, self._terms.environment) == server
        return False

    def _replace(self, ended: Server, how: str) -> bool:
        """Start or find another server on the same socket; return whether `ended` has ended."""
        with self._lock:
            if self._closing:
                return False
            is_short = clock.elapsed() - self._began < SHORT_LIFE_SECONDS
            self._short_lives = self._short_lives + 1 if is_short else 0
            end = f"the server has ended{how and f' ({how})'}"
            try:
                if self._short_lives >= MOST_SHORT_LIVES:
                    raise NotStartedError(f"{self._short_lives} have ended so soon")
                return self._take_over(ended, end)
            except (MultiplexerError, OSError) as error:
                self._report(f"{end}, and no other is started: {error}")
                if self._listener is not None:
                    # No server will accept connections: let them fail at once.
                    self._listener.close()
                    self._listener = None
                return True

    def _take_over(self, ended: Server, end: str) -> bool:
        terms = self._terms
        with contextlib.ExitStack() as stack:
            lock, other = None, None
            if not terms.launcher.drills:
                with contextlib.suppress(MultiplexerError, OSError):
                    lock = stack.enter_context(
                        discovery.lock(terms.config, terms.environment)
                    )
                    if lock is None:
                        other = find_soon(terms, clock.elapsed() + LOOK_SECONDS)
            if other is not None and evolve(other, pid=ended.pid) == ended:
                # Another run of this config, with the same socket, was first.
                if other != ended:
                    self._report(f"{end}; another run has started a new one in its place")
                self._hold_own(other, None)
                return other != ended
            if self._listener is None and joining.CAN_HAND_OVER:
                self._listener = listening(ended.host, ended.port)
            self._report(f"{end}; a new one is started in its place")
            if joining.CAN_HAND_OVER:
                self._hand_over(ended.host, ended.port, ended.token, lock)
                return True
        process, _ = terms.launcher.wait_for(ended.host, ended.port, ended.token)
        self._processes.append(process)
        server = self._server(ended.host, ended.port, ended.token, process)
        self._hold_own(server, process)
        return True
