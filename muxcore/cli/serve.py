"""`vibe-mux serve`: the pool as an OpenAI-compatible server on this machine."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from muxcore.cli.main import WELL, UsageError
from muxcore.errors import MultiplexerError
from muxcore.gateway import socket_sharing
from muxcore.gateway.access import TOKEN_VARIABLE
from muxcore.gateway.api.authorization import is_loopback
from muxcore.gateway.discovery import Server, publishing, socket_file
from muxcore.gateway.faults.spec import parse_drill
from muxcore.gateway.http.listening import literal
from muxcore.gateway.http.server import Gateway
from muxcore.gateway.page.files import page_address
from muxcore.gateway.reload import ReloadingPool
from muxcore.plugins.catalogue import FILE
from muxcore.shell import clock
from muxcore.shell.importing import imported

SHORTEST_EXPOSED_TOKEN = 16
DRAIN_SECONDS = 30.0
REOPENED_SECONDS = 1.0
"""A log that was moved away gets lines for so long."""
FIRST_LEASE_SECONDS = 30.0
PRIVATE = "a fire drill is on"


def run(options: argparse.Namespace) -> int:
    given = os.environ.get(TOKEN_VARIABLE, "")
    exposed = not is_loopback(options.host)
    if exposed and len(given) < SHORTEST_EXPOSED_TOKEN:
        text = (
            f"{options.host} can be reached from other machines: set {TOKEN_VARIABLE} to a"
            f" token of at least {SHORTEST_EXPOSED_TOKEN} characters"
        )
        raise UsageError(text)
    try:
        drills = [parse_drill(text) for text in options.drills]
    except ValueError as error:
        raise UsageError(f"--break: {error}") from None
    stopping = _Stopping()
    pool = ReloadingPool(options.config, drills=drills, state=FILE)
    try:
        gateway = Gateway(
            pool,
            given or secrets.token_urlsafe(32),
            host=options.host,
            port=options.port,
            listener=_inherited(options.listener),
            exposed=exposed,
            hosts=options.hosts,
            on_unleased=stopping.ask if options.leased else None,
        )
    except (OSError, ValueError) as error:
        pool.close()
        raise MultiplexerError(f"cannot serve at {options.host}: {error}") from None
    _log(pool, options)
    try:
        _serve(gateway, stopping, options, shows_token=not given)
    finally:
        # Calls that still run are cut.
        pool.close()
        gateway.stop()
    return WELL


def _log(pool: ReloadingPool, options: argparse.Namespace) -> None:
    """Write a line for each call, if the command line asks for that."""
    if not (options.log or options.log_file):
        return
    # What makes stories is slow to import, and few servers write a log.
    from muxcore.explaining.story import story_line  # noqa: PLC0415
    from muxcore.observers.calls import as_json, call_log  # noqa: PLC0415

    form = as_json if options.log == "json" else story_line

    write = _print if options.log_file is None else _LogFile(options.log_file).write
    pool.multiplexer.observe("log", call_log(write, form))


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _LogFile:
    """A file to append lines to. It is opened anew now and then, so that it can be moved away.

    To open it for each line would take longer than to make the line.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: int | None = None
        self._since = 0.0

    def write(self, line: str) -> None:
        if self._file is None or clock.elapsed() - self._since > REOPENED_SECONDS:
            former, self._file = self._file, None
            if former is not None:
                os.close(former)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._file, self._since = os.open(self._path, flags, 0o666), clock.elapsed()
        os.write(self._file, f"{line}\n".encode())


