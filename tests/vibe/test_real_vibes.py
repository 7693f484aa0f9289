"""In one process with real vibes: the oldest, the last of 2.x, and the newest's side calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vibe.conftest import NEWEST

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent / "in_process.py"


@pytest.mark.parametrize("version", ["1.3.5", "2.26.1", NEWEST])
def test_a_real_vibe_goes_through_the_pool(
    run_in_vibe: Callable[..., str], version: str
) -> None:
    found = json.loads(run_in_vibe(version, SCRIPT).splitlines()[-1])
    small = {"text": "pong from small-model", "calls": [], "usage": [True, True]}
    assert found["failed over"] == small
    assert found["alone"] == small
    assert found["streamed"]["calls"] == [[0, "call00000", "read_file", '{"path": "x"}']]
    assert found["streamed"]["usage"] == [True, True]
    assert found["refused"][:2] == [429, ["retry-after"]]
    if version == NEWEST:
        assert found["side call"] == "pong from large-model"
        return
    # One synchronous call: limited, moved on, a tool read the file, answered.
    assert found["turn"] == "The word is heron."
    assert found["read"]
    assert found["served"] == [1, 2]
    assert found["histories"][-1] == ["system", "user", "assistant", "tool"]
