"""Requests for a completion, through the real pool, over real HTTP."""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import requests
from attrs import evolve

from muxcore.chat import Usage
from muxcore.config import Config
from muxcore.core.entries import CallResult
from muxcore.gateway.api.routing import SESSION_FIELDS
from muxcore.gateway.faults.spec import parse_drill
from muxcore.standin import (
    Answer,
    Break,
    ConnectionClosed,
    Cut,
    ErrorEvent,
    Raw,
    Received,
    ToolCall,
    rate_limited,
    refusal,
    server_error,
)
from muxcore.standin.script import Behaviour
from tests.gateway.conftest import (
    CHAT,
    PING,
    Served,
    as_toml,
    chat,
    dialled,
    events,
    read_all,
    text_of,
)
from tests.waiting import PATIENCE, wait_until

Serve = Callable[..., Served]
DOWN = (
    rate_limited(),
    server_error(500),
    ConnectionClosed(),
    Cut(0),
    refusal(401, "bad key"),
)


def read_to_the_break(answer: requests.Response) -> bytes:
    """Read a body that must break off."""
    seen = b""
    try:
        for piece in answer.iter_content(None):
            seen += piece
    except requests.exceptions.ChunkedEncodingError:
        return seen
    pytest.fail(f"it ended as if it were whole: {seen!r}")


