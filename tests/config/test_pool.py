"""How a pool is made, its problems, and its warnings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from muxcore.config import Config
from muxcore.errors import ConfigError
from muxcore.plugins.catalogue import Catalogue

Load = Callable[..., Config]
Problems = Callable[..., list[str]]

MODELS = """
active_model = "a"
[[models]]
name = "model-a"
provider = "llamacpp"
alias = "a"
[[models]]
name = "model-b"
provider = "llamacpp"
alias = "b"
"""
AGAIN = """
[[models]]
name = "model-c"
provider = "llamacpp"
alias = "a"
"""


def pool(section: str, *entries: str, models: str = MODELS) -> str:
    tables = "".join(f"[[multiplexer.pool]]\n{entry}\n" for entry in entries)
    return f"{models}\n[multiplexer]\nenabled = true\n{section}\n{tables}"


def aliases(config: Config) -> list[str]:
    return [endpoint.alias for endpoint in config.endpoints]


def test_the_pool_keeps_its_order(load: Load) -> None:
    config = load(pool('mode = "failover"', 'model = "b"', 'model = "a"'))
    assert aliases(config) == ["b", "a"]
    assert config.enabled
    assert config.active_model == "a"


def test_an_empty_pool_is_the_active_model(load: Load) -> None:
    config = load(pool('mode = "load_balance"'))
    assert aliases(config) == ["a"]
    (warning,) = config.warnings
    assert "no pool: active_model is used alone; add [[multiplexer.pool]] tables" in warning


def test_without_enabled_the_active_model_is_alone(load: Load) -> None:
    config = load(
        MODELS + '[multiplexer]\npool = [{model = "b"}, {model = "a", max_concurrent = 2}]'
    )
    assert aliases(config) == ["a"]
    assert config.endpoints[0].max_concurrent is None
    assert not config.enabled
    assert config.policy.direct
    assert config.mode == "single"
    assert config.strategy_name == "failover"
    (warning,) = config.warnings
    assert warning.endswith(
        'multiplexer: no "enabled", so the pool is not used; add the line enabled = true'
    )


def test_a_broken_pool_that_is_off_is_a_warning(load: Load) -> None:
    config = load(
        """
        active_model = "local"
        [multiplexer]
        enabled = false
        mode = "nobody's"
        sticky = "turns"
        weight = 3
        pool = [{model = "nobody", is_fallback = true}, {modell = "x", is_fallback = true}]
        """
    )
    assert aliases(config) == ["local"]
    assert [warning.partition(":")[2] for warning in config.warnings] == [
        (
            '6: multiplexer.sticky: "turns", expected "call", "turn" or "session";'
            ' did you mean "turn"?'
        ),
        (
            "7: multiplexer.weight: an unknown option; the known ones are enabled, mode,"
            " rate_limit_disable_duration_ms, persistent_error_disable_duration_ms, sticky,"
            " max_wait_ms, connect_timeout_ms, read_timeout_ms, attempt_timeout_ms,"
            " call_timeout_ms, announced_limits, unseen_images, options, state, state_options, observers and pool"
        ),
        (
            '8: multiplexer.pool[0].model: "nobody", an unknown model alias, expected'
            " mistral-medium-3.5, devstral-2, devstral-small or local"
        ),
        '8: multiplexer.pool[1]: no "model", expected one; add model = …',
        '8: multiplexer.pool[1].modell: an unknown option; did you mean "model"?',
        (
            "8: multiplexer.pool: every entry has is_fallback = true, expected at least one"
            " non-fallback model; remove is_fallback from one"
        ),
    ]
    assert config.mode == "nobody's"


def test_single_is_the_active_model_with_its_cap(load: Load) -> None:
    config = load(
        pool(
            "",
            'model = "b"',
            'model = "a"\nis_fallback = true\nmax_concurrent = 2\ncontext_window = 9\nweight = 3',
        )
    )
    endpoint = config.endpoints[0]
    assert aliases(config) == ["a"]
    assert not endpoint.is_fallback
    assert endpoint.max_concurrent == 2
    assert endpoint.context_window == 9
    assert endpoint.weight == 1
    assert not config.policy.direct
    assert [warning.rpartition("config.toml:")[2] for warning in config.warnings] == [
        (
            '12: multiplexer.mode: "single" (which is the default) uses active_model "a" alone and'
            ' leaves out b; write mode = "failover" in [multiplexer] to use the whole pool'
        ),
        '19: multiplexer.pool[1].is_fallback: true, but mode "single" never reaches a fallback',
        (
            '22: multiplexer.pool[1].weight: 3, which mode "single" ignores;'
            ' mode = "load_balance" goes by it'
        ),
    ]


def test_single_without_an_entry_of_its_own(load: Load) -> None:
    config = load(pool('mode = "single"', 'model = "b"'))
    assert aliases(config) == ["a"]
    assert "leaves out b" in config.warnings[0]


def test_failover_ignores_weights(load: Load) -> None:
    config = load(pool('mode = "failover"', 'model = "a"\nweight = 2', 'model = "b"'))
    assert [warning.rpartition("config.toml:")[2] for warning in config.warnings] == [
        (
            '17: multiplexer.pool[0].weight: 2, which mode "failover" ignores;'
            ' mode = "load_balance" goes by it'
        )
    ]


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        (
            ['model = "a"', 'model = "bb"'],
            (
                '18: multiplexer.pool[1].model: "bb", an unknown model alias, expected a or b;'
                ' did you mean "b"?'
            ),
        ),
        (
            ['model = "a"', 'model = "a"'],
            (
                '18: multiplexer.pool[1].model: "a", named twice in the pool (first in'
                " multiplexer.pool[0]), expected each model once; remove one"
            ),
        ),
        (
            ['model = "a"\nis_fallback = true'],
            (
                "15: multiplexer.pool: every entry has is_fallback = true, expected at least one"
                " non-fallback model; remove is_fallback from one"
            ),
        ),
    ],
)
def test_faults_of_a_pool(problems: Problems, entries: list[str], text: str) -> None:
    assert problems(pool('mode = "failover"', *entries)) == [f"config.toml:{text}"]


def test_an_alias_defined_twice(problems: Problems) -> None:
    again = '[[models]]\nname = "a"\nprovider = "llamacpp"\n'
    text = pool('mode = "failover"', 'model = "a"', models=MODELS + again)
    assert problems(text) == [
        (
            'config.toml:12: models[2].name: "a", alias defined twice (first in models[0]),'
            " expected once; rename or remove one"
        )
    ]


def test_a_provider_defined_twice(problems: Problems) -> None:
    provider = '[[providers]]\nname = "llamacpp"\n'
    text = pool('mode = "failover"', 'model = "a"', models=MODELS + 2 * provider)
    assert problems(text) == [
        (
            'config.toml:14: providers[1].name: "llamacpp", provider defined twice (first in'
            " providers[0]), expected once; rename or remove one"
        )
    ]


def test_the_same_alias_twice_is_reported_at_the_alias(problems: Problems) -> None:
    text = pool('mode = "failover"', 'model = "a"', models=MODELS + AGAIN)
    assert problems(text)[0].startswith(
        'config.toml:15: models[2].alias: "a", alias defined'
    )


def test_an_unknown_provider(problems: Problems) -> None:
    text = pool(
        'mode = "failover"', 'model = "a"', models=MODELS.replace("llamacpp", "lamacpp")
    )
    assert problems(text) == [
        (
            'config.toml:5: models[0].provider: "lamacpp", an unknown provider, expected mistral or'
            ' llamacpp; did you mean "llamacpp"?'
        )
    ]


def test_everything_is_reported_at_once_in_the_order_of_the_file(
    problems: Problems,
) -> None:
    text = """
