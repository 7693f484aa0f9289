"""The environment that brings vibe to the server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muxcore import config as configuration
from muxcore.config.definitions import active_model
from muxcore.vibe.environment import Access, past_the_pool, settings
from muxcore.vibe.release import Release
from muxcore.vibe.startup import Arguments, read_startup

ACCESS = Access("http://127.0.0.1:4000", "a-token", "run1")
SKILLS = Path("skills")
NOWHERE = Path("/no/such/folder")
OLD, MERGING, NEWEST, UNKNOWN = map(Release, ((2, 18, 4), (3, 0, 2), (3, 0, 3), None))
KEYS = {"MISTRAL_API_KEY": "unused"}
LAB = {"name": "lab", "api_base": "http://127.0.0.1:1/v1", "extra_headers": {"X-Team": "a"}}


def data(*models: dict[str, Any], pool: Any = None, **more: Any) -> dict[str, Any]:
    entries = [{"model": m["alias"]} for m in models] if pool is None else pool
    return {
        "active_model": models[0]["alias"],
        "providers": [LAB],
        "models": list(models),
        "multiplexer": {"enabled": True, "mode": "failover", "pool": entries},
        **more,
    }


def model(alias: str, **more: Any) -> dict[str, Any]:
    return {"name": f"{alias}-model", "provider": "lab", "alias": alias, **more}


def variables(
    mine: dict[str, Any],
    env: dict[str, str] | None = None,
    pool: Any = None,
    release: Release = OLD,
) -> dict[str, Any]:
    environment = {**KEYS, **(env or {})}
    config = configuration.load(pool or mine, env=environment)
    startup = read_startup(mine, NOWHERE, NOWHERE, Arguments(), environment)
    made = settings(startup, config, ACCESS, SKILLS, release)
    found: dict[str, Any] = {
        name: json.loads(value) if value.startswith(("[", "{")) else value
        for name, value in made.items()
    }
    for name in ("VIBE_MODELS", "VIBE_PROVIDERS"):
        key = "alias" if name == "VIBE_MODELS" else "name"
        assert len({each[key] for each in found[name]}) == len(found[name])
        found[name] = {each[key]: each for each in found[name]}
    return found


LARGE = model(
    "large",
    temperature=0.7,
    thinking="high",
    input_price=0.4,
    supports_images=True,
    max_context_length=262_144,
    of_a_later_vibe=["kept"],
)


def test_each_model_keeps_every_field_but_its_provider() -> None:
    made = variables(
        data(LARGE, model("small"), model("outside"), pool=[{"model": "large"}])
    )
    models = made["VIBE_MODELS"]
    assert models["large"] == {**LARGE, "provider": "vibe-mux"}
    assert models["outside"] == model("outside")
    assert "VIBE_ACTIVE_MODEL" not in made


def test_the_active_model_is_the_pool_and_other_members_are_single_models() -> None:
    made = variables(data(LARGE, model("b/c")))
    providers = made["VIBE_PROVIDERS"]
    assert providers["vibe-mux"] == {
        "name": "vibe-mux",
        "api_base": "http://127.0.0.1:4000/run/run1/pool/v1",
        "api_key_env_var": "VIBE_MUX_TOKEN",
        "backend": "generic",
    }
    alone = providers[made["VIBE_MODELS"]["b/c"]["provider"]]
    assert alone["api_base"] == "http://127.0.0.1:4000/run/run1/only/b%2Fc/v1"
    assert made["VIBE_MUX_TOKEN"] == "a-token"


def test_vibes_own_providers_stay() -> None:
    providers = variables(data(LARGE))["VIBE_PROVIDERS"]
    assert providers["lab"] == LAB
    assert providers["mistral"]["api_key_env_var"] == "MISTRAL_API_KEY"


def test_a_provider_of_the_user_with_our_name_is_replaced() -> None:
    mine = data(LARGE, providers=[LAB, {**LAB, "name": "vibe-mux"}])
    assert variables(mine)["VIBE_PROVIDERS"]["vibe-mux"]["backend"] == "generic"


def test_tables_by_alias_are_models_as_well() -> None:
    mine = data(LARGE)
    raw = {name: value for name, value in LARGE.items() if name != "alias"}
    mine["models"] = {"large": raw}
    assert variables(mine)["VIBE_MODELS"]["large"] == {**LARGE, "provider": "vibe-mux"}


def test_the_window_of_the_pool_is_the_smallest_of_its_primaries() -> None:
    mine = data(
        LARGE,
        model("small", max_context_length=32_000),
        model("last", max_context_length=8_000),
        model("outside"),
        pool=[
            {"model": "large"},
            {"model": "small"},
            {"model": "last", "is_fallback": True},
        ],
    )
    made = variables(mine)
    large = made["VIBE_MODELS"]["large"]
    assert (large["max_context_length"], large["auto_compact_threshold"]) == (
        32_000,
        24_000,
    )
    # Vibe 1 has one limit for all; the others' own go before it.
    assert made["VIBE_AUTO_COMPACT_THRESHOLD"] == "24000"
    assert made["VIBE_MODELS"]["small"]["auto_compact_threshold"] == 24_000
    assert made["VIBE_MODELS"]["outside"]["auto_compact_threshold"] == 200_000


@pytest.mark.parametrize(
    "own", [{"auto_compact_threshold": 0}, {"auto_compact_threshold": 9}]
)
def test_a_lower_threshold_of_the_user_is_kept(own: dict[str, int]) -> None:
    mine = data(model("large", **own), model("small", max_context_length=32_000))
    made = variables(mine)
    assert made["VIBE_MODELS"]["large"]["auto_compact_threshold"] == sum(own.values())
    assert "VIBE_AUTO_COMPACT_THRESHOLD" not in made


def test_a_renamed_alias_is_the_pool_by_both_names() -> None:
    old = {"name": "mistral-vibe-cli-latest", "provider": "mistral", "alias": "devstral-2"}
    models = variables(data(old))["VIBE_MODELS"]
    assert models["devstral-2"] == {**old, "provider": "vibe-mux"}
    assert models["mistral-medium-3.5"]["provider"] == "vibe-mux"
    assert models["mistral-medium-3.5"]["thinking"] == "high"


def test_a_model_of_the_user_with_the_new_name_is_kept() -> None:
    old = {"name": "mistral-vibe-cli-latest", "provider": "mistral", "alias": "devstral-2"}
    new = model("mistral-medium-3.5")
    models = variables(data(old, new, pool=[{"model": "devstral-2"}]))["VIBE_MODELS"]
    assert models["mistral-medium-3.5"]["provider"] == "lab"


def test_without_models_vibes_own_are_passed() -> None:
    mine = {"multiplexer": {"enabled": True, "mode": "failover"}}
    models = variables(mine)["VIBE_MODELS"]
    assert models["mistral-medium-3.5"]["provider"] == "vibe-mux"
    # What the first ones have as their default.
    assert models["devstral-2"]["provider"] == "vibe-mux"
    assert models["local"]["provider"] == "llamacpp"


def test_a_pool_of_another_file_stands_behind_vibes_own_model() -> None:
    pool = data(model("other"), model("small"))
    mine = data(LARGE, model("small"))
    made = variables(mine, pool=pool)
    assert made["VIBE_MODELS"]["large"]["provider"] == "vibe-mux"
    assert made["VIBE_MODELS"]["small"]["provider"] == "vibe-mux-small"
    assert "other" not in made["VIBE_MODELS"]


def test_the_compaction_model_uses_the_pools_provider() -> None:
    made = variables(data(LARGE, compaction_model=model("short")))
    assert made["VIBE_COMPACTION_MODEL"] == {**model("short"), "provider": "vibe-mux"}


def test_the_skills_of_the_user_are_kept() -> None:
    mine = data(LARGE, skill_paths=["~/mine"])
    assert variables(mine)["VIBE_SKILL_PATHS"] == ["~/mine", "skills"]
    given = variables(mine, {"VIBE_SKILL_PATHS": '["/other"]'})
    assert given["VIBE_SKILL_PATHS"] == ["/other", "skills"]
    assert variables(mine, {"VIBE_SKILL_PATHS": "?"})["VIBE_SKILL_PATHS"] == [
        "~/mine",
        "skills",
    ]


@pytest.mark.parametrize(
    ("own", "hosts"),
    [
        ({}, "127.0.0.1"),
        ({"NO_PROXY": "a.example"}, "a.example,127.0.0.1"),
        ({"NO_PROXY": "a", "no_proxy": "b , c"}, "b,c,127.0.0.1"),
        ({"no_proxy": "*"}, "*"),
        ({"NO_PROXY": "127.0.0.1"}, "127.0.0.1"),
    ],
)
def test_loopback_bypasses_any_proxy(own: dict[str, str], hosts: str) -> None:
    made = variables(data(LARGE), own)
    assert (made["NO_PROXY"], made["no_proxy"]) == (hosts, hosts)


@pytest.mark.parametrize(
    ("written", "env", "active"),
    [
        ({}, {}, "mistral-medium-3.5"),
        ({"active_model": ""}, {}, "mistral-medium-3.5"),
        ({"active_model": "a"}, {}, "a"),
        ({"active_model": "a"}, {"VIBE_ACTIVE_MODEL": "b"}, "b"),
    ],
)
def test_the_active_model_is_the_one_that_vibe_uses(
    written: dict[str, Any], env: dict[str, str], active: str
) -> None:
    assert active_model(written, env).name == active
