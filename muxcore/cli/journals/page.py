"""`vibe-mux page`: the address of the page of the server that runs."""

from __future__ import annotations

import argparse
import json

from muxcore.cli.main import WELL
from muxcore.cli.status import running_server
from muxcore.errors import MultiplexerError
from muxcore.gateway.client import NotReachableError, ask
from muxcore.gateway.page.files import page_address


def run(options: argparse.Namespace) -> int:
    server = running_server(options.config)
    try:
        ask(server, "/healthz")
    except NotReachableError as error:
        raise MultiplexerError(f"{error}; it may have ended") from None
    address = page_address(f"http://{server.authority}", server.token)
    print(json.dumps({"url": address}) if options.json else address)
    return WELL