class _Stopping:
    """Waits until the server must stop: on a signal, or when its last lease ends."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def ask(self) -> None:
        self._asked.set()

    def on_signals(self) -> None:
        """Stop at the first signal; the next one ends the process at once."""
        for name in ("SIGTERM", "SIGINT", "SIGHUP"):
            number = getattr(signal, name, None)
            # What was ignored at the start stays so, as under nohup.
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._signalled)

    def wait(self, seconds: float | None = None) -> bool:
        if os.name != "nt":
            return self._asked.wait(seconds)
        # On Windows, a signal does not interrupt waiting for a lock.
        left = float("inf") if seconds is None else seconds  # pragma: no cover
        while left > 0 and not self._asked.wait(min(left, 0.5)):  # pragma: no cover
            left -= 0.5
        return self._asked.is_set()  # pragma: no cover

    def _signalled(self, number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        self._asked.set()


def _serve(
    gateway: Gateway,
    stopping: _Stopping,
    options: argparse.Namespace,
    *,
    shows_token: bool,
) -> None:
    config = gateway.pool.file or Path("config.toml")
    server = Server(
        _reachable(options.host), gateway.port, gateway.token, os.getpid(), str(config)
    )
    stopping.on_signals()
    gateway.start()
    # The fire drill of one `run` must not affect another.
    is_private = options.leased and bool(options.drills)
    published = (
        nullcontext(PRIVATE)
        if is_private
        else publishing(server, os.environ, _kept(options.lock))
    )
    with published as hindrance, _sharing(gateway, config, hindrance):
        _announce(gateway, options, hindrance, shows_token=shows_token)
        # The server is ready before requests is imported; the first call need not wait for it.
        with suppress(RuntimeError):
            threading.Thread(target=_import_late, daemon=True).start()
        if not (options.leased and _stays_unleased(gateway, stopping)):
            stopping.wait()
    print("vibe-mux: stopping, when what runs has ended", file=sys.stderr)
    gateway.drain(DRAIN_SECONDS)


@contextmanager
def _sharing(gateway: Gateway, config: Path, hindrance: str) -> Generator[None]:
    """Pass copies of the socket on, so that the port outlives this server under an agent."""
    with ExitStack() as stack:
        if not hindrance and socket_sharing.IS_POSSIBLE:
            # Without it, others still find the server.
            with suppress(OSError, MultiplexerError):
                file = socket_file(config, os.environ)
                stack.enter_context(gateway.sharing_socket(file))
        yield


def _inherited(descriptor: int | None) -> socket.socket | None:
    return None if descriptor is None else socket.socket(fileno=_kept(descriptor))


def _kept(descriptor: int | None) -> int | None:
    """Return a descriptor that was passed on, and keep it from passing on further."""
    if descriptor is not None:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - the function's own form
    return descriptor


def _import_late() -> None:
    with suppress(MultiplexerError):
        imported("muxcore.shell.call.stream", "Stream")
        # An upgrade may replace the files under this process.
        imported("muxcore.gateway.page.answers", "page_answer")


def _stays_unleased(gateway: Gateway, stopping: _Stopping) -> bool:
    """Whether no client has taken a lease in time."""
    return not stopping.wait(FIRST_LEASE_SECONDS) and not gateway.leases


def _reachable(host: str) -> str:
    """Return the address at which this machine reaches a server at `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound here


def _announce(
    gateway: Gateway, options: argparse.Namespace, hindrance: str, *, shows_token: bool
) -> None:
    base = f"{gateway.url}/v1"
    # It asks for a token which is not in its address.
    reached = f"http://{literal(_reachable(options.host))}:{gateway.port}"
    page = page_address(reached, gateway.token if shows_token else "").rstrip("#")
    if options.json:
        output = {
            "url": base,
            "port": gateway.port,
            "pid": os.getpid(),
            "published": not hindrance,
        }
        if shows_token:
            output["token"] = gateway.token
        if options.page:
            output["page"] = page
        print(json.dumps(output), flush=True)
        return
    print(f"Serving {base}")
    print(f"Token: {gateway.token if shows_token else f'as in {TOKEN_VARIABLE}'}")
    print('Model: "mux" for the pool, or an alias for that model alone')
    key = gateway.token if shows_token else f'"${TOKEN_VARIABLE}"'
    print(f"export OPENAI_BASE_URL={base} OPENAI_API_KEY={key}", flush=True)
    if options.page:
        print(f"Page: {page}", flush=True)
    if hindrance:
        print(f"warning: not to be found by others: {hindrance}", file=sys.stderr)
    for warning in gateway.pool.config.warnings:
        print(f"warning: {warning}", file=sys.stderr)
