"""Decides from the head alone whether a request is accepted, before its body is read. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from http import HTTPStatus

from muxcore.gateway.http.listening import literal
from muxcore.gateway.http.wire import ErrorResponse, Head, RefusedError
from muxcore.gateway.page.files import PAGE_FILES
from muxcore.gateway.proof import same
from muxcore.text import printable

LARGEST_BODY = 64 * 1024 * 1024
OPEN_PATHS = frozenset({"/health", "/healthz", "/proof", *PAGE_FILES})
"""Paths that need no token: they reveal that a server is listening, and that it is this one."""

JSON_TYPE = "application/json"


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a server at this address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def hosts_for(address: str, port: int) -> frozenset[str]:
    """Return the valid values of `Host` on a connection to this address.

    `localhost` is the only name: the owner of any other name can make it resolve to this
    machine, so that a browser sends requests here on behalf of a page of theirs.
    """
    names = {literal(address), *(("localhost",) if is_loopback(address) else ())}
    return frozenset(f"{name}:{port}" for name in names)


def check_request(head: Head, hosts: frozenset[str], token: str) -> None:
    """Raise `RefusedError` if the request must go no further."""
    if (response := _refusal(head, hosts, token)) is not None:
        raise RefusedError(response)


def _refusal(head: Head, hosts: frozenset[str], token: str) -> ErrorResponse | None:
    fields = head.fields
    host = fields.get("host", "").lower()
    # A container is reached by a name, and often by another port.
    name = host.rpartition(":")[0] or host
    if hosts.isdisjoint((host, name)):
        text = "The Host is not the one of this server"
        hint = f": `serve --allow-host {printable(name)}` allows it" if name else ""
        return ErrorResponse(HTTPStatus.MISDIRECTED_REQUEST, f"{text}{hint}.")
    if "origin" in fields and not _is_own_script(head):
        return ErrorResponse(
            HTTPStatus.FORBIDDEN, "No web page may ask here.", "permission_error"
        )
    if head.path in OPEN_PATHS:
        return None
    if not _is_authorized(fields, token):
        return ErrorResponse(
            HTTPStatus.UNAUTHORIZED,
            "The token is missing or wrong: send it as `Authorization: Bearer TOKEN`"
            " or `x-api-key: TOKEN`.",
            "authentication_error",
            "invalid_api_key",
            fields={"WWW-Authenticate": "Bearer"},
        )
    return _body_refusal(head)


def _is_own_script(head: Head) -> bool:
    """Whether the page loads a module of its own, for which browsers send an `Origin`."""
    own = f"http://{head.fields['host']}".lower()
    return head.path in PAGE_FILES and head.fields["origin"].lower() == own


def _is_authorized(fields: Mapping[str, str], token: str) -> bool:
    scheme, _, credentials = fields.get("authorization", "").partition(" ")
    if same(credentials.strip(), token) and scheme.lower() == "bearer":
        return True
    # Anthropic's clients may send a key of their own in the other field.
    return same(fields.get("x-api-key", ""), token)


def _body_refusal(head: Head) -> ErrorResponse | None:
    if head.method == "GET":
        error = ErrorResponse(HTTPStatus.BAD_REQUEST, "A GET has no body.")
        return None if head.length == 0 else error
    if head.method != "POST":
        return ErrorResponse(
            HTTPStatus.METHOD_NOT_ALLOWED,
            "Only GET and POST are known here.",
            fields={"Allow": "GET, POST"},
        )
    media_type = head.fields.get("content-type", "").partition(";")[0]
    if media_type.strip().lower() != JSON_TYPE:
        return ErrorResponse(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"The Content-Type must be {JSON_TYPE}."
        )
    if head.length is not None and head.length > LARGEST_BODY:
        return ErrorResponse(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"The body is longer than {LARGEST_BODY} bytes.",
        )
    if head.fields.get("expect", "100-continue").lower() != "100-continue":
        return ErrorResponse(
            HTTPStatus.EXPECTATION_FAILED, "Only 100-continue may be expected."
        )
    return None
