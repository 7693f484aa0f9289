"""Frameworks for agents with their defaults: a tool, whole and streamed, over each API."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import frozen

from muxcore.standin import Answer, Behaviour, Received, ToolCall
from tests.agents.conftest import FAULTS, WORD, Desk

pytestmark = pytest.mark.slow

LOOK = f'''
def look(at: str) -> str:
    """Look at a place."""
    return "a {WORD}" if at == "tree" else "nothing"
'''

AGENTS_SDK = """
import asyncio
from agents import Agent, Runner, function_tool

async def main():
    agent = Agent(name="watcher", instructions="Be brief.", tools=[function_tool(look)])
    first = await Runner.run(agent, "Look there.")
    print(first.final_output)
    asked = [*first.to_input_list(), {"role": "user", "content": "Again."}]
    second = Runner.run_streamed(agent, asked)
    events = [event async for event in second.stream_events()]
    print(second.final_output, len(events) > 5)

asyncio.run(main())
"""

PYDANTIC_AI = """
import asyncio
from pydantic_ai import Agent

async def main():
    agent = Agent("MODEL", instructions="Be brief.", tools=[look])
    first = await agent.run("Look there.")
    print(first.output)
    history = first.all_messages()
    async with agent.run_stream("Again.", message_history=history) as second:
        pieces = [piece async for piece in second.stream_text(delta=True, debounce_by=None)]
    print("".join(pieces), len(pieces) > 1)

asyncio.run(main())
"""

LANGCHAIN = """
from langchain.agents import create_agent

agent = create_agent("MODEL", tools=[look], system_prompt="Be brief.")
first = agent.invoke({"messages": [{"role": "user", "content": "Look there."}]})
print(first["messages"][-1].text)
asked = [*first["messages"], {"role": "user", "content": "Again."}]
said = [
    piece.text
    for piece, _ in agent.stream({"messages": asked}, stream_mode="messages")
    if piece.type == "AIMessageChunk"
]
print("".join(said), len(said) > 5)
"""


@frozen
class Framework:
    """A framework: what pip installs, its script, and the model that the script names."""

    packages: str
    script: str
    model: str = ""


PYDANTIC_PACKAGES = "pydantic-ai-slim[openai,anthropic]"
LANGCHAIN_PACKAGES = "langchain langchain-openai langchain-anthropic"
FRAMEWORKS = {
    "OpenAI Agents SDK": Framework("openai-agents", AGENTS_SDK),
    "pydantic-ai, Responses": Framework(PYDANTIC_PACKAGES, PYDANTIC_AI, "openai:gpt-5"),
    "pydantic-ai, chat": Framework(PYDANTIC_PACKAGES, PYDANTIC_AI, "openai-chat:gpt-5"),
    "pydantic-ai, Messages": Framework(
        PYDANTIC_PACKAGES, PYDANTIC_AI, "anthropic:claude-sonnet-4-5"
    ),
    "LangChain, chat": Framework(LANGCHAIN_PACKAGES, LANGCHAIN, "openai:gpt-5"),
    "LangChain, Messages": Framework(
        LANGCHAIN_PACKAGES, LANGCHAIN, "anthropic:claude-sonnet-4-5"
    ),
}


def play(received: Received) -> Behaviour:
    *_, last = received.body["messages"]
    if last["role"] == "tool":
        return Answer(f"I see {last['content']}.")
    return Answer(tool_calls=(ToolCall("look", '{"at": "tree"}'),))


@pytest.mark.parametrize("fault", ["", *FAULTS])
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_an_agent_of_a_framework_uses_its_tool(
    name: str, fault: str, desk: Callable[..., Desk], python_with: Callable[[str], Path]
) -> None:
    framework = FRAMEWORKS[name]
    mine = desk(play, fault)
    script = LOOK + framework.script.replace("MODEL", framework.model)
    (mine.home / "watch.py").write_text(script)
    python = python_with(framework.packages)
    ran = mine.run(str(python), str(mine.home / "watch.py"))
    assert (ran.code, ran.said) == (0, f"I see a {WORD}.\nI see a {WORD}. True"), (
        ran.remarks
    )
    assert not ran.remarks
    served = "small" if fault else "large"
    assert f"4 calls ({served} 4)" in ran.mux[-1]
