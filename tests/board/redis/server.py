"""A real Redis or Valkey for the tests: a process of its own, on a free port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.waiting import wait_until

SERVER = (
    os.environ.get("REDIS_SERVER")
    or shutil.which("redis-server")
    or shutil.which("valkey-server")
)
NO_SERVER = "no Redis: put redis-server or valkey-server on the path"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class RedisServer:
    """A server that can be stopped, killed and started again."""

    def __init__(
        self, *options: str, port: int | None = None, config: Path | None = None
    ) -> None:
        """Start it; with a `config`, as a sentinel."""
        self.port = port or free_port()
        self._options = options
        self._config = config
        self.directory = Path(tempfile.mkdtemp(prefix="vibe-mux-redis-"))
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> Redis:
        return Redis(port=self.port, protocol=2)

    def start(self) -> None:
        assert SERVER is not None
        common = ["--port", str(self.port), "--save", "", "--appendonly", "no"]
        place = ["--bind", "127.0.0.1", "--dir", str(self.directory)]
        arguments = [*common, *place, *self._options]
        if self._config is not None:
            arguments = [str(self._config), "--sentinel"]
        self._process = subprocess.Popen(
            [SERVER, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._answers)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        if self._process.poll() is None:
            self.go_on()
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except RedisError:
            return False


class Failover:
    """Two servers, and a sentinel which puts the second in the first one's place."""

    def __init__(self) -> None:
        self.first = RedisServer()
        port = str(self.first.port)
        self.second = RedisServer("--replicaof", "127.0.0.1", port)
        watched = f"sentinel monitor main 127.0.0.1 {port} 1"
        file = self.first.directory / "sentinel.conf"
        number = free_port()
        file.write_text(
            f"port {number}\n{watched}\nsentinel down-after-milliseconds main 300\n"
            "sentinel failover-timeout main 1000\n"
        )
        wait_until(self._is_replicated)
        self._sentinel = RedisServer(config=file, port=number)
        self.url = f"redis+sentinel://127.0.0.1:{number}/0?service=main"
        wait_until(self._knows)

    def over(self) -> None:
        self.first.kill()
        with self._sentinel.client() as client:
            wait_until(
                lambda: (
                    client.sentinel_get_master_addr_by_name("main")[1] == self.second.port
                )
            )

    def close(self) -> None:
        for server in (self._sentinel, self.second, self.first):
            server.close()

    def _is_replicated(self) -> bool:
        with self.second.client() as client:
            return bool(client.info("replication")["master_link_status"] == "up")

    def _knows(self) -> bool:
        with self._sentinel.client() as client:
            return bool(client.info("sentinel")["master0"]["slaves"] == 1)
