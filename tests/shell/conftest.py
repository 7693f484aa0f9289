"""Two stand-in models on loopback, and the real library in front of them."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.standin import Model, StandInServer

Make = Callable[..., Multiplexer]
Start = Callable[..., Future[Any]]

KEY = "sk-canary-7f3a91c2d4e6"


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    yield
    # A socket left open warns here, in the test that left it.
    gc.collect()
    left = [thread.name for thread in threading.enumerate() if "vibe-mux" in thread.name]
    assert not left


@pytest.fixture
def start(alpha: Model, beta: Model) -> Iterator[Start]:
    """Run a function in its own thread; when a test fails, release the models."""
    with ThreadPoolExecutor(64, "of the test") as threads:
        yield threads.submit
        alpha.release()
        beta.release()


@pytest.fixture
def make(server: StandInServer) -> Iterator[Make]:
    """Make a multiplexer of these pool entries: aliases ("alpha"), or whole tables.

    `urls` are other addresses, by alias; `key` gives every provider one.
    """
    with ExitStack() as closing:

        def make_one(
            *pool: str | Mapping[str, Any],
            urls: Mapping[str, str] | None = None,
            key: str | None = None,
            provider: Mapping[str, Any] | None = None,
            model: Mapping[str, Any] | None = None,
            **section: Any,
        ) -> Multiplexer:
            addresses = {"alpha": server.url, "beta": server.url, **(urls or {})}
            names = {"alpha": "model-a", "beta": "model-b"}
            config = {
                "active_model": "alpha",
                "providers": [
                    {
                        "name": f"of-{alias}",
                        "api_base": url,
                        "api_key_env_var": "" if key is None else "STAND_IN_KEY",
                        **(provider or {}),
                    }
                    for alias, url in addresses.items()
                ],
                "models": [
                    {
                        "name": names.get(alias, alias),
                        "provider": f"of-{alias}",
                        "alias": alias,
                        **(model or {}),
                    }
                    for alias in addresses
                ],
                "multiplexer": {
                    "enabled": True,
                    "mode": "failover",
                    "pool": [{"model": e} if isinstance(e, str) else e for e in pool],
                    **section,
                },
            }
            env = {} if key is None else {"STAND_IN_KEY": key}
            return closing.enter_context(Multiplexer.from_config(config, env=env))

        yield make_one
