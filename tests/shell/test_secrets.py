"""A key reaches its own provider's host and nothing else (rule 9)."""

from __future__ import annotations

import json
import logging
import pickle
import socket
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import pytest
import requests

from muxcore import MultiplexerError
from muxcore.config import Key
from muxcore.plugins.backend import Failure
from muxcore.plugins.backend import HttpResponse as Answered
from muxcore.shell.call.member import Limits, Member
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.shell.http.connections import Connections
from muxcore.shell.masking import MASK
from muxcore.standin import (
    Answer,
    Behaviour,
    ConnectionClosed,
    ConnectionReset,
    Cut,
    Delivery,
    ErrorEvent,
    Model,
    Raw,
    Silence,
    StandInServer,
    StatusAnswer,
    dead_port,
    refusal,
)
from muxcore_backends.generic import Generic

Make = Callable[..., Multiplexer]
Start = Callable[..., Future[Any]]

PING = [{"role": "user", "content": "ping"}]
KEY = "sk-canary-7f3a91c2d4e6"
ECHO = f'Incorrect API key provided: {KEY}. It was "{KEY}".'

FAULTS: dict[str, Behaviour] = {
    "a refused key, repeated": refusal(401, ECHO),
    "a refused request, repeating the key": refusal(400, ECHO),
    "an outage that repeats the key": refusal(503, ECHO),
    "a rate limit that repeats the key": refusal(429, ECHO),
    "a page that repeats the key": StatusAnswer(500, f"<title>{ECHO}</title>"),
    "a long text that repeats the key": StatusAnswer(500, "x" * 280 + " " + KEY),
    "an error in band": ErrorEvent({"message": ECHO, "code": 500}),
    "an error after content": ErrorEvent({"message": ECHO, "code": 500}, after=1),
    "a header that repeats the key": StatusAnswer(
        429, {}, {"x-echo": KEY, "retry-after": KEY, "x-request-id": KEY}
    ),
    "a broken chunk": Raw((f"data: {KEY}\n\n".encode(),)),
    "a redirect": StatusAnswer(307, {}, {"location": f"/v1/models?key={KEY}"}),
    "closed": ConnectionClosed(),
    "reset": ConnectionReset(),
    "cut": Cut(1),
    "silent": Silence(),
    "no HTTP": Delivery((f"{KEY}\r\n\r\n".encode(),)),
    "bad chunks": Delivery(
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + KEY.encode(),)
    ),
}


class Everything(logging.Handler):
    """All log records, with their arguments."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name} {record.getMessage()} {record.args!r}")


@pytest.fixture
def logged() -> Iterator[list[str]]:
    root, handler = logging.getLogger(), Everything()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler.lines
    root.removeHandler(handler)
    root.setLevel(level)


def texts_of(error: BaseException) -> Generator[str]:
    """All texts that an error, its causes and its frames may show."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield str(each)
        yield repr(each)
        yield repr(vars(each))
        yield "".join(traceback.format_exception(each))
        yield from of_frames(each.__traceback__)
        todo += [each.__cause__, each.__context__]
        todo += [arg for arg in each.args if isinstance(arg, BaseException)]
    with suppress(TypeError, pickle.PicklingError):
        yield repr(pickle.dumps(error))


def of_frames(trace: TracebackType | None) -> Generator[str]:
    while trace is not None:
        if trace.tb_frame.f_code.co_filename != __file__:
            for name, value in trace.tb_frame.f_locals.items():
                yield f"{name}: {value!r}"
                for inner in (getattr(value, "__dict__", None), contents(value)):
                    yield repr(inner)
        trace = trace.tb_next


