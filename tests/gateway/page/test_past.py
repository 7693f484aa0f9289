"""What the page asks of the past: journals, their parts, the pool of then, stories."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import pytest

from muxcore.board import journal_reader
from muxcore.board.state_dir import default_path
from muxcore.gateway.page.parts import milliseconds
from muxcore.shell import clock
from muxcore.standin import rate_limited
from tests.gateway.conftest import Served
from tests.gateway.page.canaries import KEY, PROMPT, with_key
from tests.gateway.page.long_journal import write_journal
from tests.waiting import wait_until

Serve = Callable[..., Served]
STATES = pytest.mark.parametrize("state", ["memory", "file"])


def serving(serve: Serve, state: str) -> Served:
    env = {"CANARY_KEY": KEY, "XDG_STATE_HOME": os.environ["XDG_STATE_HOME"]}
    served = serve(source=with_key, env=env, section={"state": state})
    served.large.then(rate_limited(timedelta(seconds=90)))
    return served


def facts(served: Served, name: str, **query: object) -> Any:
    answer = served.get(f"/page/{name}", params=query)
    assert answer.status_code == HTTPStatus.OK, answer.text
    assert KEY not in answer.text
    assert PROMPT not in answer.text
    return answer.json()


def ask(served: Served) -> str:
    answer = served.ask(messages=[{"role": "user", "content": PROMPT}])
    # With it, what is in the journal is in the file.
    facts(served, "pool")
    return str(answer.headers["X-Mux-Call"])


@STATES
def test_the_pool_of_then_is_what_it_was(serve: Serve, state: str) -> None:
    served = serving(serve, state)
    ask(served)
    then = facts(served, "pool")
    at = milliseconds(clock.now())
    # All of this millisecond is part of then.
    wait_until(lambda: milliseconds(clock.now()) > at)
    served.ask()
    (own, *_) = facts(served, "journals")
    assert own["is_own"]
    again = facts(served, "pool", journal=own["number"], at=at)
    now = facts(served, "pool")
    assert again["models"][0]["standing"] == "disabled"
    assert again["models"][1]["success_count"] == 1
    assert now["models"][1]["success_count"] == 2
    left_out = {"since_beginning"}
    for one, other in zip(again["models"], then["models"], strict=True):
        assert one.items() == {k: v for k, v in other.items() if k not in left_out}.items()


@STATES
def test_the_rows_and_the_story_of_a_call(serve: Serve, state: str) -> None:
    served = serving(serve, state)
    call_id = ask(served)
    number = facts(served, "journals")[0]["number"]
    ((since, _), *_) = facts(served, "parts", journal=number)
    rows = facts(served, "part", journal=number, since=since)
    assert [asked[2] for asked in rows["asked"]] == [call_id]
    assert [started[2] for started in rows["started"]] == ["large", "small"]
    assert [ended[2] for ended in rows["ended"]] == ["served"]
    story = facts(served, "story", journal=number, since=since, call=call_id)
    assert story["served_by"] == "small"
    assert "large: rate limited after" in story["text"]


def test_the_journal_of_an_earlier_process_is_there_in_parts(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_journal(default_path(os.environ), 3_000, clock.now())
    served = serving(serve, "file")
    facts(served, "pool")
    own, earlier = facts(served, "journals")
    assert (own["is_own"], earlier["is_own"]) == (True, False)
    number = earlier["number"]
    parts = facts(served, "parts", journal=number)
    assert len(parts) >= 3
    rows = [facts(served, "part", journal=number, since=since) for since, _ in parts]
    for (_, begins), (_, ends), found in zip(parts, parts[1:], rows, strict=False):
        times = [row[0] for row in found["standings"]]
        assert min(times) == begins
        assert max(times) <= ends
    attempts = [row[1] for found in rows for row in found["started"]]
    assert attempts == sorted(set(attempts))
    # It is read a few entries at a time, until it ends.
    monkeypatch.setattr(journal_reader, "ENTRIES_OF_A_CALL", 1)
    since, (_, asked, call_id) = parts[1][0], rows[1]["asked"][-1]
    story = facts(served, "story", journal=number, since=since, call=call_id)
    assert (story["call_id"], story["ended"] is None) == (call_id, False)
    assert asked > rows[0]["asked"][-1][1]
    counted = facts(served, "pool", journal=number, at=earlier["latest"])["models"]
    answered = [row for found in rows for row in found["finished"] if row[2] == "answered"]
    assert sum(model["success_count"] for model in counted) == len(answered)


def test_a_state_file_that_is_gone_is_not_found(serve: Serve) -> None:
    served = serving(serve, "file")
    ask(served)
    number = facts(served, "journals")[0]["number"]
    default_path(os.environ).unlink()
    answer = served.get("/page/parts", params={"journal": number})
    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert "state.db" in answer.text


def test_what_is_not_there_is_not_found(serve: Serve) -> None:
    served = serving(serve, "memory")
    for name, status in {
        "pool?journal=7&at=0": 404,
        "parts?journal=7": 404,
        "part?journal=7&since=-1": 404,
        "story?journal=0&since=-1&call=none": 404,
        "parts?journal=x": 400,
        "parts": 400,
        f"pool?journal=0&at={'9' * 30}": 400,
    }.items():
        assert served.get(f"/page/{name}").status_code == status, name
