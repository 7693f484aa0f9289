"""Files as vibe's users have them: the guide's, vibe's defaults, what its migration leaves."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from muxcore.config import Config

Load = Callable[..., Config]
Problems = Callable[..., list[str]]

ONE_MODEL = """
active_model = "devstral-2"

[[providers]]
name = "mistral"
api_base = "https://api.mistral.ai/v1"
api_key_env_var = "MISTRAL_API_KEY"
backend = "mistral"

[[models]]
name = "mistral-vibe-cli-latest"
provider = "mistral"
alias = "devstral-2"
"""
SMALL = """
[[models]]
name = "devstral-small-latest"
provider = "mistral"
alias = "devstral-small"
"""
FAILOVER = """
[multiplexer]
enabled = true
mode = "failover"

[[multiplexer.pool]]
model = "devstral-2"

[[multiplexer.pool]]
model = "devstral-small"
is_fallback = true
"""
CUSTOM = """
[[providers]]
name = "my-custom"
api_base = "https://my-api.example.com/v1"
api_key_env_var = "MY_API_KEY"
backend = "generic"

[[models]]
name = "my-model"
provider = "my-custom"
alias = "custom"

[multiplexer]
enabled = true
mode = "load_balance"

[[multiplexer.pool]]
model = "devstral-2"
weight = 70

[[multiplexer.pool]]
model = "custom"
weight = 30
"""


def aliases(config: Config) -> list[str]:
    return [endpoint.alias for endpoint in config.endpoints]


def test_the_guides_single_model(load: Load) -> None:
    config = load(ONE_MODEL)
    assert not config.enabled
    assert aliases(config) == ["devstral-2"]
    assert config.endpoints[0].wire.temperature is None
    assert config.keys["devstral-2"].variable == "MISTRAL_API_KEY"
    assert config.warnings == ()


def test_the_guides_failover(load: Load) -> None:
    config = load(ONE_MODEL + SMALL + FAILOVER)
    assert [(e.alias, e.is_fallback) for e in config.endpoints] == [
        ("devstral-2", False),
        ("devstral-small", True),
    ]
    assert config.warnings == ()


@pytest.mark.parametrize("before", ["", ONE_MODEL])
def test_the_guides_custom_provider(load: Load, before: str) -> None:
    config = load(before + CUSTOM)
    assert [(e.alias, e.weight, e.provider) for e in config.endpoints] == [
        ("devstral-2", 70, "mistral"),
        ("custom", 30, "my-custom"),
    ]
    assert config.keys["custom"].reveal() == "key-of-mine"
    assert config.warnings == ()


def test_the_guides_local_model_with_one_in_the_cloud(load: Load) -> None:
    cloud = '[[models]]\nname = "c"\nprovider = "mistral"\nalias = "cloud"\n'
    entries = '{model = "local"}, {model = "cloud", is_fallback = true}'
    config = load(
        f'{cloud}[multiplexer]\nenabled = true\nmode = "failover"\npool = [{entries}]'
    )
    assert aliases(config) == ["local", "cloud"]
    assert config.endpoints[0].wire.api_base == "http://127.0.0.1:8080/v1"
    assert list(config.keys) == ["cloud"]


def test_no_file_is_vibes_default_model(load: Load) -> None:
    endpoint = load("").endpoints[0]
    assert endpoint.alias == "mistral-medium-3.5"
    assert endpoint.model == "mistral-vibe-cli-latest"
    assert endpoint.dialect == "mistral"
    assert endpoint.context_window == 262_144
    assert (endpoint.input_price, endpoint.output_price) == (1.5, 7.5)
    assert endpoint.cached_input_price == 0.15
    assert endpoint.wire.temperature == 1.0
    assert endpoint.wire.thinking == "high"
    assert endpoint.wire.supports_images


@pytest.mark.parametrize("alias", ["devstral-2", "devstral-small", "local"])
def test_the_models_of_older_vibes_exist(load: Load, alias: str) -> None:
    assert aliases(load("", env={"VIBE_ACTIVE_MODEL": alias, "MISTRAL_API_KEY": "k"})) == [
        alias
    ]


def test_the_environments_active_model_overrides_the_file(load: Load) -> None:
    config = load('active_model = "devstral-2"', env={"VIBE_ACTIVE_MODEL": "local"})
    assert config.active_model == "local"


def test_an_empty_active_model_is_the_default(load: Load) -> None:
    env = {"VIBE_ACTIVE_MODEL": "", "MISTRAL_API_KEY": "k"}
    assert load('active_model = ""', env=env).active_model == "mistral-medium-3.5"


@pytest.mark.parametrize(
    "models",
    [
        '[[models]]\nalias = "devstral-small"\ntemperature = 0.7',
        '[models.devstral-small]\ntemperature = 0.7\nname = ""',
        'models = [{alias = "devstral-small", temperature = 0.7}]',
    ],
)
def test_an_incomplete_model_is_completed_from_vibes_own(load: Load, models: str) -> None:
    env = {"VIBE_ACTIVE_MODEL": "devstral-small", "MISTRAL_API_KEY": "k"}
    endpoint = load(models, env=env).endpoints[0]
    assert endpoint.model == "devstral-small-latest"
    assert endpoint.provider == "mistral"
    assert endpoint.wire.temperature == 0.7
    assert endpoint.input_price == 0.1


def test_a_complete_model_is_not_completed(load: Load) -> None:
    endpoint = load(
        SMALL, env={"VIBE_ACTIVE_MODEL": "devstral-small", "MISTRAL_API_KEY": "k"}
    )
    assert endpoint.endpoints[0].input_price == 0.0


def test_the_default_model_is_always_completed(load: Load) -> None:
    text = """
