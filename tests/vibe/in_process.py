"""A real vibe over stand-in models, in one process. Run by its Python; prints JSON."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

HOME = Path(tempfile.mkdtemp())
os.environ.update(VIBE_HOME=str(HOME), MISTRAL_API_KEY="unused", HOME=str(HOME))
os.environ["VIBE_TEST_DISABLE_KEYRING"] = "1"
os.chdir(HOME)

from muxcore.standin import Answer, Model, StandInServer, ToolCall, rate_limited  # noqa: E402

VIBE_3 = version("mistral-vibe").startswith("3.")
LATE_VIBE_2 = [2, 26] <= [int(part) for part in version("mistral-vibe").split(".")] < [3]
"""The last of 2.x have a second harness, as 3.x has alone."""

SETTINGS = """
active_model = "large"
enable_telemetry = false
enable_update_checks = false
enable_auto_update = false
enable_connectors = false
disable_welcome_banner_animation = true

[experiments]
enable = false

[[providers]]
name = "lab"
api_base = "{url}"
backend = "generic"

[[models]]
name = "large-model"
provider = "lab"
alias = "large"

[[models]]
name = "small-model"
provider = "lab"
alias = "small"

[multiplexer]
enabled = true
mode = "failover"
max_wait_ms = 0
pool = [{{model = "large"}}, {{model = "small", is_fallback = true}}]
"""


def main() -> None:
    large, small = Model("large-model"), Model("small-model")
    with StandInServer([large, small]) as server:
        (HOME / "config.toml").write_text(SETTINGS.format(url=server.url))
        found = side_call(small) if VIBE_3 else own_turn(large, small)
        print(json.dumps(found | asyncio.run(calls(large, small))))


def pool() -> Any:
    from muxcore import Multiplexer, load_config

    return Multiplexer.from_config(load_config(HOME / "config.toml", env={}), env={})


def shown(chunk: Any) -> dict[str, Any]:
    message = chunk.message
    calls = [
        (c.index, c.id, c.function.name, c.function.arguments)
        for c in message.tool_calls or []
    ]
    usage = chunk.usage and (
        chunk.usage.prompt_tokens > 0,
        chunk.usage.completion_tokens > 0,
    )
    return {"text": message.content, "calls": calls, "usage": usage}


def model(alias: str) -> Any:
    from vibe.core.config import ModelConfig

    return ModelConfig(name=f"{alias}-model", provider="lab", alias=alias)


async def calls(large: Model, small: Model) -> dict[str, Any]:
    from vibe.core.llm.exceptions import BackendError
    from vibe.core.types import LLMMessage, Role

    from muxcore.vibe import PoolBackend

    asked: dict[str, Any] = {
        "model": model("large"),
        "messages": [LLMMessage(role=Role.user, content="ping")],
        "temperature": 0.2,
        "tools": None,
        "max_tokens": None,
        "tool_choice": None,
        "extra_headers": {"x-affinity": "a-session"},
    }
    found: dict[str, Any] = {}
    with pool() as multiplexer:
        backend = PoolBackend(multiplexer, active="large")
        large.then(rate_limited())
        async with backend as entered:
            found["failed over"] = shown(await entered.complete(**asked))
        multiplexer.reset()
        large.then(Answer(text="", tool_calls=(ToolCall("read_file", '{"path": "x"}'),)))
        whole = None
        async for chunk in backend.complete_streaming(**asked):
            whole = chunk if whole is None else whole + chunk
        found["streamed"] = shown(whole)
        found["alone"] = shown(await backend.complete(**{**asked, "model": model("small")}))
        found["tokens"] = await backend.count_tokens(
            model=asked["model"], messages=asked["messages"]
        )
        large.default = small.default = rate_limited()
        try:
            await backend.complete(**asked)
        except BackendError as error:
            found["refused"] = [error.status, sorted(error.headers), str(error)]
    return found


def own_turn(large: Model, small: Model) -> dict[str, Any]:
    """Run a whole turn of vibe's own, a tool call included, as one synchronous call."""
    from muxcore.vibe import through_pool

    (HOME / "note.txt").write_text("the word is heron")
    turn = OwnTurn()
    large.then(rate_limited())
    # What has begun on a model stays there for the turn.
    reading = ToolCall(turn.tool, turn.arguments(HOME / "note.txt"))
    small.then(Answer(text="", tool_calls=(reading,)), Answer(text="The word is heron."))
    with pool() as multiplexer, through_pool(multiplexer, active="large"):
        before = len(large.requests)
        answer = turn.run("What is in note.txt?")
        requests = [*large.requests[before:], *small.requests]
    histories = [[m["role"] for m in r.body["messages"]] for r in requests]
    results = [
        m["content"] for r in requests for m in r.body["messages"] if m["role"] == "tool"
    ]
    return {
        "turn": answer,
        "histories": histories,
        "read": any("heron" in result for result in results),
        "served": [len(large.requests), len(small.requests)],
    }


