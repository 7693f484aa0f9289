"""How other commands find the server of a config: a file that only its user can read.

The file names process, port and token. Whoever serves holds a lock beside it, which the
system lets go of however the process ends; so a file that was left over is never in the way.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from attrs import asdict, field, frozen

from muxcore.errors import MultiplexerError

TOKEN_VARIABLE = "VIBE_MUX_TOKEN"  # noqa: S105 - the name of one
"""Where a server looks for its token, and a vibe for that of its server."""

ASK_SECONDS = 5.0
ONLY_MINE = 0o700
OK = 200


@frozen
class Server:
    """A server that runs. `config` is the path of its config's file."""

    host: str
    port: int
    token: str = field(repr=False)
    pid: int
    config: str

    @property
    def authority(self) -> str:
        """Its host and port, as a URL has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class NotReachableError(MultiplexerError):
    """No server answers where one should be."""


def directory(environment: Mapping[str, str]) -> Path:
    """Return this user's directory for what lasts as long as a process; make it if need be.

    Raise `MultiplexerError` if there is none that is this user's alone.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    places = [Path(tempfile.gettempdir()) / f"vibe-mux-{user}"]
    for variable in ("LOCALAPPDATA", "XDG_RUNTIME_DIR"):
        if named := environment.get(variable):
            places.insert(0, Path(named) / "vibe-mux")
    faults = []
    for place in places:
        try:
            place.mkdir(mode=ONLY_MINE, exist_ok=True)
            fault = _fault_of(place)
        except OSError as error:
            fault = error.strerror or type(error).__name__
        if not fault:
            return place
        faults.append(f"{place}: {fault}")
    raise MultiplexerError(f"no place for the file of the server ({'; '.join(faults)})")


def _fault_of(place: Path) -> str:
    """Say what is wrong with a directory; "" if it is this user's alone."""
    if not hasattr(os, "getuid"):  # pragma: no cover - Windows keeps users apart by itself
        return ""
    # In a directory that all may write to, anybody may have been there first.
    found = place.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        return "not this user's own"
    return "open to others" if stat.S_IMODE(found.st_mode) & ~ONLY_MINE else ""


def find(config: Path, environment: Mapping[str, str]) -> Server | None:
    """Return the server that was published for this config; it may have died since."""
    return _read(_file(config, environment))


def all_published(environment: Mapping[str, str]) -> tuple[Server, ...]:
    """Return all servers of this user that were published, dead ones too."""
    found = (_read(file) for file in sorted(directory(environment).glob("*.json")))
    return tuple(server for server in found if server is not None)


@contextlib.contextmanager
def lock(config: Path, environment: Mapping[str, str]) -> Generator[int | None]:
    """Hold the right to be the server of this config while the block runs.

    Yield its descriptor, and None if somebody else has it. A process that inherits the
    descriptor has the right for as long as that is open there. Raise `MultiplexerError` if
    there is no place for it.
    """
    with _locked(_file(config, environment).with_suffix(".lock")) as claim:
        yield claim


def publish(server: Server, environment: Mapping[str, str]) -> None:
    """Let others find this server, whose claim one holds."""
    _write(_file(Path(server.config), environment), json.dumps(asdict(server)))


@contextlib.contextmanager
def publishing(
    server: Server, environment: Mapping[str, str], claim: int | None = None
) -> Generator[str]:
    """Let others find this server while the block runs; yield why they cannot, or "".

    `claim` is what `claiming` gave to whoever started this process.
    """
    try:
        file = _file(Path(server.config), environment)
    except MultiplexerError as error:
        yield str(error)
        return
    with _locked(file.with_suffix(".lock"), claim) as held:
        if held is None:
            yield "another server of this config runs"
            return
        publish(server, environment)
        try:
            yield ""
        finally:
            file.unlink(missing_ok=True)


def ask(server: Server, path: str) -> str:
    """Return what a server answers to a GET. Raise `NotReachableError`."""
    # Not `requests`: this never goes through a proxy, and starts at once. What it brings is
    # more than `run` needs before its program has started.
    import http.client  # noqa: PLC0415

    connection = http.client.HTTPConnection(server.host, server.port, timeout=ASK_SECONDS)
    headers = {"Authorization": f"Bearer {server.token}"}
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status == OK:
            return body.decode("utf-8", "replace")
        text = f"the server at port {server.port} answered {answer.status}"
    except (OSError, http.client.HTTPException) as error:
        text = f"no server answers at port {server.port} ({type(error).__name__})"
    finally:
        connection.close()
    raise NotReachableError(text)


def ask_json(server: Server, path: str) -> Any:
    return json.loads(ask(server, path))


def _file(config: Path, environment: Mapping[str, str]) -> Path:
    # One file may have several paths, and on some systems several spellings.
    path = os.path.normcase(config.expanduser().resolve())
    digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=12)
    return directory(environment) / f"{digest.hexdigest()}.json"


def _read(file: Path) -> Server | None:
    try:
        return Server(**json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _write(file: Path, text: str) -> None:
    """Write so that nobody else ever can read it, and nobody reads half of it."""
    draft = file.with_suffix(f".{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
    draft.replace(file)


@contextlib.contextmanager
def _locked(file: Path, descriptor: int | None = None) -> Generator[int | None]:
    """Hold a lock while the block runs; yield its descriptor if it was to be had.

    A descriptor that is given may hold it already.
    """
    if descriptor is None:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor if _lock(descriptor) else None
    finally:
        # This lets go of it, as does the end of the process.
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        if os.name == "nt":  # pragma: no cover - Windows has no fcntl
            import msvcrt  # noqa: PLC0415

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl  # noqa: PLC0415

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
