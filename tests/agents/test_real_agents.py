"""Real agents, headless and unedited: five faults of the first model, and a tool's round trip."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import frozen

from muxcore.standin import Answer, Behaviour, Cut, Received, ToolCall
from tests.agents.conftest import FAULTS, WORD, Desk

pytestmark = pytest.mark.slow

NUMBERS = re.compile(r"[0-9a-f]{4,}|[0-9]+")
"""What differs from run to run: ids, times, counts, the names of folders."""


@frozen
class Agent:
    """An agent, its package at npm, its command for a prompt, and its tool that reads a file."""

    package: str
    command: tuple[str, ...]
    tool: ToolCall


AGENTS = {
    "codex": Agent(
        "@openai/codex",
        ("exec", "--skip-git-repo-check"),
        ToolCall("exec_command", json.dumps({"cmd": "cat word.txt"})),
    ),
}


def playing(agent: Agent) -> Callable[[Received], Behaviour]:
    def play(received: Received) -> Behaviour:
        *_, last = received.body["messages"]
        if last["role"] == "tool":
            return Answer(f"It says {WORD}." if WORD in str(last) else "It says nothing.")
        if "read word.txt" in str(last["content"]):
            return Answer(tool_calls=(agent.tool,))
        return Answer("pong")

    return play


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_notices_no_fault(
    name: str, desk: Callable[..., Desk], from_npm: Callable[[str, str], Path]
) -> None:
    """It says what it says without a fault, and not a word more on stderr."""
    agent = AGENTS[name]
    command = (str(from_npm(agent.package, name)), *agent.command, "say pong")
    healthy = desk(playing(agent)).run(*command)
    assert (healthy.code, healthy.said) == (0, "pong")
    assert "1 call (large 1)" in healthy.mux[-1]
    for fault in FAULTS:
        ran = desk(playing(agent), fault).run(*command)
        assert (ran.code, ran.said) == (0, "pong"), fault
        assert NUMBERS.sub("", ran.remarks) == NUMBERS.sub("", healthy.remarks), fault
        assert "1 call (small 1)" in ran.mux[-1], fault


def test_codex_asks_again_when_a_stream_breaks_off(
    desk: Callable[..., Desk], from_npm: Callable[[str, str], Path]
) -> None:
    """Its first words are on the screen, so no other model can take over unseen."""
    agent = AGENTS["codex"]
    mine = desk(playing(agent))
    mine.large.then(Cut(2))
    program = from_npm(agent.package, "codex")
    ran = mine.run(str(program), *agent.command, "say pong")
    assert (ran.code, ran.said) == (0, "pong")
    assert "1 call (small 1), 1 failed" in ran.mux[-1]


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_uses_a_tool_and_no_file_of_its_user_changes(
    name: str, desk: Callable[..., Desk], from_npm: Callable[[str, str], Path]
) -> None:
    agent = AGENTS[name]
    mine = desk(playing(agent))
    program = from_npm(agent.package, name)
    ran = mine.run(str(program), *agent.command, "read word.txt")
    assert (ran.code, ran.said) == (0, f"It says {WORD}.")
    assert "2 calls (large 2)" in ran.mux[-1]
