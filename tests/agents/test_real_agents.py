"""Real agents, headless and unedited: five faults of the first model, and a tool's round trip."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import frozen

from muxcore.standin import Answer, Behaviour, Cut, Received, ToolCall
from tests.agents.conftest import FAULTS, WORD, Desk, Ran

pytestmark = pytest.mark.slow

NUMBERS = re.compile(r"[0-9a-f]{4,}|[0-9]+")
"""What differs from run to run: ids, times, counts, the names of folders."""
SERVED = re.compile(r"\d+ calls? \((\w+) \d+\)")
"""The receipt where one model has served every call: some agents also ask for a title."""


SYSTEMS = {"system", "developer"}


@frozen
class Agent:
    """An agent, its package at npm, its command for a prompt, and its call that reads a file."""

    package: str
    command: tuple[str, ...]
    reading: Callable[[str], ToolCall]


AGENTS = {
    "codex": Agent(
        "@openai/codex",
        ("exec", "--skip-git-repo-check"),
        lambda _: ToolCall("exec_command", json.dumps({"cmd": "cat word.txt"})),
    ),
    "claude": Agent(
        "@anthropic-ai/claude-code",
        ("-p",),
        lambda file: ToolCall("Read", json.dumps({"file_path": file})),
    ),
    "opencode": Agent(
        "opencode-ai",
        ("run",),
        lambda file: ToolCall("read", json.dumps({"filePath": file})),
    ),
    "qwen": Agent(
        "@qwen-code/qwen-code",
        (),
        lambda file: ToolCall("read_file", json.dumps({"file_path": file})),
    ),
}


def pong(received: Received) -> Behaviour:
    # Without tools an agent asks for a title.
    return Answer("pong" if "tools" in received.body else "A title")


def reading(call: ToolCall) -> Callable[[Received], Behaviour]:
    def play(received: Received) -> Behaviour:
        said = [m for m in received.body["messages"] if m["role"] not in SYSTEMS]
        if said[-1]["role"] == "tool":
            seen = WORD in str(said[-1])
            return Answer(f"It says {WORD}." if seen else "It says nothing.")
        if "tools" in received.body and "read word.txt" in str(said[-1]["content"]):
            return Answer(tool_calls=(call,))
        return pong(received)

    return play


def expect_served_by(alias: str, ran: Ran) -> None:
    found = SERVED.search(ran.mux[-1])
    assert found is not None, ran.mux
    assert (found[1], "failed" in ran.mux[-1]) == (alias, False)


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_notices_no_fault(
    name: str, desk: Callable[..., Desk], from_npm: Callable[[str, str], Path]
) -> None:
    """It says what it says without a fault, and not a word more on stderr."""
    agent = AGENTS[name]
    command = (str(from_npm(agent.package, name)), *agent.command, "say pong")
    healthy = desk(pong).run(*command)
    assert (healthy.code, healthy.said) == (0, "pong"), healthy.remarks
    expect_served_by("large", healthy)
    for fault in FAULTS:
        ran = desk(pong, fault).run(*command)
        assert (ran.code, ran.said) == (0, "pong"), fault
        assert NUMBERS.sub("", ran.remarks) == NUMBERS.sub("", healthy.remarks), fault
        expect_served_by("small", ran)


@pytest.mark.parametrize("name", AGENTS)
def test_a_stream_that_breaks_off_is_asked_for_again_or_told(
    name: str, desk: Callable[..., Desk], from_npm: Callable[[str, str], Path]
) -> None:
    """Its first words are on the screen, so no other model can take over unseen."""
    agent = AGENTS[name]
    mine = desk(pong)
    mine.large.default = Cut(2)
    program = from_npm(agent.package, name)
    ran = mine.run(str(program), *agent.command, "say pong")
    told = f"{ran.said}\n{ran.remarks}"
    assert ran.said.endswith("pong") or "large broke off" in told, told
    assert "failed" in ran.mux[-1]


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_uses_a_tool_and_no_file_of_its_user_changes(
    name: str, desk: Callable[..., Desk], from_npm: Callable[[str, str], Path]
) -> None:
    agent = AGENTS[name]
    mine = desk(pong)
    mine.large.default = reading(agent.reading(str(mine.home / "work" / "word.txt")))
    program = from_npm(agent.package, name)
    ran = mine.run(str(program), *agent.command, "read word.txt")
    assert (ran.code, ran.said) == (0, f"It says {WORD}."), ran.remarks
    expect_served_by("large", ran)
