"""An OS lock that shows other processes whether this one still runs, however it ends."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

SUFFIX = ".holder"
_HELD: set[str] = set()
"""The holders of this process. Opening and closing such a file would release its lock."""


class HolderLock:
    """A lock file with a name of its own, held as long as the process lives."""

    def __init__(self, directory: Path) -> None:
        """Make and lock the file. Raise `OSError`."""
        self.name = secrets.token_hex(8)
        self._file = directory / f"{self.name}{SUFFIX}"
        draft = self._file.with_suffix(".draft")
        self._descriptor: int | None = os.open(
            draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600
        )
        _HELD.add(self.name)
        _try_lock(self._descriptor)
        # It has its name only once it is locked: no other process takes it for a dead one.
        draft.rename(self._file)

    def release(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                self._file.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
            _HELD.discard(self.name)

    def after_fork(self) -> None:
        """In a forked child: the lock is the parent's, and a child never has it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def dead_holders(directory: Path) -> list[str]:
    """Return the holders that ended without releasing their lock; their files are removed."""
    names = (file.name.removesuffix(SUFFIX) for file in directory.glob(f"*{SUFFIX}"))
    return [name for name in names if is_dead(directory, name)]


def is_dead(directory: Path, name: str) -> bool:
    """Whether the holder of this name has ended; its file is removed then."""
    if name in _HELD:
        return False
    file = directory / f"{name}{SUFFIX}"
    try:
        descriptor = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        if not _try_lock(descriptor):
            return False
        with suppress(OSError):
            file.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        if os.name == "nt":  # pragma: no cover - Windows has no fcntl
            import msvcrt  # noqa: PLC0415

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl  # noqa: PLC0415

            # Of the process, not of the open file: a forked child does not inherit it.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
