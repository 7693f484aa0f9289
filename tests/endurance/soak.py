"""Makes many successful calls through a server with faults between; memory, files, threads stay flat.

    python tests/endurance/soak.py --calls 100000

The server is a process of its own, whose numbers Linux tells. Loopback only.
"""

from __future__ import annotations

import argparse
import json
import random  # noqa: TID251 - seeded, for tests
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from muxcore.shell import clock
from muxcore.standin import (
    Answer,
    Behaviour,
    Cut,
    Model,
    StandInServer,
    rate_limited,
    refusal,
    server_error,
)
from tests.gateway.conftest import as_toml, config
from tests.processes import COMMAND, ROOT, environment

CLIENTS = 4
SAMPLES = 20
FAULT_SHARE = 0.003
FAULTS: tuple[Behaviour, ...] = (
    rate_limited(),
    server_error(500),
    server_error(503),
    refusal(400, "no such parameter: temperature"),
    Cut(0),
    Cut(1),
    Answer(""),
)


def faulty(seed: int) -> Any:
    """Return a behaviour that is a fault now and then."""
    chance, lock = random.Random(seed), threading.Lock()

    def behave(_: Any) -> Behaviour:
        with lock:
            is_fault = chance.random() < FAULT_SHARE
            return chance.choice(FAULTS) if is_fault else Answer(pieces=2)

    return behave


def numbers_of(pid: int) -> tuple[int, int, int]:
    """Return resident memory in KiB, open files and threads of a process."""
    place = Path(f"/proc/{pid}")
    status = dict(
        line.split(":", 1)
        for line in (place / "status").read_text().splitlines()
        if ":" in line
    )
    files = len(list((place / "fd").iterdir()))
    return int(status["VmRSS"].split()[0]), files, int(status["Threads"])


class Client:
    """One client over a connection that is kept, as agents do; it calls until told to stop."""

    def __init__(self, port: int, token: str, left: Left) -> None:
        self._address = ("127.0.0.1", port)
        self._token = token
        self._left = left

    def run(self) -> None:
        number = 0
        sock: socket.socket | None = None
        while self._left.take():
            number += 1
            try:
                if sock is None:
                    sock = socket.create_connection(self._address, 30)
                sock.sendall(self._request(stream=number % 2 == 0))
                whole, closes = self._answer(sock)
                if closes:
                    sock.close()
                    sock = None
            except OSError:
                whole, sock = False, None
            self._left.count(whole=whole)
        if sock is not None:
            sock.close()

    def _request(self, *, stream: bool) -> bytes:
        body = json.dumps(
            {
                "model": "mux",
                "stream": stream,
                "messages": [{"role": "user", "content": "ping"}],
            }
        ).encode()
        lines = (
            "POST /v1/chat/completions HTTP/1.1",
            f"Host: 127.0.0.1:{self._address[1]}",
            f"Authorization: Bearer {self._token}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        return "\r\n".join([*lines, "", ""]).encode() + body

    def _answer(self, sock: socket.socket) -> tuple[bool, bool]:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more(sock)
        head, _, body = data.partition(b"\r\n\r\n")
        fields = head.lower()
        if b"chunked" in fields:
            while not body.endswith(b"0\r\n\r\n"):
                body += self._more(sock)
            return b"[DONE]" in body, False
        length = int(fields.partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += self._more(sock)
        return head.startswith(b"HTTP/1.1 200"), b"connection: close" in fields

    @staticmethod
    def _more(sock: socket.socket) -> bytes:
        data = sock.recv(65536)
        if not data:
            raise ConnectionError
        return data


class Left:
    """How many successful calls are still to be made. Shared by the clients."""

    def __init__(self, calls: int) -> None:
        self._lock = threading.Lock()
        self._calls = calls
        self.counts: Counter[str] = Counter()

    def take(self) -> bool:
        return self.counts["served"] < self._calls

    def count(self, *, whole: bool) -> None:
        with self._lock:
            self.counts["served" if whole else "failed"] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    models = [Model("large-model"), Model("small-model")]
    for seed, model in enumerate(models, start=options.seed):
        model.default = faulty(seed)
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as base,
        StandInServer(models) as upstream,
    ):
        file = Path(base) / "config.toml"
        section = {
            "rate_limit_disable_duration_ms": 1000,
            "persistent_error_disable_duration_ms": 1000,
        }
        file.write_text(as_toml(config(upstream.url, "large", "small", **section)))
        env = environment(Path(base), VIBE_HOME=base)
        command = [*COMMAND, "serve", "--json", "--config", str(file)]
        with subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE) as server:
            try:
                return soak(server, options.calls)
            finally:
                server.send_signal(signal.SIGTERM)


def soak(server: subprocess.Popen[bytes], calls: int) -> int:
    assert server.stdout is not None
    announced = json.loads(server.stdout.readline())
    left = Left(calls)
    clients = [
        threading.Thread(target=Client(announced["port"], announced["token"], left).run)
        for _ in range(CLIENTS)
    ]
    began = clock.elapsed()
    for client in clients:
        client.start()
    pause = threading.Event()
    samples = []
    print("  served  failed   MiB files threads")
    for step in range(1, SAMPLES + 1):
        while left.counts["served"] < calls * step // SAMPLES:
            pause.wait(0.05)
        samples.append(numbers_of(server.pid))
        memory, files, threads = samples[-1]
        print(
            f"{left.counts['served']:8} {left.counts['failed']:7}"
            f" {memory / 1024:5.1f} {files:5} {threads:7}",
            flush=True,
        )
    for client in clients:
        client.join()
    # The first quarter fills caches and free lists.
    first, last = samples[len(samples) // 4], samples[-1]
    grown = last[0] / first[0] - 1
    print(
        f"{clock.elapsed() - began:.0f} s; memory {grown:+.1%} since a quarter of the calls"
    )
    return 0 if grown < 0.05 and last[1] <= first[1] + 4 and last[2] <= first[2] + 2 else 1


if __name__ == "__main__":
    sys.exit(main())
