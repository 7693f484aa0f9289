"""`vibe-mux serve` and `vibe-mux status`, as processes and in this one."""

from __future__ import annotations

import builtins
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
import tomli
from attrs import field, frozen

from muxcore.cli import serve as serving
from muxcore.cli import status as command
from muxcore.cli.main import main
from muxcore.gateway import Server, publishing
from muxcore.standin import Model, Stall, StandInServer
from tests.gateway.conftest import PING, Served, as_toml, config

EVERYWHERE = "0.0.0.0"  # noqa: S104 - refused
ROOT = Path(__file__).parents[2]
POSIX = pytest.mark.skipif(os.name == "nt", reason="there is no SIGTERM on Windows")


@frozen(eq=False)
class Started:
    """A server as a process of its own."""

    process: subprocess.Popen[str]
    told: dict[str, Any]
    session: requests.Session = field(factory=requests.Session)

    def ask(self, **body: Any) -> requests.Response:
        return self.session.post(
            self.told["url"] + "/chat/completions",
            json={"model": "mux", "messages": PING, **body},
            stream=bool(body.get("stream")),
            timeout=5,
        )

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=10)
        return self.process.returncode, errors


@frozen(eq=False)
class Place:
    """A config over stand-ins, and an environment in which nobody else has a server."""

    file: Path
    model: Model
    env: dict[str, str]
    stack: ExitStack

    def start(self, *arguments: str, **env: str) -> Started:
        command = [sys.executable, "-m", "muxcore", "serve", "--config", str(self.file)]
        process = self.stack.enter_context(
            subprocess.Popen(
                [*command, "--json", *arguments],
                env={**self.env, **env},
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        self.stack.callback(process.kill)
        assert process.stdout is not None
        started = Started(process, json.loads(process.stdout.readline()))
        self.stack.enter_context(started.session)
        token = started.told.get("token") or env["VIBE_MUX_TOKEN"]
        started.session.trust_env = False
        started.session.headers["Authorization"] = f"Bearer {token}"
        return started

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "muxcore", *arguments],
            env={**self.env, **env},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    model = Model("large-model")
    with ExitStack() as stack:
        upstream = stack.enter_context(StandInServer([model]))
        file = tmp_path / "config.toml"
        file.write_text(as_toml(config(upstream.url, "large")))
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("VIBE_", "XDG_"))}
        roots = (ROOT, ROOT / "strategies", ROOT / "backends")
        env = {
            **kept,
            "PYTHONPATH": os.pathsep.join(map(str, roots)),
            "XDG_RUNTIME_DIR": str(tmp_path),
        }
        yield Place(file, model, env, stack)


@POSIX
def test_it_serves_is_found_and_drains_on_sigterm(place: Place) -> None:
    started = place.start()
    assert started.told["published"] is True
    assert started.told["pid"] == started.process.pid
    assert len(started.told["token"]) > 30
    assert started.ask().status_code == 200

    found = place.run("status", "--config", str(place.file))
    assert (found.returncode, found.stderr) == (0, "")
    assert "**large**: 🟢 active" in found.stdout
    as_json = place.run("status", "--json", "--config", str(place.file))
    assert json.loads(as_json.stdout)["per_model"]["large"]["success_count"] == 1
    lost = place.run("status", VIBE_HOME=str(place.file.parent / "none"))
    assert lost.returncode == 1
    assert f"there is one for {place.file}: name it with --config" in lost.stderr

    place.model.then(Stall(1))
    stream = started.ask(stream=True)
    lines = stream.iter_lines()
    assert next(lines)
    started.process.send_signal(signal.SIGTERM)
    assert started.process.stderr is not None
    assert "stopping" in started.process.stderr.readline()
    place.model.release()
    assert list(lines)[-2:] == [b"data: [DONE]", b""]
    assert started.process.wait(10) == 0
    assert place.run("status", "--config", str(place.file)).returncode == 1


