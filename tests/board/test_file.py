"""The state file: the kit, its safety, and files which cannot be used."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from muxcore.board import state_dir
from muxcore.board.database import Database
from muxcore.board.file import FileBoard
from muxcore.board.journal_file import JournalBounds, JournalFile
from muxcore.core.entries import Asked
from muxcore.core.outcomes import Failed, Limit, RateLimited, Reset, Succeeded
from muxcore.core.records import Call
from muxcore.core.sharing.facts import PlaceDisabled, WindowLearnt
from muxcore.journal.codec import decode
from muxcore.journal.recent import JournalLine
from muxcore.plugins.board import BoardBusyError, BoardGoneError
from muxcore.shell import clock
from muxcore.testing import FaultyPluginError, check_board

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def board(path: Path, now: Callable[[], datetime] = clock.now) -> FileBoard:
    return FileBoard(now=now, environment={}, path=path)


def test_the_file_passes_the_kit(state_file: Path) -> None:
    check_board(lambda: board(state_file))


def test_the_kit_finds_a_cap_that_is_not_kept(state_file: Path) -> None:
    class Generous(FileBoard):
        def _holders_ahead(self, place: str, ticket: int) -> list[str]:
            return super()._holders_ahead(place, ticket)[1:]

    with pytest.raises(FaultyPluginError, match="more slots are granted than there are"):
        check_board(lambda: Generous(now=clock.now, environment={}, path=state_file))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_only_its_user_can_read_the_file(state_file: Path) -> None:
    old = os.umask(0)
    try:
        one = board(state_file)
        one.publish("here", WindowLearnt(1))
    finally:
        os.umask(old)
    for file in state_file.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(state_file.parent.stat().st_mode) == 0o700
    one.close()


def test_what_is_left_of_a_duration_shrinks_with_the_age_of_the_fact(
    state_file: Path,
) -> None:
    now = [NOON]
    one = board(state_file, lambda: now[0])
    one.publish("here", PlaceDisabled(Limit.RATE, MINUTE))
    for passed, left in ((20, 40), (90, -30), (-3600, 60)):
        now[0] = NOON + timedelta(seconds=passed)
        (fact,) = one.hear(0)
        assert fact.fact == PlaceDisabled(Limit.RATE, timedelta(seconds=left))
    one.close()


def test_many_may_make_the_file_at_once(tmp_path: Path) -> None:
    def opens(number: int) -> str:
        ready.wait()
        for _ in range(1000):
            try:
                Database(tmp_path / f"{number}.db", b"salt").close()
            except BoardBusyError:
                continue
            except BoardGoneError as error:
                return str(error)
            return ""
        return "busy for ever"

    for number in range(40):
        ready = threading.Barrier(6)
        with ThreadPoolExecutor(6) as executor:
            assert set(executor.map(opens, [number] * 6)) == {""}


# -- Files which cannot be used ----------------------------------------------------------------


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()


def newer(path: Path) -> None:
    Database(path, b"salt").close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()


def damaged(path: Path) -> None:
    Database(path, b"salt").close()
    path.write_bytes(path.read_bytes()[:3000] + b"\xff" * 9000)


def no_database(path: Path) -> None:
    path.write_text("hello")


def directory(path: Path) -> None:
    path.mkdir()


REFUSED: dict[str, Callable[[Path], None]] = {
    "is a database of another program": foreign,
    "is of version 2, and this vibe-mux knows versions up to 1": newer,
    "malformed": damaged,
    "is not a state file": no_database,
    "is not a regular file": directory,
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_file_that_cannot_be_used_is_left_as_it_is(state_file: Path, text: str) -> None:
    state_file.parent.mkdir(mode=0o700)
    REFUSED[text](state_file)
    before = None if state_file.is_dir() else state_file.read_bytes()
    with pytest.raises(BoardGoneError, match=text):
        board(state_file)
    assert before is None or state_file.read_bytes() == before


def test_a_home_of_another_user_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under `sudo`, which keeps the home of the user."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1, raising=False)
    with pytest.raises(BoardGoneError, match="belongs to another user"):
        board(tmp_path / "vibe-mux" / "state.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "host"),
    [
        ("server:/export", "server"),
        ("//server/share", "server"),
        ("me@server:dir", "server"),
        ("[fe80::1]:/export", "[fe80"),
        ("/dev/sda1", ""),
        ("tmpfs", ""),
        ("overlay", ""),
    ],
)
def test_a_network_file_system_is_known_by_its_host(source: str, host: str) -> None:
    mounts = (
        "22 1 8:1 / / rw - ext4 /dev/root rw\n"
        f"23 22 0:50 / /home/me rw,relatime shared:1 - any {source} rw\n"
    )
    assert state_dir.network_host(Path("/home/me/state/state.db"), mounts) == host
    assert state_dir.network_host(Path("/home/men/state.db"), mounts) == ""


def test_a_locked_file_is_busy_and_not_gone(state_file: Path) -> None:
    one = board(state_file)
    other = sqlite3.connect(state_file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BoardBusyError):
        one.publish("here", WindowLearnt(1))
    assert list(one.hear(0)) == [], "reading never waits"
    other.execute("ROLLBACK")
    other.close()
    assert one.publish("here", WindowLearnt(1)) == 1
    one.close()


@pytest.mark.parametrize(
    ("environment", "platform", "path"),
    [
        ({"HOME": "/h"}, "linux", "/h/.local/state/vibe-mux/state.db"),
        ({"HOME": "/h", "XDG_STATE_HOME": "/s"}, "linux", "/s/vibe-mux/state.db"),
        ({"HOME": "/h"}, "darwin", "/h/Library/Application Support/vibe-mux/state.db"),
        ({"USERPROFILE": "/h", "LOCALAPPDATA": "/l"}, "win32", "/l/vibe-mux/state.db"),
    ],
)
def test_the_file_is_in_the_users_state_directory(
    environment: dict[str, str], platform: str, path: str
) -> None:
    assert state_dir.default_path(environment, platform) == Path(path)


# -- FreeLeases and processes ----------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from muxcore.board.file import FileBoard
from muxcore.shell import clock
board = FileBoard(now=clock.now, environment={}, path=Path(sys.argv[1]))
print(board.take("slots", 1).granted, flush=True)
sys.stdin.read()
"""


