"""Where the user's state file is, and whether it is a good place for one."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

from muxcore.errors import BoardGoneError

FILE_NAME = "state.db"
ONLY_MINE, ONLY_MY_FILE = 0o700, 0o600
MOUNTS = Path("/proc/self/mountinfo")


def default_path(environment: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Return the path of the state file in the user's state directory."""
    home = Path(environment.get("HOME") or environment.get("USERPROFILE") or Path.home())
    if named := environment.get("XDG_STATE_HOME"):
        directory = Path(named)
    elif platform == "win32":
        directory = Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif platform == "darwin":
        directory = home / "Library" / "Application Support"
    else:
        directory = home / ".local" / "state"
    return directory / "vibe-mux" / FILE_NAME


def is_to_be_made(path: Path) -> bool:
    """Whether there is no file, and one can be made."""
    if os.path.lexists(path):
        return False
    there = next((place for place in path.parents if place.exists()), path)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def prepare(path: Path) -> None:
    """Make the directory and an empty file that only this user can read, if need be.

    Raise `BoardGoneError` if the place is no good; nothing that is there is changed then.
    """
    _expect_own(path)
    if host := network_host(path):
        raise BoardGoneError(f"{path} is on a network file system ({host})")
    try:
        path.parent.mkdir(mode=ONLY_MINE, parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, ONLY_MY_FILE)
        except FileExistsError:
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode):
                raise BoardGoneError(f"{path} is not a regular file") from None
            if os.name != "nt" and stat.S_IMODE(found.st_mode) & ~ONLY_MY_FILE:
                path.chmod(ONLY_MY_FILE)
        else:
            os.close(descriptor)
    except OSError as error:
        raise BoardGoneError(f"{path}: {error.strerror or error}") from error


def _expect_own(path: Path) -> None:
    """Raise `BoardGoneError` if another user owns the place, as a home is under `sudo`."""
    if not hasattr(os, "geteuid"):  # pragma: no cover - Windows keeps users apart by itself
        return
    for place in (path, *path.parents):
        try:
            found = place.lstat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BoardGoneError(f"{place}: {error.strerror or error}") from error
        if stat.S_ISLNK(found.st_mode):
            found = place.stat()
        if found.st_uid != os.geteuid():
            raise BoardGoneError(f"{place} belongs to another user")
        return


def network_host(path: Path, mounts: str | None = None) -> str:
    """Return the host that serves the file system of a path; "" for one of this machine.

    A mount from a network names its host: `host:/export`, `//host/share`, `user@host:dir`.
    SQLite's log needs memory that all who open the file share, which no network gives.
    """
    text = str(path)
    if text.startswith("\\\\"):
        return text.split("\\")[2]
    if mounts is None:
        try:
            mounts = MOUNTS.read_text("utf-8", "replace")
        except OSError:
            return ""
    best, source = "", ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, more = before.split(), after.split()
        if len(fields) < 5 or len(more) < 2:  # noqa: PLR2004 - see proc(5)
            continue
        point = fields[4].encode().decode("unicode_escape")
        inside = text == point or text.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, source = point, more[1]
    if source.startswith("//"):
        return source.split("/")[2]
    host, colon, rest = source.partition(":")
    is_host = bool(colon) and "/" not in host and not rest.isdigit()
    return host.rpartition("@")[2] if is_host else ""
