"""Who may ask: judged by a request's head alone, before any of its body is read. Pure."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection

from muxcore.gateway.http.wire import ErrorResponse, Head

LARGEST_BODY = 64 * 1024 * 1024
OPEN_PATHS = frozenset({"/healthz"})
"""Answered without the token: they say no more than that somebody is there."""

JSON_TYPE = "application/json"


def is_loopback(address: str) -> bool:
    """Whether nobody but this machine can reach a server at this address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def hosts_for(address: str, port: int) -> frozenset[str]:
    """Return what `Host` may be on a connection that has arrived at this address.

    A name is never among them, but for `localhost`: whoever owns a name may have it resolve
    to this machine, and so have a browser ask here in the name of a page of theirs.
    """
    literal = f"[{address}]" if ":" in address else address
    names = {literal, "localhost"} if is_loopback(address) else {literal}
    return frozenset(f"{name}:{port}" for name in names)


def refused(head: Head, hosts: Collection[str], token: str) -> ErrorResponse | None:
    """Say why this request goes no further. None: it may."""
    fields = head.fields
    if fields.get("host", "").lower() not in hosts:
        return ErrorResponse(421, "The Host is not the one of this server.")
    if "origin" in fields:
        return ErrorResponse(403, "No web page may ask here.", "permission_error")
    if head.path in OPEN_PATHS:
        return None
    if not _is_authorized(fields.get("authorization", ""), token):
        return ErrorResponse(
            401,
            "The token is missing or wrong: send it as `Authorization: Bearer TOKEN`.",
            "authentication_error",
            "invalid_api_key",
            fields={"WWW-Authenticate": "Bearer"},
        )
    return _body_refused(head)


def _is_authorized(offered: str, token: str) -> bool:
    scheme, _, credentials = offered.partition(" ")
    # Compared in a time that tells nothing of how much was right.
    same = hmac.compare_digest(
        credentials.strip().encode("latin-1"), token.encode("latin-1")
    )
    return scheme.lower() == "bearer" and same


def _body_refused(head: Head) -> ErrorResponse | None:
    if head.method == "GET":
        return ErrorResponse(400, "A GET has no body.") if head.length else None
    if head.method != "POST":
        return ErrorResponse(
            405, "Only GET and POST are known here.", fields={"Allow": "GET, POST"}
        )
    media_type = head.fields.get("content-type", "").partition(";")[0]
    if media_type.strip().lower() != JSON_TYPE:
        return ErrorResponse(415, f"The Content-Type must be {JSON_TYPE}.")
    if head.length > LARGEST_BODY:
        return ErrorResponse(413, f"The body is longer than {LARGEST_BODY} bytes.")
    if head.fields.get("expect", "100-continue").lower() != "100-continue":
        return ErrorResponse(417, "Only 100-continue may be expected.")
    return None