def test_the_leases_of_a_killed_process_end_at_once(state_file: Path) -> None:
    one = board(state_file)
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, str(state_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"True\n"
            waiting = one.take("slots", 1)
            assert not waiting.granted
            process.kill()
            process.wait()
            assert one.take("slots", 1, waiting.ticket).granted
            one.give_back(waiting)
    rows = one.database.read("PRAGMA integrity_check")
    assert rows == [("ok",)]
    one.close()
    holders = list(state_file.parent.glob("*.holder"))
    assert holders == []


def test_what_a_killed_process_leaves_is_removed_by_the_next_one(state_file: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(state_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        process.kill()
    assert len(list(state_file.parent.glob("*.holder"))) == 1
    one = board(state_file)
    assert [file.stem for file in state_file.parent.glob("*.holder")] == [one.name]
    assert one.database.read("SELECT count(*) FROM leases") == [(0,)]
    one.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_leaves_board_and_leases_to_its_parent(state_file: Path) -> None:
    one = board(state_file)
    lease = one.take("slots", 1)
    child = os.fork()
    if child == 0:  # pragma: no cover - the child's own process
        code = 1
        try:
            one.after_fork()
            try:
                one.publish("here", WindowLearnt(1))
            except BoardGoneError:
                code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    other = board(state_file)
    assert not other.take("slots", 1).granted, "the parent holds it still"
    one.give_back(lease)
    other.close()
    one.close()


# -- The journals ------------------------------------------------------------------------------


def test_a_journal_is_written_once_and_counted(state_file: Path) -> None:
    one = board(state_file)
    journal = JournalFile(one.database, one.name, NOON)
    lines = [
        JournalLine(1, NOON, Succeeded("a", 1)),
        JournalLine(2, NOON, RateLimited("a", 2)),
        JournalLine(3, NOON, Failed("b", 3)),
    ]
    places = {"a": "here", "b": "there"}
    for _ in range(2):
        journal.write(lines, places)
    rows = one.database.read("SELECT line FROM lines ORDER BY number")
    assert [decode(row[0]) for row in rows] == lines
    totals = journal.totals(places)
    assert (totals["a"].succeeded, totals["a"].rate_limited, totals["b"].failed) == (
        1,
        1,
        1,
    )
    assert totals["a"].since == NOON
    one.close()


def test_journals_are_bounded_by_age_and_size(state_file: Path) -> None:
    one = board(state_file)
    old = JournalFile(one.database, "old", NOON - timedelta(days=31))
    old.write([JournalLine(1, NOON - timedelta(days=31), Reset())], {})
    journal = JournalFile(one.database, one.name, NOON, JournalBounds(size=200_000))
    count = "SELECT count(*) FROM lines WHERE journal = ?"
    number = 0
    for _ in range(3):
        lines = []
        for _ in range(4000):
            number += 1
            lines.append(JournalLine(number, NOON, Asked(number, Call())))
        journal.write(lines, {})
    journal.prune(NOON)
    assert one.database.read(count, (old.number,)) == [(0,)]
    assert 0 < one.database.used_bytes() <= 200_000
    one.close()
