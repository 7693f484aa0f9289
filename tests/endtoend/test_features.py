"""Features of vibe that ask models outside of a plain turn work as with a bare vibe."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import pytest

from muxcore.standin import Answer, Behaviour, Received, ToolCall, rate_limited
from tests.endtoend.conftest import VERSIONS, WORD, Desk, Ended, in_words, spoken

pytestmark = pytest.mark.slow
Desks = Callable[..., Desk]
NAMES = ("large", "small")
ALL = pytest.mark.parametrize("version", VERSIONS)

SERVER = f"""\
from mcp.server.fastmcp import FastMCP

server = FastMCP("lab")


@server.tool()
def secret() -> str:
    return "{WORD}"


server.run()
"""
SMALL = "max_context_length = 60000\nauto_compact_threshold = 30000\n"
LONG = "word " * 20_000
"""More than half of the small window, as vibe counts."""


def both_ways(make: Callable[[], Desk], ask: Callable[..., Ended]) -> tuple[Desk, Desk]:
    """Ask a bare vibe, and one through the pool whose first model is limited."""
    bare, pooled = make(), make()
    pooled.large.default = rate_limited()
    answers = [ask(bare.bare), ask(pooled.pooled)]
    assert [(each.code, each.said) for each in answers] == [(0, answers[0].said)] * 2
    assert len(pooled.large.requests) == 1
    assert len(pooled.small.requests) == len(bare.large.requests)
    return bare, pooled


def made(desks: Desks, version: str, play: Callable[[Received], Behaviour]) -> Desk:
    desk = desks(version, small=play)
    desk.large.default = play
    return desk


def typescript(code: str) -> Answer:
    code = f"async function main() {{ {code} }}"
    return Answer(tool_calls=(ToolCall("run_typescript", json.dumps({"code": code})),))


def with_a_sub_agent(received: Received) -> Behaviour:
    """Play a model that leaves the reading to a sub-agent, and waits for what it says."""
    first, *later = [m for m in received.body["messages"] if m["role"] != "system"]
    if "delegate" not in str(first["content"]):
        return in_words(received)
    if WORD in str(later):
        return Answer(f"It says {WORD}.")
    if any(tool["function"]["name"] == "wait" for tool in received.body["tools"]):
        if later:
            return Answer(tool_calls=(ToolCall("wait", '{"timeout_ms": 60000}'),))
        return typescript('await tools.agents.spawn({name: "bird", message: "read it"});')
    return typescript(
        'await tools.subagent.spawn({agentName: "bird", message: "read it"});'
        ' return await tools.subagent.wait({agentName: "bird", timeoutMs: 60000});'
    )


@ALL
def test_a_sub_agent(desks: Desks, version: str) -> None:
    make = partial(made, desks, version, with_a_sub_agent)
    _, pooled = both_ways(make, lambda ask: ask("-p", "delegate it"))
    asked = [spoken(each)[0] for each in pooled.small.requests]
    assert {"read it", "delegate it"} == set(asked)


def with_a_server(received: Received) -> Behaviour:
    """Play a model that asks a tool of an MCP server."""
    last = received.body["messages"][-1]
    if last["role"] == "tool":
        return Answer(f"It says {WORD}." if WORD in str(last) else "It says nothing.")
    return typescript("return await tools.mcp_lab.secret({});")


@ALL
def test_an_mcp_server(desks: Desks, version: str) -> None:
    def make() -> Desk:
        desk = made(desks, version, with_a_server)
        server = desk.work / "server.py"
        server.write_text(SERVER)
        python = desk.vibe.with_name("python")
        section = '\n[[mcp_servers]]\nname = "lab"\ntransport = "stdio"\n'
        desk.rewrite(more=f'{section}command = "{python}"\nargs = ["{server}"]\n')
        return desk

    bare, _ = both_ways(make, lambda ask: ask("--agent", "auto-approve", "-p", "ask it"))
    assert WORD in str(bare.large.requests[-1].body["messages"][-1])


def with_a_summary(received: Received) -> Behaviour:
    """Play a model that sums up when it is asked for a summary."""
    asked = str(received.body["messages"])
    return Answer("the summary" if "<compaction_summary>" not in asked else "what follows")


@ALL
def test_a_compaction(desks: Desks, version: str) -> None:
    def make() -> Desk:
        desk = made(desks, version, with_a_summary)
        desk.rewrite(*((f'alias = "{a}"\n', f'alias = "{a}"\n{SMALL}') for a in NAMES))
        return desk

    def ask(vibe: Callable[..., Ended]) -> Ended:
        assert vibe("-p", f"first {LONG}").code == 0
        return vibe("-c", "-p", "second")

    bare, pooled = both_ways(make, ask)
    for model in (bare.large, pooled.small):
        summed_up = str(model.requests[-1].body["messages"])
        assert "the summary" in summed_up
        assert "second" in summed_up
