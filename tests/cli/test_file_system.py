"""No state of the file system gives a user a traceback: one line names the file and the reason."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from muxcore.cli import main

State = Callable[[Path], None]


def a_directory(config: Path) -> None:
    config.mkdir(parents=True)


def a_loop(config: Path) -> None:
    config.parent.mkdir()
    config.symlink_to(config)


def a_dangling_link(config: Path) -> None:
    config.parent.mkdir()
    config.symlink_to("nowhere.toml")


def a_file_for_the_directory(config: Path) -> None:
    config.parent.touch()


def a_loop_for_the_directory(config: Path) -> None:
    config.parent.symlink_to(config.parent)


def an_unreadable_file(config: Path) -> None:
    config.parent.mkdir()
    config.touch(mode=0o000)


def a_directory_without_entry(config: Path) -> None:
    config.parent.mkdir(mode=0o000)


STATES = [
    a_directory,
    a_loop,
    a_dangling_link,
    a_file_for_the_directory,
    a_loop_for_the_directory,
    an_unreadable_file,
    a_directory_without_entry,
]


@contextmanager
def in_state(state: State, config: Path) -> Iterator[None]:
    state(config)
    try:
        denied = {an_unreadable_file: config, a_directory_without_entry: config.parent}
        if state in denied and os.access(denied[state], os.R_OK):
            pytest.skip("this user may read everything")
        yield
    finally:
        if state is a_directory_without_entry:
            config.parent.chmod(0o700)


@pytest.mark.skipif(os.name == "nt", reason="links and permissions of POSIX")
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    "command",
    [
        ["check"],
        ["check", "--json"],
        ["doctor"],
        ["doctor", "--json"],
        ["chat", "hi"],
        ["chat", "hi", "--json"],
        ["reset"],
        ["serve"],
        ["serve", "--json"],
        ["init", "--yes"],
        ["init", "--move", "--yes"],
    ],
    ids=" ".join,
)
def test_a_config_that_cannot_be_read_is_named_with_the_reason(
    command: list[str], state: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "vibe-home" / "config.toml"
    with in_state(state, config):
        assert main.main(command) == 1
    captured = capsys.readouterr()
    if "--json" in command:
        assert captured.err == ""
        answer = json.loads(captured.out)
        assert not answer["ok"]
        (line,) = answer["problems"]
    else:
        (line,) = captured.err.splitlines()
    assert line.removeprefix("vibe-mux: ").startswith(f"{config}: ")


@pytest.mark.skipif(os.name == "nt", reason="links and permissions of POSIX")
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    "command",
    [["status"], ["init", "--uninstall"], ["modes"]],
    ids=" ".join,
)
def test_what_needs_no_config_answers_or_names_the_file(
    command: list[str], state: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "vibe-home" / "config.toml"
    with in_state(state, config):
        code = main.main(command)
    lines = capsys.readouterr().err.splitlines()
    assert (code, len(lines)) in {(0, 0), (1, 1)}