def test_a_whole_answer(serve: Serve) -> None:
    served = serve()
    answer = served.ask()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-mux-model"] == "large"
    body = answer.json()
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"] == "pong from large-model"
    assert body["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("stream", [False, True])
def test_the_header_names_the_call(serve: Serve, stream: bool) -> None:
    served = serve()
    answer = served.ask(stream=stream)
    assert answer.content
    (story,) = served.pool.multiplexer.why(answer.headers["x-mux-call"])
    assert story.served_by == "large"


def test_the_header_names_the_call_of_an_error_too(serve: Serve) -> None:
    served = serve(section={"max_wait_ms": 0})
    served.large.default = served.small.default = rate_limited()
    answer = served.ask()
    assert answer.status_code == 429
    (story,) = served.pool.multiplexer.why(answer.headers["x-mux-call"])
    assert story.result is CallResult.EXHAUSTED
    assert len(story.answers) == 2


def test_a_stream(serve: Serve) -> None:
    served = serve()
    answer = served.ask(stream=True)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["x-mux-model"] == "large"
    found = events(answer)
    assert text_of(found) == "pong from large-model"
    assert found[-1]["choices"][0]["finish_reason"] == "stop"
    assert not any("usage" in chunk for chunk in found)


def test_usage_is_streamed_on_request_and_always_requested(serve: Serve) -> None:
    served = serve()
    found = events(served.ask(stream=True, stream_options={"include_usage": True}))
    assert found[-1]["usage"]["total_tokens"] > 0
    events(served.ask(stream=True))
    assert all(request.wants_usage for request in served.large.requests)


def test_a_connection_serves_many_requests(serve: Serve) -> None:
    served = serve()
    connection = http.client.HTTPConnection(
        "127.0.0.1", served.gateway.port, timeout=PATIENCE
    )
    headers = {
        "Authorization": "Bearer token-of-the-tests",
        "Content-Type": "application/json",
    }
    body = json.dumps({"model": "mux", "messages": PING})
    sockets = set()
    for path in (CHAT, CHAT, "/only/none" + CHAT, CHAT):
        connection.request("POST", path, body, headers)
        sockets.add(connection.sock)
        connection.getresponse().read()
    connection.close()
    assert len(sockets) == 1
    assert len(served.large.requests) == 3


def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    served = serve()
    twice = chat(served.gateway) + chat(served.gateway, max_tokens=7)
    with dialled(served.gateway, twice) as client:
        client.settimeout(PATIENCE)
        data = b""
        while data.count(b"pong from large-model") < 2:
            data += client.recv(65536)
    assert [r.body.get("max_tokens") for r in served.large.requests] == [None, 7]


def test_a_response_to_http_1_0_ends_with_the_connection(serve: Serve) -> None:
    served = serve()
    data = chat(served.gateway, f"POST {CHAT} HTTP/1.0", stream=True)
    with dialled(served.gateway, data) as client:
        head, _, body = read_all(client).partition(b"\r\n\r\n")
    assert b"Connection: close" in head
    assert b"Transfer-Encoding" not in head
    assert body.endswith(b"data: [DONE]\n\n")


def test_expect_100_continue_is_honoured(serve: Serve) -> None:
    served = serve()
    data = chat(served.gateway).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n", 1)
    head, _, body = data.partition(b"\r\n\r\n")
    with dialled(served.gateway, head + b"\r\n\r\n") as client:
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert client.recv(20).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("fault", DOWN, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("stream", [False, True])
def test_a_failing_model_is_replaced_and_the_client_sees_nothing(
    serve: Serve, fault: Behaviour, stream: bool
) -> None:
    served = serve()
    served.large.then(fault)
    answer = served.ask(stream=stream)
    assert answer.status_code == 200
    assert answer.headers["x-mux-model"] == "small"
    if stream:
        assert text_of(events(answer)) == "pong from small-model"
    else:
        assert answer.json()["choices"][0]["message"]["content"] == "pong from small-model"


@pytest.mark.parametrize("stream", [False, True])
def test_a_limited_pool_is_a_429(serve: Serve, stream: bool) -> None:
    served = serve(section={"max_wait_ms": 0})
    served.large.default = rate_limited(timedelta(seconds=30))
    served.small.default = rate_limited(timedelta(seconds=20))
    answer = served.ask(stream=stream)
    assert answer.status_code == 429
    # The last resort of the model that may be asked first.
    assert 18 <= int(answer.headers["retry-after"]) <= 20
    error = answer.json()["error"]
    assert error["type"] == "rate_limit_error"
    assert "large: rate limited until" in error["message"]


def test_a_pool_that_is_down_is_a_503(serve: Serve) -> None:
    served = serve(section={"max_wait_ms": 0})
    served.large.default = served.small.default = server_error()
    answer = served.ask()
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["code"] == "pool_exhausted"


@pytest.mark.parametrize(("status", "expected"), [(400, 400), (413, 413), (422, 422)])
def test_a_request_that_all_models_refuse_keeps_the_first_refusal(
    serve: Serve, status: int, expected: int
) -> None:
    """Rule 6."""
    served = serve()
    served.large.then(refusal(status, "messages must alternate"))
    served.small.then(refusal(400, "in other words"))
    answer = served.ask(stream=True)
    assert answer.status_code == expected
    assert "messages must alternate" in answer.json()["error"]["message"]
    assert len(served.large.requests) == len(served.small.requests) == 1


def test_a_refusal_without_a_second_opinion_may_be_retried(
    serve: Serve,
) -> None:
    """A 400 would end an agent's session, although the other model may take the request."""
    served = serve()
    served.large.then(rate_limited(timedelta(seconds=90)))
    assert served.ask().status_code == 200
    served.small.then(refusal(400, "no tools here"))
    answer = served.ask()
    assert answer.status_code == 503
    assert 0 < int(answer.headers["retry-after"]) <= 90
    error = answer.json()["error"]
    assert error["code"] == "no_second_opinion"
    assert "no tools here" in error["message"]
    assert error["message"].endswith(
        "; another model may take it when it is available again"
    )


def test_a_closed_multiplexer_is_a_503(serve: Serve) -> None:
    served = serve()
    served.pool.close()
    assert served.ask().status_code == 503


def test_a_broken_mode_is_a_500(serve: Serve) -> None:
    class Broken:
        def pick(self, *_: object) -> object:
            raise RuntimeError("no idea")

    def adapt(config: Config) -> Config:
        return evolve(config, strategy=Broken())  # type: ignore[arg-type]

    answer = serve(adapt=adapt).ask()
    assert answer.status_code == 500
    assert "no idea" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "fault", [Cut(2), Cut(2, Break.RESET), ErrorEvent({"message": "overloaded"}, after=2)]
)
def test_after_the_first_content_a_failure_cuts_the_stream(
    serve: Serve, fault: Behaviour
) -> None:
    served = serve()
    served.large.then(fault)
    answer = served.ask(stream=True)
    assert answer.status_code == 200
    seen = read_to_the_break(answer)
    assert b"pong f" in seen
    assert b"[DONE]" not in seen
    assert b'"finish_reason":"' not in seen
    assert not served.small.requests


def test_tools_and_unknown_members_reach_the_model(serve: Serve) -> None:
    served = serve()
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    body: dict[str, Any] = {
        "tools": tools,
        "tool_choice": "auto",
        "temperature": 0.25,
        "max_tokens": 9,
        "response_format": {"type": "json_object"},
        "session": "theirs",
        "timeout": 0.000001,
        "messages_": 1,
    }
    assert served.ask(**body).status_code == 200
    received = served.large.requests[0].body
    assert {name: received[name] for name in body} == body
    assert received["model"] == "large-model"


def test_tool_calls_have_one_shape(serve: Serve) -> None:
    served = serve()
    served.large.then(Answer(tool_calls=(ToolCall("read", '{"path": "a"}'),), pieces=3))
    found = events(served.ask(stream=True))
    fragments = [
        fragment
        for chunk in found
        for fragment in chunk["choices"][0]["delta"].get("tool_calls", [])
    ]
    assert {fragment["index"] for fragment in fragments} == {0}
    assert fragments[0]["function"]["name"] == "read"
    assert fragments[0]["id"] == "call00000"
    assert fragments[0]["type"] == "function"
    assert "".join(f["function"]["arguments"] for f in fragments) == '{"path": "a"}'
    assert found[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_unknown_members_of_a_response_are_passed_on(serve: Serve) -> None:
    served = serve()
    chunks: list[dict[str, Any]] = [
        {"choices": [{"delta": {"content": "hi", "odd": 1}}], "fingerprint": "f"},
        {"choices": [{"delta": {}, "finish_reason": "stop", "why": "x"}]},
    ]
    pieces = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    served.large.then(Raw((*pieces, b"data: [DONE]\n\n")))
    first, last = events(served.ask(stream=True))
    assert first["fingerprint"] == "f"
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "hi", "odd": 1}
    assert last["choices"][0]["why"] == "x"
    # What strict clients need is there, though the model has left it out.
    assert {"id", "created", "model", "object"} <= first.keys()


@pytest.mark.parametrize("stream", [False, True])
def test_a_lone_surrogate_reaches_no_client(serve: Serve, stream: bool) -> None:
    served = serve()
    messages = [{"role": "user", "content": "\ud83d"}]
    raw = (
        b'data: {"choices": [{"delta": {"content": "\\ud83d"}}]}\n\n'
        b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
        if stream
        else b'{"choices": [{"message": {"content": "\\ud83d"}, "finish_reason": "stop"}]}'
    )
    served.large.then(Raw((raw,)))
    answer = served.ask(messages=messages, stream=stream)
    assert answer.status_code == 200
    text = answer.content.decode()
    assert "\ufffd" in text or "\\ufffd" in text
    assert b"ud83d" not in answer.content
    assert served.large.requests[-1].body["messages"][0]["content"] == "\ufffd"


def test_an_alias_calls_that_model_alone(serve: Serve) -> None:
    served = serve(section={"max_wait_ms": 0})
    assert served.ask(model="small").headers["x-mux-model"] == "small"
    served.small.then(server_error())
    assert served.ask(model="small").status_code == 503
    assert not served.large.requests


def test_a_models_name_at_its_provider_is_that_model_alone(serve: Serve) -> None:
    served = serve()
    assert served.ask(model="small-model").headers["x-mux-model"] == "small"
    assert served.ask(model=None).headers["x-mux-model"] == "large"
    # An agent may name a model of its own by chance.
    of_run = served.ask("/run/r/v1/chat/completions", model="small-model")
    assert of_run.headers["x-mux-model"] == "large"


def test_a_name_that_two_models_share_is_not_known(serve: Serve) -> None:
    def shared(made: dict[str, Any], _: object) -> dict[str, Any]:
        made["models"][1]["name"] = "large-model"
        return made

    assert serve(source=shared).ask(model="large-model").status_code == 404


def test_a_path_that_is_not_served_is_answered_with_those_that_are(serve: Serve) -> None:
    served = serve()
    answer = served.ask("/v2/chat/completions")
    assert answer.status_code == 404
    url = served.gateway.url
    text = answer.json()["error"]["message"]
    assert text.startswith("There is nothing at /v2/chat/completions.")
    assert "/v1/responses, /v1/messages" in text
    assert text.endswith(f"The base URL is {url}/v1; for Anthropic's clients, {url}.")


def test_a_base_without_its_version_or_with_it_twice_is_served(serve: Serve) -> None:
    served = serve()
    for path in ("/chat/completions", "/v1/v1/chat/completions", "/v1/chat/completions/"):
        assert served.ask(path).status_code == 200


def test_load_balancers_ask_for_the_health_by_head(serve: Serve) -> None:
    served = serve()
    for path in ("/healthz", "/health"):
        answer = requests.head(served.gateway.url + path, timeout=PATIENCE)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-length"] == "15"
        assert requests.get(served.gateway.url + path, timeout=PATIENCE).json() == {
            "status": "ok"
        }


def test_a_request_may_be_compressed(serve: Serve) -> None:
    served = serve()
    data = gzip.compress(json.dumps({"messages": PING}).encode())

    def ask(coding: str, body: Any = data) -> requests.Response:
        fields = {"Content-Encoding": coding, "Content-Type": "application/json"}
        url = served.gateway.url + CHAT
        return served.session.post(url, data=body, headers=fields, timeout=PATIENCE)

    assert ask("gzip").status_code == 200
    # In chunks, too.
    assert ask("gzip", iter([data[:9], data[9:]])).status_code == 200
    refused = ask("zstd")
    assert (refused.status_code, refused.headers["accept-encoding"]) == (415, "gzip")


def test_a_name_that_the_owner_allows_is_a_host(serve: Serve) -> None:
    """A container reaches its host by such a name, and maybe by another port."""
    served = serve(hosts=["Host.Docker.Internal"])

    def ask(host: str) -> requests.Response:
        fields = {"Host": host}
        url = served.gateway.url + "/v1/models"
        return served.session.get(url, headers=fields, timeout=PATIENCE)

    assert ask("host.docker.internal:9").status_code == 200
    assert ask("host.docker.internal").status_code == 200
    refused = ask("other.internal:9")
    assert refused.status_code == 421
    hint = "`serve --allow-host other.internal` allows it"
    assert hint in refused.json()["error"]["message"]


PNG = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
SEEN: Any = [{"role": "user", "content": [PNG]}]


def seeing(*aliases: str) -> Callable[[dict[str, Any], object], dict[str, Any]]:
    def with_eyes(made: dict[str, Any], _: object) -> dict[str, Any]:
        for model in made["models"]:
            model["supports_images"] = model["alias"] in aliases
        return made

    return with_eyes


@pytest.mark.parametrize("path", [CHAT, "/run/r/v1/chat/completions"])
def test_an_image_that_no_model_can_see_is_refused(serve: Serve, path: str) -> None:
    served = serve()
    answer = served.ask(path, messages=SEEN)
    assert answer.status_code == 400
    text = answer.json()["error"]["message"]
    assert text.startswith("No model here can see the image (large, small): set supports")
    assert not served.large.requests


def test_an_image_is_accepted_if_one_model_can_see_it(serve: Serve) -> None:
    served = serve(source=seeing("small"))
    assert served.ask(messages=SEEN).status_code == 200
    assert served.ask(messages=SEEN, model="small").status_code == 200
    alone = served.ask(messages=SEEN, model="large")
    assert "can see the image (large)" in alone.json()["error"]["message"]


def test_a_session_that_holds_an_image_goes_on(serve: Serve) -> None:
    served = serve()
    later = [*SEEN, {"role": "assistant", "content": "No."}, *PING]
    assert served.ask(messages=later).status_code == 200


def test_the_owner_may_have_images_left_out(serve: Serve) -> None:
    served = serve(section={"unseen_images": "leave_out"})
    assert served.ask(messages=SEEN).status_code == 200
    (asked,) = served.large.requests[-1].body["messages"]
    assert asked["content"] == "(An image that this model cannot see.)"


def test_vibe_decides_by_itself_what_its_models_see(serve: Serve) -> None:
    answer = serve().ask("/run/r/pool/v1/chat/completions", messages=SEEN)
    assert answer.status_code == 200


@pytest.mark.parametrize("model", ["gpt-4", "", "MUX"])
def test_an_unknown_model_is_a_404_that_lists_the_known_ones(
    serve: Serve, model: str
) -> None:
    answer = serve().ask(model=model)
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error["code"] == "model_not_found"
    assert "mux, large, small" in error["message"]


def test_further_names_stand_for_the_pool_and_for_models(serve: Serve) -> None:
    served = serve(names={"large-model": "mux", "small-model": "small", "lost": "gone"})
    assert served.ask(model="large-model").headers["x-mux-model"] == "large"
    assert served.ask(model="small-model").headers["x-mux-model"] == "small"
    assert served.ask(model="lost").status_code == 404
    names = [model["id"] for model in served.get("/v1/models").json()["data"]]
    assert names == ["mux", "large", "small", "large-model", "small-model", "lost"]


def test_a_path_can_choose_the_model(serve: Serve) -> None:
    served = serve()
    pool = served.gateway.api_base("run-1").removeprefix(served.gateway.url)
    alone = served.gateway.api_base("run-1", "small").removeprefix(served.gateway.url)
    name = "whatever vibe calls it"
    first = served.ask(f"{pool}/chat/completions", model=name)
    second = served.ask(f"{alone}/chat/completions", model=name)
    third = served.ask("/only/gone/v1/chat/completions", model=name)
    assert first.headers["x-mux-model"] == "large"
    assert second.headers["x-mux-model"] == "small"
    assert third.status_code == 404
    assert served.gateway.receipt("run-1").calls == {"large": 1, "small": 1}


def test_for_a_run_each_model_uses_its_own_settings(serve: Serve) -> None:
    def hot(made: dict[str, Any], _: object) -> dict[str, Any]:
        made["models"][0]["temperature"] = 0.9
        return made

    served = serve(source=hot)
    settings: dict[str, Any] = {
        "temperature": 0.1,
        "top_p": 0.5,
        "reasoning_effort": "high",
        "seed": 1,
    }
    served.ask("/run/r/pool/v1/chat/completions", **settings)
    served.ask(**settings)
    of_run, of_client = (request.body for request in served.large.requests)
    assert of_run["temperature"] == 0.9
    assert of_run["seed"] == 1
    assert not {"top_p", "reasoning_effort"} & of_run.keys()
    assert {name: of_client[name] for name in settings} == settings


KEYS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    **{name: ({name: "s"}, {}) for name in SESSION_FIELDS},
    "prompt_cache_key": ({}, {"prompt_cache_key": "s"}),
    "none": ({}, {}),
}


