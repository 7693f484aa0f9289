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

    def __init__(self, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self._options = options
        self.directory = Path(tempfile.mkdtemp(prefix="vibe-mux-redis-"))
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> Redis:
        return Redis(port=self.port, protocol=2)

    def start(self) -> None:
        assert SERVER is not None
        common = ("--port", str(self.port), "--save", "", "--appendonly", "no")
        place = ("--bind", "127.0.0.1", "--dir", str(self.directory))
        self._process = subprocess.Popen(
            [SERVER, *common, *place, *self._options],
            stdout=subprocess.DEVNULL,
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
