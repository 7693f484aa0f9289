"""Measure what a gateway adds: `vibe-mux serve`, a bare pass-through, LiteLLM's proxy."""

from __future__ import annotations

import http.client
import json
import random  # noqa: TID251 - seeded
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from contenders import CHAT, KEY, MESSAGES, pool_config
from environments import Environment
from starting import as_toml
from workers import NO_ENVIRONMENT, PLACE

TOKEN = "token-of-the-benchmark"  # noqa: S105 - of a server that lives for minutes
PATIENCE = 120.0
"""Seconds for a server to become ready: LiteLLM's takes tens of seconds."""

Times = dict[str, list[float]]


@contextmanager
def servers(
    environments: dict[str, Environment], base: str, place: Path
) -> Iterator[dict[str, str]]:
    """Run the servers; yield the address of each, and of the model itself."""
    target = f"{base}/served"
    own = environments["own"]
    config = place / "served.toml"
    config.write_text(as_toml(pool_config(target, target)))
    commands = {
        "bare pass-through": [own.python, str(PLACE / "pass_through.py"), target],
        "vibe-mux serve": [
            own.script("vibe-mux"),
            "serve",
            "--config",
            str(config),
            "--port",
        ],
    }
    if "litellm" in environments:
        written = place / "litellm.yaml"
        written.write_text(_litellm_config(target))
        litellm = environments["litellm"].script("litellm")
        commands["LiteLLM's proxy"] = [
            litellm, "--config", str(written), "--host", "127.0.0.1", "--port",
        ]  # fmt: skip
    addresses = {"the model itself": target}
    with ExitStack() as stack:
        for name, command in commands.items():
            port = _free_port()
            process = subprocess.Popen(
                [*command, str(port)],
                env={**NO_ENVIRONMENT, **_variables(place)},
                cwd=place,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            path = "" if name == "bare pass-through" else "/v1"
            addresses[name] = f"http://127.0.0.1:{port}{path}"
            _wait_for(addresses[name], process)
        yield addresses


def answers(addresses: dict[str, str], count: int) -> Times:
    """Time whole answers by each path, in random order."""
    times: Times = defaultdict(list)
    clients = {name: _Client(address) for name, address in addresses.items()}
    for name in _shuffled(addresses, count):
        began = time.perf_counter()
        clients[name].ask()
        times[name].append(time.perf_counter() - began)
    return times


def first_contents(addresses: dict[str, str], count: int) -> Times:
    """Return the delays between the sending and the arrival of first content, by each path."""
    times: Times = defaultdict(list)
    clients = {name: _Client(address) for name, address in addresses.items()}
    for name in _shuffled(addresses, count):
        times[name].append(clients[name].first_content())
    return times


class _Client:
    """A minimal client."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._path = parts.path + CHAT
        self._connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=60
        )

    def ask(self) -> None:
        answer = self._send({})
        body = json.loads(answer.read())
        assert len(body["choices"][0]["message"]["content"]) > 100, body

    def first_content(self) -> float:
        answer = self._send({"stream": True})
        held = b""
        try:
            while True:
                piece = answer.read1(65536)
                moment = time.monotonic_ns()
                assert piece, held
                held += piece
                for line in held.split(b"\n")[:-1]:
                    if content := _content(line):
                        return (moment - int(content)) / 1e9
        finally:
            answer.read()

    def _send(self, members: dict) -> http.client.HTTPResponse:
        body = json.dumps({"model": "mux", "messages": MESSAGES, **members})
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        self._connection.request("POST", self._path, body, headers)
        answer = self._connection.getresponse()
        if answer.status != 200:
            raise OSError(f"{answer.status}: {answer.read()!r}")
        return answer


def _content(line: bytes) -> str:
    if not line.startswith(b"data: {"):
        return ""
    choices = json.loads(line[6:])["choices"]
    return (choices[0]["delta"].get("content") or "") if choices else ""


def _shuffled(addresses: dict[str, str], count: int) -> Iterator[str]:
    names = list(addresses)
    for _ in range(count):
        random.shuffle(names)
        yield from names


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    until = time.perf_counter() + PATIENCE
    while True:
        try:
            _Client(address).ask()
        except OSError:
            if process.poll() is not None or time.perf_counter() > until:
                raise
            time.sleep(0.1)  # noqa: TID251 - it does not announce when it is ready
        else:
            return


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _variables(place: Path) -> dict[str, str]:
    return {
        "BENCH_KEY": KEY,
        "VIBE_MUX_TOKEN": TOKEN,
        "LITELLM_MASTER_KEY": TOKEN,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HOME": str(place),
    }


def _litellm_config(target: str) -> str:
    entry = {
        "model_name": "mux",
        "litellm_params": {
            "model": "openai/bench-model",
            "api_base": target,
            "api_key": KEY,
        },
    }
    # JSON is YAML.
    return json.dumps({"model_list": [entry, entry]})