active_model = "a"
models = [{name = "x", provider = "nobody", alias = "a", temperature = "hot"}]
[multiplexer]
enabled = true
mode = "failover"
max_wait_ms = -1
wait = 3
pool = [
    {model = "a", weight = "3", max_concurrent = 1.5},
    {model = "zzz"},
    {weight = true},
]
"""
    assert [problem.partition(",")[0] for problem in problems(text)] == [
        'config.toml:3: models[0].temperature: "hot"',
        'config.toml:3: models[0].provider: "nobody"',
        "config.toml:7: multiplexer.max_wait_ms: -1",
        "config.toml:8: multiplexer.wait: an unknown option; the known ones are enabled",
        'config.toml:10: multiplexer.pool[0].weight: "3"',
        "config.toml:10: multiplexer.pool[0].max_concurrent: 1.5",
        'config.toml:11: multiplexer.pool[1].model: "zzz"',
        'config.toml:12: multiplexer.pool[2]: no "model"',
        "config.toml:12: multiplexer.pool[2].weight: true",
    ]


def test_one_mistake_of_a_shared_provider_is_reported_once(problems: Problems) -> None:
    provider = '[[providers]]\nname = "llamacpp"\nbackend = "lama"\n'
    text = pool('mode = "failover"', 'model = "a"', 'model = "b"', models=MODELS + provider)
    assert problems(text) == [
        (
            'config.toml:13: providers[0].backend: "lama", expected a backend: anthropic, generic'
            " or mistral"
        )
    ]


def test_unused_tables_are_not_checked(load: Load) -> None:
    unused = """