@pytest.mark.parametrize("key", KEYS)
def test_a_turn_stays_on_one_model_for_every_client(serve: Serve, key: str) -> None:
    """Six steps of one turn, whatever the client names its session with."""
    fields, more = KEYS[key]
    served = serve(
        source=lambda made, _: {
            **made,
            "multiplexer": {
                "enabled": True,
                "mode": "load_balance",
                "pool": [{"model": "large"}, {"model": "small"}],
            },
        },
    )

    def turn(words: str) -> set[str]:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        messages: list[dict[str, Any]] = [{"role": "user", "content": words}]
        models = set()
        for _ in range(6):
            body = {"model": "mux", "messages": messages, **more}
            answer = served.session.post(
                served.gateway.url + CHAT, json=body, headers=fields
            )
            models.add(answer.headers["x-mux-model"])
            messages = [
                *messages,
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c", "content": "ok"},
            ]
        return models

    turns = [turn(f"Task {number}.") for number in range(4)]
    assert all(len(models) == 1 for models in turns)
    assert set().union(*turns) == {"large", "small"}, "sub-agents of one session spread"


def test_models_are_listed(serve: Serve) -> None:
    served = serve()
    listed = served.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["mux", "large", "small"]
    assert served.get("/v1/models/small").json()["id"] == "small"
    assert served.get("/v1/models/none").status_code == 404


