"""Which models could be in a pool here and now."""

from __future__ import annotations

from typing import Any

import pytest

from muxcore.config.read import Document
from muxcore.setup.model_servers import list_at
from muxcore.setup.proposal import candidates
from muxcore.standin import StandInServer, dead_port


def found(data: dict[str, Any], *up: str, **environment: str) -> list[str]:
    document = Document("config", data)
    listed: dict[str, object] = {api_base: {} for api_base in up}
    return [str(each) for each in candidates(document, environment, listed.get)]


def test_a_server_that_answers() -> None:
    with StandInServer() as server:
        assert list_at(server.url) is not None
    with dead_port() as url:
        assert list_at(url) is None


@pytest.mark.parametrize(
    ("configured", "listed", "window", "advice"),
    [
        ({}, {}, None, ""),
        ({}, {"id": "m", "max_model_len": 8_192}, 8_192, ""),
        ({"max_context_length": 4_096}, {"id": "m", "max_model_len": 8_192}, 4_096, ""),
        ({}, {"id": "m", "capabilities": ["vision"]}, None, "its server takes images"),
        ({}, {"id": "m", "capabilities": ["completion"]}, None, ""),
        ({"supports_images": True}, {"id": "m", "capabilities": ["vision"]}, None, ""),
        (
            {"supports_images": True},
            {"id": "m", "capabilities": ["completion"]},
            None,
            "its server takes no images",
        ),
    ],
)
def test_what_a_local_server_says_of_its_model_is_compared_with_the_config(
    configured: dict[str, Any], listed: dict[str, Any], window: int | None, advice: str
) -> None:
    provider = {"name": "p", "api_base": "http://127.0.0.1:9/v1"}
    model = {"name": "m", "provider": "p", "alias": "a", **configured}
    data = {"active_model": "a", "providers": [provider], "models": [model]}
    found = candidates(Document("config", data), {}, lambda _: {"data": [listed]})
    assert found[0].context_window == window
    assert found[0].advice.partition(";")[0] == advice


def test_a_local_server_is_asked_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with StandInServer() as server, dead_port() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        assert list_at(server.url) is not None


def test_vibes_own_models_where_the_config_has_none() -> None:
    up = "http://127.0.0.1:8080/v1"
    assert found({}, up, MISTRAL_API_KEY="k") == [
        "mistral-medium-3.5 at api.mistral.ai: ready",
        "devstral-small at api.mistral.ai: ready",
        "local at 127.0.0.1:8080: ready",
    ]


def test_tables_of_models_count_too() -> None:
    provider = {"name": "p", "api_base": "https://p.example/v1"}
    models = {"a": {"name": "m", "provider": "p"}, "b": {"name": "m", "provider": "nobody"}}
    reported = found({"active_model": "a", "providers": [provider], "models": models})
    assert reported[0] == "a at p.example: ready"
    assert reported[1].startswith('b: models.b.provider: "nobody", an unknown provider')
    assert reported[2] == "local at 127.0.0.1:8080: no server answers there"


def test_a_renamed_model_is_one_model() -> None:
    models = [
        {
            "name": "mistral-vibe-cli-latest",
            "provider": "mistral",
            "alias": "mistral-medium-3.5",
        }
    ]
    reported = found({"active_model": "devstral-2", "models": models}, MISTRAL_API_KEY="k")
    assert [line.partition(" ")[0] for line in reported] == ["mistral-medium-3.5", "local"]
