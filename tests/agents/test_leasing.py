"""Servers that last as long as a lease is held, started by the first process that needs one."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from threading import Barrier

import pytest
from attrs import evolve

from muxcore.agents import joining, server_process
from muxcore.agents import leasing as module
from muxcore.agents.leasing import leasing
from muxcore.agents.server_process import NotStartedError
from muxcore.errors import MultiplexerError
from muxcore.gateway import discovery
from muxcore.gateway.client import ask
from muxcore.gateway.discovery import Server, find
from muxcore.shell import clock
from tests.gateway.conftest import as_toml, config
from tests.processes import environment
from tests.waiting import PATIENCE, wait_until

POSIX = pytest.mark.skipif(os.name == "nt", reason="descriptors are inherited by POSIX")


@pytest.fixture(params=["handed over", "waited for"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    handed = request.param == "handed over"
    if handed and os.name == "nt":
        pytest.skip("descriptors are inherited by POSIX")
    monkeypatch.setattr(joining, "CAN_HAND_OVER", handed)
    return str(request.param)


@pytest.fixture(autouse=True)
def usual_limit(monkeypatch: pytest.MonkeyPatch) -> float:
    """Let a slow machine answer late; return what the limit is otherwise."""
    usual = module.LOOK_SECONDS
    monkeypatch.setattr(module, "LOOK_SECONDS", PATIENCE)
    return usual


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(as_toml(config("http://127.0.0.1:9/v1", "large", "small")))
    return file


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    yield environment(tmp_path, VIBE_HOME=str(tmp_path))
    # None of them outlives its last lease, or leaves anything.
    wait_until(lambda: not list((tmp_path / "vibe-mux").glob("*")))


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
        assert second.last_line == ""
        assert ask(first.server, "/healthz")
        assert first.receipt() is not None
    wait_until(lambda: is_ended(first.server))


HELD = "import os, sys; open(sys.argv[1]).close(); os.execv(sys.argv[2], sys.argv[2:])"
"""A program that begins when the other end of its pipe is opened."""


@POSIX
def test_the_caller_does_not_wait_until_the_server_is_ready(
    file: Path, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = server_process.command(file)
    held = [sys.executable, "-c", HELD, str(pipe), *command]
    monkeypatch.setattr(server_process, "command", lambda *_: held)
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


@POSIX
def test_without_a_runtime_directory_each_lease_has_its_own_server(
    file: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(_: object) -> Path:
        raise MultiplexerError("no place")

    monkeypatch.setattr(discovery, "directory", nowhere)
    with leasing(file, env) as first, leasing(file, env) as second:
        assert not first.joined
        assert not second.joined
        assert ask(first.server, "/healthz")
        assert ask(second.server, "/healthz")


@POSIX
def test_a_lock_without_a_server_leads_to_a_server_of_its_own(
    file: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.1)
    with discovery.lock(file, env) as claim, leasing(file, env) as lease:
        assert claim is not None
        assert not lease.joined
        assert ask(lease.server, "/healthz")
        assert find(file, env) is None
    # Who held the lock was no server, which would have removed its files.
    discovery.remove_dead(env)


def test_a_server_that_does_not_start_says_why(
    file: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "CAN_HAND_OVER", False)
    file.write_text("nonsense")
    with pytest.raises(NotStartedError, match=r"config\.toml"), leasing(file, env):
        pass
    silent = [sys.executable, "-c", ""]
    monkeypatch.setattr(server_process, "command", lambda *_: silent)
    with pytest.raises(NotStartedError, match="did not start"), leasing(file, env):
        pass


def test_a_server_that_ends_at_once_is_an_error(
    file: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "CAN_HAND_OVER", False)
    said = '{"port": 9, "token": "t", "pid": 1, "published": true}'
    monkeypatch.setattr(
        server_process, "command", lambda *_: [sys.executable, "-c", f"print({said!r})"]
    )
    with pytest.raises(NotStartedError, match="as soon as"), leasing(file, env):
        pass


def test_a_server_at_another_address_is_written_as_urls_are(file: Path) -> None:
    assert Server("::1", 1, "t", 1, str(file)).authority == "[::1]:1"


# --- when the server ends under its agent ----------------------------------------------------


def kill(server: Server, number: int = signal.SIGKILL) -> None:
    os.kill(server.pid, number)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_server_that_ends_is_replaced_at_the_same_address_with_the_same_token(
    file: Path, env: dict[str, str], number: int
) -> None:
    lines: list[str] = []
    with leasing(file, env, report=lines.append) as lease:
        first = lease.server
        assert ask(first, "/healthz")
        kill(first, number)
        wait_until(lambda: lease.server.pid != first.pid)
        assert evolve(lease.server, pid=first.pid) == first
        assert ask(lease.server, "/healthz")
        wait_until(lambda: find(file, env) == lease.server)
    [line] = lines
    assert line.startswith("the server has ended")
    assert line.endswith("; a new one is started in its place")
    if number == signal.SIGKILL:
        assert "(by signal SIGKILL)" in line
    wait_until(lambda: is_ended(first))


@POSIX
def test_the_port_is_never_free_while_its_agent_lives(
    file: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_SHORT_LIVES", 99)
    with leasing(file, env) as lease:
        address = (lease.server.host, lease.server.port)
        for _ in range(5):
            before = lease.server.pid
            kill(lease.server)
            while lease.server.pid == before:
                with pytest.raises(OSError, match="in use"):
                    socket.create_server(address, reuse_port=True)


@POSIX
def test_a_run_that_joined_keeps_the_port_and_replaces_the_server_too(
    file: Path, env: dict[str, str]
) -> None:
    lines: list[str] = []
    with leasing(file, env) as first:
        assert ask(first.server, "/healthz")
        stack = ExitStack()
        second = stack.enter_context(leasing(file, env, report=lines.append))
    with stack:
        assert second.joined
        ended = second.server
        assert ask(ended, "/healthz")
        kill(ended)
        wait_until(lambda: second.server.pid != ended.pid)
        assert ask(second.server, "/healthz")
        assert lines == ["the server has ended; a new one is started in its place"]


@POSIX
def test_of_several_runs_one_replaces_the_server_and_all_share_it(
    file: Path, env: dict[str, str]
) -> None:
    with ExitStack() as stack:
        leases = [stack.enter_context(leasing(file, env))]
        assert ask(leases[0].server, "/healthz")
        leases += [stack.enter_context(leasing(file, env)) for _ in range(3)]
        before = leases[0].server
        kill(before)
        wait_until(lambda: all(lease.server.pid != before.pid for lease in leases))
        assert len({lease.server for lease in leases}) == 1
        assert ask(leases[0].server, "/healthz")


@POSIX
def test_a_server_that_always_ends_at_once_is_not_started_for_ever(
    file: Path, env: dict[str, str]
) -> None:
    file.write_text("nonsense")
    lines: list[str] = []
    with leasing(file, env, report=lines.append) as lease:
        wait_until(lambda: is_ended(lease.server))
        assert lease.receipt() is None
        assert str(file) in lease.last_line
    assert len(lines) == module.MOST_SHORT_LIVES
    assert "no other is started" in lines[-1]
    assert str(file) in lines[-1]


# --- servers that hang, are not ours, or have other keys -------------------------------------


@POSIX
def test_a_server_that_hangs_is_given_up_after_two_seconds_with_one_line(
    file: Path, env: dict[str, str], usual_limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    with leasing(file, env) as first:
        assert ask(first.server, "/healthz")
        kill(first.server, signal.SIGSTOP)
        assert usual_limit == 2.0
        monkeypatch.setattr(module, "LOOK_SECONDS", usual_limit)
        try:
            began = clock.elapsed()
            with leasing(file, env, report=lines.append) as second:
                assert clock.elapsed() - began < module.LOOK_SECONDS + PATIENCE
                assert second.server.port != first.server.port
                assert ask(second.server, "/healthz")
        finally:
            kill(first.server, signal.SIGCONT)
    assert lines == [
        (
            f"the server of this config (process {first.server.pid}) does not answer (no server"
            f" answers at port {first.server.port} (TimeoutError)); this run has a server of its own"
        )
    ]


@POSIX
def test_a_file_without_a_held_lock_is_not_even_looked_at(
    file: Path, env: dict[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as thief, leasing(file, env) as first:
        port = thief.getsockname()[1]
        with discovery.lock(file.parent / "other", env):
            discovery.publish(
                evolve(first.server, port=port, config=str(file.parent / "other")), env
            )
        with leasing(file.parent / "other", env) as second:
            assert not second.joined
            assert second.server.port != port
        thief.settimeout(0)
        with pytest.raises(BlockingIOError):
            thief.accept()


class Text(str):
    __slots__ = ()

    def reveal(self) -> str:
        return self


@POSIX
def test_a_run_with_other_keys_has_a_server_of_its_own(
    tmp_path: Path, env: dict[str, str]
) -> None:
    file = tmp_path / "config.toml"
    made = config("http://127.0.0.1:9/v1", "large", "small")
    made["providers"][0]["api_key_env_var"] = "LAB_KEY"
    file.write_text(as_toml(made))
    lines: list[str] = []

    def lease(key: str) -> AbstractContextManager[module.Lease]:
        keys = {"large": Text(key), "small": Text(key)}
        own = {**env, "LAB_KEY": key}
        return leasing(file, own, keys=keys, report=lines.append)

    with lease("key-of-one-person") as first, lease("key-of-one-person") as second:
        assert second.joined
        assert second.server == first.server
        assert lines == []
        with lease("key-of-another-person") as third:
            assert not third.joined
            assert third.server.port != first.server.port
    assert lines == [
        (
            f"the server of this config (process {first.server.pid}) has other keys than this run;"
            " this run has a server of its own"
        )
    ]
