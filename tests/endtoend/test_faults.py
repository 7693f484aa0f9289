"""Five faults of the primary, four ways to talk to vibe: it is none the wiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.endtoend.conftest import FAULTS, VERSIONS, WORD, Desk, spoken

pytestmark = pytest.mark.slow


def four_ways(mine: Desk) -> None:
    before = mine.config.read_bytes()

    plain = mine.pooled("-p", "say pong")
    assert (plain.code, plain.said) == (0, "pong 1 from small-model")
    # All that is said beside vibe's answer is the multiplexer's, and an interruption spared.
    lines = plain.remarks.splitlines()
    assert lines[0] == "vibe-mux: failover; on this machine: large, small"
    assert lines[1].startswith("vibe-mux: 1 interruption avoided, ")
    assert lines[1].endswith(" of waiting saved; 1 call (small 1), 0% cached")
    assert len(lines) == 2

    read = ["-p", "read word.txt", "--auto-approve", *mine.trusting]
    tool = mine.pooled(*read, options=("--quiet",))
    assert (tool.code, tool.said, tool.remarks) == (0, f"It says {WORD}.", "")
    asked = mine.small.requests[-1].body
    assert [m["role"] for m in asked["messages"]][-2:] == ["assistant", "tool"]
    # Each model brings its own settings, not those of the primary.
    assert asked["temperature"] == 0.2

    second = mine.pooled("-c", "-p", "say pong again")
    assert (second.code, second.said) == (0, "pong 2 from small-model")
    assert "read word.txt" in spoken(mine.small.requests[-1])[0]

    # A session begun in the pool goes on without it, with the user's own model.
    mine.mend()
    served = len(mine.small.requests)
    alone = mine.bare("-c", "-p", "and once more")
    assert (alone.code, alone.said) == (0, "pong 3 from large-model")
    assert len(mine.small.requests) == served
    received = mine.large.requests[-1]
    assert received.body["temperature"] == 0.3
    assert received.headers["authorization"] == "Bearer key-of-the-lab"

    assert mine.config.read_bytes() == before


@pytest.fixture(scope="module", params=VERSIONS)
def outcomes(
    request: pytest.FixtureRequest, desks: Callable[..., Desk]
) -> Iterator[dict[str, Future[None]]]:
    """Let all go on at once: a vibe takes seconds to start."""
    made = {fault: desks(request.param, fault) for fault in FAULTS}
    with ThreadPoolExecutor(len(made)) as several:
        yield {fault: several.submit(four_ways, mine) for fault, mine in made.items()}


@pytest.mark.parametrize("fault", FAULTS)
def test_vibe_notices_no_fault(outcomes: dict[str, Future[None]], fault: str) -> None:
    outcomes[fault].result()
