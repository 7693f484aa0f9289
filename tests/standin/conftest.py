from __future__ import annotations

import gc
import json
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import requests

from muxcore.standin import StandInServer
from tests.waiting import PATIENCE


@pytest.fixture(autouse=True)
def _nothing_left_open() -> Iterator[None]:
    yield
    # A socket that is left open warns here, in the test that left it open.
    gc.collect()


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture
def ask(session: requests.Session) -> Callable[..., requests.Response]:
    def ask(
        server: StandInServer, model: str = "alpha", provider: str = "", **body: Any
    ) -> requests.Response:
        return session.post(
            f"{server.url_of(provider)}/chat/completions",
            json={
                "model": model,
                "messages": [{"role": "user", "content": "ping"}],
                **body,
            },
            stream=True,
            timeout=PATIENCE,
        )

    return ask


@pytest.fixture
def dial() -> Callable[..., AbstractContextManager[socket.socket]]:
    """Connect, and send a request by hand, as no HTTP client would."""

    @contextmanager
    def dial(
        server: StandInServer, head: str = "HTTP/1.1", **body: Any
    ) -> Generator[socket.socket]:
        with socket.create_connection(
            ("127.0.0.1", server.port), timeout=PATIENCE
        ) as client:
            client.sendall(by_hand(head, **{"model": "alpha", **body}))
            yield client

    return dial


def by_hand(head: str, **body: Any) -> bytes:
    data = json.dumps(body)
    return (
        f"POST /v1/chat/completions {head}\r\ncontent-length: {len(data)}\r\n\r\n{data}"
    ).encode()