def test_receipts_count_what_the_pool_spared_the_client(serve: Serve) -> None:
    served = serve()
    usage = Usage(prompt_tokens=100, completion_tokens=10, cached_tokens=50)
    served.large.then(rate_limited(), Answer(usage=usage))
    served.small.default = Answer(usage=usage)
    events(served.ask("/run/r-1/pool/v1/chat/completions", stream=True))
    served.ask("/run/r-1/pool/v1/chat/completions")
    served.ask("/run/r-1/pool/v1/chat/completions", messages=[])
    found = served.get("/receipt?label=r-1").json()
    assert found["calls"] == {"small": 2}
    assert found["interruptions_avoided"] == 1
    assert 55_000 < found["waiting_saved_ms"] <= 60_000
    assert (found["tokens_in"], found["tokens_out"]) == (200, 20)
    assert found["cached_share"] == 0.5
    assert served.get("/receipt").json()["calls"] == {"small": 2}
    assert served.get("/receipt?label=other").json()["calls"] == {}


def test_failed_calls_are_counted(serve: Serve) -> None:
    served = serve(section={"max_wait_ms": 0})
    served.large.then(Cut(2))
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        _ = served.ask(stream=True).content
    wait_until(lambda: served.gateway.receipt().failed == 1)


class _Faulty(dict[str, str]):
    def get(self, *_: object) -> Any:
        raise RuntimeError("a fault of the server")


