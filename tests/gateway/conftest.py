"""A gateway over stand-in models, and clients of it."""

from __future__ import annotations

import gc
import json
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import pytest
import requests
from attrs import frozen

from muxcore.gateway import Gateway, ReloadingPool
from muxcore.standin import Model, StandInServer
from tests.waiting import PATIENCE

TOKEN = "token-of-the-tests"
CHAT = "/v1/chat/completions"
PING: Any = [{"role": "user", "content": "ping"}]

Dial = Callable[..., AbstractContextManager[socket.socket]]


@pytest.fixture(autouse=True)
def _nothing_left_open(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if not {"serve", "stage", "place"}.isdisjoint(request.fixturenames):
        # A socket left open warns here, in the test that left it.
        gc.collect()


def config(url: str, *aliases: str, **section: Any) -> dict[str, Any]:
    """Write a config: the first model is the primary, the others are fallbacks."""
    pool: list[dict[str, Any]] = [
        {"model": alias, "is_fallback": alias != aliases[0]} for alias in aliases
    ]
    caps = section.pop("caps", {})
    for entry in pool:
        if entry["model"] in caps:
            entry["max_concurrent"] = caps[entry["model"]]
    return {
        "active_model": aliases[0],
        "providers": [{"name": "stand-in", "api_base": url, "backend": "generic"}],
        "models": [
            {"name": f"{alias}-model", "provider": "stand-in", "alias": alias}
            for alias in aliases
        ],
        "multiplexer": {"enabled": True, "mode": "failover", "pool": pool, **section},
    }


def as_toml(made: dict[str, Any]) -> str:
    """Write a config as a file, each top-level member on its own line."""
    return "".join(f"{name} = {_inline(value)}\n" for name, value in made.items())


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        members = (f"{name} = {_inline(each)}" for name, each in value.items())
        return "{" + ", ".join(members) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value)


@frozen(eq=False)
class Served:
    """A gateway that runs, with the models behind it by alias, and a client."""

    gateway: Gateway
    pool: ReloadingPool
    models: dict[str, Model]
    upstream: StandInServer
    session: requests.Session

    @property
    def large(self) -> Model:
        return self.models["large"]

    @property
    def small(self) -> Model:
        return self.models["small"]

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(self.gateway.url + path, timeout=PATIENCE, **options)

    def ask(self, path: str = CHAT, **body: Any) -> requests.Response:
        body = {"model": "mux", "messages": PING, **body}
        stream = bool(body.get("stream"))
        return self.session.post(
            self.gateway.url + path, json=body, timeout=PATIENCE, stream=stream
        )

    def in_flight(self, alias: str = "large") -> int:
        return self.pool.multiplexer.state[alias].health.in_flight


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    with ExitStack() as stack:

        def serve(
            *aliases: str,
            drills: Any = (),
            source: Any = None,
            adapt: Any = None,
            env: dict[str, str] | None = None,
            section: dict[str, Any] | None = None,
            **options: Any,
        ) -> Served:
            aliases = aliases or ("large", "small")
            models = {alias: Model(f"{alias}-model") for alias in aliases}
            upstream = stack.enter_context(StandInServer(models.values()))
            made = config(upstream.url, *aliases, **(section or {}))
            follower = ReloadingPool(
                made if source is None else source(made, upstream),
                env=env or {},
                drills=drills,
                adapt=adapt,
            )
            stack.callback(follower.close)
            gateway = stack.enter_context(Gateway(follower, TOKEN, **options))
            session = stack.enter_context(requests.Session())
            session.trust_env = False
            session.headers["Authorization"] = f"Bearer {TOKEN}"
            return Served(gateway, follower, models, upstream, session)

        yield serve


def head(gateway: Gateway, first: str = f"POST {CHAT} HTTP/1.1", **fields: str) -> bytes:
    """Write a request's head by hand; a field of "" is left out."""
    named = {
        "Host": f"127.0.0.1:{gateway.port}",
        "Authorization": f"Bearer {TOKEN}",
        "Content-Type": "application/json",
        **{name.replace("_", "-"): value for name, value in fields.items()},
    }
    lines = [first, *(f"{name}: {value}" for name, value in named.items() if value)]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


def chat(gateway: Gateway, first: str = f"POST {CHAT} HTTP/1.1", **body: Any) -> bytes:
    data = json.dumps({"model": "mux", "messages": PING, **body}).encode()
    return head(gateway, first, Content_Length=str(len(data))) + data


@contextmanager
def dialled(gateway: Gateway, data: bytes = b"") -> Generator[socket.socket]:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE) as client:
        client.sendall(data)
        yield client


def read_all(client: socket.socket) -> bytes:
    parts = []
    while data := client.recv(65536):
        parts.append(data)
    return b"".join(parts)


def read_until(client: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        more = client.recv(65536)
        assert more, f"the end of the connection came before {end!r}"
        data += more
    return data


def events(response: requests.Response) -> list[Any]:
    """Read a stream's events to its end."""
    found = [
        line.removeprefix("data: ")
        for line in response.iter_lines(decode_unicode=True)
        if line
    ]
    assert found[-1] == "[DONE]"
    return [json.loads(event) for event in found[:-1]]


def text_of(chunks: list[Any]) -> str:
    return "".join(
        chunk["choices"][0]["delta"].get("content") or ""
        for chunk in chunks
        if chunk["choices"]
    )
