"""Every option of `[multiplexer]`, `[[multiplexer.pool]]`, models and providers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from muxcore.config import Config
from muxcore.config.problems import listed
from muxcore.core.records import Sticky
from muxcore.plugins.catalogue import holding
from muxcore_backends.generic import Generic

Load = Callable[..., Config]
Problems = Callable[..., list[str]]

WHOLE = "expected a whole number of at least"
YEAR_MS = 31_536_000_000

POOL = [{"model": "a"}, {"model": "b"}]
FILE: dict[str, Any] = {
    "active_model": "a",
    "providers": [
        {"name": "here", "api_base": "http://localhost:1234/v1"},
        {"name": "there", "api_base": "https://api.example.com/v1"},
    ],
    "models": [
        {"name": "model-a", "provider": "there", "alias": "a"},
        {"name": "model-b", "provider": "here", "alias": "b"},
    ],
}


def enabled(**options: Any) -> dict[str, Any]:
    section = {"enabled": True, "mode": "failover", "pool": POOL, **options}
    return {**FILE, "multiplexer": section}


def with_entry(**options: Any) -> dict[str, Any]:
    return enabled(pool=[{"model": "a"}, {"model": "b", **options}])


def with_model(**options: Any) -> dict[str, Any]:
    model = {"name": "model-c", "provider": "here", "alias": "c", **options}
    return {**FILE, "active_model": "c", "models": [*FILE["models"], model]}


def with_provider(**options: Any) -> dict[str, Any]:
    provider = {"name": "p", "api_base": "https://p.example.com/v1", **options}
    model = {"name": "model-p", "provider": "p"}
    return {"active_model": "model-p", "providers": [provider], "models": [model]}


def seconds(duration: timedelta) -> float:
    return duration.total_seconds()


def test_defaults_of_the_section(load: Load) -> None:
    config = load(enabled())
    policy = config.policy
    assert seconds(policy.rate_limit_disable_duration) == 60
    assert seconds(policy.persistent_error_disable_duration) == 15
    assert seconds(policy.max_wait) == 30
    assert policy.sticky is Sticky.TURN
    assert not policy.direct
    assert seconds(config.call_timeout) == 1200
    assert config.options == {}


def test_a_loopback_host_gets_more_time(load: Load) -> None:
    config = load(enabled())
    there, here = config.timeouts["a"], config.timeouts["b"]
    assert [seconds(t) for t in (there.connect, there.read, there.attempt)] == [
        10,
        120,
        300,
    ]
    assert [seconds(t) for t in (here.connect, here.read, here.attempt)] == [10, 600, 900]


def test_the_options_of_the_section_count(load: Load) -> None:
    config = load(
        enabled(
            mode="load_balance",
            rate_limit_disable_duration_ms=1000,
            persistent_error_disable_duration_ms=1001,
            sticky="session",
            max_wait_ms=0,
            connect_timeout_ms=1,
            read_timeout_ms=2,
            attempt_timeout_ms=3,
            call_timeout_ms=YEAR_MS,
        )
    )
    milliseconds = timedelta(milliseconds=1)
    assert config.mode == config.strategy_name == "load_balance"
    assert config.policy.rate_limit_disable_duration == 1000 * milliseconds
    assert config.policy.persistent_error_disable_duration == 1001 * milliseconds
    assert config.policy.sticky is Sticky.SESSION
    assert config.policy.max_wait == timedelta()
    assert config.call_timeout == timedelta(days=365)
    for timeouts in config.timeouts.values():
        assert timeouts.connect == 1 * milliseconds
        assert timeouts.read == 2 * milliseconds
        assert timeouts.attempt == 3 * milliseconds


MINIMUMS = {
    "rate_limit_disable_duration_ms": 1000,
    "persistent_error_disable_duration_ms": 1000,
    "max_wait_ms": 0,
    "connect_timeout_ms": 1,
    "read_timeout_ms": 1,
    "attempt_timeout_ms": 1,
    "call_timeout_ms": 1,
}


@pytest.mark.parametrize(("option", "minimum"), MINIMUMS.items())
def test_a_duration_has_a_minimum(
    load: Load, problems: Problems, option: str, minimum: int
) -> None:
    assert load(enabled(**{option: minimum}))
    too_little = minimum - 1
    assert problems(enabled(**{option: too_little})) == [
        f"config: multiplexer.{option}: {too_little}, {WHOLE} {minimum}"
    ]


@pytest.mark.parametrize(("option", "minimum"), MINIMUMS.items())
def test_no_duration_overflows_a_clock(
    problems: Problems, option: str, minimum: int
) -> None:
    assert problems(enabled(**{option: YEAR_MS + 1})) == [
        f"config: multiplexer.{option}: 31536000001, {WHOLE} {minimum} and at most 31536000000"
    ]


@pytest.mark.parametrize("option", MINIMUMS)
@pytest.mark.parametrize(
    ("value", "spelled", "hint"),
    [
        ("5000", '"5000"', "; write 5000 without quotes"),
        ("soon", '"soon"', ""),
        (1.5, "1.5", ""),
        (True, "true", ""),
        ([1], "a list", ""),
        ({}, "a table", ""),
    ],
)
def test_a_duration_is_a_whole_number(
    problems: Problems, option: str, value: object, spelled: str, hint: str
) -> None:
    assert problems(enabled(**{option: value})) == [
        f"config: multiplexer.{option}: {spelled}, {WHOLE} {MINIMUMS[option]}{hint}"
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("no", '"no", expected true or false'),
        ("True", '"True", expected true or false; write true without quotes'),
        (1, "1, expected true or false"),
    ],
)
def test_enabled_is_true_or_false(problems: Problems, value: object, text: str) -> None:
    file = {"multiplexer": {"enabled": value}}
    assert problems(file) == [f"config: multiplexer.enabled: {text}"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"sticky": "turns"},
            'sticky: "turns", expected "call", "turn" or "session"; did you mean "turn"?',
        ),
        ({"sticky": 1}, 'sticky: 1, expected "call", "turn" or "session"'),
        (
            {"mode": "fail-over"},
            (
                'mode: "fail-over", expected a mode: single, failover, load_balance, tuned,'
                ' veiled or plain; did you mean "failover"?'
            ),
        ),
        ({"options": 3}, "options: 3, expected a table"),
        ({"pool": "a"}, 'pool: "a", expected a list'),
        (
            {"pool": {"model": "a"}},
            "pool: a table, expected a list; its header is [[multiplexer.pool]], with two brackets",
        ),
        ({"pool": [3]}, "pool[0]: 3, expected a table"),
        ({"pol": []}, 'pol: an unknown option; did you mean "pool"?'),
        (
            {"ttl": 3},
            (
                "ttl: an unknown option; the known ones are enabled, mode,"
                " rate_limit_disable_duration_ms, persistent_error_disable_duration_ms, sticky,"
                " max_wait_ms, connect_timeout_ms, read_timeout_ms, attempt_timeout_ms,"
                " call_timeout_ms, announced_limits, unseen_images, options, state, state_options, observers and pool"
            ),
        ),
    ],
)
def test_faults_of_the_section(
    problems: Problems, options: dict[str, Any], text: str
) -> None:
    assert problems(enabled(**options)) == [f"config: multiplexer.{text}"]


def test_a_mode_that_is_not_text(problems: Problems) -> None:
    assert problems(enabled(mode=3)) == [
        "config: multiplexer.mode: 3, expected text in quotes"
    ]


def test_a_section_that_is_not_a_table(problems: Problems) -> None:
    assert problems({"multiplexer": 3}) == ["config: multiplexer: 3, expected a table"]


def test_defaults_of_an_entry(load: Load) -> None:
    endpoint = load(with_entry()).endpoints[1]
    assert endpoint.alias == "b"
    assert endpoint.weight == 1
    assert endpoint.max_concurrent is None
    assert endpoint.context_window is None
    assert not endpoint.is_fallback


def test_the_options_of_an_entry_count(load: Load) -> None:
    config = load(
        enabled(
            mode="load_balance",
            pool=[
                {"model": "a"},
                {
                    "model": "b",
                    "weight": 3,
                    "max_concurrent": 1,
                    "is_fallback": True,
                    "context_window": 1,
                },
            ],
        )
    )
    endpoint = config.endpoints[1]
    assert endpoint.weight == 3
    assert endpoint.max_concurrent == 1
    assert endpoint.context_window == 1
    assert endpoint.is_fallback
    assert config.warnings == ()


@pytest.mark.parametrize("option", ["weight", "max_concurrent", "context_window"])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0, expected a whole number of at least 1"),
        (-1, "-1, expected a whole number of at least 1"),
        ("3", '"3", expected a whole number of at least 1; write 3 without quotes'),
        (1.5, "1.5, expected a whole number of at least 1"),
        (True, "true, expected a whole number of at least 1"),
    ],
)
def test_a_number_of_an_entry(
    problems: Problems, option: str, value: object, text: str
) -> None:
    assert problems(with_entry(**{option: value})) == [
        f"config: multiplexer.pool[1].{option}: {text}"
    ]


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({}, '[0]: no "model", expected one; add model = …'),
        ({"model": 3}, "[0].model: 3, expected text in quotes"),
        ({"model": ""}, '[0].model: "", expected text that is not empty'),
        (
            {"model": "a", "is_fallback": "yes"},
            '[0].is_fallback: "yes", expected true or false',
        ),
        (
            {"model": "a", "weigth": 3},
            '[0].weigth: an unknown option; did you mean "weight"?',
        ),
        (
            {"model": "a", "zzz": 3},
            (
                "[0].zzz: an unknown option; the known ones are model, weight, max_concurrent,"
                " is_fallback, context_window and capabilities"
            ),
        ),
        (
            {"model": "a", "weight": None},
            "[0].weight: nothing, expected a whole number of at least 1",
        ),
    ],
)
def test_faults_of_an_entry(problems: Problems, entry: dict[str, Any], text: str) -> None:
    assert problems(enabled(pool=[entry])) == [f"config: multiplexer.pool{text}"]


def test_none_in_a_mapping_means_left_out(load: Load) -> None:
    assert load(with_entry(max_concurrent=None)).endpoints[1].max_concurrent is None


def test_a_name_that_is_no_text_is_unknown(problems: Problems) -> None:
    assert problems(enabled(pool=[{"model": "a", 3: 4}])) == [
        (
            "config: multiplexer.pool[0].3: an unknown option; the known ones are model, weight,"
            " max_concurrent, is_fallback, context_window and capabilities"
        )
    ]


def test_defaults_of_a_model(load: Load) -> None:
    endpoint = load(with_model()).endpoints[0]
    assert endpoint.model == "model-c"
    assert endpoint.provider == "here"
    assert endpoint.context_window is None
    assert (endpoint.input_price, endpoint.output_price) == (0.0, 0.0)
    assert endpoint.cached_input_price is None
    wire = endpoint.wire
    assert wire.temperature is None
    assert wire.top_p is None
    assert wire.max_output_tokens is None
    assert wire.thinking == "off"
    assert not wire.supports_images
    assert wire.capabilities == ()


def test_the_options_of_a_model_count(load: Load) -> None:
    endpoint = load(
        with_model(
            temperature=1,
            top_p=0.5,
            max_output_tokens=7,
            thinking="high",
            input_price=2,
            output_price=3.5,
            cached_input_price=0.25,
            supports_images=True,
            max_context_length=1000,
            capabilities=["needs_reasoning", "-strict_alternation"],
            auto_compact_threshold="vibe's own business",
        )
    ).endpoints[0]
    assert endpoint.context_window == 1000
    assert (endpoint.input_price, endpoint.output_price) == (2.0, 3.5)
    assert isinstance(endpoint.input_price, float)
    assert endpoint.cached_input_price == 0.25
    wire = endpoint.wire
    assert wire.temperature == 1.0
    assert wire.top_p == 0.5
    assert wire.max_output_tokens == 7
    assert wire.thinking == "high"
    assert wire.supports_images
    assert wire.capabilities == ("-strict_alternation", "needs_reasoning")


def test_the_window_of_an_entry_overrides_that_of_its_model(load: Load) -> None:
    file = with_model(max_context_length=1000)
    pool = [{"model": "c", "context_window": 10}]
    file["multiplexer"] = {"enabled": True, "mode": "failover", "pool": pool}
    assert load(file).endpoints[0].context_window == 10


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"temperature": "0.5"},
            'temperature: "0.5", expected a number; write 0.5 without quotes',
        ),
        ({"temperature": True}, "temperature: true, expected a number"),
        ({"temperature": float("nan")}, "temperature: nan, expected a number"),
        ({"input_price": float("inf")}, "input_price: inf, expected a number"),
        ({"top_p": 0}, "top_p: 0, expected a number of more than 0 and at most 1"),
        ({"top_p": 1.5}, "top_p: 1.5, expected a number of more than 0 and at most 1"),
        (
            {"top_p": float("nan")},
            "top_p: nan, expected a number of more than 0 and at most 1",
        ),
        ({"max_output_tokens": 0}, f"max_output_tokens: 0, {WHOLE} 1"),
        ({"max_context_length": 0}, f"max_context_length: 0, {WHOLE} 1"),
        ({"thinking": False}, "thinking: false, expected text in quotes"),
        ({"supports_images": 1}, "supports_images: 1, expected true or false"),
        ({"capabilities": "tools"}, 'capabilities: "tools", expected a list'),
        ({"capabilities": ["a", 3]}, "capabilities[1]: 3, expected text in quotes"),
        ({"name": 3}, "name: 3, expected text in quotes"),
        ({"name": ""}, 'name: "", expected text that is not empty'),
    ],
)
def test_faults_of_a_model(problems: Problems, options: dict[str, Any], text: str) -> None:
    assert problems(with_model(**options)) == [f"config: models[2].{text}"]


def test_a_model_without_a_name_or_provider(problems: Problems) -> None:
    assert problems({"active_model": "c", "models": [{"alias": "c"}]}) == [
        'config: models[0]: no "name", expected one; add name = …',
        'config: models[0]: no "provider", expected one; add provider = …',
    ]


def test_defaults_of_a_provider(load: Load) -> None:
    config = load(with_provider())
    endpoint = config.endpoints[0]
    assert endpoint.alias == "model-p"
    assert endpoint.dialect == "generic"
    assert config.keys == {}
    wire = endpoint.wire
    assert wire.api_base == "https://p.example.com/v1"
    assert wire.key_variable == ""
    assert wire.extra_headers == ()
    assert wire.reasoning_field_name == "reasoning_content"
    assert wire.emits_finish_reason


def test_the_options_of_a_provider_count(load: Load) -> None:
    config = load(
        with_provider(
            api_key_env_var="MY_API_KEY",
            backend="mistral",
            api_style="reasoning",
            extra_headers={"X-Team": "blue"},
            reasoning_field_name="reasoning",
            emits_finish_reason=False,
            capabilities=["refuses_reasoning"],
        )
    )
    endpoint = config.endpoints[0]
    assert endpoint.dialect == "mistral"
    wire = endpoint.wire
    assert wire.key_variable == "MY_API_KEY"
    assert wire.extra_headers == (("X-Team", "blue"),)
    assert wire.reasoning_field_name == "reasoning"
    assert not wire.emits_finish_reason
    assert wire.capabilities == ("refuses_reasoning",)


def test_capabilities_of_a_model_override_those_of_its_provider(load: Load) -> None:
    file = with_provider(capabilities=["needs_reasoning", "plain_content"])
    file["models"][0]["capabilities"] = ["-plain_content", "user_last"]
    wire = load(file).endpoints[0].wire
    # In one order, whatever the process: a state has the same bytes in each (13).
    assert wire.capabilities == ("-plain_content", "needs_reasoning", "user_last")


def test_a_capability_that_the_backend_does_not_know(problems: Problems) -> None:
    file = with_provider(backend="mistral", capabilities=["user_last"])
    text = (
        'config: providers[0].capabilities[0]: "user_last", an unknown capability of backend'
        ' "mistral", expected refuses_reasoning, or one of these with a "-" before it'
    )
    assert problems(file, catalogue=holding) == [text]
    file = with_model(capabilities=["user_last", "-strict_alternations"])
    text = (
        'config: models[2].capabilities[1]: "-strict_alternations", an unknown capability of'
        f' backend "generic", expected {listed(sorted(Generic.capabilities))}, or one of these'
        ' with a "-" before it; did you mean "strict_alternation"?'
    )
    assert problems(file, catalogue=holding) == [text]


def test_a_backend_that_declares_no_capabilities_accepts_any(load: Load) -> None:
    # Those of the other tests here are such ones.
    wire = load(with_model(capabilities=["levitates"])).endpoints[0].wire
    assert wire.capabilities == ("levitates",)


def test_capabilities_of_a_pool_entry_override_those_of_its_model(load: Load) -> None:
    file = with_provider(capabilities=["needs_reasoning", "plain_content"])
    file["models"][0]["capabilities"] = ["-plain_content"]
    entry = {"model": "model-p", "capabilities": ["plain_content", "user_last"]}
    file["multiplexer"] = {"enabled": True, "mode": "failover", "pool": [entry]}
    wire = load(file).endpoints[0].wire
    assert wire.capabilities == ("needs_reasoning", "plain_content", "user_last")


def test_an_unknown_capability_of_a_pool_entry_is_named_there(problems: Problems) -> None:
    file = with_provider()
    entry = {"model": "model-p", "capabilities": ["levitates"]}
    file["multiplexer"] = {"enabled": True, "mode": "failover", "pool": [entry]}
    found = problems(file, catalogue=holding)
    assert [p.partition(",")[0] for p in found] == [
        'config: multiplexer.pool[0].capabilities[0]: "levitates"'
    ]


UNSPOKEN = """
[[providers]]
name = "vertex"
api_base = "https://r.example.com/v1"
api_style = "vertex-anthropic"
[[providers]]
name = "p"
api_base = "https://p.example.com/v1"
[[models]]
name = "r"
provider = "vertex"
[[models]]
name = "a"
provider = "p"
[multiplexer]
enabled = true
mode = "failover"
pool = [{ model = "r" }, { model = "a", is_fallback = IS_FALLBACK }]
"""


def test_a_model_without_a_backend_is_left_out_with_its_line(
    load: Load, tmp_path: Path
) -> None:
    config = load(UNSPOKEN.replace("IS_FALLBACK", "false"))
    assert [endpoint.alias for endpoint in config.endpoints] == ["a"]
    assert config.warnings == (
        (
            f'{tmp_path / "config.toml"}:5: providers[0].api_style: "vertex-anthropic", an API'
            ' style that no backend speaks: "r" is left out of the pool'
        ),
    )


def test_it_is_an_error_where_no_primary_would_be_left(problems: Problems) -> None:
    assert problems(UNSPOKEN.replace("IS_FALLBACK", "true")) == [
        (
            'config.toml:5: providers[0].api_style: "vertex-anthropic", an API style that no'
            ' backend speaks, expected "openai"; did you mean "anthropic"?'
        )
    ]


def test_the_style_with_reasoning_in_its_messages_is_the_generic_backends(
    load: Load,
) -> None:
    assert load(with_provider(api_style="reasoning")).endpoints[0].dialect == "generic"


def test_a_model_id_is_the_name_on_the_wire(load: Load) -> None:
    endpoint = load(with_model(model_id="c-2026-11")).endpoints[0]
    assert (endpoint.alias, endpoint.model) == ("c", "c-2026-11")


@pytest.mark.parametrize(
    ("api_timeout", "read", "attempt"),
    [
        (30, 30, 300),
        (900.5, 900.5, 900.5),
        # Vibe's default, which older vibes wrote into each new file.
        (720.0, 120, 300),
        (0, 120, 300),
        ("30", 120, 300),
        (True, 120, 300),
    ],
)
def test_vibes_api_timeout_bounds_the_silence_of_a_call(
    load: Load, api_timeout: object, read: float, attempt: float
) -> None:
    timeouts = load({**with_provider(), "api_timeout": api_timeout}).timeouts["model-p"]
    assert (seconds(timeouts.read), seconds(timeouts.attempt)) == (read, attempt)


def test_a_read_timeout_of_the_section_overrides_vibes(load: Load) -> None:
    file = {**with_provider(), "api_timeout": 30}
    file["multiplexer"] = {"enabled": True, "read_timeout_ms": 5000}
    assert seconds(load(file).timeouts["model-p"].read) == 5


def test_an_address_without_a_path_is_a_warning(load: Load) -> None:
    (warning,) = load(with_provider(api_base="https://p.example.com/")).warnings
    assert warning == (
        'config: providers[0].api_base: "https://p.example.com/" has no path, so calls go to'
        ' https://p.example.com/chat/completions; most servers need "https://p.example.com/v1"'
    )
    anthropic = with_provider(api_base="https://p.example.com", api_style="anthropic")
    assert load(anthropic).warnings == ()


def test_an_address_with_its_endpoint_is_refused(problems: Problems) -> None:
    base = "https://p.example.com/v1/chat/completions"
    assert problems(with_provider(api_base=base)) == [
        (
            f'config: providers[0].api_base: "{base}", expected the address before the'
            ' endpoint; write "https://p.example.com/v1"'
        )
    ]


def test_an_api_style_with_a_backend_of_its_name(load: Load) -> None:
    assert load(with_provider(api_style="anthropic")).endpoints[0].dialect == "anthropic"


ADDRESS = "expected https://host/v1"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"api_style": "vertex-anthropic"},
            (
                'api_style: "vertex-anthropic", an API style that no backend speaks, expected'
                ' "openai"; did you mean "anthropic"?'
            ),
        ),
        (
            {"backend": "mistrall"},
            (
                'backend: "mistrall", expected a backend: anthropic, generic or mistral;'
                ' did you mean "mistral"?'
            ),
        ),
        ({"api_base": 3}, "api_base: 3, expected text in quotes"),
        (
            {"api_base": "api.example.com/v1"},
            f"api_base: an address that does not begin with http:// or https://, {ADDRESS}",
        ),
        (
            {"api_base": ""},
            f"api_base: an address that does not begin with http:// or https://, {ADDRESS}",
        ),
        (
            {"api_base": "https:///v1"},
            f"api_base: an address that names no host, {ADDRESS}",
        ),
        (
            {"api_base": "https://h:port"},
            f"api_base: an address that cannot be read, {ADDRESS}",
        ),
        (
            {"api_base": "https://[::1"},
            f"api_base: an address that cannot be read, {ADDRESS}",
        ),
        (
            {"api_base": "https://h /v1"},
            f"api_base: an address that has a space or a character that cannot be seen, {ADDRESS}",
        ),
        (
            {"api_base": "https://me:secret@h/v1"},
            f"api_base: an address that holds a user name or password, {ADDRESS}",
        ),
        (
            {"api_base": "https://h/v1?key=secret"},
            f"api_base: an address that has a part after ? or #, {ADDRESS}",
        ),
        (
            {"api_base": "http://example.com/v1", "api_key_env_var": "MY_API_KEY"},
            (
                'api_base: "http://example.com/v1" would send a key unencrypted, expected https://'
                " unless the host is this machine"
            ),
        ),
        (
            {"api_key_env_var": "sk-secret"},
            (
                "api_key_env_var: not the name of an environment variable, expected one such as"
                " MISTRAL_API_KEY; the key itself does not belong in this file"
            ),
        ),
        (
            {"api_key_env_var": "a1b2c3d4e5f6a1b2c3d4e5f6a1b2c3d4"},
            (
                "api_key_env_var: not the name of an environment variable, expected one such as"
                " MISTRAL_API_KEY; the key itself does not belong in this file"
            ),
        ),
        (
            {"extra_headers": "Authorization: secret"},
            "extra_headers: a str, expected a table of names and texts",
        ),
        (
            {"extra_headers": {"X-A": 3}},
            'extra_headers: a table, expected text in quotes for "X-A"',
        ),
        (
            {"extra_headers": {"X A": "b"}},
            'extra_headers: a table, expected names that a header can have, unlike "X A"',
        ),
        (
            {"extra_headers": {"X-A": "secret\n"}},
            'extra_headers: a table, expected text that a header can carry for "X-A"',
        ),
        (
            {"emits_finish_reason": "no"},
            'emits_finish_reason: "no", expected true or false',
        ),
    ],
)
def test_faults_of_a_provider(
    problems: Problems, options: dict[str, Any], text: str
) -> None:
    assert problems(with_provider(**options)) == [f"config: providers[0].{text}"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_a_key_may_be_sent_unencrypted_to_this_machine(load: Load, host: str) -> None:
    config = load(
        with_provider(api_base=f"http://{host}:8080/v1", api_key_env_var="MY_API_KEY")
    )
    assert seconds(config.timeouts["model-p"].read) == 600
    assert config.keys["model-p"].reveal() == "key-of-mine"


def test_without_a_key_an_unencrypted_address_is_allowed(load: Load) -> None:
    assert load(with_provider(api_base="http://example.com/v1")).endpoints


def test_a_provider_without_an_address(problems: Problems) -> None:
    file = with_provider()
    del file["providers"][0]["api_base"]
    assert problems(file) == [
        'config: providers[0]: no "api_base", expected one; add api_base = …'
    ]


def test_options_of_a_mode(load: Load) -> None:
    config = load(enabled(mode="tuned", options={"depth": 2, "names": ["x"], "hidden": 0}))
    assert config.options == {"depth": 2, "names": ["x"], "hidden": 0}
    assert str(config.strategy) == "Tuned(depth=2, names=('x',), _hidden=0.0)"


@pytest.mark.parametrize(
    ("mode", "options", "text"),
    [
        ("tuned", {"dept": 2}, '.dept: an unknown option; did you mean "depth"?'),
        (
            "tuned",
            {"x": 2},
            ".x: an unknown option; the known ones are depth, names and hidden",
        ),
        (
            "tuned",
            {"depth": "2"},
            '.depth: "2", expected a whole number; write 2 without quotes',
        ),
        ("tuned", {"names": [1]}, ".names[0]: 1, expected text in quotes"),
        ("tuned", {"hidden": True}, ".hidden: true, expected a number"),
        (
            "tuned",
            {"hidden": 2.0},
            ": a table, which is refused: '_hidden' must be < 1: 2.0",
        ),
        ("failover", {"x": 2}, ".x: an unknown option; there are none here"),
        ("plain", {"depth": 10}, ': refused by mode "plain": too deep'),
        (
            "veiled",
            {"x": 1},
            (
                ': refused by mode "veiled": Veiled.__init__() got an unexpected keyword'
                " argument 'x'"
            ),
        ),
    ],
)
def test_faults_of_a_modes_options(
    problems: Problems, mode: str, options: dict[str, Any], text: str
) -> None:
    assert problems(enabled(mode=mode, options=options)) == [
        f"config: multiplexer.options{text}"
    ]