def contents(value: object) -> object:
    """What a debugger shows of an object with slots, a level deep."""
    slots = [
        name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())
    ]
    if isinstance(value, Key):
        return None
    return [getattr(value, name, None) for name in slots]


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_no_report_of_a_failure_holds_a_key(
    make: Make, alpha: Model, logged: list[str], fault: str, *, streams: bool
) -> None:
    alpha.default = FAULTS[fault]
    silence = 100 if fault == "silent" else 60_000
    multiplexer = make("alpha", key=KEY, read_timeout_ms=silence, max_wait_ms=0)

    def ask() -> None:
        if streams:
            with multiplexer.stream(PING) as stream:
                list(stream)
        else:
            multiplexer.complete(PING)
            # Complete, it may be a good answer.
            raise MultiplexerError("well")

    with pytest.raises(MultiplexerError) as caught:
        ask()
    for text in texts_of(caught.value):
        assert KEY not in text
    shown = [str(multiplexer.status()), repr(multiplexer), repr(multiplexer.state)]
    shown += [
        json.dumps(multiplexer.status().to_json()),
        repr(multiplexer._runtime.members),
    ]
    shown += logged
    for text in shown:
        assert KEY not in text
    if "repeat" in fault and "header" not in fault:
        assert MASK in str(caught.value)
    if "an outage" in fault:
        assert str(caught.value).endswith(
            f'Incorrect API key provided: {MASK}. It was "{MASK}".'
        )
    # The key reached its provider.
    assert alpha.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_no_report_of_an_unreachable_server_holds_a_key(
    make: Make, logged: list[str]
) -> None:
    with dead_port() as url:
        multiplexer = make("alpha", key=KEY, urls={"alpha": url}, max_wait_ms=0)
        with pytest.raises(MultiplexerError) as caught:
            multiplexer.complete(PING)
    for text in [*texts_of(caught.value), *logged]:
        assert KEY not in text


def test_a_response_does_not_keep_the_key_of_its_request(make: Make) -> None:
    with make("alpha", key=KEY).stream(PING) as stream:
        list(stream)
        assert stream._answered is not None
        response: Any = stream._answered.answer[0]._response
        assert response.request.headers["content-type"] == "application/json"
        assert "authorization" not in response.request.headers


def test_no_plugin_sees_a_key(make: Make, alpha: Model) -> None:
    seen: list[Any] = []

    class Curious(Generic):
        def request(self, endpoint: Any, chat: Any) -> Any:
            seen.append((endpoint, chat))
            return super().request(endpoint, chat)

        def failure(self, answer: Answered, now: Any) -> Failure:
            seen.append((answer.headers, answer.body))
            return super().failure(answer, now)

    alpha.default = StatusAnswer(500, {"error": {"message": ECHO}}, {"x-echo": KEY})
    multiplexer = make("alpha", key=KEY, max_wait_ms=0)
    multiplexer._runtime.members["alpha"].backend = Curious()
    with pytest.raises(MultiplexerError):
        multiplexer.complete(PING)
    assert len(seen) == 2
    assert KEY not in repr(seen)
    assert MASK in repr(seen[1])


def test_a_placeholder_is_no_secret(make: Make, alpha: Model) -> None:
    # Masking it would garble unrelated text.
    alpha.default = refusal(500, "ollama is out of memory")
    multiplexer = make("alpha", key="ollama", max_wait_ms=0)
    with pytest.raises(MultiplexerError, match="ollama is out of memory"):
        multiplexer.complete(PING)


def test_an_earlier_key_is_masked_too() -> None:
    keys = iter([Key("sk-second-canary"), Key("sk-second-canary")])
    first = Key("sk-first-canary")
    from muxcore import Endpoint

    member = Member(
        Endpoint("alpha"), Generic(), first, Limits(1, 1, 1), find_key=lambda: next(keys)
    )
    assert member.renew_key(first)
    # Another call has renewed it meanwhile; then there is no other key.
    assert member.renew_key(first)
    assert not member.renew_key(member.key)
    text = "sk-first-canary or sk-second-canary"
    assert member.masked(text) == f"{MASK} or {MASK}"
    assert member.masked_bytes(text.encode()) == f"{MASK} or {MASK}".encode()


