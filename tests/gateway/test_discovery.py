from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from muxcore.errors import MultiplexerError
from muxcore.gateway import Server, find, publishing
from muxcore.gateway.discovery import (
    NotReachableError,
    all_published,
    ask,
    ask_json,
    directory,
)
from tests.gateway.conftest import TOKEN, Served

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows keeps users apart by itself")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"XDG_RUNTIME_DIR": str(tmp_path)}


def server(config: Path, port: int = 1) -> Server:
    return Server("127.0.0.1", port, TOKEN, os.getpid(), str(config))


def test_a_server_is_found_by_its_config_while_it_runs(
    tmp_path: Path, env: dict[str, str]
) -> None:
    file = tmp_path / "config.toml"
    assert find(file, env) is None
    with publishing(server(file), env) as hindrance:
        assert hindrance == ""
        assert find(file, env) == server(file)
        assert find(tmp_path / "x" / ".." / "config.toml", env) == server(file)
        assert find(tmp_path / "other.toml", env) is None
        assert all_published(env) == (server(file),)
        assert TOKEN not in repr(find(file, env))
    assert find(file, env) is None


@POSIX
def test_only_the_user_can_read_the_file(tmp_path: Path, env: dict[str, str]) -> None:
    with publishing(server(tmp_path / "c"), env):
        (file,) = directory(env).glob("*.json")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_one_server_for_each_config_is_found(tmp_path: Path, env: dict[str, str]) -> None:
    file = tmp_path / "c"
    with publishing(server(file, 1), env), publishing(server(file, 2), env) as hindrance:
        assert "another server" in hindrance
        assert find(file, env) == server(file, 1)
    with publishing(server(file, 3), env) as hindrance:
        assert hindrance == ""


def test_the_file_of_a_killed_server_is_ignored(
    tmp_path: Path, env: dict[str, str]
) -> None:
    file = tmp_path / "c"
    script = (
        "import os, pathlib, sys; sys.path[:0] = eval(sys.argv[2])\n"
        "from muxcore.gateway.discovery import *\n"
        "with publishing(Server('h', 9, 't', 1, sys.argv[1]), dict(os.environ)) as why:\n"
        "    assert not why\n"
        "    os._exit(9)\n"
    )
    command = [sys.executable, "-c", script, str(file), repr(sys.path)]
    done = subprocess.run(command, env={**os.environ, **env}, check=False)
    assert done.returncode == 9
    left = find(file, env)
    assert left is not None
    assert left.port == 9
    with publishing(server(file), env) as hindrance:
        assert hindrance == ""
        assert find(file, env) == server(file)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"port": 1}', "3"])
def test_a_file_of_another_shape_is_ignored(
    tmp_path: Path, env: dict[str, str], text: str
) -> None:
    with publishing(server(tmp_path / "c"), env):
        (file,) = directory(env).glob("*.json")
        file.write_text(text)
        assert find(tmp_path / "c", env) is None
        assert all_published(env) == ()


@POSIX
def test_a_directory_that_others_can_write_to_is_not_used(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    own = tmp_path / "vibe-mux"
    own.mkdir()
    own.chmod(0o777)
    instead = tmp_path / "temporary" / f"vibe-mux-{os.getuid()}"
    assert directory(env) == instead
    assert directory({}) == instead
    assert directory({"XDG_RUNTIME_DIR": str(tmp_path / "none")}) == instead
    instead.rmdir()
    instead.symlink_to(own)
    with pytest.raises(MultiplexerError, match=r"open to others.*not this user's own"):
        directory(env)
    with publishing(server(tmp_path / "c"), env) as hindrance:
        assert "no place for the file" in hindrance


def test_windows_uses_local_app_data(tmp_path: Path) -> None:
    assert directory({"LOCALAPPDATA": str(tmp_path)}) == tmp_path / "vibe-mux"


def test_ask_returns_the_response(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve()
    running = server(tmp_path, served.gateway.port)
    assert ask(running, "/status").startswith("## Multiplexer Status")
    assert ask_json(running, "/status?format=json")["mode"] == "failover"
    with pytest.raises(NotReachableError, match="answered 404"):
        ask(running, "/none")


def test_a_server_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        running = server(tmp_path, held.getsockname()[1])
        with pytest.raises(NotReachableError, match="no server answers"):
            ask(running, "/status")


def test_the_file_is_plain_json(tmp_path: Path, env: dict[str, str]) -> None:
    with publishing(server(tmp_path / "c"), env):
        (file,) = directory(env).glob("*.json")
        assert set(json.loads(file.read_text())) == {
            "host",
            "port",
            "token",
            "pid",
            "config",
        }
