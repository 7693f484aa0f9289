"""vibe-mux is upgraded while an agent runs: its files are replaced under its processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from attrs import frozen

from muxcore.gateway import find
from muxcore.standin import (
    Answer,
    Model,
    StandInServer,
    rate_limited,
)
from tests.gateway.conftest import as_toml, config
from tests.processes import COMMAND, SOURCES, environment
from tests.waiting import PATIENCE, wait_until

AGENT = """
import json, os, sys, time, urllib.request

def ask(path, **body):
    request = urllib.request.Request(
        os.environ["OPENAI_BASE_URL"] + path, json.dumps(body).encode(),
        {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"],
         "Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        # To the end of the connection: the server has counted the call by then.
        return "heron" if "heron" in answer.fp.read().decode() else "nothing"

def chat(words="ping", **more):
    messages = [{"role": "user", "content": words}]
    return ask("/chat/completions", model="vibe-mux", messages=messages, **more)

print(chat(), flush=True)
sys.stdin.readline()
"""
CALLS = {
    "chat": "chat()",
    "stream": "chat(stream=True)",
    "responses": 'ask("/responses", model="vibe-mux", input="ping")',
    "stream of responses": 'ask("/responses", model="vibe-mux", input="ping", stream=True)',
}


@frozen(eq=False)
class Installation:
    """Files of its own, which an agent runs from, and a config over two models."""

    tree: Path
    file: Path
    env: dict[str, str]
    large: Model
    small: Model
    stack: ExitStack

    def install(self) -> None:
        shutil.rmtree(self.tree, ignore_errors=True)
        for source in SOURCES:
            for package in source.glob("muxcore*"):
                there = self.tree / source.name / package.name
                no_bytecode = shutil.ignore_patterns("__pycache__")
                shutil.copytree(package, there, ignore=no_bytecode)

    def break_all(self) -> None:
        """Put files there which no process of this version can import."""
        for file in self.tree.rglob("*.py"):
            file.write_text("raise ImportError('this file is of another version')")
        for folder in list(self.tree.rglob("__pycache__")):
            shutil.rmtree(folder)

    def start(self, script: str) -> subprocess.Popen[str]:
        """Start an agent which goes on after its first call when it is told to."""
        program = [sys.executable, "-c", AGENT + script]
        started = subprocess.Popen(
            [*COMMAND, "run", "--config", str(self.file), "--", *program],
            env=self.env,
            cwd=self.tree,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.stack.callback(started.communicate)
        self.stack.callback(started.kill)
        assert started.stdout is not None
        assert started.stdout.readline() == "heron\n"
        return started


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    large = Model("large-model", Answer("heron", pieces=1))
    small = Model("small-model", Answer("heron", pieces=1))
    tree = tmp_path / "installed"
    paths = os.pathsep.join(str(tree / each.name) for each in SOURCES)
    with ExitStack() as stack:
        upstream = stack.enter_context(StandInServer([large, small]))
        file = tmp_path / "config.toml"
        file.write_text(as_toml(config(upstream.url, "large", "small")))
        env = environment(tmp_path, PYTHONPATH=paths)
        made = Installation(tree, file, env, large, small, stack)
        made.install()
        yield made


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_an_agent_is_served_on(installation: Installation, call: str) -> None:
    agent = installation.start(f"print({call})")
    installation.break_all()
    installation.large.default = rate_limited()
    out, errors = agent.communicate("\n", timeout=PATIENCE)
    assert out == "heron\n", errors
    receipt = errors.splitlines()[-1]
    assert receipt.startswith("vibe-mux: 1 interruption avoided")
    assert "2 calls (large 1, small 1)" in receipt


def test_the_status_is_shown_and_a_changed_config_is_read(
    installation: Installation,
) -> None:
    agent = installation.start(
        'while chat("/mux") == "nothing":\n    time.sleep(0.01)\nprint("read")'
    )
    installation.break_all()
    text = installation.file.read_text()
    installation.file.write_text(text.replace('"small"', '"heron"'))
    out, errors = agent.communicate("\n", timeout=PATIENCE)
    assert out == "read\n", errors


@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
def test_a_server_that_ends_is_replaced_by_one_of_the_new_files(
    installation: Installation,
) -> None:
    agent = installation.start("print(chat())")
    installation.break_all()
    installation.install()
    server = find(installation.file, installation.env)
    assert server is not None
    os.kill(server.pid, signal.SIGKILL)
    out, errors = agent.communicate("\n", timeout=PATIENCE)
    assert out == "heron\n", errors


def test_a_run_of_the_new_files_shares_the_server_of_the_old_ones(
    installation: Installation,
) -> None:
    first = installation.start("print(chat())")
    installation.break_all()
    installation.install()
    installation.large.default = rate_limited()
    second = installation.start("print(chat())")
    for agent in (first, second):
        assert agent.communicate("\n", timeout=PATIENCE)[0] == "heron\n"
    # Two first calls, of which the second met the limit for both agents.
    assert len(installation.large.requests) == 2
    wait_until(lambda: find(installation.file, installation.env) is None)