def test_the_model_that_an_agent_names_for_itself_is_the_pool(serve: Serve) -> None:
    served = serve()
    for model, alias in (("gpt-5-mini", "large"), ("mux", "large"), ("small", "small")):
        answer = served.ask("/run/r-1/v1/chat/completions", model=model)
        assert answer.headers["x-mux-model"] == alias


@pytest.mark.parametrize("stream", [False, True])
def test_a_bug_in_the_server_ends_one_request_only(
    serve: Serve, stream: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    served = serve(names=_Faulty())
    answer = served.ask(stream=stream)
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "The server has a fault."
    assert "a fault of the server" in capsys.readouterr().err
    assert served.get("/healthz").json() == {"status": "ok"}


def test_a_bug_during_a_stream_cuts_the_stream(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from muxcore.gateway.front_doors.completions import CompletionEncoder

    def faulty(encoder: CompletionEncoder) -> bytes:
        raise RuntimeError("odd")

    monkeypatch.setattr(CompletionEncoder, "end", faulty)
    served = serve()
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        _ = served.ask(stream=True).content
    assert "odd" in capsys.readouterr().err
    wait_until(lambda: served.in_flight() == 0)


def test_a_refused_key_is_read_again(serve: Serve, tmp_path: Any) -> None:
    """The file has not changed, only the key beside it, and the model refuses the old one."""

    def write(made: dict[str, Any], upstream: Any) -> Any:
        made["providers"][0]["api_key_env_var"] = "SOME_KEY"
        (tmp_path / ".env").write_text("SOME_KEY=old\n")
        (tmp_path / "config.toml").write_text(as_toml(made))
        return tmp_path / "config.toml"

    def judge(received: Received) -> Behaviour:
        if received.headers["authorization"] == "Bearer new":
            return Answer()
        # Renewed while the call is on its way.
        (tmp_path / ".env").write_text("SOME_KEY=new\n")
        return refusal(401, "bad key")

    served = serve(source=write)
    served.large.default = judge
    assert served.ask().headers["x-mux-model"] == "large"
    assert [r.headers["authorization"] for r in served.large.requests] == [
        "Bearer old",
        "Bearer new",
    ]


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("429", "rate_limit_count"),
        ("500", "fail_count"),
        ("401", "fail_count"),
        ("refused", "fail_count"),
        ("cut", "fail_count"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_fire_drill(serve: Serve, fault: str, outcome: str, stream: bool) -> None:
    served = serve(drills=[parse_drill(f"large={fault}@3")])
    answered = [served.ask(stream=stream).headers["x-mux-model"] for _ in range(4)]
    assert answered == ["large", "large", "small", "small"]
    assert len(served.large.requests) == 2
    found = served.get("/status?format=json").json()
    assert found["per_model"]["large"][outcome] == 1
    assert found["notices"] == [
        f"Fire drill: large has the fault {fault} at its call number 3."
    ]


def test_drills_of_one_model_count_the_same_calls(serve: Serve) -> None:
    drills = [
        parse_drill("large=500@1"),
        parse_drill("large=429"),
        parse_drill("small=cut@2"),
    ]
    served = serve(drills=drills, section={"max_wait_ms": 0})
    assert served.ask().headers["x-mux-model"] == "small"
    answer = served.ask()
    assert answer.status_code in {200, 429, 503}
    assert not served.large.requests


def test_a_receipt_that_cannot_be_made_costs_no_answer(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OverflowError("int too large to convert to float")

    served = serve()
    monkeypatch.setattr(served.gateway._ledger, "add", fail)
    assert served.ask().status_code == 200
    assert text_of(events(served.ask(stream=True))) == "pong from large-model"
    assert "OverflowError" in capsys.readouterr().err


def test_a_usage_of_4000_digits_breaks_neither_the_call_nor_the_status(
    serve: Serve,
) -> None:
    served = serve()
    huge = b"9" * 4000
    body = (
        b'{"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": '
    )
    body += b'{"prompt_tokens": %b, "completion_tokens": %b}}' % (huge, huge)
    served.large.then(Raw((body,)), Raw((body,)))
    for _ in range(2):
        assert served.ask().status_code == 200
    status = served.get("/status?format=json").json()["per_model"]["large"]
    assert (status["success_count"], status["tokens_in"]) == (2, 0)
    assert served.get("/status").status_code == 200
    assert served.get("/receipt").json()["tokens_in"] == 0
    assert served.ask().status_code == 200