def test_a_refused_key_is_looked_for_again(
    server: StandInServer, alpha: Model, tmp_path: Path
) -> None:
    def locked(received: Any) -> Behaviour:
        good = received.headers["authorization"] == "Bearer sk-new-canary-1"
        return Answer("in") if good else refusal(401, "no")

    alpha.default = locked
    file = tmp_path / "config.toml"
    file.write_text(
        f"""
        active_model = "alpha"
        [[providers]]
        name = "p"
        api_base = "{server.url}"
        api_key_env_var = "STAND_IN_KEY"
        [[models]]
        name = "model-a"
        provider = "p"
        alias = "alpha"
        [multiplexer]
        enabled = true
        max_wait_ms = 0
        """,
        encoding="utf-8",
    )
    dotenv = tmp_path / ".env"
    dotenv.write_text("STAND_IN_KEY=sk-old-canary-1\n")
    with Multiplexer.from_config(file, env={}) as multiplexer:
        with pytest.raises(MultiplexerError, match="check STAND_IN_KEY"):
            multiplexer.complete(PING)
        assert len(alpha.requests) == 1
        dotenv.write_text("STAND_IN_KEY=sk-new-canary-1\n")
        multiplexer.reset()
        reply = multiplexer.complete(PING)
        assert reply.text == "in"
        assert [attempt.outcome for attempt in reply.attempts] == ["succeeded"]


# Where a key, or a prompt, could go astray.


@contextmanager
def proxy() -> Generator[tuple[str, list[bytes]]]:
    """Yield the address of a proxy that refuses, and its requests."""
    asked: list[bytes] = []

    def serve() -> None:
        while True:
            peer, _ = listener.accept()
            with peer:
                data = peer.recv(65536)
                if not data:
                    return
                asked.append(data)
                peer.sendall(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{address[1]}", asked
        finally:
            with socket.create_connection(address):
                pass
            thread.join()


PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*PROXIES, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


def test_loopback_is_never_proxied(
    make: Make, alpha: Model, environment: pytest.MonkeyPatch
) -> None:
    with proxy() as (address, asked):
        for name in PROXIES[:3]:
            environment.setenv(name, address)
        assert make("alpha").complete(PING).model == "alpha"
    assert not asked


def test_others_go_through_the_proxy_of_the_environment(
    make: Make, environment: pytest.MonkeyPatch
) -> None:
    with proxy() as (address, asked):
        environment.setenv("HTTP_PROXY", address)
        environment.setenv("HTTPS_PROXY", address)
        for scheme in ("http", "https"):
            urls = {"alpha": f"{scheme}://models.example/v1"}
            multiplexer = make("alpha", urls=urls, max_wait_ms=0)
            with pytest.raises(MultiplexerError) as caught:
                multiplexer.complete(PING)
            if scheme == "https":
                assert "the proxy did not let it through" in str(caught.value)
    assert asked[0].startswith(b"POST http://models.example/v1/chat/completions HTTP/1.1")
    assert asked[1].startswith(b"CONNECT models.example:443")


def test_no_proxy_is_obeyed(make: Make, environment: pytest.MonkeyPatch) -> None:
    with proxy() as (address, asked):
        environment.setenv("HTTP_PROXY", address)
        environment.setenv("NO_PROXY", "models.invalid")
        urls = {"alpha": "http://models.invalid/v1"}
        with pytest.raises(MultiplexerError, match="name could not be resolved"):
            make("alpha", urls=urls, max_wait_ms=0).complete(PING)
    assert not asked


def test_a_kind_of_proxy_that_is_not_installed_is_reported(
    make: Make, environment: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> NoReturn:
        raise requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")

    environment.setattr(requests.adapters, "SOCKSProxyManager", missing)
    environment.setenv("HTTP_PROXY", "socks5://127.0.0.1:1")
    multiplexer = make("alpha", urls={"alpha": "http://models.example/v1"}, max_wait_ms=0)
    with pytest.raises(MultiplexerError, match="its proxy is of a kind"):
        multiplexer.complete(PING)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("http://", "the address of its proxy makes no sense"),
        ("http://127.0.0.1:1", "the proxy did not let it through"),
    ],
)
def test_a_failure_of_a_proxy_is_reported(
    make: Make, environment: pytest.MonkeyPatch, address: str, text: str
) -> None:
    environment.setenv("HTTP_PROXY", address)
    urls = {"alpha": "http://models.example/v1"}
    with pytest.raises(MultiplexerError) as caught:
        make("alpha", urls=urls, max_wait_ms=0).complete(PING)
    assert text in str(caught.value)


