"""The OpenAI Agents SDK with its defaults: the Responses API, a tool, whole and streamed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from muxcore.standin import Answer, Behaviour, Received, ToolCall
from tests.agents.conftest import FAULTS, WORD, Desk

pytestmark = pytest.mark.slow

SCRIPT = f"""
import asyncio
from agents import Agent, Runner, function_tool

@function_tool
def look(at: str) -> str:
    return "a {WORD}" if at == "tree" else "nothing"

async def main():
    agent = Agent(name="watcher", instructions="Be brief.", tools=[look])
    first = await Runner.run(agent, "Look there.")
    print(first.final_output)
    asked = [*first.to_input_list(), {{"role": "user", "content": "Again."}}]
    second = Runner.run_streamed(agent, asked)
    events = [event async for event in second.stream_events()]
    print(second.final_output, len(events) > 5)

asyncio.run(main())
"""


def play(received: Received) -> Behaviour:
    *_, last = received.body["messages"]
    if last["role"] == "tool":
        return Answer(f"I see {last['content']}.")
    return Answer(tool_calls=(ToolCall("look", '{"at": "tree"}'),))


@pytest.mark.parametrize("fault", ["", *FAULTS])
def test_an_agent_of_the_sdk_uses_its_tool(
    fault: str, desk: Callable[..., Desk], python_with: Callable[[str], Path]
) -> None:
    mine = desk(play, fault)
    (mine.home / "watch.py").write_text(SCRIPT)
    python = python_with("openai-agents")
    ran = mine.run(str(python), str(mine.home / "watch.py"))
    assert (ran.code, ran.said) == (0, f"I see a {WORD}.\nI see a {WORD}. True"), (
        ran.remarks
    )
    assert not ran.remarks
    served = "small" if fault else "large"
    assert f"4 calls ({served} 4)" in ran.mux[-1]
