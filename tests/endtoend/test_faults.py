"""Five faults of the primary, five ways to talk to each vibe: none of them shows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.endtoend.conftest import FAULTS, VERSIONS, WORD, Desk, spoken

pytestmark = pytest.mark.slow


def one_prompt(mine: Desk) -> None:
    plain = mine.pooled("-p", "say pong")
    assert (plain.code, plain.said) == (0, "pong 1 from small-model")
    # All that is printed beside vibe's answer is the multiplexer's.
    lines = [line for line in plain.remarks.splitlines() if " is kept in " not in line]
    assert lines[0] == "vibe-mux: failover; on this machine: large, small"
    assert lines[1].startswith("vibe-mux: 1 interruption avoided, ")
    assert lines[1].endswith(" of waiting saved; 1 call (small 1), 0% cached")
    assert len(lines) == 2


def answer_as_json(mine: Desk) -> None:
    asked = mine.pooled("-p", "say pong", "--output", "json", options=("--quiet",))
    assert (asked.code, asked.remarks) == (0, "")
    assert "pong 1 from small-model" in json.dumps(json.loads(asked.said))


def a_tool(mine: Desk) -> None:
    read = ["-p", "read word.txt", "--auto-approve", *mine.trusting]
    tool = mine.pooled(*read, options=("--quiet",))
    assert (tool.code, tool.said, tool.remarks) == (0, f"It says {WORD}.", "")
    asked = mine.small.requests[-1].body
    assert [m["role"] for m in asked["messages"]][-2:] == ["assistant", "tool"]
    # Each model brings its own settings, not those of the primary.
    assert asked["temperature"] == 0.2


def a_session_goes_on(mine: Desk) -> None:
    second = mine.pooled("-c", "-p", "say pong again")
    assert (second.code, second.said) == (0, "pong 2 from small-model")
    assert "read word.txt" in spoken(mine.small.requests[-1])[0]


def it_goes_on_without_the_pool(mine: Desk) -> None:
    mine.mend()
    served = len(mine.small.requests)
    alone = mine.bare("-c", "-p", "and once more")
    assert (alone.code, alone.said) == (0, "pong 3 from large-model")
    assert len(mine.small.requests) == served
    received = mine.large.requests[-1]
    assert received.body["temperature"] == 0.3
    assert received.headers["authorization"] == "Bearer key-of-the-lab"


WAYS = (one_prompt, answer_as_json, a_tool, a_session_goes_on, it_goes_on_without_the_pool)
"""In this order: the last ones continue the session of a tool."""


def talk(mine: Desk, ends: dict[str, Future[None]]) -> None:
    before = mine.config.read_bytes()
    for way in WAYS:
        try:
            way(mine)
            assert mine.config.read_bytes() == before
        except BaseException as error:  # noqa: BLE001 - its own test reports it
            ends[way.__name__].set_exception(error)
        else:
            ends[way.__name__].set_result(None)


@pytest.fixture(scope="module", params=(*VERSIONS, "1.3.5"))
def outcomes(
    request: pytest.FixtureRequest, desks: Callable[..., Desk]
) -> Iterator[dict[str, dict[str, Future[None]]]]:
    """Let all faults go on at once: a vibe takes seconds to start."""
    made = {fault: desks(request.param, fault) for fault in FAULTS}
    ends = {fault: {way.__name__: Future[None]() for way in WAYS} for fault in FAULTS}
    with ThreadPoolExecutor(os.cpu_count()) as several:
        for fault, mine in made.items():
            several.submit(talk, mine, ends[fault])
        yield ends


@pytest.mark.parametrize("way", [way.__name__ for way in WAYS])
@pytest.mark.parametrize("fault", FAULTS)
def test_vibe_notices_no_fault(
    outcomes: dict[str, dict[str, Future[None]]], fault: str, way: str
) -> None:
    outcomes[fault][way].result()
