"""`state` and `state_options` in [multiplexer]."""

from __future__ import annotations

from typing import Any

import pytest

from muxcore import ConfigError, load_config


def config(**section: Any) -> dict[str, Any]:
    return {
        "active_model": "a",
        "providers": [{"name": "p", "api_base": "http://127.0.0.1:9/v1"}],
        "models": [{"name": "m", "provider": "p", "alias": "a"}],
        "multiplexer": {"enabled": True, "mode": "failover", **section},
    }


def problem(**section: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(config(**section), env={})
    (text,) = caught.value.problems
    return text


def test_a_config_need_not_say_where_its_state_is_kept() -> None:
    assert load_config(config(), env={}).state is None
    assert load_config(config(state="file"), env={}).state == "file"
    assert load_config(config(state="memory"), env={}).state == "memory"


def test_off_is_in_memory_whatever_the_config_says() -> None:
    assert load_config(config(enabled=False, state="file"), env={}).state == "memory"


@pytest.mark.parametrize(
    ("section", "text"),
    [
        (
            {"state": "fiel"},
            'config: multiplexer.state: "fiel", expected memory or file; did you mean "file"?',
        ),
        (
            {"state": "file", "state_options": {"timeout_ms": 0}},
            "config: multiplexer.state_options.timeout_ms: 0, expected a whole number of at least 1",
        ),
        (
            {"state": "file", "state_options": {"pth": "x"}},
            'config: multiplexer.state_options.pth: an unknown option; did you mean "path"?',
        ),
    ],
)
def test_a_mistake_names_its_place_and_what_was_expected(
    section: dict[str, Any], text: str
) -> None:
    assert problem(**section) == text
