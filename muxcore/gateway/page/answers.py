"""Answers to the page: its files, and the pool, now or at a past moment, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from attrs import frozen

from muxcore.errors import MultiplexerError
from muxcore.explaining.story import story_json, story_text
from muxcore.gateway.http.wire import ErrorResponse, Head, RefusedError
from muxcore.gateway.page import history
from muxcore.gateway.page.files import PAGE, PAGE_FIELDS, PAGE_FILES, page_file
from muxcore.gateway.page.parts import moment_of
from muxcore.gateway.page.view import pool_view
from muxcore.shell import clock

if TYPE_CHECKING:
    from muxcore.gateway.reload import ReloadingPool

LARGEST_NUMBER = 10**14
"""As milliseconds since 1970, a moment that a `datetime` can hold."""


def page_answer(
    request: Head, pool: ReloadingPool
) -> tuple[bytes, str, int, Mapping[str, str]]:
    """Return the body, its media type, the status and further fields. Raise `RefusedError`."""
    if request.path in PAGE_FILES:
        return *page_file(request.path), HTTPStatus.OK, PAGE_FIELDS
    try:
        found = _json_of(
            request.path.removeprefix(f"{PAGE}/"), _Query(parse_qs(request.query)), pool
        )
    except (MultiplexerError, OSError) as error:
        # A state file may be gone by now.
        raise _not_found(str(error)) from None
    return json.dumps(found).encode(), "application/json", HTTPStatus.OK, PAGE_FIELDS


@frozen
class _Query:
    values: Mapping[str, list[str]]

    def number(self, name: str) -> int:
        text = self.values.get(name, [""])[-1]
        with suppress(ValueError):
            if abs(number := int(text)) <= LARGEST_NUMBER:
                return number
        problem = (
            f"{name} is {text[:20]!r}, expected a whole number up to {LARGEST_NUMBER}."
        )
        raise RefusedError(ErrorResponse(HTTPStatus.BAD_REQUEST, problem))


def _json_of(name: str, query: _Query, pool: ReloadingPool) -> Any:
    multiplexer = pool.multiplexer
    match name:
        case "pool" if "at" in query.values:
            at = moment_of(query.number("at"))
            return history.pool_at(multiplexer, query.number("journal"), at)
        case "pool":
            return pool_view(pool.status(), multiplexer.state, clock.now())
        case "journals":
            return history.journals(multiplexer)
        case "parts":
            return history.parts(multiplexer, query.number("journal"))
        case "part":
            number, since = query.number("journal"), query.number("since")
            return history.part(multiplexer, number, since)
        case "story":
            number, since = query.number("journal"), query.number("since")
            call = query.values.get("call", [""])[-1]
            story = history.story(multiplexer, number, since, call)
            return {"text": story_text(story), **story_json(story)}
        case _:
            raise _not_found("There is nothing here.")


def _not_found(text: str) -> RefusedError:
    return RefusedError(ErrorResponse(HTTPStatus.NOT_FOUND, text, code="not_found"))
