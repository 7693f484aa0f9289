"""Vibe's backend over a pool of stand-in models, with stand-ins for vibe's own types."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

import muxcore.vibe
from muxcore import Multiplexer
from muxcore.standin import (
    Answer,
    Cut,
    Model,
    Stall,
    StandInServer,
    ToolCall,
    rate_limited,
    refusal,
)

Make = Callable[..., Any]


@pytest.fixture
def models() -> Iterator[dict[str, Any]]:
    large, small = Model("large-model"), Model("small-model")
    with StandInServer([large, small]) as server:
        config = {
            "active_model": "large",
            "providers": [{"name": "lab", "api_base": server.url}],
            "models": [
                {"name": f"{alias}-model", "provider": "lab", "alias": alias}
                for alias in ("large", "small")
            ],
            "multiplexer": {
                "enabled": True,
                "mode": "failover",
                "max_wait_ms": 0,
                "pool": [{"model": "large"}, {"model": "small", "is_fallback": True}],
            },
        }
        with Multiplexer.from_config(config, env={}) as multiplexer:
            yield {"large": large, "small": small, "mux": multiplexer}


@pytest.fixture
def make(vibe: Any, models: dict[str, Any]) -> Make:
    """Make what vibe hands to a backend: an agent's call."""

    def call(**asked: Any) -> dict[str, Any]:
        return {"model": vibe.model(), "messages": [vibe.said("ping")], **asked}

    return call


def backend_of(models: dict[str, Any], **options: Any) -> Any:
    return muxcore.vibe.PoolBackend(models["mux"], **options)


async def all_of(backend: Any, **asked: Any) -> list[Any]:
    return [chunk async for chunk in backend.complete_streaming(**asked)]


def test_a_whole_answer(models: dict[str, Any], make: Make) -> None:
    models["large"].then(
        Answer("Hi.", reasoning="Hm.", tool_calls=(ToolCall("read", '{"p": 1}', "abc"),))
    )
    chunk = asyncio.run(backend_of(models).complete(**make()))
    assert chunk.message.role == "assistant"
    assert chunk.message.content == "Hi."
    assert chunk.message.reasoning_content == "Hm."
    [called] = chunk.message.tool_calls
    assert (called.index, called.id) == (0, "abc")
    assert (called.function.name, called.function.arguments) == ("read", '{"p": 1}')
    assert chunk.usage.prompt_tokens > 0
    assert chunk.stop.reason == "tool_calls"


def test_the_synchronous_call(models: dict[str, Any], make: Make) -> None:
    models["large"].then(rate_limited())
    chunk = backend_of(models).complete_sync(**make())
    assert chunk.message.content == "pong from small-model"


def test_a_stream_has_its_usage_once_at_the_end(models: dict[str, Any], make: Make) -> None:
    models["large"].then(Cut(after=0))
    chunks = asyncio.run(all_of(backend_of(models), **make()))
    assert "".join(chunk.message.content for chunk in chunks) == "pong from small-model"
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [
        True
    ]
    assert chunks[-1].stop.reason == "stop"


def test_pieces_of_a_tool_call_keep_their_index(models: dict[str, Any], make: Make) -> None:
    models["large"].then(Answer("", tool_calls=(ToolCall("read", '{"path": "x"}'),)))
    chunks = asyncio.run(all_of(backend_of(models), **make()))
    calls = [call for chunk in chunks for call in chunk.message.tool_calls or []]
    assert {call.index for call in calls} == {0}
    assert calls[0].function.name == "read"
    assert "".join(call.function.arguments for call in calls) == '{"path": "x"}'


