"""Servers that last as long as somebody holds a lease, started by the first who needs one."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from attrs import evolve

from muxcore.agents import leasing as module
from muxcore.agents.leasing import NotStartedError, leasing
from muxcore.errors import MultiplexerError
from muxcore.gateway import discovery as joining
from muxcore.gateway.discovery import Server, ask, find
from tests.gateway.conftest import as_toml, config
from tests.processes import environment
from tests.waiting import PATIENCE, wait_until

POSIX = pytest.mark.skipif(os.name == "nt", reason="descriptors are inherited by POSIX")


@pytest.fixture(params=["handed over", "waited for"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    handed = request.param == "handed over"
    if handed and os.name == "nt":
        pytest.skip("descriptors are inherited by POSIX")
    monkeypatch.setattr(module, "CAN_HAND_OVER", handed)
    return str(request.param)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(as_toml(config("http://127.0.0.1:9/v1", "large", "small")))
    return file


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    yield environment(tmp_path, VIBE_HOME=str(tmp_path))
    # None of them outlives its last lease.
    wait_until(lambda: not list((tmp_path / "vibe-mux").glob("*.json")))


def is_ended(server: Server) -> bool:
    try:
        socket.create_connection((server.host, server.port), 1).close()
    except OSError:
        return True
    return False


@pytest.mark.usefixtures("way")
def test_the_first_lease_starts_the_server_and_the_last_ends_it(
    file: Path, env: dict[str, str]
) -> None:
    with leasing(file, env) as first:
        assert not first.joined
        assert first.url == f"http://127.0.0.1:{first.server.port}"
        with leasing(file, env) as second:
            assert second.joined
            assert second.server == first.server
            assert find(file, env) == first.server
        assert second.last_words == ""
        assert ask(first.server, "/healthz")
        assert first.receipt("label") is not None
    wait_until(lambda: is_ended(first.server))


HELD = "import os, sys; open(sys.argv[1]).close(); os.execv(sys.argv[2], sys.argv[2:])"
"""A program that begins when somebody opens the other end of a pipe."""


@POSIX
def test_the_caller_does_not_wait_until_the_server_is_ready(
    file: Path, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = module._command(file, [])
    held = [sys.executable, "-c", HELD, str(pipe), *command]
    monkeypatch.setattr(module, "_command", lambda *_: held)
    with leasing(file, env) as lease, ThreadPoolExecutor(1) as other:
        # Others find it already, and what they ask waits until it can be answered.
        assert find(file, env) == lease.server
        asked = other.submit(ask, lease.server, "/healthz")
        pipe.open("w").close()
        assert asked.result(PATIENCE)


@pytest.mark.usefixtures("way")
def test_concurrent_leases_share_one_server(file: Path, env: dict[str, str]) -> None:
    many = 4
    together = Barrier(many)

    def one(_: int) -> Server:
        with leasing(file, env) as lease:
            together.wait(PATIENCE)
            return lease.server

    with ThreadPoolExecutor(many) as threads:
        servers = list(threads.map(one, range(many)))
    assert len(set(servers)) == 1


@pytest.mark.usefixtures("way")
def test_a_server_with_a_drill_is_not_shared(file: Path, env: dict[str, str]) -> None:
    with leasing(file, env, ["large=429"]) as drilled:
        assert find(file, env) is None
        with leasing(file, env, ["large=429"]) as other:
            assert not other.joined
            assert other.server.port != drilled.server.port
    wait_until(lambda: is_ended(drilled.server))


@pytest.mark.usefixtures("way")
def test_the_file_of_a_dead_server_is_ignored(file: Path, env: dict[str, str]) -> None:
    with leasing(file, env) as first:
        assert ask(first.server, "/healthz")
        os.kill(first.server.pid, signal.SIGKILL)
        wait_until(lambda: is_ended(first.server))
        assert find(file, env) == first.server
        assert first.receipt("label") is None
        with leasing(file, env) as second:
            assert not second.joined
            assert find(file, env) == second.server


@POSIX
def test_without_a_runtime_directory_each_lease_has_its_own_server(
    file: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(_: object) -> Path:
        raise MultiplexerError("no place")

    monkeypatch.setattr(joining, "directory", nowhere)
    with leasing(file, env) as first, leasing(file, env) as second:
        assert not first.joined
        assert not second.joined
        assert ask(first.server, "/healthz")
        assert ask(second.server, "/healthz")


@POSIX
def test_a_lock_without_a_server_leads_to_a_server_of_its_own(
    file: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOKS", 2)
    with joining.lock(file, env) as claim, leasing(file, env) as lease:
        assert claim is not None
        assert not lease.joined
        assert ask(lease.server, "/healthz")
        assert find(file, env) is None


@POSIX
def test_the_last_line_of_a_server_says_why_it_ended(
    file: Path, env: dict[str, str]
) -> None:
    file.write_text("nonsense")
    with leasing(file, env) as lease:
        wait_until(lambda: is_ended(lease.server))
        assert lease.receipt("label") is None
        assert str(file) in lease.last_words
    (file.parent / "vibe-mux").joinpath(joining._file(file, env).name).unlink()


def test_a_server_that_does_not_start_says_why(
    file: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CAN_HAND_OVER", False)
    file.write_text("nonsense")
    with pytest.raises(NotStartedError, match=r"config\.toml"), leasing(file, env):
        pass
    silent = [sys.executable, "-c", ""]
    monkeypatch.setattr(module, "_command", lambda *_: silent)
    with pytest.raises(NotStartedError, match="did not start"), leasing(file, env):
        pass


def test_a_server_that_ends_at_once_is_an_error(
    file: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CAN_HAND_OVER", False)
    said = '{"port": 9, "token": "t", "pid": 1, "published": true}'
    monkeypatch.setattr(
        module, "_command", lambda *_: [sys.executable, "-c", f"print({said!r})"]
    )
    with pytest.raises(NotStartedError, match="as soon as"), leasing(file, env):
        pass


def test_a_server_at_another_address_is_written_as_urls_are(file: Path) -> None:
    server = Server("127.0.0.1", 1, "t", 1, str(file))
    lease = module.Lease(evolve(server, host="::1"), joined=True)
    assert lease.url == "http://[::1]:1"