def side_call(small: Model) -> dict[str, Any]:
    """Run what vibe 3 asks beside its turns, such as the name of a session."""
    from vibe.core.config.default_orchestrator import build_user_config_orchestrator
    from vibe.core.config.harness_files import init_harness_files_manager
    from vibe.core.llm.utility_completion import run_utility_completion

    from muxcore.vibe import through_pool

    async def ask() -> Any:
        config = (await build_user_config_orchestrator()).config
        return await run_utility_completion(
            config=config,
            system_prompt="Name it.",
            user_content="A session",
            max_tokens=20,
            request_timeout_seconds=5,
            retry_budget_seconds=5,
        )

    init_harness_files_manager("user")
    with pool() as multiplexer, through_pool(multiplexer):
        multiplexer_asked = asyncio.run(ask())
    return {"side call": multiplexer_asked}


class OwnTurn:
    """`run_programmatic`, whose place, arguments and tools have changed over the versions."""

    def __init__(self) -> None:
        from vibe.core.tools import builtins

        with suppress(ImportError):
            from vibe.core.config.harness_files import init_harness_files_manager

            init_harness_files_manager("user")
        with suppress(ImportError):
            from vibe.core.paths.config_paths import unlock_config_paths

            unlock_config_paths()
        names = {path.stem for path in Path(next(iter(builtins.__path__))).iterdir()}
        self.tool = "read_file" if "read_file" in names else "read"

    def arguments(self, path: Path) -> str:
        name = "file_path" if self.tool == "read" or LATE_VIBE_2 else "path"
        return json.dumps({name: str(path)})

    def run(self, prompt: str) -> Any:
        return self._run_harness(prompt) if LATE_VIBE_2 else self._run_loop(prompt)

    def _run_loop(self, prompt: str) -> Any:
        from vibe.core.config import VibeConfig
        from vibe.core.programmatic import run_programmatic

        options: dict[str, Any] = {"max_turns": 4}
        with suppress(ImportError):
            from vibe.core.agents.models import BuiltinAgentName

            options |= {"agent_name": BuiltinAgentName.AUTO_APPROVE}
        return run_programmatic(VibeConfig.load(), prompt, **options)

    def _run_harness(self, prompt: str) -> Any:
        """Run the Python harness of the last of 2.x: the other one calls no backend."""
        from vibe.app_server.local import ClientDescriptor, LocalHarnessOptions
        from vibe.app_server.protocol import ClientCapabilities, ClientInfo, SessionOptions
        from vibe.cli.headless_run import RunLimits, StopRequests
        from vibe.cli.programmatic import run_programmatic

        options = LocalHarnessOptions(
            legacy_harness=True,
            client=ClientDescriptor(
                info=ClientInfo(name="tests", title="tests", version="1"),
                capabilities=ClientCapabilities(callback_kinds=[]),
            ),
            session_options=SessionOptions(
                cwd=str(HOME), auto_approve=True, max_turns=4, headless=True
            ),
        )
        report = run_programmatic(
            harness_options=options, prompt=prompt, stop=StopRequests(RunLimits())
        )
        return report.final_response


if __name__ == "__main__":
    main()
