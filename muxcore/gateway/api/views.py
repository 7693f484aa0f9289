"""The views of the pool that are not for agents: the status, metrics, the page."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import parse_qs

from muxcore.gateway.api.authorization import JSON_TYPE
from muxcore.gateway.api.routing import Resource
from muxcore.gateway.api.status_page import status_json, status_text
from muxcore.gateway.front_doors.door import as_json
from muxcore.gateway.http.wire import Head
from muxcore.observers.metrics import Metrics
from muxcore.shell import clock

if TYPE_CHECKING:
    from muxcore.gateway.reload import ReloadingPool

View: TypeAlias = Literal[Resource.STATUS, Resource.METRICS, Resource.PAGE]
ViewAnswer: TypeAlias = tuple[bytes, str, int, Mapping[str, str]]
"""A body, its type, the status and more header fields."""

MARKDOWN_TYPE = "text/markdown; charset=utf-8"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NO_FIELDS: Mapping[str, str] = {}


def view_of(view: View, request: Head, pool: ReloadingPool, metrics: Metrics) -> ViewAnswer:
    match view:
        case Resource.STATUS:
            return _status(request, pool)
        case Resource.METRICS:
            text = metrics.text(pool.multiplexer.state, clock.now())
            return text.encode(), METRICS_TYPE, HTTPStatus.OK, NO_FIELDS
        case Resource.PAGE:
            # Few servers are looked at, and the page needs what reads journals.
            from muxcore.gateway.page.answers import page_answer  # noqa: PLC0415

            return page_answer(request, pool)


def _status(request: Head, pool: ReloadingPool) -> ViewAnswer:
    named = parse_qs(request.query).get("format")
    accepted = request.fields.get("accept", "")
    status, off = pool.status(), pool.off
    if named == ["json"] or (named is None and JSON_TYPE in accepted):
        return as_json(status_json(status, off)), JSON_TYPE, HTTPStatus.OK, NO_FIELDS
    return status_text(status, off).encode(), MARKDOWN_TYPE, HTTPStatus.OK, NO_FIELDS
