"""Measure what a gateway adds: `vibe-mux serve`, a bare pass-through, LiteLLM's proxy."""

from __future__ import annotations

import http.client
import json
import random  # noqa: TID251 - seeded
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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

RESPONSES = "vibe-mux serve, Responses"
MESSAGES_WAY = "vibe-mux serve, Messages"


@dataclass(frozen=True)
class Api:
    """How a client asks, and where it finds the words of an answer and of an event."""

    path: str
    request: dict
    words: Callable[[dict], str]
    piece: Callable[[dict], str]


def _piece_of_chunk(chunk: dict) -> str:
    choices = chunk["choices"]
    return (choices[0]["delta"].get("content") or "") if choices else ""


def _piece_of_event(event: dict) -> str:
    return event["delta"] if event["type"] == "response.output_text.delta" else ""


def _piece_of_block(event: dict) -> str:
    return event["delta"]["text"] if event["type"] == "content_block_delta" else ""


CHAT_API = Api(
    CHAT,
    {"model": "mux", "messages": MESSAGES},
    lambda answer: answer["choices"][0]["message"]["content"],
    _piece_of_chunk,
)
RESPONSES_API = Api(
    "/responses",
    {"model": "mux", "input": MESSAGES},
    lambda answer: answer["output"][0]["content"][0]["text"],
    _piece_of_event,
)
MESSAGES_API = Api(
    "/messages",
    {"model": "mux", "max_tokens": 4000, "messages": MESSAGES},
    lambda answer: answer["content"][0]["text"],
    _piece_of_block,
)
APIS = {RESPONSES: RESPONSES_API, MESSAGES_WAY: MESSAGES_API}
"""By the way; all others speak chat completions."""


@contextmanager
def servers(
    environments: dict[str, Environment], base: str, place: Path
) -> Iterator[dict[str, str]]:
    """Run the servers; yield the address of each, and of the model itself."""
    target = f"{base}/served"
    own = environments["own"]
    config = place / "served.toml"
    config.write_text(as_toml(pool_config(target, target, state="memory")))
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
        yield {**addresses, **dict.fromkeys(APIS, addresses["vibe-mux serve"])}


def answers(addresses: dict[str, str], count: int) -> Times:
    """Time whole answers by each path, in random order."""
    times: Times = defaultdict(list)
    clients = _clients(addresses)
    for name in _shuffled(addresses, count):
        began = time.perf_counter()
        clients[name].ask()
        times[name].append(time.perf_counter() - began)
    return times


def deliveries(addresses: dict[str, str], count: int) -> tuple[Times, Times]:
    """Return how long after its sending each piece of a stream arrives: the first, the others."""
    first: Times = defaultdict(list)
    others: Times = defaultdict(list)
    clients = _clients(addresses)
    for name in _shuffled(addresses, count):
        one, *rest = clients[name].deliveries()
        first[name].append(one)
        others[name] += rest
    return first, others


def _clients(addresses: dict[str, str]) -> dict[str, _Client]:
    return {
        name: _Client(address, APIS.get(name, CHAT_API))
        for name, address in addresses.items()
    }


class _Client:
    """A minimal client."""

    def __init__(self, address: str, api: Api = CHAT_API) -> None:
        parts = urlsplit(address)
        self._api = api
        self._path = parts.path + api.path
        self._connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=60
        )

    def ask(self) -> None:
        answer = self._send({})
        body = json.loads(answer.read())
        assert len(self._api.words(body)) > 100, body

    def deliveries(self) -> list[float]:
        answer = self._send({"stream": True})
        held = b""
        delays: list[float] = []
        while piece := answer.read1(65536):
            moment = time.monotonic_ns()
            *lines, held = (held + piece).split(b"\n")
            sent = (int(content) for line in lines if (content := self._content(line)))
            delays += [(moment - each) / 1e9 for each in sent]
        return delays

    def _content(self, line: bytes) -> str:
        return self._api.piece(json.loads(line[6:])) if line.startswith(b"data: {") else ""

    def _send(self, members: dict) -> http.client.HTTPResponse:
        body = json.dumps({**self._api.request, **members})
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        self._connection.request("POST", self._path, body, headers)
        answer = self._connection.getresponse()
        if answer.status != 200:
            raise OSError(f"{answer.status}: {answer.read()!r}")
        return answer


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
