"""`vibe-mux status` against a server in this process."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from muxcore.cli import status as command
from muxcore.cli.main import main
from muxcore.gateway import Server, publishing
from tests.gateway.conftest import Served


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


def test_status_finds_the_server_of_vibes_config(
    running: tuple[Served, Server], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status"]) == 0
    assert capsys.readouterr().out == str(running[0].pool.status())
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == running[0].pool.status().to_json()


def test_page_prints_the_address_with_the_token(
    running: tuple[Served, Server], capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = running[0].gateway
    address = f"{gateway.url}/page#{gateway.token}"
    assert main(["page"]) == 0
    assert capsys.readouterr().out == f"{address}\n"
    assert main(["page", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"url": address}


def test_status_without_a_server_names_the_configs_that_have_one(
    running: tuple[Served, Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--config", str(tmp_path / "other.toml")]) == 1
    errors = capsys.readouterr().err
    assert "`vibe-mux serve` starts one" in errors
    assert f"there is one for {tmp_path / 'config.toml'}: name it with --config" in errors


def test_status_of_a_dead_server(
    running: tuple[Served, Server], capsys: pytest.CaptureFixture[str]
) -> None:
    running[0].gateway.stop()
    for arguments in ([], ["--watch"]):
        assert main(["status", *arguments]) == 1
        assert "it may have ended" in capsys.readouterr().err
    assert main(["page"]) == 1
    assert "it may have ended" in capsys.readouterr().err
    assert main(["status", "--json"]) == 1
    failure = json.loads(capsys.readouterr().out)
    assert failure["ok"] is False
    assert "it may have ended" in failure["problems"][0]


def test_watch_runs_until_the_server_ends(
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


def test_watch_prints_what_has_changed_without_rich(
    running: tuple[Served, Server],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("rich", "rich.live"):
        monkeypatch.setitem(sys.modules, name, None)
    served, server = running
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            served.ask(model="large")
        if len(pauses) == 4:
            served.gateway.stop()

    assert command.watch(server, pause) == 0
    out, errors = capsys.readouterr()
    first, second = re.split(r"^\d\d:\d\d:\d\d$", out, flags=re.MULTILINE)[1:]
    assert "Multiplexer Status" in first
    assert first != second
    assert errors == "The server has ended.\n"


def test_the_table_shows_every_model() -> None:
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
    status = {
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
    drawing.print(command.table(status))
    drawing.print(command.table({**status, "enabled": False, "notices": []}))
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
    assert "not allowed with" in capsys.readouterr().out
