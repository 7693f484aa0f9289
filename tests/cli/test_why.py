"""`vibe-mux why`: the stories of calls, from the state file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import requests

from muxcore.board.state_dir import default_path
from muxcore.gateway import Gateway, ReloadingPool
from muxcore.plugins.catalogue import FILE
from muxcore.standin import Model, rate_limited
from tests.cli.conftest import Command
from tests.waiting import PATIENCE

Configure = Callable[..., Path]
Captured = pytest.CaptureFixture[str]
LIMITED = rate_limited(timedelta(seconds=90))


def test_why_explains_the_calls_of_several_processes(
    command: Command, alpha: Model
) -> None:
    alpha.then(LIMITED)
    for _ in range(3):
        command("chat", "hello")
    code, out, _ = command("why", "--last", "2")
    assert code == 0
    assert out.count("served by beta") == 2
    assert "alpha: rate limited" not in out
    first = command("why", "--last", "9")[1].partition("\n\n")[0]
    assert "alpha: rate limited after" in first
    assert "asked beta: no primary can serve" in first


def test_why_explains_a_call_of_a_gateway_by_its_header(
    command: Command, configure: Configure
) -> None:
    with (
        closing(ReloadingPool(configure(), state=FILE)) as pool,
        Gateway(pool, "token") as gateway,
    ):
        answer = requests.post(
            f"{gateway.url}/v1/chat/completions",
            json={"model": "mux", "messages": [{"role": "user", "content": "CANARY"}]},
            headers={"Authorization": "Bearer token"},
            timeout=PATIENCE,
        )
    call_id = answer.headers["x-mux-call"]
    code, out, _ = command("why", "--call", call_id, "--json")
    (story,) = json.loads(out)
    assert (code, story["call_id"], story["served_by"]) == (0, call_id, "alpha")
    assert "CANARY" not in out


def test_why_finds_calls_by_time_and_by_model(command: Command) -> None:
    command("chat", "hello")
    (story,) = json.loads(command("why", "--json")[1])
    for moment in (story["began"], "23:59:59"):
        assert story["call_id"] in command("why", "--at", moment)[1]
    assert story["call_id"] in command("why", "--model", "alpha")[1]
    code, _, err = command("why", "--model", "beta")
    assert (code, err) == (1, f"vibe-mux: {default_path(os.environ)} has no such call\n")
    assert command("why", "--model", "beta", "--json") == (0, "[]\n", "")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--at", "noon"], 2, "--at 'noon' is no time, such as 14:03, 14:03:20 or"),
        (["--call", "nobody"], 1, "has no call 'nobody': it may be older than 30 days"),
        (["--journal", "missing"], 1, "missing does not exist: no call was recorded"),
        (["--journal", __file__], 1, "line 1 is no line of a journal"),
    ],
)
def test_a_mistake_is_one_line(
    command: Command, arguments: list[str], code: int, text: str
) -> None:
    command("chat", "hello")
    found, out, err = command("why", *arguments)
    assert (found, out) == (code, "")
    assert text in err
    assert "Traceback" not in err


def test_state_in_memory_has_no_journal_to_read(command: Command) -> None:
    code, _, err = command("why", more='state = "memory"')
    assert code == 1
    assert 'the config keeps state in "memory", which has no journal' in err
