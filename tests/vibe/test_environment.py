"""The environment that brings vibe to the server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muxcore import config as configuration
from muxcore.config.definitions import active_model
from muxcore.gateway.access import Access
from muxcore.vibe.bypass import past_the_pool
from muxcore.vibe.environment import settings
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


# --- vibes that merge models ---------------------------------------------------------------


def test_a_vibe_that_merges_models_gets_their_names_and_providers_alone() -> None:
    mine = data(LARGE, model("small"), model("outside"), pool=[{"model": "large"}])
    made = variables(mine, release=NEWEST)
    assert made["VIBE_MODELS"] == {
        "large": {"alias": "large", "name": "large-model", "provider": "vibe-mux"}
    }
    assert list(made["VIBE_PROVIDERS"]) == ["vibe-mux"]
    # Else an experiment may choose another model.
    assert made["VIBE_ROUTED_DEFAULT_MODEL"] == "large"
    assert made["VIBE_SKILL_PATHS"] == ["skills"]


def test_the_present_name_of_a_renamed_alias_is_passed_alone() -> None:
    old = {"name": "mistral-vibe-cli-latest", "provider": "mistral", "alias": "devstral-2"}
    made = variables(data(old, model("small")), release=NEWEST)
    assert list(made["VIBE_MODELS"]) == ["small", "mistral-medium-3.5"]
    assert made["VIBE_ROUTED_DEFAULT_MODEL"] == "mistral-medium-3.5"


@pytest.mark.parametrize("release", [NEWEST, UNKNOWN, Release((4, 0))])
@pytest.mark.parametrize(
    "window", [1, 8_000, 13_334, 32_000, 119_999, 120_000, 262_144, 10**6]
)
@pytest.mark.parametrize("threshold", [None, -1, 0, 1, 9_999, 200_000, 10**9])
@pytest.mark.parametrize("place", ["primary", "fallback", "outside", "for all"])
def test_no_window_and_no_threshold_keeps_vibe_from_starting(
    release: Release, window: int, threshold: int | None, place: str
) -> None:
    limits = {"max_context_length": window, "auto_compact_threshold": threshold}
    own = {name: value for name, value in limits.items() if value is not None}
    places = ["large", "primary", "fallback", "outside"]
    models = [model(alias, **(own if alias == place else {})) for alias in places]
    for_all = {"auto_compact_threshold": threshold} if place == "for all" else {}
    pool = [
        {"model": "large"},
        {"model": "primary"},
        {"model": "fallback", "is_fallback": True},
    ]
    mine = data(*models, pool=pool, **{k: v for k, v in for_all.items() if v is not None})
    made = variables(mine, release=release)
    common = int(
        made.get("VIBE_AUTO_COMPACT_THRESHOLD", mine.get("auto_compact_threshold", -1))
    )
    assert common != 0
    for written in models:
        # As vibe merges them; it drops its own old marker -1 from files.
        passed = made["VIBE_MODELS"].get(written["alias"], {})
        assert passed.get("auto_compact_threshold", 1) > 0
        merged = {**written, **passed} if release.merges_models else passed
        size = merged.get("max_context_length", 262_144)
        at = merged.get("auto_compact_threshold", -1)
        at = common if at == -1 else at
        assert size >= 13_334
        lowest = max(min(50_000, size // 2), 10_000)
        assert at == -1 or lowest <= at <= size - min(24_000, -(-size // 4))


def test_an_earlier_vibe_that_merges_keeps_compaction_off() -> None:
    mine = data(
        model("large", auto_compact_threshold=0), model("b", max_context_length=32_000)
    )
    assert (
        "auto_compact_threshold"
        not in variables(mine, release=MERGING)["VIBE_MODELS"]["large"]
    )


@pytest.mark.parametrize("release", [MERGING, NEWEST])
def test_vibes_own_prompt_fits_below_the_threshold(release: Release) -> None:
    tiny = {"max_context_length": 8_000}
    low = {"auto_compact_threshold": 9}
    passed = variables(data(model("large", **tiny), model("b", **low)), release=release)
    assert passed["VIBE_MODELS"]["large"]["max_context_length"] == 13_334
    assert passed["VIBE_MODELS"]["b"]["auto_compact_threshold"] >= 10_000


def test_images_are_described_by_the_model_that_vibe_would_choose() -> None:
    seeing = model("seeing", supports_images=True)
    mine = data(model("large"), model("small"), seeing, pool=[{"model": "large"}])
    made = variables(mine, release=NEWEST)
    assert made["VIBE_VISION_MODEL"] == seeing
    pooled = variables(data(model("large"), seeing), release=NEWEST)
    assert pooled["VIBE_VISION_MODEL"] == {**seeing, "provider": "vibe-mux-seeing"}
    assert "VIBE_VISION_MODEL" not in variables(data(LARGE, seeing), release=NEWEST)
    chosen = data(model("large"), seeing, vision_model=seeing)
    assert "VIBE_VISION_MODEL" not in variables(chosen, release=NEWEST)


# --- what vibe asks at its start ------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "pooled"),
    [
        ({"active_model": "gone"}, "mistral-medium-3.5"),
        ({"allowed_models": ["small*"]}, "small"),
        ({"allowed_models": ["re:OUTSIDE-.*"]}, "outside"),
        ({"allowed_models": ["nothing"]}, "large"),
    ],
)
def test_the_model_that_vibe_falls_back_to_is_the_pool(
    more: dict[str, Any], pooled: str
) -> None:
    pool = [{"model": "large"}, {"model": "small"}]
    mine = data(LARGE, model("small"), model("outside"), pool=pool) | more
    made = variables(mine, release=NEWEST)["VIBE_MODELS"]
    assert made[pooled]["provider"] == "vibe-mux"


def test_models_of_a_variable_override_those_of_the_file() -> None:
    env = {"VIBE_MODELS": json.dumps([model("other")]), "VIBE_ACTIVE_MODEL": "other"}
    made = variables(data(LARGE), env, release=NEWEST)
    assert made["VIBE_MODELS"]["other"]["provider"] == "vibe-mux"


class Folder:
    """A vibe's home and a project, with files written as users do."""

    def __init__(self, root: Path) -> None:
        self.home, self.project = root / "home", root / "project"
        (self.project / ".vibe").mkdir(parents=True)
        self.home.mkdir()

    def write(self, file: str, text: str) -> None:
        place = self.home.parent / file
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)

    def trust(self, decision: str = "trusted") -> None:
        self.write(
            "home/trusted_folders.toml", f'{decision} = ["{self.project.as_posix()}"]\n'
        )

    def past(self, *command: str, pool: Any = None) -> tuple[dict[str, str], list[str]]:
        """Return the providers passed to vibe, and the lines on what goes past the pool."""
        mine = data(LARGE, model("small"), model("outside"), pool=pool or TWO)
        config = configuration.load(mine, env=KEYS)
        arguments = Arguments.of(["vibe", *command])
        startup = read_startup(mine, self.home, self.project, arguments, KEYS)
        made = json.loads(settings(startup, config, ACCESS, SKILLS, NEWEST)["VIBE_MODELS"])
        lines = [
            str(line).replace(f"{self.home.parent}/", "")
            for line in past_the_pool(startup, config)
        ]
        return {each["alias"]: each["provider"] for each in made}, lines


