"""`vibe-mux whatif`: the calls of the state file under another config."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from muxcore import Multiplexer
from tests.cli.conftest import Command

Configure = Callable[..., Path]
Captured = pytest.CaptureFixture[str]
CALLS = 20
PROMPT = [{"role": "user", "content": "CANARY"}]


@pytest.fixture
def other(configure: Configure, tmp_path: Path) -> Callable[..., str]:
    """Write another config: this text in place of that one."""

    def other(old: str, new: str) -> str:
        file = tmp_path / "other.toml"
        text = configure('state = "file"').read_text("utf-8")
        assert old in text
        file.write_text(text.replace(old, new), "utf-8")
        return str(file)

    return other


@pytest.fixture
def made(configure: Configure) -> None:
    with Multiplexer.from_config(configure('state = "file"')) as multiplexer:
        for _ in range(CALLS):
            multiplexer.complete(PROMPT, session="CANARY-session")


@pytest.mark.usefixtures("made")
def test_the_same_pool_gives_the_same_figures(
    command: Command, other: Callable[..., str]
) -> None:
    code, out, _ = command(
        "whatif", other("max_wait_ms = 0", "max_wait_ms = 500"), "--json"
    )
    found = json.loads(out)
    assert (code, found["requests"], found["conclusive"]) == (0, CALLS, True)
    assert found["estimated"] == 0.0
    assert found["recorded"]["answers of alpha"] == CALLS
    assert found["rehearsed"] == found["recorded"]
    assert "CANARY" not in out


@pytest.mark.usefixtures("made")
def test_the_figures_are_shown_side_by_side(
    command: Command, other: Callable[..., str]
) -> None:
    file = other("max_wait_ms = 0", "max_wait_ms = 500")
    code, out, _ = command("whatif", file)
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "20 requests; 0% of the attempts under it are estimated."
    assert lines[2].split() == ["recorded", file]
    assert "answers of alpha" in out
    assert "CANARY" not in out


@pytest.mark.usefixtures("made")
def test_a_pool_that_the_journal_knows_nothing_of_cannot_be_told(
    command: Command, other: Callable[..., str]
) -> None:
    code, out, _ = command("whatif", other('"model-a"', '"model-x"'))
    assert code == 0
    assert out.startswith("It cannot tell what ")
    assert "100% of the attempts under it are estimated" in out


def test_a_journal_without_calls_has_nothing_to_compare(
    command: Command, configure: Configure, other: Callable[..., str]
) -> None:
    with Multiplexer.from_config(configure('state = "file"')) as multiplexer:
        multiplexer.reset()
    code, out, _ = command("whatif", other("max_wait_ms = 0", "max_wait_ms = 500"))
    assert (code, out) == (0, "The journal has no call: there is nothing to compare.\n")


def test_a_faulty_config_is_explained(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "faulty.toml"
    file.write_text("[multiplexer]\nenabled = 3\n")
    code, _, err = command("whatif", str(file))
    assert code == 1
    assert "faulty.toml" in err
    assert "Traceback" not in err
