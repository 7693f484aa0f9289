"""`vibe-mux status`: the status of the running server's pool, once or live."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from muxcore.cli.main import WELL
from muxcore.config.read import config_path
from muxcore.errors import MultiplexerError
from muxcore.gateway.client import NotReachableError, ask, ask_json
from muxcore.gateway.discovery import Server, all_published, find
from muxcore.shell import clock
from muxcore.text import printable, printable_lines

REFRESH_SECONDS = 1.0
STATUS = "/status?format=json"


def run(options: argparse.Namespace) -> int:
    server = running_server(options.config)
    try:
        if options.watch:
            return watch(server)
        if options.json:
            print(json.dumps(ask_json(server, STATUS), indent=2))
        else:
            print(_markdown(server), end="")
    except NotReachableError as error:
        raise MultiplexerError(f"{error}; it may have ended") from None
    return WELL


def running_server(named: str | None) -> Server:
    """Return the server of the config that is named. Raise `MultiplexerError` if none runs."""
    config = config_path(named, os.environ)
    server = find(config, os.environ)
    if server is None:
        raise MultiplexerError(_not_found(config))
    return server


def _markdown(server: Server) -> str:
    """Return the text of `/mux`, without what could steer a terminal."""
    return printable_lines(ask(server, "/status?format=markdown"))


def _not_found(config: Path) -> str:
    text = f"no server runs for {config}; `vibe-mux serve` starts one"
    others = [server.config for server in all_published(os.environ)]
    if others:
        text += f" (there is one for {', '.join(map(printable, others))}: name it with --config)"
    return text


def watch(
    server: Server,
    pause: Callable[[float], object] | None = None,
) -> int:
    """Show the status until the server ends, or Ctrl-C."""
    pause = pause or threading.Event().wait
    with _display() as show:
        show(server)
        try:
            while True:
                pause(REFRESH_SECONDS)
                show(server)
        except NotReachableError:
            pass
    print("The server has ended.", file=sys.stderr)
    return WELL


@contextmanager
def _display() -> Generator[Callable[[Server], None]]:
    """Show the status in a table of rich; without that extra, print it when it has changed."""
    try:
        from rich.live import Live  # noqa: PLC0415 - an extra
    except ImportError:
        yield _printer()
        return
    with Live(auto_refresh=False) as live:
        yield lambda server: live.update(table(ask_json(server, STATUS)), refresh=True)


def _printer() -> Callable[[Server], None]:
    printed = ""

    def show(server: Server) -> None:
        nonlocal printed
        text = _markdown(server)
        if text != printed:
            print(f"{clock.now().astimezone():%H:%M:%S}\n{text}", flush=True)
            printed = text

    return show


def table(status: dict[str, Any]) -> Any:
    """Draw the status as a table of rich."""
    from rich.table import Table  # noqa: PLC0415 - an extra
    from rich.text import Text  # noqa: PLC0415

    title = f"{printable(status['mode'])}: {status['models_available']}/{status['models_in_pool']} available"
    if not status["enabled"]:
        title = "The multiplexer is off"
    drawn = Table(title=title, caption="\n".join(map(printable, status["notices"])) or None)
    for name in ("Model", "Standing"):
        drawn.add_column(name)
    for name in (
        "Now",
        "Success",
        "Limited",
        "Failed",
        "Tokens",
        "Cached",
        "Cost",
        "First",
    ):
        drawn.add_column(name, justify="right")
    for alias, model in status["per_model"].items():
        drawn.add_row(*map(Text, (printable(alias), _standing(model), *_numbers(model))))
    return drawn


def _standing(model: dict[str, Any]) -> str:
    if model["is_disabled"]:
        until = datetime.fromisoformat(model["disabled_until"]).astimezone()
        return f"🔴 until {until:%H:%M:%S} ({printable(model['disabled_for'])})"
    return "🟡 on probation" if model["on_probation"] else "🟢 active"


def _numbers(model: dict[str, Any]) -> tuple[str, ...]:
    sent, first = model["tokens_in"], model["first_content_ms"]
    return (
        str(model["in_flight"]),
        str(model["success_count"]),
        str(model["rate_limit_count"]),
        str(model["fail_count"]),
        f"{sent + model['tokens_out']:,}",
        f"{model['tokens_cached'] / sent:.0%}" if sent else "",
        f"${model['cost']:.2f}" if model["cost"] else "",
        "" if first is None else f"{first:,.0f} ms",
    )
