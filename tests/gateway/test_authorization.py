from __future__ import annotations

from typing import Any

import pytest

from muxcore.gateway.api.authorization import (
    LARGEST_BODY,
    check_request,
    hosts_for,
    is_loopback,
)
from muxcore.gateway.http.wire import Head, RefusedError

HOSTS = frozenset({"127.0.0.1:4000", "localhost:4000"})
TOKEN = "secret-token"
FIELDS = {
    "host": "127.0.0.1:4000",
    "authorization": f"Bearer {TOKEN}",
    "content-type": "application/json",
}


def judged(
    method: str = "POST", target: str = "/v1/chat/completions", length: int = 1, **more: str
) -> int | None:
    fields = {**FIELDS, **{name.replace("_", "-"): value for name, value in more.items()}}
    fields = {name: value for name, value in fields.items() if value != "-"}
    try:
        check_request(Head(method, target, True, fields, length), HOSTS, TOKEN)
    except RefusedError as error:
        return error.response.status
    return None


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({}, None),
        ({"host": "localhost:4000"}, None),
        ({"host": "LocalHost:4000"}, None),
        ({"host": "-"}, 421),
        ({"host": ""}, 421),
        ({"host": "127.0.0.1"}, 421),
        ({"host": "127.0.0.1:4001"}, 421),
        ({"host": "evil.example:4000"}, 421),
        ({"host": "127.0.0.1:4000.evil.example"}, 421),
        ({"host": "127.0.0.1:4000, evil.example"}, 421),
        ({"host": "127.1:4000"}, 421),
        ({"host": "localhost.:4000"}, 421),
        ({"host": "user@127.0.0.1:4000"}, 421),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:4000"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"authorization": "-"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "Bearer secret-toke"}, 401),
        ({"authorization": "Bearer secret-token2"}, 401),
        ({"authorization": "Bearer SECRET-TOKEN"}, 401),
        ({"authorization": "Bearer secret-tok\xe9n"}, 401),
        ({"authorization": "Basic secret-token"}, 401),
        ({"authorization": "secret-token"}, 401),
        ({"authorization": "bearer  secret-token"}, None),
        ({"content_type": "-"}, 415),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"content_type": "application/json-patch+json"}, 415),
        ({"content_type": "Application/JSON; charset=utf-8"}, None),
        ({"expect": "100-continue"}, None),
        ({"expect": "100-Continue"}, None),
        ({"expect": "the-best"}, 417),
    ],
)
def test_a_head_is_accepted_or_refused(more: dict[str, Any], status: int | None) -> None:
    assert judged(**more) == status


@pytest.mark.parametrize(
    ("method", "length", "status"),
    [
        ("GET", 0, None),
        ("GET", 1, 400),
        ("POST", 0, None),
        ("POST", LARGEST_BODY, None),
        ("POST", LARGEST_BODY + 1, 413),
        ("PUT", 0, 405),
        ("OPTIONS", 0, 405),
        ("get", 0, 405),
        ("HEAD", 0, 405),
    ],
)
def test_methods_and_bodies(method: str, length: int, status: int | None) -> None:
    assert judged(method, "/status", length) == status


def test_healthz_needs_a_host_but_no_token() -> None:
    assert judged("GET", "/healthz", 0, authorization="-") is None
    assert judged("GET", "/healthz", 0, authorization="-", host="evil:4000") == 421
    assert judged("GET", "/healthz", 0, authorization="-", origin="http://evil") == 403
    assert judged("GET", "/status", 0, authorization="-") == 401


@pytest.mark.parametrize(
    ("address", "hosts"),
    [
        ("127.0.0.1", {"127.0.0.1:5", "localhost:5"}),
        ("::1", {"[::1]:5", "localhost:5"}),
        ("192.168.1.9", {"192.168.1.9:5"}),
    ],
)
def test_the_valid_hosts_of_an_address(address: str, hosts: set[str]) -> None:
    assert hosts_for(address, 5) == hosts


@pytest.mark.parametrize(
    ("address", "is_one"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104 - not bound
        ("::", False),
        ("192.168.1.9", False),
        ("localhost.evil.example", False),
    ],
)
def test_loopback_addresses(address: str, is_one: bool) -> None:
    assert is_loopback(address) is is_one
