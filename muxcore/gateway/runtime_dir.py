"""The user's private directory for what lasts as long as a process, and lock files in it.

The system releases a lock however its process ends, so a lock, unlike a file, never lies about
who is alive.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Generator, Mapping
from pathlib import Path

from muxcore.errors import MultiplexerError
from muxcore.shell import clock

ONLY_MINE = 0o700
ONLY_MY_FILE = 0o600
LOCK_NAME = "lock"
YOUNG_SECONDS = 60.0
"""For this long after its last change, a directory may still be made or removed by a process."""

TRIES, PAUSE_SECONDS = 8, 0.01
"""`is_held` takes a lock for an instant, so taking one is tried this often."""

BUSY = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})


def directory(environment: Mapping[str, str]) -> Path:
    """Return this user's runtime directory; make it if need be.

    Raise `MultiplexerError` if no place is this user's alone, naming each and its problem.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    places = [Path(tempfile.gettempdir()) / f"vibe-mux-{user}"]
    for variable in ("LOCALAPPDATA", "XDG_RUNTIME_DIR"):
        if named := environment.get(variable):
            places.insert(0, Path(named) / "vibe-mux")
    problems = []
    for place in places:
        try:
            problem = make_private(place)
        except OSError as error:
            problem = error.strerror or type(error).__name__
        if not problem:
            return place
        problems.append(f"{place}: {problem}")
    raise MultiplexerError(f"no place for the file of the server ({'; '.join(problems)})")


def make_private(place: Path) -> str:
    """Make a directory that is this user's alone; return what is wrong with it, else "".

    Raise `OSError` if it cannot be made.
    """
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=ONLY_MINE)
        # The umask may have taken even the owner's rights.
        place.chmod(ONLY_MINE)
    return _privacy_problem(place)


def _privacy_problem(place: Path) -> str:
    """Return why a directory is not this user's alone, else "". Raise `OSError` if it is gone."""
    if not hasattr(os, "getuid"):  # pragma: no cover - Windows keeps users apart by itself
        return ""
    # In a directory that all users may write to, another user may have been first.
    found = place.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        return "not this user's own"
    mode = stat.S_IMODE(found.st_mode)
    if mode & ~ONLY_MINE:
        return "open to others"
    return "" if mode == ONLY_MINE else f"without the rights of its owner (mode {mode:o})"


def is_held(file: Path) -> bool:
    """Whether a process holds the lock of this file now."""
    try:
        descriptor = os.open(file, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _try_lock(descriptor, shared=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(
    file: Path, descriptor: int | None = None, *, creates: bool = True
) -> Generator[int | None]:
    """Hold the lock of a file while the block runs; yield its descriptor, None if it is taken.

    A `descriptor` that another process has passed on may hold the lock already. Raise
    `OSError` if the file cannot be made or locked, or is not there and not to be made.
    """
    held = _opened(file, creates=creates) if descriptor is None else descriptor
    try:
        # What was opened here is locked; Windows would refuse to lock it again.
        is_mine = held is not None and (descriptor is None or _try_lock(held))
        yield held if is_mine else None
    finally:
        if held is not None:
            # This releases the lock, as the end of the process does.
            os.close(held)


def _opened(file: Path, *, creates: bool) -> int | None:
    """Open and lock a lock file, None if another holds it."""
    flags = os.O_RDWR | os.O_CREAT if creates else os.O_RDWR
    pause = threading.Event()
    for _ in range(TRIES):
        descriptor = os.open(file, flags, ONLY_MY_FILE)
        try:
            _make_readable(descriptor)
            if _try_lock(descriptor):
                if _is_same(descriptor, file):
                    return descriptor
                # Its former holder has removed it: lock the new one.
                os.close(descriptor)
                continue
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        pause.wait(PAUSE_SECONDS)
    return None


def _make_readable(descriptor: int) -> None:
    # The umask may have taken even the owner's rights.
    if hasattr(os, "fchmod"):
        os.fchmod(descriptor, ONLY_MY_FILE)


def _is_same(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except OSError:
        return False


def _try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take the lock; return False if another process holds it. Raise `OSError`."""
    try:
        if os.name == "nt":  # pragma: no cover - Windows has no fcntl
            import msvcrt  # noqa: PLC0415

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl  # noqa: PLC0415

            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in BUSY:
            return False
        raise
    return True


def write_private(file: Path, text: str) -> None:
    """Write a file that only this user can read, whole or not at all. Raise `OSError`."""
    draft = file.with_suffix(f".{os.getpid()}")
    try:
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, ONLY_MY_FILE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            _make_readable(descriptor)
            opened.write(text)
        draft.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def remove_dead(folder: Path) -> None:
    """Remove the files of each lock in `folder` that no process holds: X.lock and all X.*."""
    for lock_file in folder.glob("*.lock"):
        with contextlib.suppress(OSError), locked(lock_file, creates=False) as held:
            if held is not None:
                remove_with_lock(lock_file)


def remove_with_lock(lock_file: Path) -> None:
    """Remove a lock file, whose lock the caller holds, and all files of the same name."""
    for file in lock_file.parent.glob(f"{lock_file.stem}.*"):
        if file != lock_file:
            with contextlib.suppress(OSError):
                file.unlink()
    # Last, so that a new lock finds no files of the old one.
    with contextlib.suppress(OSError):
        lock_file.unlink()


@contextlib.contextmanager
def temporary_directory(prefix: str) -> Generator[Path]:
    """Hold a private directory while the block runs. Raise `OSError` if it cannot be made.

    Those that a killed process left are removed by the first that holds one a minute later.
    """
    root = Path(tempfile.gettempdir())
    _remove_left_over(root, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        # The umask may have taken even the owner's rights.
        folder.chmod(ONLY_MINE)
        with locked(folder / LOCK_NAME):
            try:
                yield folder
            finally:
                # Under its lock, so that no other process treats it as left over.
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        # Windows removes no file that is open.
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left_over(root: Path, prefix: str) -> None:
    """Remove temporary directories of this user which no process holds, makes or removes."""
    for folder in root.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            age = clock.now().timestamp() - folder.stat().st_mtime
            if age < YOUNG_SECONDS or _privacy_problem(folder):
                continue
            lock_file = folder / LOCK_NAME
            if not lock_file.exists():
                shutil.rmtree(folder, ignore_errors=True)
                continue
            with locked(lock_file, creates=False) as held:
                if held is not None:
                    shutil.rmtree(folder, ignore_errors=True)