[models."mistral-medium-3.5"]
name = "mistral-vibe-cli-latest"
provider = "mistral"
thinking = "off"
"""
    endpoint = load(text).endpoints[0]
    assert endpoint.wire.thinking == "off"
    assert endpoint.wire.temperature == 1.0


@pytest.mark.parametrize(
    "providers",
    [
        '[[providers]]\nname = "llamacpp"\napi_key_env_var = "MY_API_KEY"',
        '[providers.llamacpp]\napi_key_env_var = "MY_API_KEY"',
        '[providers.llamacpp]\nname = "other"\napi_key_env_var = "MY_API_KEY"',
    ],
)
def test_a_provider_of_vibes_is_changed_field_by_field(load: Load, providers: str) -> None:
    env = {"VIBE_ACTIVE_MODEL": "local", "MY_API_KEY": "k"}
    config = load(providers, env=env)
    assert config.endpoints[0].provider == "llamacpp"
    assert config.endpoints[0].wire.api_base == "http://127.0.0.1:8080/v1"
    assert config.keys["local"].reveal() == "k"


MIGRATED = """
active_model = "mistral-medium-3.5"
models = [
    { name = "mistral-vibe-cli-latest", provider = "mistral", alias = "mistral-medium-3.5", temperature = 1.0, thinking = "high" },
]
applied_migrations = ["bash_read_only_defaults_v1"]

[multiplexer]
enabled = true
mode = "failover"
pool = [
    { model = "devstral-2", max_concurrent = 2 },
    { model = "devstral-small", is_fallback = true },
]
"""


def test_the_guides_file_as_vibe_3_rewrites_it_works(load: Load, tmp_path: Path) -> None:
    config = load(MIGRATED)
    assert aliases(config) == ["mistral-medium-3.5", "devstral-small"]
    assert config.endpoints[0].max_concurrent == 2
    assert config.warnings == (
        (
            f'{tmp_path / "config.toml"}:12: multiplexer.pool[0].model: "devstral-2" is now'
            ' "mistral-medium-3.5" in [[models]], because vibe renamed it there; that model is'
            ' used, write "mistral-medium-3.5" here too'
        ),
    )


def test_a_renamed_active_model_works(load: Load) -> None:
    text = re.sub(r"\[multiplexer\][^$]*", "", MIGRATED)
    config = load(text, env={"VIBE_ACTIVE_MODEL": "devstral-2", "MISTRAL_API_KEY": "k"})
    assert config.active_model == "mistral-medium-3.5"
    assert config.warnings[0].endswith('write "mistral-medium-3.5" here too')
    assert " VIBE_ACTIVE_MODEL: " in config.warnings[0]


def test_a_renamed_model_and_its_new_name_are_the_same(problems: Problems) -> None:
    text = MIGRATED.replace("devstral-small", "mistral-medium-3.5")
    assert problems(text) == [
        (
            'config.toml:13: multiplexer.pool[1].model: "mistral-medium-3.5", named twice in the'
            " pool (first in multiplexer.pool[0]), expected each model once; remove one"
        )
    ]
