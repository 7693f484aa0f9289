"""What each of the four phases does for each kind of config, as one table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from muxcore import ConfigError, Multiplexer, load_config
from muxcore.core.phases import PRESENT, Phase, Section, Use, advice, new_section, use

OPT_IN, SOFT, HARD, LEGACY = Phase

MODELS = """\
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
SECTION = "[multiplexer]\n"
ON, OFF = "enabled = true\n", "enabled = false\n"
SINGLE, FAILOVER = 'mode = "single"\n', 'mode = "failover"\n'
POOL = 'pool = [{model = "a"}, {model = "b", is_fallback = true}]\n'

DIRECT, ALONE, BOTH = (False, "a"), (True, "a"), (True, "a b")
"""Whether the multiplexer is on, and the models: alone and as without it; alone in a pool."""

KEEP = (
    "one model alone without saying so is deprecated; to keep it, {how}; to use a pool, see"
)
ADD_BOTH = KEEP.format(
    how="add the line [multiplexer] and below it the line enabled = false"
)
ADD_LINE = KEEP.format(how="add the line enabled = false to [multiplexer]")
CHANGE_LINE = KEEP.format(how="write here: enabled = false")
NO_EFFECT = (
    "false, which has no effect any more: the active model alone is a pool of one; remove this"
    " line"
)
AND_SINGLE = NO_EFFECT + ' and write mode = "single"'

Expected = tuple[tuple[bool, str], str]

NOT_USED = 'no "enabled", so the pool is not used; add the line enabled = true'
TABLE: Mapping[str, tuple[str, dict[Phase, Expected]]] = {
    "no section": (
        "",
        {
            OPT_IN: (DIRECT, ""),
            SOFT: (DIRECT, ""),
            HARD: (ALONE, f"multiplexer: {ADD_BOTH}"),
            LEGACY: (ALONE, ""),
        },
    ),
    "enabled absent": (
        SECTION + FAILOVER + POOL,
        {
            OPT_IN: (DIRECT, f"multiplexer: {NOT_USED}"),
            SOFT: (DIRECT, f"multiplexer: {NOT_USED}"),
            HARD: (BOTH, ""),
            LEGACY: (BOTH, ""),
        },
    ),
    "enabled true": (
        SECTION + ON + FAILOVER + POOL,
        {
            OPT_IN: (BOTH, ""),
            SOFT: (BOTH, ""),
            HARD: (BOTH, ""),
            LEGACY: (BOTH, ""),
        },
    ),
    "enabled false": (
        SECTION + OFF + FAILOVER + POOL,
        {
            OPT_IN: (DIRECT, ""),
            SOFT: (DIRECT, ""),
            HARD: (DIRECT, ""),
            # Who has opted out is not sent to other models by an upgrade.
            LEGACY: (ALONE, f"multiplexer.enabled: {AND_SINGLE}"),
        },
    ),
    "single without an opt-out": (
        SECTION + SINGLE,
        {
            OPT_IN: (DIRECT, ""),
            SOFT: (DIRECT, ""),
            HARD: (ALONE, f"multiplexer: {ADD_LINE}"),
            LEGACY: (ALONE, ""),
        },
    ),
    "single, enabled": (
        SECTION + ON + SINGLE,
        {
            OPT_IN: (ALONE, ""),
            SOFT: (ALONE, ""),
            HARD: (ALONE, f"multiplexer.enabled: {CHANGE_LINE}"),
            LEGACY: (ALONE, ""),
        },
    ),
    "single with an opt-out": (
        SECTION + OFF + SINGLE,
        {
            OPT_IN: (DIRECT, ""),
            SOFT: (DIRECT, ""),
            HARD: (DIRECT, ""),
            LEGACY: (ALONE, f"multiplexer.enabled: {NO_EFFECT}"),
        },
    ),
}
CASES = [
    pytest.param(text, phase, *expected, id=f"{name}, {phase}")
    for name, (text, row) in TABLE.items()
    for phase, expected in row.items()
]


def test_this_release_is_the_first_phase() -> None:
    assert PRESENT is OPT_IN


