"""What a drill breaks: the connections of one endpoint, where `requests` is called.

All above them, from reading the answer to choosing the next model, is the real thing.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import partial
from typing import Any, assert_never

import requests
import urllib3

from muxcore.gateway.faults.spec import Drill, FaultSpec
from muxcore.shell.call.member import Wrapping
from muxcore.shell.http.cancel_scope import CancelScope
from muxcore.shell.http.connections import Connections
from muxcore.shell.http.fast_path import Response

_ERRORS = {
    FaultSpec.RATE_LIMIT: ("rate_limit_error", "Rate limit exceeded"),
    FaultSpec.SERVER_ERROR: ("server_error", "The server had an error"),
    FaultSpec.BAD_KEY: ("authentication_error", "Incorrect API key provided"),
}
OPENING = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
"""How a stream begins before any content."""


def wrappings(drills: Sequence[Drill]) -> dict[str, Wrapping]:
    """Return what goes round the connections of each endpoint that is drilled."""
    aliases = dict.fromkeys(drill.alias for drill in drills)
    return {
        alias: partial(_Broken, drills=[d for d in drills if d.alias == alias])
        for alias in aliases
    }


class _Broken(Connections):
    """The connections of an endpoint with the drills on it."""

    def __init__(self, inner: Connections, drills: Sequence[Drill]) -> None:
        # Not the base's own: nothing is sent but by the inner one.
        self._inner = inner
        self._drills = drills

    def send(
        self,
        request: requests.PreparedRequest,
        timeout: tuple[float, float],
        scope: CancelScope,
    ) -> Response:
        # Each is asked, since each counts the calls.
        due = [drill.fault for drill in self._drills if drill.is_due()]
        if due:
            return _faulty(due[0])
        return self._inner.send(request, timeout, scope)

    def close(self) -> None:
        self._inner.close()


class _BreakingOff(io.BytesIO):
    """A body that breaks off where it should go on."""

    def read(self, size: int | None = -1) -> bytes:
        if data := super().read(size):
            return data
        raise urllib3.exceptions.ProtocolError("the drill cut it")

    def read1(self, size: int | None = -1) -> bytes:
        return self.read(size)


def _faulty(fault: FaultSpec) -> Response:
    match fault:
        case FaultSpec.REFUSED:
            raise requests.exceptions.ConnectionError(ConnectionRefusedError("drill"))
        case FaultSpec.CUT:
            return _response(200, "text/event-stream", _BreakingOff(OPENING))
        case FaultSpec.RATE_LIMIT | FaultSpec.SERVER_ERROR | FaultSpec.BAD_KEY:
            kind, message = _ERRORS[fault]
            error = {"message": f"{message} (fire drill)", "type": kind}
            body = io.BytesIO(json.dumps({"error": error}).encode())
            return _response(int(fault), "application/json", body)
        case _ as never:
            assert_never(never)


def _response(status: int, content_type: str, body: io.BytesIO) -> requests.Response:
    fields = {"Content-Type": content_type}
    raw: Any = urllib3.HTTPResponse(
        body=body, headers=fields, status=status, preload_content=False
    )
    response = requests.Response()
    response.status_code = status
    response.headers.update(fields)
    response.raw = raw
    return response