[[models]]
name = 3
[[models]]
alias = "c"
provider = "nobody"
[[models]]
name = "model-b"
provider = "llamacpp"
alias = "c"
[[providers]]
api_base = "nowhere"
[[providers]]
name = "unused"
[theme]
name = "vibe's own"
"""
    text = pool('mode = "failover"', 'model = "b"', models=MODELS + unused)
    assert aliases(load(text.replace('active_model = "a"', "active_model = 3"))) == ["b"]


def test_a_model_without_a_name_is_not_checked(load: Load) -> None:
    assert aliases(load({"active_model": "local", "models": [3], "providers": ["x"]})) == [
        "local"
    ]


def test_an_active_model_that_is_not_text(problems: Problems) -> None:
    assert problems("active_model = 3") == [
        "config.toml:1: active_model: 3, expected text in quotes"
    ]


def test_an_unknown_active_model(problems: Problems) -> None:
    known = "mistral-medium-3.5, devstral-2, devstral-small or local"
    assert problems('active_model = "lokal"') == [
        (
            f'config.toml:1: active_model: "lokal", an unknown model alias, expected {known};'
            ' did you mean "local"?'
        )
    ]
    assert problems("", env={"VIBE_ACTIVE_MODEL": "lokal"}) == [
        (
            f'config.toml: VIBE_ACTIVE_MODEL: "lokal", an unknown model alias, expected {known};'
            ' did you mean "local"?'
        )
    ]


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ("models = 3", "config.toml:1: models: 3, expected a list of tables: [[models]]"),
        (
            "providers = true",
            "config.toml:1: providers: true, expected a list of tables: [[providers]]",
        ),
        ("[models]\nlocal = 3", "config.toml:2: models.local: 3, expected a table"),
        (
            "[providers]\nllamacpp = 3",
            "config.toml:2: providers.llamacpp: 3, expected a table",
        ),
        (
            '[models.local]\nalias = "other"',
            (
                'config.toml:2: models.local.alias: "other", expected "local", the name of its'
                " table"
            ),
        ),
    ],
)
def test_sections_of_another_shape(problems: Problems, section: str, text: str) -> None:
    assert problems(section, env={"VIBE_ACTIVE_MODEL": "local"}) == [text]


def test_broken_plugins_are_named_where_they_are_needed(problems: Problems) -> None:
    def broken(**names: Any) -> Catalogue:
        return Catalogue({}, {}, ("the plugin x (y) cannot be used: ImportError: z",))

    text = pool('mode = "failover"', 'model = "a"')
    assert problems(text, catalogue=broken) == [
        (
            'config.toml:14: multiplexer.mode: "failover", expected a mode: single; a mode of'
            " another package needs that installed; the plugin x (y) cannot be used: ImportError: z"
        ),
        (
            'config.toml:16: providers.llamacpp.backend (vibe\'s default): "generic", expected a'
            " backend: none available; the plugin x (y) cannot be used: ImportError: z"
        ),
    ]


def test_the_catalogue_is_asked_for_what_is_used(load: Load) -> None:
    asked: list[dict[str, Any]] = []

    def recording(**names: Any) -> Catalogue:
        asked.append(names)
        return Catalogue({}, {})

    with pytest.raises(ConfigError):
        load(pool('mode = "tuned"', 'model = "a"'), catalogue=recording)
    with pytest.raises(ConfigError):
        load(MODELS, catalogue=recording)
    assert asked == [
        {"mode": "tuned", "backends": ["generic"]},
        {"mode": "failover", "backends": ["generic"]},
    ]


def test_a_config_is_shown_without_its_keys(load: Load) -> None:
    config = load("")
    assert config.keys["mistral-medium-3.5"].reveal() == "key-of-mistral"
    assert "key-of-mistral" not in repr(config)


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        (
            "[multplexer]\nenabled = true",
            'multplexer: has no effect; did you mean "multiplexer"?',
        ),
        (
            '[[pool]]\nmodel = "a"',
            "pool: has no effect here, expected [[multiplexer.pool]]",
        ),
    ],
)
def test_a_table_that_looks_like_the_section_is_a_warning(
    load: Load, written: str, hint: str
) -> None:
    (warning,) = load(MODELS + written).warnings
    assert warning.endswith(hint)


def test_other_tables_of_vibe_are_left_alone(load: Load) -> None:
    assert load(MODELS + "[tools]\nx = 1\n[mcp_servers]\n").warnings == ()


def test_a_wire_name_where_the_alias_is_expected(problems: Problems) -> None:
    text = """
        [[models]]
        name = "model-7"
        provider = "llamacpp"
        alias = "seven"
        [multiplexer]
        enabled = true
        mode = "failover"
        pool = [{model = "model-7"}]
    """
    (problem,) = problems(text)
    assert problem.endswith('; that is the name of "seven", write its alias')


def test_an_alias_where_a_table_is_expected(problems: Problems) -> None:
    assert [p.partition(": ")[2] for p in problems(pool('pool = ["a"]'))] == [
        'multiplexer.pool[0]: "a", expected a table; write { model = "a" }'
    ]


def test_all_mistakes_come_beside_an_invalid_enabled(problems: Problems) -> None:
    text = MODELS + '[multiplexer]\nenabled = "yes"\npool = [{model = "x"}]\n'
    found = [p.split(": ")[1] for p in problems(text)]
    assert found == ["multiplexer.enabled", "multiplexer.pool[0].model"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[[multiplexer]]\nenabled = true\n",
            "multiplexer: a list, expected a table; its header is [multiplexer], with one bracket",
        ),
        (
            '[multiplexer]\nenabled = true\n[multiplexer.pool]\nmodel = "a"\n',
            (
                "multiplexer.pool: a table, expected a list; its header is"
                " [[multiplexer.pool]], with two brackets"
            ),
        ),
        (
            "[multiplexer]\nenabled = true\n[[multiplexer.options]]\nseed = 1\n",
            (
                "multiplexer.options: a list, expected a table; its header is"
                " [multiplexer.options], with one bracket"
            ),
        ),
        (
            "[multiplexer]\nenabled = true\nmode = { a = 1 }\n",
            "multiplexer.mode: a table, expected text in quotes",
        ),
    ],
)
def test_a_header_with_a_bracket_too_many_or_too_few(
    load: Load, text: str, problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert caught.value.problems[0].partition(": ")[2] == problem
