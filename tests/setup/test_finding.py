"""Servers on this machine that a config does not know."""

from __future__ import annotations

from typing import Any

import pytest
import responses
import tomli

from muxcore.setup.unknown_servers import Found, lines_for, served_models, unknown_servers
from muxcore.standin import Model, StandInServer

OLLAMA = "http://127.0.0.1:11434/v1"


def test_the_models_that_a_server_lists() -> None:
    with StandInServer([Model("one"), Model("two:7b")]) as server:
        assert served_models(server.url.rstrip("/")) == ("one", "two:7b")
    # It is gone.
    assert served_models(server.url.rstrip("/")) == ()


@pytest.mark.parametrize(
    "providers",
    [
        [{"name": "mine", "api_base": "http://localhost:11434/v1"}],
        {"mine": {"api_base": "http://127.0.0.1:11434/v1"}},
    ],
)
def test_a_server_of_the_config_is_not_asked(providers: Any) -> None:
    asked: list[str] = []

    def models_at(api_base: str) -> tuple[str, ...]:
        asked.append(api_base)
        return ("m",)

    (found,) = unknown_servers({"providers": providers}, models_at)
    assert asked == ["http://127.0.0.1:1234/v1"]
    assert found == Found("lmstudio", "http://127.0.0.1:1234/v1", ("m",))


@pytest.mark.parametrize(
    "providers",
    [
        None,
        7,
        [{"api_base": "https://far.example:11434/v1"}, "odd"],
        [{"api_base": "http://127.0.0.1:x/v1"}, {"api_base": "http://[::1"}],
    ],
)
def test_a_malformed_provider_hides_no_server(providers: Any) -> None:
    found = unknown_servers({"providers": providers}, lambda _: ("m",))
    assert [server.provider for server in found] == ["ollama", "lmstudio"]


def test_a_server_that_does_not_respond_is_not_reported() -> None:
    assert unknown_servers({}, lambda _: ()) == ()


@pytest.mark.parametrize(
    ("name", "aliases", "alias"),
    [
        ("qwen3-coder:30b", [], "qwen3-coder"),
        ("unsloth/devstral-gguf", [], "devstral-gguf"),
        ("qwen3-coder:30b", ["qwen3-coder"], "qwen3-coder:30b"),
        ("org/", [], "org/"),
        ('od"d\\', [], 'od"d\\'),
    ],
)
def test_the_lines_are_a_config(name: str, aliases: list[str], alias: str) -> None:
    made = tomli.loads(lines_for(Found("ollama", OLLAMA, (name, "other")), aliases))
    assert made == {
        "providers": [{"name": "ollama", "api_base": OLLAMA}],
        "models": [{"name": name, "provider": "ollama", "alias": alias}],
    }


@pytest.mark.parametrize(
    "body", [b"[]", b'{"data": [1]}', b'{"data": null}', b"<html>", b"3"]
)
def test_a_response_without_a_list_has_no_models(body: bytes) -> None:
    with responses.RequestsMock() as mocked:
        mocked.get(f"{OLLAMA}/models", body=body)
        assert served_models(OLLAMA) == ()


def test_control_characters_in_names_are_stripped() -> None:
    with responses.RequestsMock() as mocked:
        listed = {"data": [{"id": "\x1b[31mred" + "x" * 200}, {"id": ""}]}
        mocked.get(f"{OLLAMA}/models", json=listed)
        (name,) = served_models(OLLAMA)
    assert name.startswith("red")
    assert len(name) == 100
