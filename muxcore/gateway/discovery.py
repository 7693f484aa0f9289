"""How other commands find the server of a config: a file that only its user can read.

The file holds host, port, token and process of the server. It counts only while the server
holds the lock beside it, so a file that a dead server left is never in the way.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Generator, Mapping
from pathlib import Path

from attrs import asdict, field, frozen

from muxcore.errors import MultiplexerError
from muxcore.gateway import runtime_dir
from muxcore.gateway.http.listening import literal
from muxcore.gateway.runtime_dir import directory


@frozen
class Server:
    """A server that runs. `config` is the path of its config."""

    host: str
    port: int
    token: str = field(repr=False)
    pid: int
    config: str

    @property
    def authority(self) -> str:
        """Its host and port, as a URL has them."""
        return f"{literal(self.host)}:{self.port}"


def find(config: Path, environment: Mapping[str, str]) -> Server | None:
    """Return the server that was published for this config and holds its lock.

    Raise `MultiplexerError` if there is no runtime directory.
    """
    return _read(_file(config, environment))


def all_published(environment: Mapping[str, str]) -> tuple[Server, ...]:
    """Return all servers of this user that can be found."""
    found = (_read(file) for file in sorted(directory(environment).glob("*.json")))
    return tuple(server for server in found if server is not None)


def socket_file(config: Path, environment: Mapping[str, str]) -> Path:
    """Return where the server of this config passes its listening socket on."""
    return _file(config, environment).with_suffix(".sock")


def remove_dead(environment: Mapping[str, str]) -> None:
    """Remove the files of servers that have died. Raise `MultiplexerError`, `OSError`."""
    runtime_dir.remove_dead(directory(environment))


@contextlib.contextmanager
def lock(config: Path, environment: Mapping[str, str]) -> Generator[int | None]:
    """Hold the right to be the server of this config while the block runs.

    Yield its descriptor, None if another process has it. The lock passes to a child that
    inherits the descriptor. Raise `MultiplexerError` or `OSError` if there is no place for it.
    """
    with runtime_dir.locked(_file(config, environment).with_suffix(".lock")) as held:
        yield held


def publish(server: Server, environment: Mapping[str, str]) -> None:
    """Let others find this server, whose lock the caller holds.

    Raise `MultiplexerError` or `OSError` if the file cannot be written.
    """
    file = _file(Path(server.config), environment)
    if _parse(file) != server:
        runtime_dir.write_private(file, json.dumps(asdict(server)))


@contextlib.contextmanager
def publishing(
    server: Server, environment: Mapping[str, str], lock_descriptor: int | None = None
) -> Generator[str]:
    """Let others find this server while the block runs; yield why they cannot, else "".

    `lock_descriptor` is what `lock` gave to the process that started this one. Being found is
    a convenience: no problem with the directory or the file raises.
    """
    with contextlib.ExitStack() as stack:
        try:
            hindrance = _publish_until_closed(server, environment, lock_descriptor, stack)
        except MultiplexerError as error:
            hindrance = str(error)
        except OSError as error:
            hindrance = f"its file cannot be written ({error.strerror or error})"
        yield hindrance


def _publish_until_closed(
    server: Server,
    environment: Mapping[str, str],
    lock_descriptor: int | None,
    stack: contextlib.ExitStack,
) -> str:
    lock_file = _file(Path(server.config), environment).with_suffix(".lock")
    runtime_dir.remove_dead(lock_file.parent)
    if stack.enter_context(runtime_dir.locked(lock_file, lock_descriptor)) is None:
        return "another server of this config runs"
    stack.callback(runtime_dir.remove_with_lock, lock_file)
    publish(server, environment)
    return ""


def _file(config: Path, environment: Mapping[str, str]) -> Path:
    # One file may have several paths, and on some systems several spellings.
    path = os.path.normcase(os.path.realpath(config))
    digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=12)
    return directory(environment) / f"{digest.hexdigest()}.json"


def _read(file: Path) -> Server | None:
    server = _parse(file)
    return server if runtime_dir.is_held(file.with_suffix(".lock")) else None


def _parse(file: Path) -> Server | None:
    try:
        return Server(**json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
