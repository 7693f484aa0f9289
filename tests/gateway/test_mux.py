"""`/mux`, `/status` and the rest that no model is called for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from muxcore.gateway.skill_file import TEXT
from muxcore.standin import server_error
from tests.gateway.conftest import Served, events, text_of

Serve = Callable[..., Served]
MUX = [{"role": "user", "content": f'/mux\n\n<skill_content name="mux">\n{TEXT}'}]


@pytest.mark.parametrize("messages", [MUX, [{"role": "user", "content": "/mux"}]])
@pytest.mark.parametrize("path", ["/v1", "/run/r/pool/v1", "/run/r/only/small/v1"])
def test_mux_is_answered_while_all_models_are_down(
    serve: Serve, messages: Any, path: str
) -> None:
    served = serve(section={"max_wait_ms": 0})
    served.large.default = served.small.default = server_error()
    assert served.ask().status_code == 503
    asked = len(served.large.requests) + len(served.small.requests)
    path += "/chat/completions"
    whole = served.ask(path, messages=messages, model="whatever").json()
    chunks = events(served.ask(path, messages=messages, stream=True, tools=[{}]))
    text = whole["choices"][0]["message"]["content"]
    assert text.startswith("## Multiplexer Status")
    assert "**large**: 🔴 disabled until" in text
    assert text_of(chunks) == text
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["usage"]["total_tokens"] == 0
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert len(served.large.requests) + len(served.small.requests) == asked
    assert served.gateway.receipt().calls == {}


def test_a_streamed_mux_has_usage_on_request(serve: Serve) -> None:
    options = {"include_usage": True}
    chunks = events(serve().ask(messages=MUX, stream=True, stream_options=options))
    assert chunks[-1]["usage"]["total_tokens"] == 0


def test_no_model_sees_an_earlier_mux_or_its_answer(serve: Serve) -> None:
    served = serve()
    text = served.ask(messages=MUX).json()["choices"][0]["message"]["content"]
    earlier = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    status = [*MUX, {"role": "assistant", "content": text}]
    last = [{"role": "user", "content": "go on"}]
    served.ask(messages=[*earlier, *status, *last])
    assert served.large.requests[-1].body["messages"] == [*earlier, *last]
    # One that was interrupted has no answer.
    served.ask(messages=[*earlier, *MUX, *last])
    assert served.large.requests[-1].body["messages"] == [*earlier, *last]


def test_a_request_for_a_title_that_quotes_mux_goes_to_a_model(serve: Serve) -> None:
    served = serve()
    transcript = f"user: {MUX[0]['content']}\n\nassistant: ## Multiplexer Status"
    messages = [
        {"role": "system", "content": "Respond with ONLY the title"},
        {"role": "user", "content": transcript},
    ]
    chunks = events(served.ask(messages=messages, stream=True, max_tokens=1024))
    assert text_of(chunks) == "pong from large-model"


def test_mux_shows_how_to_switch_the_multiplexer_on(serve: Serve) -> None:
    def off(made: dict[str, Any], _: object) -> dict[str, Any]:
        return {name: value for name, value in made.items() if name != "multiplexer"}

    served = serve(source=off)
    text = served.ask(messages=MUX).json()["choices"][0]["message"]["content"]
    assert "**The multiplexer is off:** `large` alone is called" in text
    assert 'mode = "failover"' in text
    assert served.get("/status").text == text
    assert "enabled = true" in served.get("/status?format=json").json()["to_switch_on"]
    # It serves all the same, as vibe does without it.
    assert served.ask().headers["x-mux-model"] == "large"


@pytest.mark.parametrize(
    ("path", "accept", "is_json"),
    [
        ("/status", "*/*", False),
        ("/status", "text/markdown", False),
        ("/status", "application/json", True),
        ("/status?format=json", "*/*", True),
        ("/status?format=markdown", "application/json", False),
    ],
)
def test_the_status_has_the_requested_format(
    serve: Serve, path: str, accept: str, is_json: bool
) -> None:
    served = serve()
    answer = served.get(path, headers={"Accept": accept})
    if is_json:
        assert answer.json() == served.pool.status().to_json()
    else:
        assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
        assert answer.text == str(served.pool.status())


def test_healthz_answers(serve: Serve) -> None:
    served = serve()
    del served.session.headers["Authorization"]
    assert served.get("/healthz").json() == {"status": "ok"}
    assert served.get("/status").status_code == 401
