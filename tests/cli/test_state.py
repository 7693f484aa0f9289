"""What the commands keep between runs, and `vibe-mux reset`."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from muxcore.board.state_dir import default_path
from muxcore.standin import Model, rate_limited
from tests.cli.conftest import Command

Configure = Callable[..., Path]
Captured = pytest.CaptureFixture[str]
LIMITED = rate_limited(timedelta(seconds=90))


def test_three_chats_in_a_row_ask_a_limited_model_once(
    command: Command, alpha: Model, beta: Model
) -> None:
    alpha.then(LIMITED)
    for _ in range(3):
        assert command("chat", "hello")[0] == 0
    assert len(alpha.requests) == 1
    assert len(beta.requests) == 3
    assert default_path(os.environ).exists()


def test_reset_ends_the_cooldown_for_the_next_run(command: Command, alpha: Model) -> None:
    alpha.then(LIMITED)
    command("chat", "hello")
    assert command("reset", "alpha") == (0, "alpha may be used again.\n", "")
    assert command("chat", "hello")[1] == "pong from model-a\n"
    assert command("reset") == (0, "All models may be used again.\n", "")


def test_reset_of_an_unknown_model_names_the_known_ones(command: Command) -> None:
    code, out, err = command("reset", "gamma")
    assert (code, out) == (1, "")
    assert err == "vibe-mux: there is no model 'gamma' in the pool (known: alpha, beta)\n"


def test_reset_says_when_there_is_nothing_shared(command: Command) -> None:
    code, _, err = command("reset", more='[multiplexer]\nstate = "memory"')
    assert code == 1
    assert "vibe-mux" in err


def test_a_file_that_cannot_be_used_fails_a_reset_with_words(command: Command) -> None:
    file = default_path(os.environ)
    file.parent.mkdir(parents=True, mode=0o700)
    file.write_text("theirs")
    code, _, err = command("reset")
    assert code == 1
    assert err == (
        "vibe-mux: nothing to reset: State is kept in memory only:"
        f" {file} is not a state file\n"
    )
    assert command("chat", "hello")[0] == 0
