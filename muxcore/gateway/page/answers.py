"""What the page asks for: its files, and the pool as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from muxcore.gateway.http.wire import ErrorResponse, RefusedError
from muxcore.gateway.page.files import PAGE, PAGE_FIELDS, PAGE_FILES, page_file
from muxcore.gateway.page.view import pool_view
from muxcore.shell import clock

if TYPE_CHECKING:
    from muxcore.gateway.reload import ReloadingPool


def page_answer(
    path: str, pool: ReloadingPool
) -> tuple[bytes, str, int, Mapping[str, str]]:
    """Return the body, its media type, the status and further fields. Raise `RefusedError`."""
    if path in PAGE_FILES:
        return *page_file(path), HTTPStatus.OK, PAGE_FIELDS
    match path.removeprefix(f"{PAGE}/"):
        case "pool":
            found: Any = _live(pool)
        case _:
            raise RefusedError(
                ErrorResponse(
                    HTTPStatus.NOT_FOUND, "There is nothing here.", code="not_found"
                )
            )
    return json.dumps(found).encode(), "application/json", HTTPStatus.OK, PAGE_FIELDS


def _live(pool: ReloadingPool) -> dict[str, Any]:
    return pool_view(pool.status(), pool.multiplexer.state, clock.now())
