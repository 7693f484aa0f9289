"""Hostile clients, byte by byte."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable

import pytest
import requests

from muxcore.errors import MultiplexerError
from muxcore.gateway import Gateway
from muxcore.gateway.http import server as serving
from muxcore.gateway.http.connection import ClientTimeouts
from muxcore.gateway.http.wire import LARGEST_HEAD
from tests.gateway.conftest import (
    CHAT,
    PING,
    TOKEN,
    Served,
    chat,
    dialled,
    head,
    read_all,
    read_until,
)
from tests.waiting import PATIENCE, wait_until

Serve = Callable[..., Served]
EVERYWHERE = "0.0.0.0"  # noqa: S104 - for as long as one test


def answered(gateway: Gateway, data: bytes) -> tuple[int, bytes]:
    """Return the one status that comes back, and all of the answer."""
    with dialled(gateway, data) as client:
        answer = read_all(client)
    assert answer.count(b"\r\nContent-Length: ") == 1
    return int(answer.split(b" ")[1]), answer


def test_every_answer_to_an_attack_is_an_error_that_ends_the_connection(
    serve: Serve,
) -> None:
    served = serve()
    gateway, body = served.gateway, b'{"model": "mux", "messages": [{"role": "user"}]}'
    length = str(len(body))
    smuggled = chat(gateway)
    attacks: dict[str, tuple[int, bytes]] = {
        "rebinding": (421, head(gateway, Host=f"evil.example:{gateway.port}")),
        "no host": (421, head(gateway, Host="")),
        "other port": (421, head(gateway, Host="127.0.0.1:1")),
        "two hosts": (400, head(gateway, host="evil.example")),
        "a page": (403, head(gateway, Origin="https://evil.example")),
        "preflight": (
            403,
            head(gateway, f"OPTIONS {CHAT} HTTP/1.1", Origin="https://evil.example"),
        ),
        "no token": (401, head(gateway, Authorization="")),
        "a wrong token": (401, head(gateway, Authorization="Bearer wrong")),
        "a token in the path": (401, head(gateway, f"GET /status?token={TOKEN} HTTP/1.1", Authorization="")),
        "a form": (415, head(gateway, Content_Type="text/plain", Content_Length=length) + body),
        "two lengths": (400, head(gateway, Content_Length=length, content_length="0") + body),
        "te and cl": (
            400,
            head(gateway, Content_Length="5", Transfer_Encoding="chunked")
            + b"0\r\n\r\n"
            + smuggled,
        ),
        "chunks that lie": (
            400,
            head(gateway, Transfer_Encoding="chunked") + b"1\r\nab\r\n0\r\n\r\n" + smuggled,
        ),
        "chunks, compressed": (501, head(gateway, Transfer_Encoding="gzip, chunked") + b"0\r\n\r\n" + smuggled),
        "te hidden": (400, head(gateway).replace(b"\r\n\r\n", b"\r\nTransfer-Encoding : chunked\r\n\r\n") + smuggled),
        "a folded field": (400, head(gateway).replace(b"Host:", b"X: a\r\n b\r\nHost:")),
        "bare line feeds": (400, head(gateway).replace(b"\r\nHost", b"\nHost")),
        "a proxy": (400, head(gateway, "GET http://127.0.0.1/ HTTP/1.1")),
        "nothing there": (404, head(gateway, "GET /v2 HTTP/1.1")),
        "wrong method": (405, head(gateway, f"GET {CHAT} HTTP/1.1")),
        "a body with a GET": (400, head(gateway, "GET /status HTTP/1.1", Content_Length="2") + b"{}"),
        "huge body": (413, head(gateway, Content_Length="99999999999")),
        "huge field": (431, head(gateway, X_Big="a" * LARGEST_HEAD)),
        "endless head": (431, b"GET /status HTTP/1.1\r\nX: " + b"a" * 3 * LARGEST_HEAD),
        "many fields": (431, head(gateway, **{f"X_{n}": "a" for n in range(120)})),
        "tls": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        "http 2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    }  # fmt: skip
    for name, (status, data) in attacks.items():
        found, answer = answered(gateway, data)
        assert (name, found) == (name, status)
        assert b"Connection: close" in answer, name
        fields, _, text = answer.partition(b"\r\n\r\n")
        assert json.loads(text)["error"]["message"], name
        assert b"access-control" not in fields.lower(), name
        assert TOKEN.encode() not in answer, name
    assert not served.large.requests
    assert served.get("/status").status_code == 200


def test_the_body_of_an_unauthorized_request_is_not_read(serve: Serve) -> None:
    served = serve()
    data = head(served.gateway, Authorization="", Content_Length="60000000")
    # No byte of the body is sent, so a server that waits for one waits for ever.
    assert answered(served.gateway, data)[0] == 401


def test_a_client_still_sending_can_read_why_it_was_refused(serve: Serve) -> None:
    served = serve()
    answer = requests.post(
        served.gateway.url + CHAT,
        data=b"x" * 5_000_000,
        headers={"Content-Type": "application/json"},
        timeout=PATIENCE,
        proxies={"no": "proxy"},
    )
    assert answer.status_code == 401


def test_a_slow_client_has_a_limited_time_in_all(serve: Serve) -> None:
    served = serve(timeouts=ClientTimeouts(head=0.3, body=0.3, linger=0.1))
    whole = chat(served.gateway)
    end_of_head = whole.index(b"\r\n\r\n") + 4
    for start in (0, end_of_head):
        with dialled(served.gateway, whole[:start]) as client:
            client.settimeout(0.02)
            answer = b""
            # Each byte is in good time, and all of them take longer than is allowed.
            for byte in whole[start:]:
                client.sendall(bytes([byte]))
                with contextlib.suppress(TimeoutError):
                    answer = client.recv(65536)
                    break
            assert answer.startswith(b"HTTP/1.1 408")
    assert not served.large.requests


def test_a_flood_after_a_refusal_is_read_for_a_limited_time(serve: Serve) -> None:
    served = serve(timeouts=ClientTimeouts(linger=0.2))
    refused = head(served.gateway, Authorization="")
    # Sending fails once the gateway has closed the connection.
    with dialled(served.gateway, refused) as client, contextlib.suppress(ConnectionError):
        while True:
            client.sendall(b"x" * 65536)


def test_an_idle_connection_is_closed(serve: Serve) -> None:
    served = serve(timeouts=ClientTimeouts(fresh=0.1, idle=0.1))
    with dialled(served.gateway) as client:
        assert client.recv(10) == b""
    with dialled(served.gateway, head(served.gateway, "GET /healthz HTTP/1.1")) as client:
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        assert client.recv(10) == b""


@pytest.mark.parametrize("part", [b"", b"GET /sta", b"head", b"body"])
def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(
    serve: Serve, part: bytes
) -> None:
    served = serve()
    whole = chat(served.gateway)
    data = {b"head": whole[: whole.index(b"\r\n\r\n")], b"body": whole[:-4]}.get(part, part)
    with dialled(served.gateway, data):
        wait_until(lambda: bool(served.gateway._connections))
    wait_until(lambda: not served.gateway._connections)
    assert not served.large.requests


def test_connections_beyond_the_limit_are_refused(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "MOST_CONNECTIONS", 2)
    served = serve()
    status = head(served.gateway, "GET /status HTTP/1.1")
    with dialled(served.gateway, status) as one, dialled(served.gateway, status) as two:
        for client in (one, two):
            read_until(client, b"\r\n\r\n")
        assert answered(served.gateway, b"")[0] == 503
    wait_until(lambda: not served.gateway._connections)
    assert served.get("/healthz").status_code == 200


def test_without_threads_a_connection_is_refused(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve()
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == "vibe-mux client":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        assert answered(served.gateway, b"")[0] == 503
    assert served.get("/healthz").status_code == 200


def test_without_descriptors_the_server_waits_for_some(serve: Serve) -> None:
    served = serve()
    listener = served.gateway._listener
    failures = [OSError(24, "Too many open files"), BlockingIOError()]

    class Failing:
        def accept(self) -> tuple[socket.socket, object]:
            if failures:
                raise failures.pop(0)
            return listener.accept()

        def __getattr__(self, name: str) -> object:
            return getattr(listener, name)

    served.gateway._listener = Failing()  # type: ignore[assignment]
    assert served.get("/healthz").status_code == 200
    assert not failures


def test_an_address_that_is_not_loopback_must_be_explicit(serve: Serve) -> None:
    served = serve()
    with pytest.raises(ValueError, match="other machines"):
        Gateway(served.pool, TOKEN, host=EVERYWHERE)
    with Gateway(served.pool, TOKEN, host=EVERYWHERE, exposed=True) as gateway:
        assert gateway.url == f"http://0.0.0.0:{gateway.port}"
        url = f"http://127.0.0.1:{gateway.port}/healthz"
        assert (
            requests.get(url, timeout=PATIENCE, proxies={"no": "proxy"}).status_code == 200
        )
        # The address it listens at is no address to connect to.
        assert answered(gateway, head(gateway, "GET /healthz HTTP/1.1", Host=f"0.0.0.0:{gateway.port}"))[0] == 421  # fmt: skip


@pytest.mark.parametrize("token", ["", "two words", "gr\xfcn", "a\nb"])
def test_a_token_must_fit_into_a_header(serve: Serve, token: str) -> None:
    served = serve()
    with pytest.raises(ValueError, match="a token is"):
        Gateway(served.pool, token)


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6 here")
def test_ipv6_loopback_is_served(serve: Serve) -> None:
    served = serve()
    try:
        gateway = Gateway(served.pool, TOKEN, host="::1")
    except OSError:
        pytest.skip("this machine has no ::1")
    with gateway:
        assert gateway.url == f"http://[::1]:{gateway.port}"
        answer = requests.get(
            gateway.url + "/healthz", timeout=PATIENCE, proxies={"no": "proxy"}
        )
        assert answer.status_code == 200


def test_connections_without_the_token_never_lock_the_owner_out(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "MOST_UNAUTHORIZED", 10)
    served = serve()
    health = head(served.gateway, "GET /healthz HTTP/1.1", Authorization="")
    with contextlib.ExitStack() as stack:
        flood = [
            stack.enter_context(dialled(served.gateway, data))
            for data in (b"", b"GET /st", health) * 20
        ]
        assert served.get("/status").status_code == 200
        # The oldest have gone; the owner's connection stays however many come.
        for client in flood[:40]:
            with contextlib.suppress(ConnectionResetError):
                read_all(client)
        flood += [stack.enter_context(dialled(served.gateway)) for _ in range(60)]
        wait_until(lambda: len(served.gateway._connections) <= 11)
        assert served.get("/status").status_code == 200
        assert sum(c.is_authorized for c in served.gateway._connections) == 1


def test_a_connection_is_closed_soon_unless_a_request_has_the_token(serve: Serve) -> None:
    served = serve(timeouts=ClientTimeouts(fresh=0.05, idle=60.0))
    health = head(served.gateway, "GET /healthz HTTP/1.1", Authorization="")
    status = head(served.gateway, "GET /status HTTP/1.1")
    with (
        dialled(served.gateway) as silent,
        dialled(served.gateway, health) as stranger,
        dialled(served.gateway, status) as owner,
    ):
        assert read_all(silent) == b""
        assert b"200 OK" in read_all(stranger)
        read_until(owner, b"Statistics")
        wait_until(lambda: len(served.gateway._connections) == 1)
    assert ClientTimeouts().fresh == 10.0


@pytest.mark.skipif(os.name == "nt", reason="the limit is POSIX's")
@pytest.mark.parametrize(("limit", "connections"), [(64, 16), (20_000, 1000), (8, 4)])
def test_the_number_of_connections_fits_the_limit_of_open_files(
    monkeypatch: pytest.MonkeyPatch, limit: int, connections: int
) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert serving.connection_limit() == connections
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert serving.connection_limit() == 1000


def test_a_system_without_any_thread_is_an_error(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    gateway = serve().gateway
    pool = gateway.pool
    other = Gateway(pool, TOKEN)
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(MultiplexerError, match="no thread can be started"):
        other.start()
    monkeypatch.undo()
    other.start()
    other.stop()


def test_a_body_in_chunks_is_answered_and_the_connection_kept(serve: Serve) -> None:
    """Clients of .NET and Chromium send their bodies like this."""
    served = serve()
    body = json.dumps({"model": "mux", "messages": PING}).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    with requests.Session() as session:
        session.trust_env = False
        for _ in range(2):
            pieces = (body[at : at + 20] for at in range(0, len(body), 20))
            answer = session.post(
                served.gateway.url + CHAT, data=pieces, headers=headers, timeout=PATIENCE
            )
            assert answer.status_code == 200
    assert len(served.large.requests) == 2
    assert served.large.requests[0].body["messages"] == PING
