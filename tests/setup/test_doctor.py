"""`vibe-mux doctor`: what it finds for each model, and its advice."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from muxcore import load_config
from muxcore.cli.main import main
from muxcore.setup import probes as probing
from muxcore.setup.probes import Check, ProbeResult, Report, announced, probe_all
from muxcore.standin import (
    Answer,
    Behaviour,
    Cut,
    Model,
    Received,
    StandInServer,
    StatusAnswer,
    ToolCall,
    dead_port,
    rate_limited,
    refusal,
)
from tests.waiting import PATIENCE

KEY = "key-of-the-lab-0123"
CALL = Answer("", tool_calls=(ToolCall("look_up", '{"word": "pong"}'),))
Captured = pytest.CaptureFixture[str]


class Unwatched:
    def called(self) -> None: ...

    def ended(self, alias: str) -> None: ...


def capable(received: Received) -> Behaviour:
    """Call the tool that is offered, and answer once its result is there."""
    last = received.body["messages"][-1]["role"]
    return CALL if received.body.get("tools") and last != "tool" else Answer("pong")


def no_stream(received: Received) -> Behaviour:
    return Cut(after=0) if received.streams else capable(received)


def no_history(received: Received) -> Behaviour:
    if received.body["messages"][-1]["role"] == "tool":
        return refusal(400, "unexpected role tool")
    return capable(received)


def write(folder: Path, url: str, *aliases: str, enabled: bool = True) -> Path:
    models = "".join(
        f'[[models]]\nname = "{a}-model"\nprovider = "lab"\nalias = "{a}"\n'
        for a in aliases
    )
    pool = ", ".join(f'{{model = "{alias}"}}' for alias in aliases)
    file = folder / "config.toml"
    file.write_text(
        f'active_model = "{aliases[0]}"\n[[providers]]\nname = "lab"\napi_base = "{url}"\n'
        f'api_key_env_var = "LAB_KEY"\n{models}'
        f'[multiplexer]\nenabled = {str(enabled).lower()}\nmode = "failover"\npool = [{pool}]\n'
    )
    return file


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """A config whose models behave as they are reported."""
    monkeypatch.setenv("LAB_KEY", KEY)
    monkeypatch.setattr(probing, "PAUSES", (0.0, 0.0))
    with StandInServer(token=KEY) as server:

        def make(enabled: bool = True, **plays: Any) -> Path:
            for alias, play in plays.items():
                server.add(Model(f"{alias}-model", play))
            return write(tmp_path, server.url, *plays, enabled=enabled)

        yield make


def probe(file: Path) -> dict[str, Report]:
    reports = probe_all(load_config(file), None, Unwatched(), lambda seconds: None)
    return {report.endpoint.alias: report for report in reports}


def results(report: Report) -> list[str]:
    return [str(report.results[check]) for check in Check]


def test_a_model_that_works(lab: Callable[..., Path]) -> None:
    report = probe(lab(a=capable))["a"]
    assert results(report) == ["ok", "ok", "ok", "ok", "ok"]
    assert report.is_well


@pytest.mark.parametrize(
    ("play", "expected", "reported"),
    [
        (
            refusal(401, "Incorrect API key provided", code="invalid_api_key"),
            ["FAILED", "-", "-", "-", "-"],
            (
                "key: Incorrect API key provided (check LAB_KEY); get a new key from lab and set"
                " LAB_KEY"
            ),
        ),
        (
            refusal(404, "The model does not exist", code="model_not_found"),
            ["ok", "FAILED", "-", "-", "-"],
            'name: The model does not exist; correct name = "a-model" of this model; ',
        ),
        (
            rate_limited(),
            ["ok", "ok", "LIMITED", "-", "-"],
            "answer: Rate limit exceeded; it is limited now: try again later",
        ),
        (
            refusal(429, "You exceeded your current quota", code="insufficient_quota"),
            ["ok", "ok", "LIMITED", "-", "-"],
            "look at your plan with lab",
        ),
        (
            refusal(503, "overloaded", kind="server_error"),
            ["-", "-", "FAILED", "-", "-"],
            "answer: overloaded; start the server at http://127.0.0.1:",
        ),
        (
            no_stream,
            ["ok", "ok", "ok", "FAILED", "ok"],
            "vibe only streams: this server cannot serve it as it is",
        ),
        (
            Answer("pong"),
            ["ok", "ok", "ok", "ok", "FAILED"],
            "tools: it answered without calling the tool; an agent needs a model that",
        ),
        (
            no_history,
            ["ok", "ok", "ok", "ok", "FAILED"],
            "tools: unexpected role tool; vibe needs tools",
        ),
    ],
)
def test_a_model_that_fails(
    lab: Callable[..., Path], play: Any, expected: list[str], reported: str
) -> None:
    report = probe(lab(a=play))["a"]
    assert results(report) == expected
    [fault] = report.faults
    assert reported in fault


def test_a_rate_limit_of_one_call_a_second_is_waited_out(lab: Callable[..., Path]) -> None:
    seen: list[int] = []

    def every_other(received: Received) -> Behaviour:
        seen.append(received.number)
        return rate_limited() if len(seen) % 2 else capable(received)

    report = probe(lab(a=every_other))["a"]
    assert report.is_well
    assert len(seen) == 8


def test_a_server_that_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_KEY", KEY)
    with dead_port() as url:
        report = probe(write(tmp_path, url, "a"))["a"]
    assert results(report) == ["-", "-", "FAILED", "-", "-"]
    assert report.faults == (
        (
            f"answer: the connection was refused; start the server at {url}, or correct its"
            " api_base"
        ),
    )


def test_one_broken_model_does_not_affect_another(lab: Callable[..., Path]) -> None:
    reports = probe(lab(a=capable, b=refusal(401, "no"), c=capable))
    assert [report.is_well for report in reports.values()] == [True, False, True]


def test_a_fault_does_not_change_the_next_probe(lab: Callable[..., Path]) -> None:
    file = lab(a=no_stream)
    assert results(probe(file)["a"]) == results(probe(file)["a"])


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, {}),
        ({"retry-after": "3", "x-request-id": "r"}, {}),
        (
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-limit-tokens": "150000",
                "x-ratelimit-reset-tokens": "6ms",
            },
            {"requests": "59 of 60 left", "tokens": "? of 150000 left"},
        ),
        (
            {
                "Anthropic-RateLimit-Requests-Limit": "50",
                "anthropic-ratelimit-requests-remaining": "49",
                "anthropic-ratelimit-input-tokens-limit": "9",
            },
            {"input tokens": "? of 9 left", "requests": "49 of 50 left"},
        ),
        (
            {"x-ratelimit-limit-req-minute": "6", "x-ratelimit-remaining-req-minute": "5"},
            {"req minute": "5 of 6 left"},
        ),
        (
            {"ratelimitbysize-limit": "500000", "ratelimitbysize-remaining": "499"},
            {"size": "499 of 500000 left"},
        ),
        ({"ratelimit-limit": "5\x1b[2J"}, {"calls": "? of 5 left"}),
    ],
)
def test_announced_limits(headers: dict[str, str], expected: dict[str, str]) -> None:
    assert announced(headers) == expected


def test_the_table(lab: Callable[..., Path], capsys: Captured) -> None:
    file = lab(a=capable, bigger=Answer("pong"))
    assert main(["doctor", "--config", str(file)]) == 1
    out, err = capsys.readouterr()
    assert out == (
        "model   key  name  answer  stream  tools   limits announced\n"
        "a       ok   ok    ok      ok      ok      none\n"
        "bigger  ok   ok    ok      ok      FAILED  none\n"
        "\n"
        "What to do:\n"
        "  bigger: tools: it answered without calling the tool; an agent needs a model that"
        " calls tools; on a server of your own, check that it was started with its tool"
        " parser or chat template\n"
    )
    assert err == ""


def test_all_models_work(lab: Callable[..., Path], capsys: Captured) -> None:
    def limited(received: Received) -> Behaviour:
        return capable(received)

    assert main(["doctor", "--config", str(lab(a=limited))]) == 0
    assert capsys.readouterr().out.endswith("\n\nAll is well.\n")


def test_limits_are_in_the_table(lab: Callable[..., Path], capsys: Captured) -> None:
    headers = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "1"}
    play = StatusAnswer(503, {"error": {"message": "down"}}, headers)
    assert main(["doctor", "--config", str(lab(a=play))]) == 1
    assert "requests: 1 of 60 left\n" in capsys.readouterr().out


def test_for_programs(lab: Callable[..., Path], capsys: Captured) -> None:
    file = lab(a=capable, b=refusal(401, "no"))
    assert main(["doctor", "--config", str(file), "--json"]) == 1
    reported = json.loads(capsys.readouterr().out)
    assert not reported["ok"]
    assert reported["models"]["a"] == {
        "ok": True,
        "key": "ok",
        "name": "ok",
        "answer": "ok",
        "stream": "ok",
        "tools": "ok",
        "limits": {},
        "faults": [],
    }
    assert reported["models"]["b"]["key"] == "failed"


def test_no_key_is_ever_shown(lab: Callable[..., Path], capsys: Captured) -> None:
    """Rule 9: some servers repeat the key in their errors."""
    file = lab(a=refusal(401, f"Incorrect API key: {KEY}"))
    assert main(["doctor", "--config", str(file)]) == 1
    assert main(["doctor", "--config", str(file), "--json"]) == 1
    assert KEY not in "".join(capsys.readouterr())


def test_off_probes_the_active_model(lab: Callable[..., Path], capsys: Captured) -> None:
    file = lab(enabled=False, a=capable, b=capable)
    assert main(["doctor", "--config", str(file)]) == 0
    out = capsys.readouterr().out
    assert "\nb " not in out
    assert "The multiplexer is off: the active model alone was probed." in out


def test_a_config_that_cannot_be_used(
    lab: Callable[..., Path], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = lab(a=capable)
    monkeypatch.delenv("LAB_KEY")
    assert main(["doctor", "--config", str(file)]) == 1
    assert "Missing API key: LAB_KEY" in capsys.readouterr().err
    assert main(["doctor", "--config", str(file), "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["ok"]


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("", 'write api_base = "{url}/v1" for its provider: nothing is at {url}/models'),
        (
            "/api",
            (
                'correct api_base = "{url}/api" of its provider: nothing is at'
                " {url}/api/models"
            ),
        ),
    ],
)
def test_a_404_of_a_wrong_address_has_advice_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, advice: str
) -> None:
    monkeypatch.setenv("LAB_KEY", KEY)
    with StandInServer([Model("a-model", capable)]) as server:
        url = server.url.removesuffix("/v1")
        report = probe(write(tmp_path, url + path, "a"))["a"]
    assert report.faults[0].endswith(advice.format(url=url))


def test_one_interrupt_ends_it_while_a_model_hangs(
    lab: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = threading.Event()
    released = threading.Event()

    def hang(received: Received) -> Behaviour:
        reached.set()
        released.wait(PATIENCE)
        return Answer("late")

    config = load_config(lab(a=hang))

    def interrupt(future: object, timeout: float | None = None) -> None:
        assert reached.wait(PATIENCE)
        raise KeyboardInterrupt

    monkeypatch.setattr(Future, "result", interrupt)
    with pytest.raises(KeyboardInterrupt):
        probe_all(config, None, Unwatched())
    # The model was still hanging when it returned.
    assert not released.is_set()
    released.set()


def test_progress_is_shown_on_a_terminal(
    lab: Callable[..., Path], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["doctor", "--config", str(lab(a=capable))]) == 0
    err = capsys.readouterr().err
    assert "\x1b[Kprobing a; calls made: 3, each may take 90 s" in err
    assert err.endswith("\r\x1b[K")


def test_a_provider_without_a_key(tmp_path: Path) -> None:
    with StandInServer([Model("a-model", capable)]) as server:
        file = write(tmp_path, server.url, "a")
        file.write_text(file.read_text().replace("LAB_KEY", ""))
        report = probe(file)["a"]
    assert results(report) == ["none", "ok", "ok", "ok", "ok"]
    assert report.results[Check.KEY] is ProbeResult.NOT_NEEDED


@pytest.mark.parametrize(
    ("configured", "well"), [(None, True), (1024, True), (8192, False)]
)
def test_a_local_server_names_its_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configured: int | None, well: bool
) -> None:
    listed = {"data": [{"id": "a-model", "meta": {"n_ctx": 1024}}]}
    monkeypatch.setenv("LAB_KEY", KEY)
    monkeypatch.setattr("muxcore.setup.probes.list_at", lambda *_: listed)
    with StandInServer([model := Model("a-model", capable)]) as server:
        file = write(tmp_path, server.url, "a")
        if configured is not None:
            entry = '{model = "a"'
            text = file.read_text().replace(
                entry, f"{entry}, context_window = {configured}"
            )
            assert str(configured) in text
            file.write_text(text)
        report = probe(file)["a"]
    assert report.limits["context window"] == "1024 tokens"
    assert report.is_well == well
    if not well:
        assert report.faults == (
            (
                "context window: the server reads 1024 tokens, and the config says 8192; write"
                " context_window = 1024 in its pool entry, or start the server with a larger"
                " context"
            ),
        )
    assert model.requests[0].body["max_tokens"] == 64


@pytest.mark.parametrize(
    ("capability", "configured", "well"),
    [("vision", True, True), ("completion", False, True), ("completion", True, False)],
)
def test_a_local_server_says_whether_it_takes_images(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capability: str,
    configured: bool,
    well: bool,
) -> None:
    listed = {"data": [{"id": "a-model", "capabilities": [capability]}]}
    monkeypatch.setenv("LAB_KEY", KEY)
    monkeypatch.setattr("muxcore.setup.probes.list_at", lambda *_: listed)
    with StandInServer([Model("a-model", capable)]) as server:
        file = write(tmp_path, server.url, "a")
        if configured:
            name = 'name = "a-model"'
            text = file.read_text().replace(name, f"{name}\nsupports_images = true")
            assert "supports_images" in text
            file.write_text(text)
        report = probe(file)["a"]
    assert report.limits["images"] == ("yes" if capability == "vision" else "no")
    assert report.is_well == well
    assert well or report.faults[0].startswith("images: the server takes none")
