"""A real Redis or Valkey for the tests: a process of its own, on a free port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from itertools import pairwise
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.waiting import wait_until

SERVER = (
    os.environ.get("REDIS_SERVER")
    or shutil.which("redis-server")
    or shutil.which("valkey-server")
)
CERTIFICATES = Path(__file__).resolve().parents[2] / "shell" / "certificates"
"""A server's, for localhost and 127.0.0.1, and that of its authority."""
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
        common = [*self._ports(), "--save", "", "--appendonly", "no"]
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

    def _ports(self) -> list[str]:
        return ["--port", str(self.port)]

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except RedisError:
            return False


class EncryptedServer(RedisServer):
    """A server that speaks TLS alone."""

    def __init__(self) -> None:
        super().__init__(
            *("--tls-cert-file", str(CERTIFICATES / "server.pem")),
            *("--tls-key-file", str(CERTIFICATES / "server.pem")),
            *("--tls-ca-cert-file", str(CERTIFICATES / "ca.pem")),
            *("--tls-auth-clients", "no"),
        )

    @property
    def url(self) -> str:
        return f"rediss://127.0.0.1:{self.port}/0?ssl_ca_certs={CERTIFICATES / 'ca.pem'}"

    def client(self) -> Redis:
        authority = str(CERTIFICATES / "ca.pem")
        return Redis(port=self.port, protocol=2, ssl=True, ssl_ca_certs=authority)

    def _ports(self) -> list[str]:
        return ["--port", "0", "--tls-port", str(self.port)]


class Cluster:
    """Three servers that share the slots of a cluster."""

    def __init__(self) -> None:
        self._servers = [RedisServer("--cluster-enabled", "yes") for _ in range(3)]
        first, *others = self._servers
        bounds = (0, 5461, 10923, 16384)
        for server, (start, end) in zip(self._servers, pairwise(bounds), strict=True):
            with server.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", start, end - 1)
        with first.client() as client:
            for other in others:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)
        wait_until(lambda: all(map(self._is_whole, self._servers)))

    @property
    def urls(self) -> list[str]:
        """The address of each server: each leads to all."""
        return [f"redis+cluster://127.0.0.1:{server.port}" for server in self._servers]

    def close(self) -> None:
        for server in self._servers:
            server.close()

    def _is_whole(self, server: RedisServer) -> bool:
        with server.client() as client:
            about = client.execute_command("CLUSTER INFO")
        return (about["cluster_state"], about["cluster_known_nodes"]) == ("ok", "3")


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
