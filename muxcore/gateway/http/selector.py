"""One thread that sleeps until a socket has something to say."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator

Called = Callable[[], bool]
"""Called when its socket can be read; returns whether to go on watching it."""


class SelectorThread:
    """Calls back when a socket can be read, in a thread of its own.

    What is called must not block. If it raises, its socket is watched no more.
    """

    def __init__(self, name: str) -> None:
        self._orders: deque[tuple[socket.socket, Called | None]] = deque()
        """Sockets to begin with, and (without a call) to end with, in this order."""
        self._stopping = False
        self._bell, self._button = socket.socketpair()
        self._bell.settimeout(0)
        self._button.settimeout(0)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._ring()
        self._thread.join()
        self._bell.close()
        self._button.close()

    def watch(self, sock: socket.socket, call: Called) -> None:
        self._orders.append((sock, call))
        self._ring()

    def forget(self, sock: socket.socket) -> None:
        """Watch this no more. It may still be called until the thread has heard of it."""
        self._orders.append((sock, None))
        self._ring()

    def _ring(self) -> None:
        # A full buffer has rung already.
        with contextlib.suppress(OSError):
            self._button.send(b"!")

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._bell, selectors.EVENT_READ)
            while not self._stopping:
                self._obey(selector)
                try:
                    ready = selector.select()
                except OSError:
                    # `select` on Windows, of a socket that was closed an instant ago.
                    continue
                for key, _ in ready:
                    if key.fileobj is self._bell:
                        with contextlib.suppress(OSError):
                            self._bell.recv(4096)
                    elif not _goes_on(key.data):
                        _unregister(selector, key.fileobj)

    def _obey(self, selector: selectors.BaseSelector) -> None:
        while self._orders:
            sock, call = self._orders.popleft()
            if call is None:
                _unregister(selector, sock)
            else:
                # It may have been closed in the meantime.
                with contextlib.suppress(OSError, ValueError, KeyError):
                    selector.register(sock, selectors.EVENT_READ, call)


def _goes_on(call: Called) -> bool:
    try:
        return call()
    except Exception:  # noqa: BLE001 - everybody else's sockets hang on this thread
        traceback.print_exc()
        return False


def _unregister(selector: selectors.BaseSelector, sock: object) -> None:
    with contextlib.suppress(OSError, ValueError, KeyError):
        selector.unregister(sock)  # type: ignore[arg-type] # what was registered


class DisconnectMonitor:
    """Whether the client at the other end of a socket is still there, while it is served."""

    def __init__(self, sock: socket.socket, leave: Callable[[], None]) -> None:
        self._sock = sock
        self._leave = leave
        self._lock = threading.Lock()
        self._over = False

    def check(self) -> bool:
        """Take note that the socket can be read: it is the end, or the next request."""
        with self._lock:
            # Once over, the next request is being read, and a look would wait for it.
            if self._over or not self._at_end():
                return False
            self._over = True
            self._leave()
            return False

    def over(self) -> None:
        """From here on, nobody leaves."""
        with self._lock:
            self._over = True

    def _at_end(self) -> bool:
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except OSError:
            return True


@contextlib.contextmanager
def monitoring_disconnect(
    watcher: SelectorThread, sock: socket.socket, leave: Callable[[], None]
) -> Generator[None]:
    """Have `leave` called if the client leaves while the block runs."""
    departure = DisconnectMonitor(sock, leave)
    watcher.watch(sock, departure.check)
    try:
        yield
    finally:
        departure.over()
        watcher.forget(sock)