def test_the_request_that_a_model_receives(
    models: dict[str, Any], make: Make, vibe: Any, tmp_path: Path
) -> None:
    image = tmp_path / "dot.png"
    image.write_bytes(b"\x89PNG")
    source = vibe.Loose(path=image)
    inline = vibe.Loose(data="QUJD")
    call = vibe.ToolCall.model_validate(
        {"id": "abcdefghi", "index": 0, "function": {"name": "read", "arguments": "{}"}}
    )
    messages = [
        vibe.said(
            "Look.",
            images=[
                vibe.Loose(source=source, mime_type="image/png"),
                vibe.Loose(source=inline, mime_type="image/jpeg"),
            ],
        ),
        vibe.Message(role=vibe.Role.assistant, content="", tool_calls=[call]),
        vibe.said("42", role=vibe.Role.tool, name="read", tool_call_id="abcdefghi"),
    ]
    tool = vibe.Loose(type="function", function={"name": "read"})
    asked = make(messages=messages, tools=[tool], tool_choice="auto", max_tokens=7)
    # A server may refuse images that its config does not promise, so ask for the chat itself.
    from muxcore.vibe.messages import chat_of

    chat = chat_of(temperature=0.2, **asked)
    assert chat.messages == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look."},
                {
                    "type": "image_url",
                    "image_url": {
                        "url": "data:image/png;base64,"
                        + base64.b64encode(b"\x89PNG").decode()
                    },
                },
                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,QUJD"}},
            ],
        },
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "abcdefghi",
                    "type": "function",
                    "function": {"name": "read", "arguments": "{}"},
                }
            ],
        },
        {"role": "tool", "content": "42", "name": "read", "tool_call_id": "abcdefghi"},
    ]
    assert chat.tools == [{"type": "function", "function": {"name": "read"}}]
    assert (chat.tool_choice, chat.max_tokens) == ("auto", 7)


def test_the_member_that_serves_uses_its_own_temperature(
    models: dict[str, Any], make: Make
) -> None:
    backend = backend_of(models)
    backend.complete_sync(**make(temperature=0.2))
    backend.complete_sync(**make(temperature=0.0))
    sent = [request.body.get("temperature") for request in models["large"].requests]
    assert sent == [0.2, 0.0]
    from muxcore.vibe.messages import chat_of

    asked = make(tools=None, max_tokens=None, tool_choice=None)
    assert chat_of(temperature=0.2, **asked).temperature is None
    assert chat_of(temperature=0.0, **asked).temperature == 0.0


def test_the_session_keeps_a_turn_on_its_model(
    models: dict[str, Any], make: Make, vibe: Any
) -> None:
    """§ stickiness: a turn stays where it is."""
    backend, mux = backend_of(models), models["mux"]
    session = {"X-Affinity": "s"}
    models["large"].then(rate_limited())
    backend.complete_sync(**make(extra_headers=session))
    mux.reset()
    call = vibe.ToolCall.model_validate(
        {"id": "abcdefghi", "function": {"name": "read", "arguments": "{}"}}
    )
    history = [
        vibe.said("ping"),
        vibe.Message(role=vibe.Role.assistant, content="", tool_calls=[call]),
        vibe.said("42", role=vibe.Role.tool, tool_call_id="abcdefghi"),
    ]
    chunk = backend.complete_sync(**make(messages=history, extra_headers=session))
    assert chunk.message.content == "pong from small-model"
    other = backend.complete_sync(**make(messages=history, metadata={"session_id": "t"}))
    assert other.message.content == "pong from large-model"


@pytest.mark.parametrize(
    ("active", "alias", "answered"),
    [
        ("large", "large", "large"),
        ("large", "small", "small"),
        ("small", "small", "large"),
        (None, "small", "large"),
        # What vibe asks beside its turns may be no member.
        ("large", "mistral-small", "large"),
    ],
)
def test_which_model_answers(
    models: dict[str, Any],
    make: Make,
    vibe: Any,
    active: str | None,
    alias: str,
    answered: str,
) -> None:
    backend = backend_of(models, active=active)
    chunk = backend.complete_sync(**make(model=vibe.model(alias)))
    assert chunk.message.content == f"pong from {answered}-model"


def test_a_limited_pool_is_vibes_own_429(
    models: dict[str, Any], make: Make, vibe: Any
) -> None:
    models["large"].default = models["small"].default = rate_limited()
    with pytest.raises(vibe.BackendError) as caught:
        asyncio.run(backend_of(models).complete(**make()))
    error = caught.value
    assert error.status == 429
    assert int(error.headers["Retry-After"]) > 0
    assert "large: rate limited until" in error.parsed_error
    assert error.payload_summary.message_count == 1