def test_the_environment_is_read_once_for_each_endpoint(
    make: Make, alpha: Model, environment: pytest.MonkeyPatch
) -> None:
    import requests

    times: list[str] = []
    merge = requests.Session.merge_environment_settings

    def counted(self: requests.Session, url: str, *args: Any, **options: Any) -> Any:
        times.append(url)
        return merge(self, url, *args, **options)

    environment.setattr(requests.Session, "merge_environment_settings", counted)
    multiplexer = make("alpha")
    for _ in range(3):
        multiplexer.complete(PING)
    assert len(times) == 1


def test_a_netrc_does_not_replace_the_key(
    make: Make, alpha: Model, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login eve password secret\n")
    netrc.chmod(0o600)
    environment.setenv("NETRC", str(netrc))
    make("alpha", key=KEY).complete(PING)
    assert alpha.requests[0].headers["authorization"] == f"Bearer {KEY}"
    make("alpha").complete(PING)
    assert "authorization" not in alpha.requests[1].headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(
    make: Make, alpha: Model, server: StandInServer, status: int
) -> None:
    with StandInServer([Model("model-a", provider="elsewhere")]) as other:
        target = f"{other.url_of('elsewhere')}/chat/completions"
        alpha.default = StatusAnswer(status, {}, {"location": target})
        for streams in (False, True):
            multiplexer = make("alpha", key=KEY, max_wait_ms=0)
            ask: Any = multiplexer.complete
            if streams:
                ask = lambda _, to=multiplexer: to.stream(PING).__enter__()  # noqa: E731
            with pytest.raises(MultiplexerError):
                ask(PING)
        assert not other.other_requests
    assert len(alpha.requests) == 2


def test_cookies_are_not_kept(make: Make, alpha: Model) -> None:
    alpha.then(
        Raw(
            (b'{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}',),
            headers={"set-cookie": "who=me"},
        )
    )
    multiplexer = make("alpha")
    multiplexer.complete(PING)
    multiplexer.complete(PING)
    assert "cookie" not in alpha.requests[1].headers


# A connection closed by the server while idle is no failure of the model.


def closes_idle(count: int = 2) -> Callable[[], Any]:
    """Make a server that answers once on each connection, and resets it at the next request.

    So it looks open until it is used, as if it were closed at that moment.
    """
    body = b'{"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}]}'
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    @contextmanager
    def serving() -> Generator[tuple[str, list[int]]]:
        requests: list[int] = []

        def serve() -> None:
            for number in range(count):
                peer, _ = listener.accept()
                with peer:
                    for _ in range(2):
                        if not peer.recv(65536):
                            break
                        requests.append(number)
                        if len(requests) % 2:
                            peer.sendall(answer)
                        else:
                            break

        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=serve)
            thread.start()
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", requests
            finally:
                thread.join()

    return serving


def test_a_connection_closed_while_idle_is_not_a_failure(make: Make) -> None:
    with closes_idle()() as (url, requests):
        multiplexer = make("alpha", urls={"alpha": url})
        for _ in range(2):
            reply = multiplexer.complete(PING)
            assert [attempt.outcome for attempt in reply.attempts] == ["succeeded"]
        multiplexer.close()
    assert requests == [0, 0, 1]


def test_a_connection_known_to_be_closed_is_not_used(make: Make, alpha: Model) -> None:
    with StandInServer([Model("model-a")]) as first:
        port = first.port
        multiplexer = make("alpha", urls={"alpha": first.url})
        multiplexer.complete(PING)
    with StandInServer([Model("model-a")], port=port):
        reply = multiplexer.complete(PING)
        assert [attempt.outcome for attempt in reply.attempts] == ["succeeded"]


