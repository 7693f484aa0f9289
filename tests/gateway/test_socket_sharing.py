"""Copies of a listening socket are passed on to the same user, and to nobody else."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from muxcore.gateway.http.selector import SelectorThread
from muxcore.gateway.socket_sharing import copy_of_listener, sharing
from tests.waiting import PATIENCE

pytestmark = pytest.mark.skipif(os.name == "nt", reason="descriptors are passed by POSIX")


Watch = Callable[[socket.socket, Callable[[], bool]], None]


@pytest.fixture
def watch() -> Iterator[Watch]:
    thread = SelectorThread("of the test")
    thread.start()
    yield thread.watch
    thread.stop()


def test_a_copy_accepts_the_connections_of_the_listener(
    tmp_path: Path, watch: Watch
) -> None:
    file = tmp_path / ("long-" * 30) / "server.sock"
    file.parent.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with sharing(listener, file, watch):
            copy = copy_of_listener(file, PATIENCE)
        assert not file.exists()
    with copy, socket.create_connection(address, PATIENCE) as client:
        accepted, _ = copy.accept()
        with accepted:
            accepted.sendall(b"!")
            assert client.recv(1) == b"!"


def test_another_user_gets_no_copy_and_passes_none_on(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "server.sock"
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        sharing(listener, file, watch),
    ):
        monkeypatch.setattr(os, "getuid", lambda: -1)
        with pytest.raises(PermissionError, match="another user"):
            copy_of_listener(file, PATIENCE)


def test_a_file_that_a_dead_server_left_is_replaced(tmp_path: Path, watch: Watch) -> None:
    file = tmp_path / "server.sock"
    file.touch()
    with pytest.raises(OSError, match="refused"):
        copy_of_listener(file)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        sharing(listener, file, watch),
    ):
        copy_of_listener(file, PATIENCE).close()
