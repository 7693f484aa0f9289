"""The clients that people use: the openai SDK, in both its ways, and curl."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from muxcore.standin import Answer, Cut, StatusAnswer, ToolCall, rate_limited, refusal
from tests.dialects.official import need
from tests.gateway.conftest import CHAT, PING, TOKEN, Served

try:
    import openai
except ImportError:  # pragma: no cover - an accident of the environment
    openai = None  # type: ignore[assignment]

Serve = Callable[..., Served]
CURL = shutil.which("curl")
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "read_file",
            "parameters": {"type": "object", "properties": {}},
        },
    }
]

needs_openai = pytest.mark.skipif(
    openai is None, reason="NOT TRIED: the openai SDK is not installed (pip install openai)"
)
needs_curl = pytest.mark.skipif(CURL is None, reason="NOT TRIED: there is no curl here")


def sync_client(served: Served) -> openai.OpenAI:
    base = f"{served.gateway.url}/v1"
    return openai.OpenAI(base_url=base, api_key=TOKEN, max_retries=0)


@needs_openai
def test_openai_reads_a_whole_response(serve: Serve) -> None:
    with sync_client(serve()) as client:
        answer = client.chat.completions.create(model="mux", messages=PING)
        assert answer.choices[0].message.content == "pong from large-model"
        assert answer.usage is not None
        assert answer.usage.total_tokens > 0
        assert [model.id for model in client.models.list()] == ["mux", "large", "small"]
        assert client.models.retrieve("small").id == "small"


@needs_openai
def test_openai_streams(serve: Serve) -> None:
    served = serve()
    served.large.then(rate_limited())
    with sync_client(served) as client:
        chunks = list(
            client.chat.completions.create(
                model="mux",
                messages=PING,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "pong from small-model"
    assert chunks[-1].usage is not None
    assert chunks[-1].choices == []


@needs_openai
def test_openai_assembles_tool_calls(serve: Serve) -> None:
    served = serve()
    calls = (ToolCall("read_file", '{"path": "a"}'), ToolCall("read_file", '{"path": "b"}'))
    served.large.then(Answer(tool_calls=calls, pieces=4))
    with (
        sync_client(served) as client,
        client.chat.completions.stream(
            model="mux",
            messages=PING,
            tools=TOOLS,
        ) as stream,
    ):
        final = stream.get_final_completion()
    made = final.choices[0].message.tool_calls or []
    assert [json.loads(call.function.arguments)["path"] for call in made] == ["a", "b"]
    assert final.choices[0].finish_reason == "tool_calls"
    assert len({call.id for call in made}) == 2


@needs_openai
def test_openai_raises_the_matching_error(serve: Serve) -> None:
    served = serve(section={"max_wait_ms": 0})
    with sync_client(served) as client:
        ask = client.chat.completions.create
        with pytest.raises(openai.NotFoundError, match="known are mux, large, small"):
            ask(model="gpt-4", messages=PING)
        with pytest.raises(openai.BadRequestError) as bad:
            ask(model="mux", messages=[])
        assert bad.value.param == "messages"
        served.large.then(refusal(422, "no"))
        served.small.then(refusal(422, "no"))
        with pytest.raises(openai.UnprocessableEntityError):
            ask(model="mux", messages=PING)
        served.large.default = served.small.default = rate_limited(timedelta(seconds=9))
        with pytest.raises(openai.RateLimitError) as limited:
            ask(model="mux", messages=PING)
        assert 0 < int(limited.value.response.headers["retry-after"]) <= 9
    served = serve(section={"max_wait_ms": 0})
    served.large.default = served.small.default = StatusAnswer(500, {})
    with sync_client(served) as client, pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="mux", messages=PING)
    with (
        openai.OpenAI(base_url=f"{served.gateway.url}/v1", api_key="wrong") as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


@needs_openai
def test_openai_raises_what_broke_a_stream(serve: Serve) -> None:
    served = serve()
    served.large.then(Cut(2))
    with sync_client(served) as client:
        stream = client.chat.completions.create(model="mux", messages=PING, stream=True)
        with pytest.raises(openai.APIError, match="large broke off in the middle"):
            list(stream)


@needs_openai
def test_openai_waits_as_long_as_retry_after_says(serve: Serve) -> None:
    """With its own retries, it comes back when the server says, and is served."""
    served = serve("large", section={"max_wait_ms": 0})
    served.large.then(rate_limited(timedelta(seconds=1)))
    base = f"{served.gateway.url}/v1"
    with openai.OpenAI(base_url=base, api_key=TOKEN, max_retries=2) as client:
        answer = client.chat.completions.create(model="mux", messages=PING)
    assert answer.choices[0].message.content == "pong from large-model"


@needs_openai
def test_openai_async_many_at_once(serve: Serve) -> None:
    served = serve(section={"caps": {"large": 4}})

    async def ask_all() -> list[str]:
        base = f"{served.gateway.url}/v1"
        async with openai.AsyncOpenAI(base_url=base, api_key=TOKEN) as client:

            async def ask(number: int) -> str:
                stream = await client.chat.completions.create(
                    model="mux",
                    messages=PING,
                    stream=True,
                    extra_headers={"x-affinity": str(number)},
                )
                parts = [
                    c.choices[0].delta.content or "" async for c in stream if c.choices
                ]
                return "".join(parts)

            return await asyncio.gather(*(ask(number) for number in range(24)))

    assert set(asyncio.run(ask_all())) == {"pong from large-model"}
    assert served.large.max_in_flight <= 4


def curl(served: Served, path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "10"]
    return subprocess.run(
        [
            *command,
            "--header",
            f"Authorization: Bearer {TOKEN}",
            *arguments,
            served.gateway.url + path,
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def posted(**body: Any) -> tuple[str, ...]:
    data = json.dumps({"model": "mux", "messages": PING, **body})
    return ("--header", "Content-Type: application/json", "--data", data)


@needs_curl
def test_curl_reads_a_response(serve: Serve) -> None:
    served = serve()
    whole = curl(served, CHAT, *posted())
    assert json.loads(whole.stdout)["choices"][0]["message"]["content"].startswith("pong")
    stream = curl(served, CHAT, "--no-buffer", *posted(stream=True))
    assert stream.returncode == 0
    assert stream.stdout.endswith("data: [DONE]\n\n")
    assert curl(served, "/status").stdout.startswith("## Multiplexer Status")


@needs_curl
def test_curl_sends_a_long_body_with_expect(serve: Serve, tmp_path: Any) -> None:
    served = serve()
    long = [{"role": "user", "content": "x" * 3_000_000}]
    file = tmp_path / "body.json"
    file.write_text(json.dumps({"model": "mux", "messages": long}))
    header = (
        "--header",
        "Content-Type: application/json",
        "--header",
        "Expect: 100-continue",
    )
    done = curl(served, CHAT, *header, "--data-binary", f"@{file}")
    assert done.returncode == 0, done.stderr
    assert "pong" in done.stdout
    assert served.large.requests[0].body["messages"] == long


@needs_curl
def test_curl_fails_on_a_cut_stream(serve: Serve) -> None:
    served = serve()
    served.large.then(Cut(2))
    done = curl(served, CHAT, "--no-buffer", *posted(stream=True))
    partial_file = 18
    assert done.returncode == partial_file
    assert 'finish_reason":"' not in done.stdout


def test_mistrals_client_with_its_defaults(serve: Serve) -> None:
    need("mistralai")
    from mistralai.client import Mistral

    served = serve()
    served.large.default = rate_limited()
    with Mistral(api_key=TOKEN, server_url=served.gateway.url) as client:
        answer = client.chat.complete(model="mux", messages=PING)
        assert answer.choices[0].message.content == "pong from small-model"
        pieces = [
            event.data.choices[0].delta.content or ""
            for event in client.chat.stream(model="mux", messages=PING)
            if event.data.choices
        ]
        assert "".join(pieces) == "pong from small-model"
        listed = client.models.list().data or []
        assert [model.id for model in listed] == ["mux", "large", "small"]


def test_anthropics_client_reads_the_models(serve: Serve) -> None:
    anthropic = need("anthropic")
    served = serve()
    with anthropic.Anthropic(base_url=served.gateway.url, api_key=TOKEN) as client:
        assert [model.id for model in client.models.list()] == ["mux", "large", "small"]
        card = client.models.retrieve("small")
        assert (card.display_name, card.type) == ("small", "model")
