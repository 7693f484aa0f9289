"""What the gateway does for a vibe alone: levels of thinking, refused keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from muxcore.standin import refusal
from tests.gateway.conftest import Served

Serve = Callable[..., Served]
POOL = "/run/r/pool/v1/chat/completions"


def thinking(**levels: str) -> Callable[[dict[str, Any], object], dict[str, Any]]:
    def with_levels(made: dict[str, Any], _: object) -> dict[str, Any]:
        models = [
            {**m, "thinking": levels[m["alias"]]} if m["alias"] in levels else m
            for m in made["models"]
        ]
        return {**made, "models": models}

    return with_levels


@pytest.mark.parametrize(
    ("sent", "large", "small"),
    [
        ("high", "high", "low"),  # what the config says: each has its own
        ("max", "max", "max"),
        (None, None, None),
        ("none", None, None),
    ],
)
def test_thinking_for_a_session_reaches_whichever_model_serves(
    serve: Serve, sent: str | None, large: str | None, small: str | None
) -> None:
    served = serve(source=thinking(large="high", small="low"))
    body = {"model": "large-model"} | ({} if sent is None else {"reasoning_effort": sent})
    served.ask(POOL, **body)
    assert served.large.requests[-1].body.get("reasoning_effort") == large
    served.large.then(refusal(401, "no"))
    served.ask(POOL, **body)
    assert served.small.requests[-1].body.get("reasoning_effort") == small


def test_a_model_that_does_not_think_is_not_made_to_by_another_ones_session(
    serve: Serve,
) -> None:
    served = serve(source=thinking(large="low"))
    served.large.then(refusal(401, "no"))
    served.ask(POOL, model="large-model", reasoning_effort="high")
    assert "reasoning_effort" not in served.small.requests[-1].body


def test_a_temperature_that_no_entry_has_is_vibes_usual_one(serve: Serve) -> None:
    """Vibe alone knows it: any other client gets what it asks for, and else its provider's."""
    served = serve()
    for path in (POOL, "/run/r/v1/chat/completions", "/v1/chat/completions"):
        served.ask(path)
    sent = [request.body.get("temperature") for request in served.large.requests]
    assert sent == [0.2, None, None]


def test_an_unknown_name_leaves_each_model_its_own_level(serve: Serve) -> None:
    served = serve(source=thinking(large="low"))
    served.ask(POOL, model="another", reasoning_effort="high")
    assert served.large.requests[-1].body["reasoning_effort"] == "low"


def with_key(made: dict[str, Any], _: object) -> dict[str, Any]:
    providers = [{**made["providers"][0], "api_key_env_var": "LAB_API_KEY"}]
    return {**made, "providers": providers}


def test_refused_keys_of_all_models_end_the_turn_of_a_vibe_at_once(serve: Serve) -> None:
    served = serve(source=with_key, env={"LAB_API_KEY": "wrong"})
    served.large.default = served.small.default = refusal(401, "Incorrect API key provided")
    # Vibe repeats a 503, and would name the gateway's own token at a 401.
    for _ in range(2):
        answered = served.ask(POOL)
        error = answered.json()["error"]
        assert (answered.status_code, error["code"]) == (400, "invalid_api_key")
        assert error["message"] == (
            "Invalid API key: check LAB_API_KEY (large), LAB_API_KEY (small), then"
            " `vibe-mux check`"
        )


def test_refused_keys_of_all_models_are_unavailable_models_for_other_clients(
    serve: Serve,
) -> None:
    served = serve(
        source=with_key, env={"LAB_API_KEY": "wrong"}, section={"max_wait_ms": 0}
    )
    served.large.default = served.small.default = refusal(401, "Incorrect API key provided")
    assert served.ask().status_code == 503


def test_one_working_key_keeps_the_error_that_is_repeated(serve: Serve) -> None:
    served = serve(section={"max_wait_ms": 0})
    served.large.default = refusal(401, "Incorrect API key provided")
    served.small.default = refusal(500, "down")
    assert served.ask(POOL).status_code == 503