def test_a_refused_request_keeps_its_status(
    models: dict[str, Any], make: Make, vibe: Any
) -> None:
    # All of them refuse it: a second opinion agrees with the first.
    for alias in ("large", "small"):
        models[alias].then(refusal(422, "that is not valid"))
    with pytest.raises(vibe.BackendError) as caught:
        backend_of(models).complete_sync(**make())
    assert caught.value.status == 422


def test_a_prompt_that_is_too_long_has_the_words_that_vibe_looks_for(
    models: dict[str, Any], make: Make, vibe: Any
) -> None:
    too_long = refusal(
        400,
        "This model's maximum context length is 100 tokens.",
        code="context_length_exceeded",
    )
    models["large"].default = models["small"].default = too_long
    with pytest.raises(vibe.BackendError) as caught:
        backend_of(models).complete_sync(**make())
    assert caught.value.status == 400
    assert caught.value.body_text.startswith("context too long")


def test_a_broken_stream_raises_after_its_chunks(
    models: dict[str, Any], make: Make, vibe: Any
) -> None:
    """Rule 8."""
    models["large"].then(Cut(after=1))
    seen = []

    async def read() -> None:
        async for chunk in backend_of(models).complete_streaming(**make()):
            seen.append(chunk.message.content)  # noqa: PERF401 - what came before counts

    with pytest.raises(vibe.BackendError, match="broke off"):
        asyncio.run(read())
    assert seen
    assert "pong from large-model".startswith("".join(seen))


def test_leaving_a_stream_gives_the_slot_back(models: dict[str, Any], make: Make) -> None:
    large = models["large"]
    large.then(Stall(after=1))

    async def leave() -> None:
        async with aclosing(backend_of(models).complete_streaming(**make())) as stream:
            async for _ in stream:
                break

    asyncio.run(leave())
    large.wait_for(lambda model: model.in_flight == 0)


def test_cancelling_a_call_gives_the_slot_back(models: dict[str, Any], make: Make) -> None:
    large = models["large"]
    large.hold()

    async def cancel() -> None:
        task = asyncio.create_task(backend_of(models).complete(**make()))
        await asyncio.to_thread(large.wait_for, lambda model: model.in_flight == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    large.wait_for(lambda model: model.in_flight == 0)
    large.release()


def test_many_concurrent_calls_do_not_starve_each_other(
    models: dict[str, Any], make: Make
) -> None:
    async def ask() -> list[Any]:
        backend = backend_of(models)
        return await asyncio.gather(*(backend.complete(**make()) for _ in range(64)))

    assert len(asyncio.run(ask())) == 64


def test_the_backend_stays_open_when_vibe_leaves_its_context(
    models: dict[str, Any], make: Make
) -> None:
    async def twice() -> None:
        backend = backend_of(models)
        for _ in range(2):
            async with backend as entered:
                await entered.complete(**make())

    asyncio.run(twice())
    assert models["mux"].status().last_used_model == "large"


def test_tokens_are_estimated(models: dict[str, Any], make: Make, vibe: Any) -> None:
    asked = make(messages=[vibe.said("x" * 400)], extra_headers={})
    assert asyncio.run(backend_of(models).count_tokens(**asked)) == 100


def test_through_pool_replaces_every_backend(
    models: dict[str, Any], vibe: Any, make: Make
) -> None:
    with muxcore.vibe.through_pool(models["mux"], active="large") as backend:
        made = vibe.factories["mistral"](provider="any", timeout=3)
        assert made is backend
        assert made.complete_sync(**make()).message.content == "pong from large-model"
    assert vibe.factories["mistral"]() == "mistral's own"
    assert vibe.factories["generic"]() == "generic's own"


def test_without_vibe_the_import_error_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "vibe", None)
    monkeypatch.delitem(sys.modules, "muxcore.vibe.backend", raising=False)
    with pytest.raises(ImportError, match=r"needs vibe itself .*pip install mistral-vibe"):
        from muxcore.vibe import PoolBackend  # noqa: F401
    assert not hasattr(muxcore.vibe, "Nothing")