def test_a_new_connection_that_is_closed_is_a_failure(make: Make, alpha: Model) -> None:
    alpha.default = ConnectionClosed()
    multiplexer = make("alpha", max_wait_ms=0)
    with pytest.raises(MultiplexerError):
        multiplexer.complete(PING)
    # One request, not two.
    assert len(alpha.requests) == 1


# TLS.

CERTIFICATES = Path(__file__).parent / "certificates"


@contextmanager
def tls(
    *, handshake: bool = True, answers: bool = True, met: list[object] | None = None
) -> Generator[str]:
    """Yield the base URL of a server with TLS, or with an incomplete handshake.

    `met` collects its connections.
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem")
    body = b'{"choices": [{"message": {"content": "safe"}, "finish_reason": "stop"}]}'
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    def serve(peer: socket.socket) -> None:
        with suppress(OSError), peer:
            if not handshake:
                peer.recv(65536)
                peer.recv(65536)
                return
            with context.wrap_socket(peer, server_side=True) as wrapped:
                while wrapped.recv(65536) and answers:
                    wrapped.sendall(answer)

    def accept() -> None:
        while True:
            peer, _ = listener.accept()
            if stopping.is_set():
                peer.close()
                return
            thread = threading.Thread(target=serve, args=(peer,))
            thread.start()
            threads.append(thread)
            if met is not None:
                met.append(thread)

    threads: list[threading.Thread] = []
    stopping = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            stopping.set()
            with socket.create_connection(listener.getsockname()):
                accepting.join()
            for thread in threads:
                thread.join()


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_certificate_authority_of_the_environment_is_trusted(
    make: Make, environment: pytest.MonkeyPatch, variable: str
) -> None:
    environment.setenv(variable, str(CERTIFICATES / "ca.pem"))
    with tls() as url:
        multiplexer = make("alpha", urls={"alpha": url}, key=KEY)
        assert multiplexer.complete(PING).text == "safe"
        # Over the idle connection.
        assert multiplexer.complete(PING).text == "safe"
        multiplexer.close()


def test_missing_certificate_files_are_named(
    make: Make, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("REQUESTS_CA_BUNDLE", "/gone/ca.pem")
    multiplexer = make("alpha", urls={"alpha": "https://127.0.0.1:1"}, max_wait_ms=0)
    with pytest.raises(MultiplexerError) as caught:
        multiplexer.complete(PING)
    multiplexer.close()
    expected = "the certificates that the environment names are not there: /gone/ca.pem"
    assert expected in str(caught.value)


def test_an_unknown_certificate_is_not_trusted(
    make: Make, environment: pytest.MonkeyPatch
) -> None:
    with tls() as url:
        multiplexer = make("alpha", urls={"alpha": url}, key=KEY, max_wait_ms=0)
        with pytest.raises(MultiplexerError) as caught:
            multiplexer.complete(PING)
        multiplexer.close()
    assert "its certificate or TLS connection failed" in str(caught.value)
    for text in texts_of(caught.value):
        assert KEY not in text


def test_a_new_tls_connection_that_is_closed_is_a_failure(
    make: Make, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATES / "ca.pem"))
    met: list[object] = []
    with tls(answers=False, met=met) as url:
        multiplexer = make("alpha", urls={"alpha": url}, key=KEY, max_wait_ms=0)
        with pytest.raises(MultiplexerError):
            multiplexer.complete(PING)
        multiplexer.close()
    # One request: the connection was not used before.
    assert len(met) == 1


def test_a_handshake_ends_by_the_deadline(
    make: Make, environment: pytest.MonkeyPatch
) -> None:
    with tls(handshake=False) as url:
        multiplexer = make("alpha", urls={"alpha": url}, max_wait_ms=0)
        with pytest.raises(MultiplexerError, match="deadline"):
            multiplexer.complete(PING, timeout=0.2)
        multiplexer.close()


def test_connections_can_be_closed_and_opened_again() -> None:
    connections = Connections("http://127.0.0.1:1/v1", 2, loopback=True)
    connections.close()
    connections.close()


def test_a_member_makes_its_connections_when_first_needed(make: Make) -> None:
    multiplexer = make("alpha")
    member = multiplexer._runtime.members["alpha"]
    assert member._connections is None
    multiplexer.complete(PING)
    first = member.connections
    assert member.connections is first
    member.close()
    member.close()
    assert member.connections is not first
    assert timedelta(seconds=member.limits.connect) == timedelta(seconds=10)


ESCAPED = {
    "as it is": KEY,
    "in JSON": "".join(f"\\u{ord(letter):04x}" for letter in KEY),
    "in JSON, in capitals": "".join(f"\\u{ord(letter):04X}" for letter in KEY),
    "in part": f"\\u0073{KEY[1:]}",
    "in JSON within JSON": f"\\\\u0073{KEY[1:]}",
    "in a URL": "".join(f"%{ord(letter):02x}" for letter in KEY),
    "in HTML": "".join(f"&#{ord(letter)};" for letter in KEY),
}


@pytest.mark.parametrize("form", ESCAPED)
def test_a_key_that_is_echoed_escaped_is_masked(
    make: Make, alpha: Model, form: str
) -> None:
    body = f'{{"error": {{"message": "Incorrect key: {ESCAPED[form]}, try again"}}}}'
    alpha.default = StatusAnswer(401, body.encode())
    with pytest.raises(MultiplexerError) as caught:
        make("alpha", key=KEY, max_wait_ms=0).complete(PING)
    assert f"Incorrect key: {MASK}, try again" in str(caught.value)


def test_a_slash_in_a_key_may_be_escaped() -> None:
    from muxcore.shell.masking import masked

    assert masked(r"no sk\/with/slash here", ["sk/with/slash"]) == f"no {MASK} here"


@pytest.mark.parametrize("length", range(1, len(KEY)))
def test_the_beginning_of_a_key_at_the_end_of_a_cut_message_is_masked(length: int) -> None:
    from muxcore.shell.masking import SHORTEST_SECRET, masked

    shown = masked(f"your key is {KEY[:length]}…", [KEY])
    is_long = length >= SHORTEST_SECRET
    assert shown == f"your key is {MASK if is_long else KEY[:length]}…"


@pytest.mark.parametrize("form", ESCAPED)
def test_the_beginning_of_a_key_is_masked_in_any_form(form: str) -> None:
    from muxcore.shell.masking import masked

    assert masked(f"{ESCAPED[form]}...", [f"{KEY}-and-more"]) == f"{MASK}..."


def test_the_beginning_of_a_key_within_a_text_is_no_key() -> None:
    from muxcore.shell.masking import masked

    key = 5 * KEY
    assert masked(f"{key} begins a key.", [f"{key}1"]) == f"{key} begins a key."


def test_the_beginning_of_a_key_of_repeated_letters_is_masked_as_a_whole() -> None:
    from muxcore.shell.masking import masked

    assert masked("key " + 3 * "12345678", [4 * "12345678"]) == f"key {MASK}"


@pytest.mark.parametrize("stream", [False, True])
def test_secrets_in_extra_headers_are_masked_like_keys(
    make: Make, alpha: Model, stream: bool
) -> None:
    secret = "header-canary-51f3"
    alpha.default = refusal(500, f"who is {secret}?")
    headers = {"X-Gateway-Auth": f"Token {secret}"}
    multiplexer = make("alpha", provider={"extra_headers": headers}, max_wait_ms=0)
    ask = (
        multiplexer.stream(PING).__enter__
        if stream
        else partial(multiplexer.complete, PING)
    )
    with pytest.raises(MultiplexerError) as caught:
        ask()
    assert alpha.requests[0].headers["x-gateway-auth"] == f"Token {secret}"
    for shown in (*texts_of(caught.value), str(multiplexer.status())):
        assert secret not in shown
    assert MASK in str(caught.value)
