"""`check`, `/mux`, `init` and `run` read vibe's models alike, whatever the form of the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli

from muxcore import config as configuration
from muxcore.config.definitions import VIBES_MODELS, Definitions
from muxcore.config.read import Document
from muxcore.gateway.access import Access
from muxcore.gateway.api.status_page import SwitchOnHint
from muxcore.setup.proposal import candidates
from muxcore.vibe.environment import settings
from muxcore.vibe.release import Release
from muxcore.vibe.startup import Arguments, read_startup

ENVIRONMENT = {"MISTRAL_API_KEY": "k"}
TWO = {"a": "model-a", "b": "model-b"}

SHAPES = {
    "a list with aliases": (
        """
        [[models]]
        name = "model-a"
        provider = "mistral"
        alias = "a"
        [[models]]
        name = "model-b"
        provider = "mistral"
        alias = "b"
        """,
        TWO,
    ),
    "a list without aliases": (
        """
        [[models]]
        name = "a"
        provider = "mistral"
        [[models]]
        name = "b"
        provider = "mistral"
        """,
        {"a": "a", "b": "b"},
    ),
    "an inline list, as vibe saves it": (
        """
        models = [
            { name = "model-a", provider = "mistral", alias = "a" },
            { name = "model-b", provider = "mistral", alias = "b" },
        ]
        """,
        TWO,
    ),
    "tables by alias": (
        """
        [models.a]
        name = "model-a"
        provider = "mistral"
        [models.b]
        name = "model-b"
        provider = "mistral"
        """,
        TWO,
    ),
    "tables that repeat their alias": (
        """
        [models]
        a = { name = "model-a", provider = "mistral", alias = "a" }
        b = { name = "model-b", provider = "mistral", alias = "b" }
        """,
        TWO,
    ),
    "empty aliases, and a member without a name": (
        """
        [[models]]
        name = "a"
        provider = "mistral"
        alias = ""
        [[models]]
        temperature = 0.1
        [[models]]
        name = "b"
        provider = "mistral"
        """,
        {"a": "a", "b": "b"},
    ),
    "models that vibe completes": (
        """
        [models.devstral-small]
        temperature = 0.1
        [models.local]
        name = ""
        """,
        {"devstral-small": "devstral-small-latest", "local": "devstral"},
    ),
    "no models": (
        "",
        {
            "mistral-medium-3.5": "mistral-vibe-cli-latest",
            "devstral-small": "devstral-small-latest",
            "local": "devstral",
        },
    ),
}


@pytest.mark.parametrize(("text", "expected"), SHAPES.values(), ids=SHAPES)
def test_every_form_of_models_has_one_meaning_everywhere(
    text: str, expected: dict[str, str]
) -> None:
    active, *others = expected
    data: dict[str, Any] = {"active_model": active, **tomli.loads(text)}
    pool = [{"model": alias} for alias in expected]
    section = {"enabled": True, "mode": "failover", "pool": pool}

    checked = configuration.load({**data, "multiplexer": section}, env=ENVIRONMENT)
    assert {e.alias: e.model for e in checked.endpoints} == expected

    shown = tomli.loads(SwitchOnHint.of(active, None, data).lines)["multiplexer"]["pool"]
    in_file = others if "models" in data else []
    assert [entry["model"] for entry in shown] == [active, *in_file]

    proposed = candidates(Document("config", data), ENVIRONMENT, lambda _: {})
    assert {c.alias for c in proposed if c.is_ready} == {*expected, "local"}

    access = Access("http://127.0.0.1:4000", "token", "label")
    nowhere = Path("/no/such/folder")
    startup = read_startup(data, nowhere, nowhere, Arguments(), ENVIRONMENT)
    made = settings(startup, checked, access, Path("skills"), Release())
    handed = {model["alias"]: model["name"] for model in json.loads(made["VIBE_MODELS"])}
    own = {} if "models" in data else {a: str(m["name"]) for a, m in VIBES_MODELS.items()}
    assert handed == own | expected


def test_of_two_tables_with_one_name_the_first_counts_and_the_others_are_known() -> None:
    tables = [{"name": "a", "provider": "x"}, {"alias": "a", "provider": "y"}]
    found = Definitions.of({"models": tables}).models["a"]
    assert (found.table["provider"], found.path) == ("x", ("models", 0))
    assert found.repeats == (("models", 1, "alias"),)
