"""Which models could be in a pool here and now."""

from __future__ import annotations

from typing import Any

import pytest

from muxcore.config.read import Document
from muxcore.setup.proposal import candidates, server_answers
from muxcore.standin import StandInServer, dead_port


def found(data: dict[str, Any], *up: str, **environment: str) -> list[str]:
    document = Document("config", data)
    return [str(each) for each in candidates(document, environment, up.__contains__)]


def test_a_server_that_answers() -> None:
    with StandInServer() as server:
        assert server_answers(server.url)
    with dead_port() as url:
        assert not server_answers(url)


def test_a_local_server_is_asked_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with StandInServer() as server, dead_port() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        assert server_answers(server.url)


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
