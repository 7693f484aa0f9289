from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxcore.gateway.api.paths import base_path
from muxcore.gateway.api.routing import (
    FRONT_DOORS,
    SESSION_FIELDS,
    WAITS_ITSELF,
    Resource,
    Route,
    patience_for,
    route_of,
    session_of,
)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/chat/completions", Route(Resource.CHAT)),
        ("/v1/responses", Route(Resource.RESPONSES)),
        ("/run/r-1/pool/v1/responses", Route(Resource.RESPONSES, "r-1", pooled=True)),
        ("/page", Route(Resource.PAGE)),
        ("/page/style.css", Route(Resource.PAGE)),
        ("/v1/models", Route(Resource.MODELS)),
        ("/v1/models/a%2Fb", Route(Resource.MODELS, model="a/b")),
        ("/pool/v1/chat/completions", Route(Resource.CHAT, pooled=True)),
        ("/only/a%20b/v1/chat/completions", Route(Resource.CHAT, only="a b")),
        ("/run/r-1/v1/chat/completions", Route(Resource.CHAT, "r-1")),
        ("/run/r-1/pool/v1/chat/completions", Route(Resource.CHAT, "r-1", pooled=True)),
        ("/run/r-1/only/x/v1/models", Route(Resource.MODELS, "r-1", "x")),
        ("/status", Route(Resource.STATUS)),
        ("/healthz", Route(Resource.HEALTH)),
        ("/receipt", Route(Resource.RECEIPT)),
        ("/lease", Route(Resource.LEASE)),
        ("/", None),
        ("/v1", None),
        ("/v1/", None),
        ("/v1/chat/completions/", Route(Resource.CHAT)),
        ("/v1/v1/chat/completions", Route(Resource.CHAT)),
        ("/chat/completions", Route(Resource.CHAT)),
        ("/run/r-1/messages", Route(Resource.MESSAGES, "r-1")),
        ("/v1/messages/count_tokens", Route(Resource.COUNT_TOKENS)),
        ("/v1/models/", Route(Resource.MODELS)),
        ("/v1/models/a/b/", Route(Resource.MODELS, model="a/b")),
        ("/health", Route(Resource.HEALTH)),
        ("/v1/v1/v1/models", None),
        ("/v1/../status", None),
        ("//status", None),
        ("/run//v1/models", None),
        ("/run/a b/v1/models", None),
        ("/only//v1/models", None),
        ("/run/x/status", None),
        ("/status\n", None),
    ],
)
def test_paths(path: str, route: Route | None) -> None:
    assert route_of(path) == route


def test_only_calls_of_models_are_posted() -> None:
    assert {asking: Route(asking).methods[0] for asking in Resource} == {
        **dict.fromkeys(Resource, "GET"),
        **dict.fromkeys(FRONT_DOORS, "POST"),
    }


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_alias_survives_a_path(alias: str) -> None:
    route = route_of(base_path("label", alias) + "/chat/completions")
    assert route == Route(Resource.CHAT, "label", alias)


def test_the_paths_of_a_run() -> None:
    assert base_path("r") == "/run/r/pool/v1"
    assert base_path("r", "devstral/2") == "/run/r/only/devstral%2F2/v1"
    assert base_path() == "/pool/v1"


@pytest.mark.parametrize(
    ("label", "user_agent", "patience"),
    [
        ("r", "python-httpx/0.28.1", WAITS_ITSELF),
        ("r", "Mistral-Vibe/3.1.0", WAITS_ITSELF),
        ("r", "Mistral-Vibe/2.18.4", None),
        ("r", "Mistral-Vibe/1.3.5", None),
        ("", "python-httpx/0.28.1", None),
    ],
)
def test_a_vibe_with_retries_of_its_own_is_held_briefly(
    label: str, user_agent: str, patience: object
) -> None:
    route = Route(Resource.CHAT, label, pooled=True)
    assert patience_for(route, user_agent) == patience


@pytest.mark.parametrize("resource", [Resource.CHAT, Resource.RESPONSES, Resource.MESSAGES])
def test_an_agent_other_than_vibe_is_held_as_long_as_the_config_says(
    resource: Resource,
) -> None:
    """Codex ends its turn at a 429."""
    assert patience_for(Route(resource, "r"), "codex_exec/0.171.0") is None


@pytest.mark.parametrize("name", SESSION_FIELDS)
def test_each_agents_header_names_its_session(name: str) -> None:
    assert session_of({name: "s", "user-agent": "agent"}) == "s"
    assert session_of({name: ""}) is None
    assert session_of({name: "s" * 999}) == "s" * 256


def test_of_several_headers_the_first_known_one_counts() -> None:
    assert session_of({"session_id": "b", "x-affinity": "a"}) == "a"
    assert session_of({"x-affinity": "", "session-id": "b"}) == "b"
    assert session_of({}) is None
