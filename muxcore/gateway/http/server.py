"""`Gateway`: the server, with a thread for each connection.

A fixed number of threads would queue `/status` behind streams. One more thread accepts
connections and watches the clients of all calls: a client that leaves frees its slot, however
silent the model is.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import AbstractContextManager
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self

from muxcore.errors import MultiplexerError
from muxcore.gateway.api.authorization import is_loopback
from muxcore.gateway.api.handlers import Context, handle_request
from muxcore.gateway.api.paths import base_path
from muxcore.gateway.api.receipts import Ledger, Receipt
from muxcore.gateway.http.connection import ClientLeftError, ClientTimeouts, Connection
from muxcore.gateway.http.leases import Leases
from muxcore.gateway.http.listening import LOOPBACK, listening, literal
from muxcore.gateway.http.selector import SelectorThread
from muxcore.gateway.reload import ReloadingPool
from muxcore.gateway.socket_sharing import sharing
from muxcore.http_framing import head
from muxcore.observers.metrics import Metrics

MOST_CONNECTIONS, FEWEST_CONNECTIONS = 1000, 4
MOST_UNAUTHORIZED = 100
"""Connections without a request that had the token; beyond them the oldest are closed."""

RESERVED_DESCRIPTORS = 32
"""For the config, imports, the runtime directory and the like."""

PAUSE_SECONDS = 0.05
FIRST_REQUEST_SECONDS = 5.0
"""How long the server that has lost its last lease waits for one that is being taken."""
TOO_MANY = head(
    HTTPStatus.SERVICE_UNAVAILABLE, {"Content-Length": "0", "Connection": "close"}
)
NO_NAMES: Mapping[str, str] = {}


class Gateway:
    """Serves a pool from `start` to `stop`, or as a context manager.

    `hosts` are names that clients may also reach it by, as from a container. `names` maps
    further names for a request's `model` to "mux" (the pool) or an alias.
    `listener` is a socket that is listening already, at `host`. `on_unleased` is called when
    the last lease (`GET /lease`) ends. An address that is not loopback needs `exposed=True`.
    The caller closes the pool.
    """

    def __init__(  # noqa: PLR0913 - all there is to set
        self,
        pool: ReloadingPool,
        token: str,
        *,
        host: str = LOOPBACK,
        port: int = 0,
        listener: socket.socket | None = None,
        exposed: bool = False,
        hosts: Collection[str] = (),
        names: Mapping[str, str] = NO_NAMES,
        timeouts: ClientTimeouts = ClientTimeouts(),  # noqa: B008 - an immutable record
        on_unleased: Callable[[], None] | None = None,
    ) -> None:
        if not (exposed or is_loopback(host)):
            raise ValueError(f"{host} can be reached from other machines")
        if not (token and token.isascii() and token.isprintable() and " " not in token):
            raise ValueError("a token is one word of ASCII characters")
        self._listener = listening(host, port) if listener is None else listener
        self._listener.settimeout(0)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self.token = token
        self.pool = pool
        self._timeouts = timeouts
        self._most_connections = connection_limit()
        self._ledger = Ledger()
        self._on_unleased = on_unleased
        self._leases = Leases(self._last_lease_ended)
        self._selector = SelectorThread("vibe-mux gateway")
        self._changed = threading.Condition()
        self._connections: dict[Connection, threading.Thread] = {}
        self._busy: set[Connection] = set()
        self._new: set[Connection] = set()
        """Those whose first request has not been handled yet: it may take a lease."""
        self._draining = False
        metrics = Metrics()
        pool.multiplexer.observe("metrics", metrics)
        self._context = Context(
            pool,
            token,
            self.port,
            frozenset(host.lower() for host in hosts),
            names,
            self._ledger,
            metrics,
            self._selector,
            self._leases,
            self._hold_lease,
            lambda: self._draining,
        )

    @property
    def url(self) -> str:
        return f"http://{literal(self.host)}:{self.port}"

    @property
    def leases(self) -> int:
        """The number of leases held now."""
        return len(self._leases)

    def api_base(self, label: str = "", only: str | None = None) -> str:
        """Return the `api_base` for an agent of `run`: of the pool, or of the model `only`.

        Calls there are counted under `label`, whatever `model` says; see `routing`.
        """
        return self.url + base_path(label, only)

    def receipt(self, label: str = "") -> Receipt:
        """Return the receipt of the calls under `label`, or of all calls."""
        return self._ledger.receipt(label)

    def start(self) -> None:
        """Begin to serve. Raise `MultiplexerError` if the system has no thread for it."""
        try:
            self._selector.start()
        except RuntimeError as error:
            raise MultiplexerError(f"no thread can be started ({error})") from None
        self._selector.watch(self._listener, self._accept)

    def sharing_socket(self, file: Path) -> AbstractContextManager[None]:
        """Pass copies of the listening socket on at `file` while the block runs."""
        return sharing(self._listener, file, self._selector.watch)

    def drain(self, seconds: float) -> bool:
        """Accept nothing new; wait for running requests. Return whether all have ended."""
        with self._changed:
            was_draining, self._draining = self._draining, True
            self._selector.unwatch(self._listener)
            self._listener.close()
            for connection in self._connections:
                if connection not in self._busy and connection not in self._leases:
                    connection.wake()
            if not was_draining:
                self._leases.drain()
            return self._changed.wait_for(lambda: not self._busy, seconds)

    def stop(self) -> None:
        """End everything, and return when every thread and socket is gone.

        A running call is cancelled as if its client had left.
        """
        self.drain(0)
        with self._changed:
            serving = dict(self._connections)
        for connection in serving:
            connection.wake()
        for thread in serving.values():
            thread.join()
        self._selector.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _accept(self) -> bool:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return True
        except OSError:
            # Closed by `drain`, or out of descriptors: those come back with time.
            if not self._draining:
                threading.Event().wait(PAUSE_SECONDS)
            return not self._draining
        connection = Connection(sock, self._timeouts)
        thread = threading.Thread(
            target=self._serve, args=(connection,), name="vibe-mux client", daemon=True
        )
        if not self._start_thread(connection, thread):
            with contextlib.suppress(OSError):
                sock.settimeout(0)
                sock.send(TOO_MANY)
            connection.close()
        return True

    def _start_thread(self, connection: Connection, thread: threading.Thread) -> bool:
        with self._changed:
            if self._draining or not self._has_room():
                return False
            try:
                thread.start()
            except RuntimeError:
                # The system cannot start another thread.
                return False
            # The thread cannot remove the entry before this, as that needs the lock.
            self._connections[connection] = thread
            self._new.add(connection)
            return True

    def _has_room(self) -> bool:
        """Make room for one more connection; return whether there is any."""
        unauthorized = [c for c in self._connections if not (c.is_authorized or c.is_woken)]
        is_full = len(self._connections) >= self._most_connections
        if unauthorized and (is_full or len(unauthorized) >= MOST_UNAUTHORIZED):
            # The oldest: a client that has the token sends it at once.
            unauthorized[0].wake()
            return len(self._connections) < self._most_connections + MOST_UNAUTHORIZED
        return not is_full

    def _serve(self, connection: Connection) -> None:
        try:
            with contextlib.suppress(ClientLeftError):
                stays_open = True
                while stays_open and not self._draining:
                    connection.wait()
                    with self._busy_while(connection):
                        stays_open = handle_request(connection, self._context)
        finally:
            connection.close()
            with self._changed:
                del self._connections[connection]
                self._new.discard(connection)
                self._changed.notify_all()

    @contextlib.contextmanager
    def _busy_while(self, connection: Connection) -> Generator[None]:
        with self._changed:
            self._busy.add(connection)
        try:
            yield
        finally:
            with self._changed:
                self._busy.discard(connection)
                self._new.discard(connection)
                self._changed.notify_all()

    @contextlib.contextmanager
    def _hold_lease(
        self, connection: Connection, label: str, begin: Callable[[bytes], object]
    ) -> Generator[None]:
        """Count a lease while the block runs. `drain` does not wait for leases."""
        with contextlib.ExitStack() as stack:
            with self._changed:
                self._busy.discard(connection)
                if self._draining:
                    raise ClientLeftError
                stack.enter_context(self._leases.hold(connection, label, begin))
                self._new.discard(connection)
                self._changed.notify_all()
            yield

    def _last_lease_ended(self) -> None:
        """Call `on_unleased`, unless a client that came before takes a lease after all.

        Each connection has a thread, so requests are not handled in the order in which they
        came.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: not self._new or self._draining, FIRST_REQUEST_SECONDS
            )
            if self._on_unleased is not None and not self._leases:
                self._on_unleased()


def connection_limit() -> int:
    """Return how many connections the limit of open files allows: each may open one more."""
    try:
        import resource  # noqa: PLC0415 - Windows has none
    except ImportError:  # pragma: no cover
        return MOST_CONNECTIONS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(
        MOST_CONNECTIONS, max(FEWEST_CONNECTIONS, (soft - RESERVED_DESCRIPTORS) // 2)
    )