@POSIX
def test_a_second_signal_does_not_wait(place: Place) -> None:
    started = place.start(VIBE_MUX_TOKEN="my-own-token")
    assert "token" not in started.told
    place.model.then(Stall(1))
    stream = started.ask(stream=True)
    assert next(stream.iter_lines())
    started.process.send_signal(signal.SIGINT)
    assert started.process.stderr is not None
    assert "stopping" in started.process.stderr.readline()
    assert started.end(signal.SIGINT)[0] == -signal.SIGINT
    stream.close()


@POSIX
def test_a_second_server_of_a_config_says_that_it_is_not_the_one(place: Place) -> None:
    first = place.start()
    second = place.start("--break", "large=429@1")
    assert second.told["published"] is False
    assert second.ask().status_code == 200
    code, errors = second.end(signal.SIGINT)
    assert code == 0
    assert "another server of this config runs" not in errors
    assert first.ask().status_code == 200
    assert first.end()[0] == 0


@POSIX
def test_one_that_is_leased_ends_with_its_last_lease(place: Place) -> None:
    started = place.start("--leased")
    with requests.get(
        started.told["url"].removesuffix("/v1") + "/lease",
        headers=dict(started.session.headers),
        stream=True,
        timeout=5,
        proxies={"no": "proxy"},
    ) as lease:
        assert next(lease.iter_lines()) == b"held"
        assert started.process.poll() is None
    assert started.process.wait(10) == 0


def test_what_it_prints_for_people(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serving._Stopping, "on_signals", lambda self: None)
    monkeypatch.setattr(serving._Stopping, "wait", lambda self, seconds=None: True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place.file.parent))
    monkeypatch.delenv("VIBE_MUX_TOKEN", raising=False)
    assert main(["serve", "--config", str(place.file)]) == 0
    out, errors = capsys.readouterr()
    assert out.startswith("Serving http://127.0.0.1:")
    assert "\nToken: " in out
    assert '"mux" for the pool' in out
    assert "stopping" in errors


def test_it_tells_of_warnings_and_of_a_server_that_was_first(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serving._Stopping, "on_signals", lambda self: None)
    monkeypatch.setattr(serving._Stopping, "wait", lambda self, seconds=None: False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place.file.parent))
    monkeypatch.setenv("VIBE_MUX_TOKEN", "my-own-token")
    made = tomli.loads(place.file.read_text())
    made["multiplexer"]["pool"][0]["weight"] = 3
    place.file.write_text(as_toml(made))
    first = Server("127.0.0.1", 1, "t", 1, str(place.file))
    with publishing(first, os.environ):
        assert main(["serve", "--leased", "--config", str(place.file)]) == 0
    out, errors = capsys.readouterr()
    assert "Token: as in VIBE_MUX_TOKEN" in out
    assert "my-own-token" not in out + errors
    assert "another server of this config runs" in errors
    assert "weight" in errors