@pytest.mark.parametrize(("text", "phase", "pool", "warning"), CASES)
def test_what_a_phase_does(
    tmp_path: Path, text: str, phase: Phase, pool: tuple[bool, str], warning: str
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(MODELS + text)
    config = load_config(file, env={}, phase=phase)
    aliases = " ".join(endpoint.alias for endpoint in config.endpoints)
    assert (config.enabled, aliases) == pool
    assert config.policy.direct is not config.enabled
    expected = [warning] if warning else []
    shown = [text.split(": ", 1)[1].partition(" `vibe")[0] for text in config.warnings]
    assert shown == expected
    # None of them is only a picture: each can be called.
    with Multiplexer.from_config(config, env={}) as multiplexer:
        assert multiplexer.status().enabled is config.enabled


@pytest.mark.parametrize("name", TABLE)
def test_the_advised_lines_end_the_warning(tmp_path: Path, name: str) -> None:
    text, _ = TABLE[name]
    file = tmp_path / "config.toml"
    for phase, before, after in [
        (HARD, "", SECTION + OFF),
        (HARD, SECTION + SINGLE, SECTION + OFF + SINGLE),
        (HARD, SECTION + ON + SINGLE, SECTION + OFF + SINGLE),
        (LEGACY, SECTION + OFF + FAILOVER + POOL, SECTION + SINGLE),
        (LEGACY, SECTION + OFF + SINGLE, SECTION + SINGLE),
    ]:
        if before == text:
            file.write_text(MODELS + after)
            config = load_config(file, env={}, phase=phase)
            assert config.warnings == ()
            assert [endpoint.alias for endpoint in config.endpoints] == ["a"]


def test_an_opted_out_pool_may_be_broken_in_every_phase(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(MODELS + SECTION + OFF + FAILOVER + 'pool = [{model = "nobody"}]\n')
    for phase in Phase:
        config = load_config(file, env={}, phase=phase)
        assert [endpoint.alias for endpoint in config.endpoints] == ["a"]


def test_a_broken_pool_without_enabled_is_an_error_from_the_hard_default_on(
    tmp_path: Path,
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(MODELS + SECTION + FAILOVER + 'pool = [{model = "nobody"}]\n')
    for phase in (OPT_IN, SOFT):
        assert not load_config(file, env={}, phase=phase).enabled
    for phase in (HARD, LEGACY):
        with pytest.raises(ConfigError, match="unknown model alias"):
            load_config(file, env={}, phase=phase)


def test_the_last_phase_keeps_the_cap_of_one_model_alone(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    capped = 'pool = [{model = "b"}, {model = "a", max_concurrent = 2}]\n'
    file.write_text(MODELS + SECTION + OFF + FAILOVER + capped)
    [endpoint] = load_config(file, env={}, phase=LEGACY).endpoints
    assert (endpoint.alias, endpoint.max_concurrent) == ("a", 2)


@pytest.mark.parametrize("phase", Phase)
def test_a_new_config_is_on_from_the_soft_default_on(tmp_path: Path, phase: Phase) -> None:
    section = new_section(phase)
    assert ("enabled = true" in section) is (phase in {SOFT, HARD})
    file = tmp_path / "config.toml"
    file.write_text(MODELS + section)
    config = load_config(file, env={}, phase=phase)
    assert config.enabled is (phase is not OPT_IN)
    assert config.warnings == ()


def test_a_phase_may_be_named() -> None:
    local: dict[str, Any] = {"active_model": "local"}
    assert load_config(local, env={}, phase="hard-default").enabled
    with pytest.raises(ValueError, match="soon"):
        load_config(local, env={}, phase="soon")


def test_the_rules_by_themselves() -> None:
    assert use(Section(), OPT_IN) is Use.DIRECT
    assert use(Section(enabled=True, mode="failover"), OPT_IN) is Use.POOL
    assert use(Section(enabled=False, mode="failover"), LEGACY) is Use.ALONE
    assert advice(Section(enabled=False), HARD) == ""