TWO = [{"model": "large"}, {"model": "small"}]
POOL, SMALL_ALONE = "vibe-mux", "vibe-mux-small"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path.resolve())


def test_the_active_model_of_a_trusted_project_is_the_pool(folder: Folder) -> None:
    folder.write("project/.vibe/config.toml", 'active_model = "outside"\n')
    folder.trust()
    assert folder.past() == (
        {"large": "vibe-mux-large", "small": SMALL_ALONE, "outside": POOL},
        [],
    )


def test_until_the_user_decides_on_trust_either_model_is_the_pool(folder: Folder) -> None:
    folder.write("project/.vibe/config.toml", 'active_model = "small"\n')
    assert folder.past()[0] == {"large": POOL, "small": POOL}
    assert folder.past("--trust")[0] == {"large": "vibe-mux-large", "small": POOL}


def test_a_project_that_is_not_trusted_changes_nothing(folder: Folder) -> None:
    folder.write("project/.vibe/config.toml", 'active_model = "small"\n')
    folder.trust("untrusted")
    assert folder.past() == ({"large": POOL, "small": SMALL_ALONE}, [])


def test_a_pool_of_the_active_model_alone_stands_for_no_other(folder: Folder) -> None:
    folder.write("project/.vibe/config.toml", '\nactive_model = "outside"\n')
    folder.trust()
    _, lines = folder.past(pool=[{"model": "large"}])
    assert lines == [
        (
            'project/.vibe/config.toml:2: active_model: this folder asks "outside" past the pool,'
            " which it is not in"
        )
    ]


def test_the_model_of_the_agent_that_vibe_starts_with_is_the_pool(folder: Folder) -> None:
    folder.write("home/agents/reviewer.toml", 'active_model = "outside"\n')
    providers, lines = folder.past("--agent", "reviewer")
    assert (providers["outside"], lines) == (POOL, [])


def test_agents_with_another_model_are_announced_with_their_lines(folder: Folder) -> None:
    folder.write(
        "home/agents/cheap.toml", 'display_name = "Cheap"\nactive_model = "small"\n'
    )
    folder.write("home/agents/far.toml", 'active_model = "outside"\n')
    folder.write("home/agents/usual.toml", 'active_model = "large"\n')
    _, lines = folder.past()
    assert lines == [
        (
            'home/agents/cheap.toml:2: active_model: agent "cheap" asks "small" alone: the pool does'
            " not stand in for it"
        ),
        (
            'home/agents/far.toml:1: active_model: agent "far" asks "outside" past the pool, which it'
            " is not in"
        ),
    ]


def test_a_provider_in_the_profile_of_an_agent_overrides_the_pool(folder: Folder) -> None:
    text = 'active_model = "large"\n[models.large]\nprovider = "lab"\n'
    folder.write("home/agents/own.toml", text)
    _, lines = folder.past("--agent=own")
    assert lines == [
        (
            'home/agents/own.toml:1: active_model: agent "own" asks "large" past the pool, which it'
            " is not in"
        )
    ]


def test_secrets_in_extra_headers_stay_out_of_the_environment_of_vibes_tools() -> None:
    mine = data(LARGE)
    mine["providers"][0]["extra_headers"] = {"X-Auth": "header-canary-51f3"}
    assert "header-canary-51f3" not in json.dumps(variables(mine), default=str)
