"""`vibe-mux replay`: decisions made again from the state file, and exports of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from muxcore import Multiplexer
from muxcore.core import entries
from muxcore.standin import Model, rate_limited
from tests.cli.conftest import Command

Configure = Callable[..., Path]
Captured = pytest.CaptureFixture[str]
CALLS = 300


@pytest.fixture
def made(configure: Configure, alpha: Model) -> None:
    """Some calls of one process, more than lie between two checkpoints, and of another."""
    file = configure('state = "file"')
    prompt = [{"role": "user", "content": "CANARY"}]
    with Multiplexer.from_config(file) as multiplexer:
        for number in range(CALLS):
            if number == 100:
                alpha.then(rate_limited(timedelta(seconds=1)))
            multiplexer.complete(prompt, session="CANARY-session")
    with Multiplexer.from_config(file) as multiplexer:
        multiplexer.complete(prompt)


@pytest.mark.usefixtures("made")
def test_all_decisions_of_the_state_file_are_made_again(command: Command) -> None:
    code, out, _ = command("replay", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["difference"] is None
    assert found["journals"] == 2
    assert found["decisions"] == CALLS + 2
    assert found["states"] >= 1
    assert command("replay")[1].endswith("states compared. All are as recorded.\n")


@pytest.mark.usefixtures("made")
def test_an_export_is_replayed_and_explained_as_the_file_is(
    command: Command, tmp_path: Path
) -> None:
    export = tmp_path / "calls.jsonl"
    code, out, _ = command("replay", "--export", str(export))
    assert (code, out.startswith(f"{export}: 2 journals, ")) == (0, True)
    code, out, _ = command("replay", str(export))
    assert (code, "All are as recorded." in out) == (0, True)
    with_file = command("why", "--last", "3")[1]
    assert command("why", "--last", "3", "--journal", str(export))[1] == with_file
    assert b"CANARY" not in export.read_bytes()
    code, _, err = command("replay", "--export", str(export))
    assert (code, err) == (1, f"vibe-mux: {export}: File exists\n")


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(("rules", "code"), [(entries.RULES, 1), (entries.RULES + 1, 0)])
def test_a_difference_is_named_with_both_reasons(
    command: Command, tmp_path: Path, rules: int, code: int
) -> None:
    """One under other rules is no fault."""
    export = tmp_path / "calls.jsonl"
    command("replay", "--export", str(export))
    text = export.read_text()
    changed = text.replace('"alias":"alpha","call":1,', '"alias":"beta","call":1,', 1)
    assert changed != text
    if rules != entries.RULES:
        changed = changed.replace('{"journal":{', f'{{"journal":{{"rules":{rules},')
    export.write_text(changed)
    found, out, _ = command("replay", str(export))
    assert found == code
    assert "recorded: asks beta (the mode's choice)" in out
    assert "today:    asks alpha (the mode's choice)" in out
    assert ("a difference is no fault" in out) is (code == 0)
