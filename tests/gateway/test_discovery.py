from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from muxcore.errors import MultiplexerError
from muxcore.gateway import Server, discovery, find, publishing, runtime_dir
from muxcore.gateway.discovery import all_published, lock, remove_dead
from muxcore.gateway.runtime_dir import directory
from tests.gateway.conftest import TOKEN
from tests.processes import ROOT

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
    assert len(list(directory(env).iterdir())) == 2
    assert find(file, env) is None
    assert all_published(env) == ()
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


def test_files_of_killed_servers_are_removed(tmp_path: Path, env: dict[str, str]) -> None:
    place = directory(env)
    for name in ("a.json", "a.lock", "a.sock", "a.4711", "b.lock"):
        (place / name).touch()
    with publishing(server(tmp_path / "c"), env):
        assert {file.suffix for file in place.iterdir()} == {".json", ".lock"}
        remove_dead(env)
        assert find(tmp_path / "c", env) is not None
    assert list(place.iterdir()) == []


@POSIX
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_runtime_directory_leaves_the_server_running_but_not_found(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "replace", full)
    with publishing(server(tmp_path / "c"), env) as hindrance:
        assert hindrance == f"its file cannot be written ({os.strerror(code)})"
        assert find(tmp_path / "c", env) is None
    # Neither a draft nor a lock is left.
    assert list(directory(env).iterdir()) == []


@POSIX
def test_a_lock_that_cannot_be_made_leaves_the_server_running(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place = directory(env)
    monkeypatch.setattr(runtime_dir, "_opened", full)
    with publishing(server(tmp_path / "c"), env) as hindrance:
        assert "No space left" in hindrance
    assert list(place.iterdir()) == []


@POSIX
def test_any_umask_leaves_the_user_their_own_rights(
    tmp_path: Path, env: dict[str, str]
) -> None:
    before = os.umask(0o777)
    try:
        with publishing(server(tmp_path / "c"), env) as hindrance:
            assert hindrance == ""
            modes = {stat.S_IMODE(file.stat().st_mode) for file in directory(env).iterdir()}
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory(env).stat().st_mode) == 0o700
    assert modes == {0o600}


def test_a_lock_that_was_removed_meanwhile_is_taken_again(
    tmp_path: Path, env: dict[str, str]
) -> None:
    with lock(tmp_path / "c", env) as first:
        assert first is not None
        (file,) = directory(env).glob("*.lock")
        file.unlink()
        with lock(tmp_path / "c", env) as second:
            assert second is not None


@pytest.mark.parametrize("has_lock", [True, False])
def test_a_temporary_directory_of_a_killed_process_is_removed_after_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_lock: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, others = tmp_path / "mine-left", tmp_path / "others"
    left.mkdir(mode=0o700)
    others.mkdir()
    if has_lock:
        (left / runtime_dir.LOCK_NAME).touch()
    with runtime_dir.temporary_directory("mine-") as first:
        assert left.exists()
        os.utime(first, (0, 0))
        with runtime_dir.temporary_directory("mine-") as second:
            assert first.exists()
            assert second != first
    assert {file.name for file in tmp_path.iterdir()} == {"mine-left", "others"}
    os.utime(left, (0, 0))
    with runtime_dir.temporary_directory("mine-"):
        assert not left.exists()


def test_a_temporary_directory_that_others_remove_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Path, "glob", lambda *_: iter([tmp_path / "mine-gone"]))
    with runtime_dir.temporary_directory("mine-") as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []


def test_temporary_directories_of_processes_side_by_side_leave_each_other_alone(
    tmp_path: Path,
) -> None:
    script = """
import sys
from muxcore.gateway.runtime_dir import temporary_directory
for _ in range(50):
    with temporary_directory("mine-") as folder:
        (folder / "file").write_text("")
"""
    command = [sys.executable, "-c", script]
    started = [
        subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)}, cwd=ROOT)
        for _ in range(4)
    ]
    assert [process.wait() for process in started] == [0] * 4
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_right_already_is_not_written_again(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with lock(tmp_path / "c", env):
        discovery.publish(server(tmp_path / "c"), env)
        monkeypatch.delattr(runtime_dir, "write_private")
        discovery.publish(server(tmp_path / "c"), env)