def test_what_it_prints_for_programs(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serving._Stopping, "on_signals", lambda self: None)
    monkeypatch.setattr(serving._Stopping, "wait", lambda self, seconds=None: True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place.file.parent))
    for token in ("my-own-token", ""):
        monkeypatch.setenv("VIBE_MUX_TOKEN", token)
        assert main(["serve", "--json", "--config", str(place.file)]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["url"] == f"http://127.0.0.1:{told['port']}/v1"
        # Who has given it knows it.
        assert ("token" in told) is not bool(token)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_once(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        stopping = serving._Stopping()
        stopping.on_signals()
        assert not stopping.wait(0)
        signal.raise_signal(number)
        assert stopping.wait()
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--host", EVERYWHERE], 2, "at least 16 characters"),
        (["--break", "large=430"], 2, "expected ALIAS=FAULT@N"),
        (["--break", "none=429"], 1, "'none', which is not in the pool"),
        (["--host", "203.0.113.7"], 1, "cannot serve at 203.0.113.7"),
        (["--host", "127.0.0.1", "--port", "1", "--config", "/none/config.toml"], 1, "cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_served(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    told: str,
) -> None:
    exposed = "203" in arguments[1]
    monkeypatch.setenv("VIBE_MUX_TOKEN", "a-token-long-enough" if exposed else "short")
    assert main(["serve", "--config", str(place.file), *arguments]) == code
    assert told in capsys.readouterr().err


def test_a_port_that_is_taken(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("VIBE_MUX_TOKEN", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--config", str(place.file), "--port", port]) == 1
    assert "cannot serve at 127.0.0.1" in capsys.readouterr().err


@pytest.fixture
def running(
    serve: Callable[..., Served],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Served, Server]]:
    """A server in this process that `status` finds as vibe's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("VIBE_HOME", str(tmp_path))
    served = serve()
    file = str(tmp_path / "config.toml")
    server = Server("127.0.0.1", served.gateway.port, served.gateway.token, 1, file)
    with publishing(server, os.environ):
        yield served, server


def test_status_finds_vibes_own(
    running: tuple[Served, Server], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status"]) == 0
    assert capsys.readouterr().out == str(running[0].pool.status())
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == running[0].pool.status().to_json()


def test_status_without_a_server_says_where_there_is_one(
    running: tuple[Served, Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--config", str(tmp_path / "other.toml")]) == 1
    errors = capsys.readouterr().err
    assert "`vibe-mux serve` starts one" in errors
    assert f"there is one for {tmp_path / 'config.toml'}: name it with --config" in errors


def test_status_of_one_that_has_died(
    running: tuple[Served, Server], capsys: pytest.CaptureFixture[str]
) -> None:
    running[0].gateway.stop()
    for arguments in ([], ["--json"], ["--watch"]):
        assert main(["status", *arguments]) == 1
        assert "it may have ended" in capsys.readouterr().err


def test_watch_goes_on_until_the_server_ends(
    running: tuple[Served, Server], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rich")
    served, server = running
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            served.gateway.stop()

    assert command.watch(server, pause) == 0
    out, errors = capsys.readouterr()
    assert pauses == [1.0, 1.0, 1.0]
    assert "large" in out
    assert "The server has ended." in errors


def test_watch_needs_rich(
    running: tuple[Served, Server],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    importing = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("rich"):
            raise ImportError(name)
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["status", "--watch"]) == 1
    assert "pip install 'vibe-mux[watch]'" in capsys.readouterr().err


def test_the_table_shows_what_there_is() -> None:
    console = pytest.importorskip("rich.console")
    model = {
        "is_disabled": False,
        "disabled_until": None,
        "disabled_for": "",
        "on_probation": False,
        "in_flight": 1,
        "success_count": 2,
        "rate_limit_count": 3,
        "fail_count": 4,
        "tokens_in": 0,
        "tokens_cached": 0,
        "tokens_out": 0,
        "cost": 0.0,
        "first_content_ms": None,
    }
    told = {
        "mode": "failover",
        "enabled": True,
        "models_available": 1,
        "models_in_pool": 3,
        "notices": ["odd\x1b[2J"],
        "per_model": {
            "a[red]\x1b": model,
            "b": {**model, "on_probation": True, "tokens_in": 1000, "tokens_cached": 500},
            "c": {
                **model,
                "is_disabled": True,
                "disabled_until": "2026-01-01T12:00:00+00:00",
                "disabled_for": "rate limited",
                "cost": 1.5,
                "first_content_ms": 1234.5,
            },
        },
    }
    drawing = console.Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    drawing.print(command.table(told))
    drawing.print(command.table({**told, "enabled": False, "notices": []}))
    drawing.file.close()
    text = drawing.export_text()
    assert "a[red]" in text
    assert "\x1b" not in text
    assert "🟡 on probation" in text
    assert "(rate limited)" in text
    for words in ("50%", "$1.50", "1,234 ms", "failover: 1/3 available", "is off"):
        assert words in text


def test_watch_and_json_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["status", "--watch", "--json"])
    assert ended.value.code == 2
    assert "not allowed with" in capsys.readouterr().err
