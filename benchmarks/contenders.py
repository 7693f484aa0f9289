"""The contenders, each as a function that makes one small call.

A contender runs in its own process, with the packages of its environment: see `worker`.
Its packages are imported only there.
"""
# ruff: noqa: PLC0415

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Ask = Callable[[], str]

KEY = "sk-benchmark-0123456789abcdef"
MODEL = "bench-model"
MESSAGES = [
    {"role": "system", "content": "You are a coding agent. " * 8},
    {"role": "user", "content": "Make the tests pass, and say what was wrong. " * 4},
]
CHAT = "/chat/completions"


def http_client(base: str) -> Ask:
    """The standard library's client, as the baseline."""
    from http.client import HTTPConnection
    from urllib.parse import urlsplit

    parts = urlsplit(base)
    connection = HTTPConnection(parts.hostname or "", parts.port)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}

    def ask() -> str:
        body = json.dumps({"model": MODEL, "messages": MESSAGES})
        connection.request("POST", f"{parts.path}{CHAT}", body, headers)
        return _text(json.loads(connection.getresponse().read()))

    return ask


def requests_session(base: str) -> Ask:
    """The usual client today."""
    import requests

    session = requests.Session()
    headers = {"Authorization": f"Bearer {KEY}"}

    def ask() -> str:
        response = session.post(
            f"{base}{CHAT}",
            json={"model": MODEL, "messages": MESSAGES},
            headers=headers,
            timeout=60,
        )
        response.raise_for_status()
        return _text(response.json())

    return ask


def httpx_client(base: str) -> Ask:
    import httpx

    client = httpx.Client(timeout=60)
    headers = {"Authorization": f"Bearer {KEY}"}

    def ask() -> str:
        response = client.post(
            f"{base}{CHAT}", json={"model": MODEL, "messages": MESSAGES}, headers=headers
        )
        response.raise_for_status()
        return _text(response.json())

    return ask


def openai_sdk(base: str) -> Ask:
    from openai import OpenAI

    client = OpenAI(api_key=KEY, base_url=base, max_retries=0)

    def ask() -> str:
        made = client.chat.completions.create(model=MODEL, messages=MESSAGES)
        return made.choices[0].message.content or ""

    return ask


def multiplexer_llm(base: str) -> Ask:
    """Its calls are coroutines, all run by one event loop."""
    import asyncio

    from multiplexer_llm import Multiplexer
    from openai import AsyncOpenAI

    multiplexer = Multiplexer()
    for number in range(2):
        client = AsyncOpenAI(api_key=KEY, base_url=base, max_retries=0)
        multiplexer.add_model(client, 1, f"{MODEL}-{number}")
    loop = asyncio.new_event_loop()

    def ask() -> str:
        asking = multiplexer.chat.completions.create(messages=MESSAGES)
        return loop.run_until_complete(asking).choices[0].message.content or ""

    return ask


def litellm_router(base: str) -> Ask:
    import os

    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    from litellm import Router

    params = {"model": f"openai/{MODEL}", "api_base": base, "api_key": KEY}
    router = Router(
        model_list=[
            {"model_name": "pool", "litellm_params": {**params, "model": f"openai/m{n}"}}
            for n in range(2)
        ],
        num_retries=0,
    )

    def ask() -> str:
        made = router.completion(model="pool", messages=MESSAGES)
        return made.choices[0].message.content or ""

    return ask


def mux_of(size: int) -> Callable[[str], Ask]:
    def make(base: str) -> Ask:
        multiplexer = multiplexer_over(*[base] * size)

        def ask() -> str:
            return multiplexer.complete(MESSAGES).text

        return ask

    return make


def mux_with_a_file(*, locked: bool) -> Callable[[str], Ask]:
    """Keep the state in a file, which another connection may hold locked all the time."""

    def make(base: str) -> Ask:
        import sqlite3
        import tempfile

        path = f"{tempfile.mkdtemp()}/state.db"
        options = {"path": path}
        multiplexer = multiplexer_over(base, base, state="file", state_options=options)
        multiplexer.complete(MESSAGES)
        other = sqlite3.connect(path, isolation_level=None)
        if locked:
            other.execute("BEGIN IMMEDIATE")

        def ask() -> str:
            # The lock lasts as long as this function.
            assert other.in_transaction is locked
            return multiplexer.complete(MESSAGES).text

        return ask

    return make


def pool_config(*bases: str, **section: Any) -> dict[str, Any]:
    """Return a config with one model at each address, failing over in that order."""
    names = [f"model-{number}" for number in range(len(bases))]
    return {
        "providers": [
            {"name": f"at-{name}", "api_base": base, "api_key_env_var": "BENCH_KEY"}
            for name, base in zip(names, bases, strict=True)
        ],
        "models": [
            {"name": MODEL, "provider": f"at-{name}", "alias": name} for name in names
        ],
        "multiplexer": {
            "enabled": True,
            "mode": "failover",
            "pool": [{"model": name} for name in names],
            **section,
        },
    }


def multiplexer_over(*bases: str, **section: Any) -> Any:
    from muxcore import Multiplexer

    return Multiplexer.from_config(pool_config(*bases, **section), env={"BENCH_KEY": KEY})


def _text(completion: Any) -> str:
    return completion["choices"][0]["message"]["content"]


CONTENDERS: dict[str, Callable[[str], Ask]] = {
    "http.client": http_client,
    "requests": requests_session,
    "httpx": httpx_client,
    "openai": openai_sdk,
    "multiplexer-llm": multiplexer_llm,
    "litellm": litellm_router,
    "mux of 2": mux_of(2),
    "mux of 10": mux_of(10),
    "mux with a file": mux_with_a_file(locked=False),
    "mux with a locked file": mux_with_a_file(locked=True),
}
