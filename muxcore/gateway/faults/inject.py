"""Injects the faults of a drill where `requests` is called: in the sender of one endpoint.

Everything above it, from reading the response to choosing the next model, runs unchanged.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, assert_never

import requests
import urllib3

from muxcore.config.definitions import names_of
from muxcore.gateway.faults.spec import Drill, FaultSpec
from muxcore.shell.call.member import Wrapping
from muxcore.shell.http.cancel_scope import CancelScope
from muxcore.shell.http.connections import Sender
from muxcore.shell.http.fast_path import OutgoingRequest, Response

_ERRORS = {
    FaultSpec.RATE_LIMIT: ("rate_limit_error", "Rate limit exceeded"),
    FaultSpec.SERVER_ERROR: ("server_error", "The server had an error"),
    FaultSpec.BAD_KEY: ("authentication_error", "Incorrect API key provided"),
}
OPENING = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
"""The first event of a stream, before any content."""


def wrappings(drills: Sequence[Drill]) -> dict[str, Wrapping]:
    """Return the wrapping of the sender of each endpoint that has a drill, by alias.

    A vibe may rename the alias in the config as it starts, so its other name has the drill, too.
    """
    of_alias: dict[str, list[Drill]] = {}
    for drill in drills:
        for name in names_of(drill.alias):
            of_alias.setdefault(name, []).append(drill)
    return {alias: partial(_FaultySender, drills=own) for alias, own in of_alias.items()}


class _FaultySender:
    """Sends by `inner`, except when a drill is due."""

    def __init__(self, inner: Sender, drills: Sequence[Drill]) -> None:
        self._inner = inner
        self._drills = drills

    def send(
        self,
        request: OutgoingRequest,
        timeout: tuple[float, float],
        scope: CancelScope,
    ) -> Response:
        # All are asked: each counts the calls.
        due = [drill.fault for drill in self._drills if drill.is_due()]
        if due:
            return _faulty(due[0])
        return self._inner.send(request, timeout, scope)

    def close(self) -> None:
        self._inner.close()


class _TruncatedBody(io.BytesIO):
    """A body that fails after its last byte instead of ending."""

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
            return _response(HTTPStatus.OK, "text/event-stream", _TruncatedBody(OPENING))
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
