"""One thread that waits for many sockets, and what notices that a client disconnects."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator

Callback = Callable[[], bool]
"""Called when its socket is readable; returns whether to keep watching it."""


class SelectorThread:
    """Runs a callback when a socket is readable, in its own thread.

    Callbacks must not block. If one raises, its socket is no longer watched.
    """

    def __init__(self, name: str) -> None:
        self._changes: deque[tuple[socket.socket, Callback | None]] = deque()
        """Sockets to register, or to unregister (without a callback), in this order."""
        self._stopping = False
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.settimeout(0)
        self._wake_sender.settimeout(0)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._wake()
        self._thread.join()
        self._wake_receiver.close()
        self._wake_sender.close()

    def watch(self, sock: socket.socket, callback: Callback) -> None:
        self._changes.append((sock, callback))
        self._wake()

    def unwatch(self, sock: socket.socket) -> None:
        """Stop watching. The callback may still run until the thread has seen the change."""
        self._changes.append((sock, None))
        self._wake()

    def _wake(self) -> None:
        # If the buffer is full, the thread is about to wake anyway.
        with contextlib.suppress(OSError):
            self._wake_sender.send(b"!")

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_receiver, selectors.EVENT_READ)
            while not self._stopping:
                self._apply_changes(selector)
                try:
                    ready = selector.select()
                except OSError:
                    # On Windows, `select` raises for a socket that was just closed.
                    continue
                for key, _ in ready:
                    if key.fileobj is self._wake_receiver:
                        with contextlib.suppress(OSError):
                            self._wake_receiver.recv(4096)
                    elif not _keeps_watching(key.data):
                        _unregister(selector, key.fileobj)

    def _apply_changes(self, selector: selectors.BaseSelector) -> None:
        while self._changes:
            sock, callback = self._changes.popleft()
            if callback is None:
                _unregister(selector, sock)
            else:
                # It may have been closed in the meantime.
                with contextlib.suppress(OSError, ValueError, KeyError):
                    selector.register(sock, selectors.EVENT_READ, callback)


def _keeps_watching(callback: Callback) -> bool:
    try:
        return callback()
    except Exception:  # noqa: BLE001 - all other sockets depend on this thread
        traceback.print_exc()
        return False


def _unregister(selector: selectors.BaseSelector, sock: object) -> None:
    with contextlib.suppress(OSError, ValueError, KeyError):
        selector.unregister(sock)  # type: ignore[arg-type] # what was registered


class DisconnectMonitor:
    """Calls `on_disconnect` once if the client closes its socket while it is served."""

    def __init__(self, sock: socket.socket, on_disconnect: Callable[[], None]) -> None:
        self._sock = sock
        self._on_disconnect = on_disconnect
        self._lock = threading.Lock()
        self._stopped = False

    def check(self) -> bool:
        """Handle a readable socket: the client has left, or has sent its next request."""
        with self._lock:
            # Once stopped, another thread reads from the socket, and peeking would block.
            if self._stopped or not self._at_end():
                return False
            self._stopped = True
            self._on_disconnect()
            return False

    def stop(self) -> None:
        """Ignore disconnects from here on."""
        with self._lock:
            self._stopped = True

    def _at_end(self) -> bool:
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except OSError:
            return True


@contextlib.contextmanager
def monitoring_disconnect(
    selector: SelectorThread, sock: socket.socket, on_disconnect: Callable[[], None]
) -> Generator[None]:
    """Call `on_disconnect` if the client leaves while the block runs."""
    monitor = DisconnectMonitor(sock, on_disconnect)
    selector.watch(sock, monitor.check)
    try:
        yield
    finally:
        monitor.stop()
        selector.unwatch(sock)
