"""`vibe-mux serve`, as a process and in this one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
import tomli
from attrs import field, frozen

from muxcore.cli import serve as serving
from muxcore.cli.main import main
from muxcore.gateway import Server, publishing
from muxcore.standin import Model, Stall, StandInServer
from tests.gateway.conftest import PING, as_toml, config
from tests.processes import COMMAND, ROOT, environment
from tests.waiting import PATIENCE

EVERYWHERE = "0.0.0.0"  # noqa: S104 - refused
POSIX = pytest.mark.skipif(os.name == "nt", reason="there is no SIGTERM on Windows")


@frozen(eq=False)
class Started:
    """A server in its own process."""

    process: subprocess.Popen[str]
    output: dict[str, Any]
    session: requests.Session = field(factory=requests.Session)

    def ask(self, **body: Any) -> requests.Response:
        return self.session.post(
            self.output["url"] + "/chat/completions",
            json={"model": "mux", "messages": PING, **body},
            stream=bool(body.get("stream")),
            timeout=PATIENCE,
        )

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, errors


@frozen(eq=False)
class Place:
    """A config over stand-ins, and an environment without other servers."""

    file: Path
    model: Model
    env: dict[str, str]
    stack: ExitStack

    def start(self, *arguments: str, **env: str) -> Started:
        command = [*COMMAND, "serve", "--config", str(self.file)]
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
        token = started.output.get("token") or env["VIBE_MUX_TOKEN"]
        started.session.trust_env = False
        started.session.headers["Authorization"] = f"Bearer {token}"
        return started

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            env={**self.env, **env},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    model = Model("large-model")
    with ExitStack() as stack:
        upstream = stack.enter_context(StandInServer([model]))
        file = tmp_path / "config.toml"
        file.write_text(as_toml(config(upstream.url, "large")))
        yield Place(file, model, environment(tmp_path), stack)


@POSIX
def test_serve_can_be_found_and_drains_on_sigterm(place: Place) -> None:
    started = place.start()
    assert started.output["published"] is True
    assert started.output["pid"] == started.process.pid
    assert len(started.output["token"]) > 30
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
    assert started.process.wait(PATIENCE) == 0
    assert place.run("status", "--config", str(place.file)).returncode == 1


@POSIX
@pytest.mark.parametrize("option", ["--log", "--log=json"])
def test_a_line_is_logged_for_each_call(place: Place, option: str) -> None:
    started = place.start(option)
    assert started.ask().status_code == 200
    assert started.process.stderr is not None
    line = started.process.stderr.readline()
    if option == "--log":
        assert " served by large in " in line
    else:
        assert json.loads(line)["served_by"] == "large"


@POSIX
def test_a_second_signal_does_not_wait(place: Place) -> None:
    started = place.start(VIBE_MUX_TOKEN="my-own-token")
    assert "token" not in started.output
    place.model.then(Stall(1))
    stream = started.ask(stream=True)
    assert next(stream.iter_lines())
    started.process.send_signal(signal.SIGINT)
    assert started.process.stderr is not None
    assert "stopping" in started.process.stderr.readline()
    assert started.end(signal.SIGINT)[0] == -signal.SIGINT
    stream.close()


@POSIX
def test_a_second_server_of_a_config_is_not_published(place: Place) -> None:
    first = place.start()
    second = place.start("--break", "large=429@1")
    assert second.output["published"] is False
    assert second.ask().status_code == 200
    code, errors = second.end(signal.SIGINT)
    assert code == 0
    assert "another server of this config runs" not in errors
    assert first.ask().status_code == 200
    assert first.end()[0] == 0


@POSIX
def test_a_leased_server_ends_with_its_last_lease(place: Place) -> None:
    started = place.start("--leased")
    with requests.get(
        started.output["url"].removesuffix("/v1") + "/lease",
        headers=dict(started.session.headers),
        stream=True,
        timeout=PATIENCE,
        proxies={"no": "proxy"},
    ) as lease:
        assert next(lease.iter_lines()) == b"held"
        assert started.process.poll() is None
    assert started.process.wait(PATIENCE) == 0


@pytest.fixture
def stopping_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving._Stopping, "on_signals", lambda self: None)
    monkeypatch.setattr(serving._Stopping, "wait", lambda self, seconds=None: True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place.file.parent))
    monkeypatch.delenv("VIBE_MUX_TOKEN", raising=False)


@pytest.mark.usefixtures("stopping_at_once")
def test_the_output_for_people(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--config", str(place.file)]) == 0
    out, errors = capsys.readouterr()
    assert out.startswith("Serving http://127.0.0.1:")
    assert "\nToken: " in out
    assert '"mux" for the pool' in out
    assert "stopping" in errors
    url, token = (line.partition(" ")[2] for line in out.splitlines()[:2])
    url, token = url.strip(), token.strip()
    assert out.endswith(f"\nexport OPENAI_BASE_URL={url} OPENAI_API_KEY={token}\n")


@pytest.mark.usefixtures("stopping_at_once")
def test_serve_prints_the_address_of_its_page(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serve = ["serve", "--page", "--config", str(place.file)]
    assert main(serve) == 0
    lines = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines())
    base = lines["Serving"].removesuffix("/v1")
    assert lines["Page:"] == f"{base}/page#{lines['Token:']}"
    assert main([*serve, "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert output["page"].endswith(f"/page#{output['token']}")
    # A token of one's own is not printed; the page asks for it.
    monkeypatch.setenv("VIBE_MUX_TOKEN", "my-own-token")
    assert main(serve) == 0
    assert capsys.readouterr().out.endswith("/page\n")


def test_warnings_and_an_earlier_server_are_reported(
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


def test_the_output_for_programs(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serving._Stopping, "on_signals", lambda self: None)
    monkeypatch.setattr(serving._Stopping, "wait", lambda self, seconds=None: True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place.file.parent))
    for token in ("my-own-token", ""):
        monkeypatch.setenv("VIBE_MUX_TOKEN", token)
        assert main(["serve", "--json", "--config", str(place.file)]) == 0
        output = json.loads(capsys.readouterr().out)
        assert output["url"] == f"http://127.0.0.1:{output['port']}/v1"
        # The user who set it knows it.
        assert ("token" in output) is not bool(token)


SIGNALS = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP")
    if hasattr(signal, name)
]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_the_server_and_restores_its_default(
    number: signal.Signals,
) -> None:
    before = {each: signal.getsignal(each) for each in SIGNALS}
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


@POSIX
def test_a_signal_that_is_ignored_at_the_start_stays_ignored_as_under_nohup() -> None:
    before = {each: signal.getsignal(each) for each in SIGNALS}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        serving._Stopping().on_signals()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--host", EVERYWHERE], 2, "at least 16 characters"),
        (["--break", "large=430"], 2, "expected ALIAS=FAULT@N"),
        (["--break", "none=429"], 1, "'none', which is not in the pool"),
        (["--host", "203.0.113.7"], 1, "cannot serve at 203.0.113.7"),
        (["--host", "127.0.0.1", "--port", "1", "--config", "/none/config.toml"], 1, "cannot be read"),
    ],
)  # fmt: skip
def test_wrong_options_are_one_line(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    exposed = "203" in arguments[1]
    monkeypatch.setenv("VIBE_MUX_TOKEN", "a-token-long-enough" if exposed else "short")
    assert main(["serve", "--config", str(place.file), *arguments]) == code
    assert message in capsys.readouterr().err


def test_a_taken_port_is_one_line(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("VIBE_MUX_TOKEN", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--config", str(place.file), "--port", port]) == 1
    assert "cannot serve at 127.0.0.1" in capsys.readouterr().err
