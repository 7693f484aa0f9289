from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tomli

from muxcore.core.records import Endpoint, PoolState
from muxcore.core.status import status_of
from muxcore.gateway.api.status_page import SwitchOnHint, status_json, status_text

STATUS = status_of(
    PoolState.of(Endpoint("a")), "single", datetime(2026, 1, 1, tzinfo=UTC), enabled=False
)


def test_an_enabled_pool_shows_its_status() -> None:
    assert status_text(STATUS, None) == str(STATUS)
    assert status_json(STATUS, None) == STATUS.to_json()


def test_a_disabled_multiplexer_shows_the_lines_to_add() -> None:
    off = SwitchOnHint.of("a", Path("/home/me/config.toml"), {"models": [{"alias": "a"}]})
    text = status_text(STATUS, off)
    assert text.startswith("## Multiplexer Status\n\n**The multiplexer is off:** `a` alone")
    assert "add to `/home/me/config.toml`" in text
    assert "### Per-Model Statistics" in text
    assert status_json(STATUS, off)["to_switch_on"] == off.lines


@pytest.mark.parametrize(
    "models",
    [
        [{"alias": "a"}, {"alias": "b"}, {"name": 'c"c'}, {"alias": 3}, "odd", {}],
        {"a": {}, "b": {}, 'c"c': {}},
    ],
)
def test_the_lines_name_the_other_models_as_fallbacks(models: Any) -> None:
    lines = SwitchOnHint.of("a", None, {"models": models}).lines
    assert tomli.loads(lines) == {
        "multiplexer": {
            "enabled": True,
            "mode": "failover",
            "pool": [
                {"model": "a"},
                {"model": "b", "is_fallback": True},
                {"model": 'c"c', "is_fallback": True},
            ],
        }
    }


@pytest.mark.parametrize("models", [None, 3, [], [{"alias": "a"}]])
def test_the_lines_are_valid_with_one_model(models: Any) -> None:
    lines = SwitchOnHint.of("a", None, {"models": models}).lines
    assert tomli.loads(lines)["multiplexer"]["pool"] == [{"model": "a"}]
    assert "# and one more [[multiplexer.pool]]" in lines


def test_an_existing_section_is_changed() -> None:
    section = {"enabled": False, "pool": [{"model": "a"}]}
    off = SwitchOnHint.of("a", None, {"multiplexer": section})
    assert off.lines == "enabled = true\n"
    assert "set in `[multiplexer]` of your config\n" in str(off)
    bare = SwitchOnHint.of("a", None, {"multiplexer": {"enabled": False}})
    assert bare.has_section
    assert "[[multiplexer.pool]]" in bare.lines
